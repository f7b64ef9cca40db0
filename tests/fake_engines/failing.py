"""Fails on big batches only, as an engine that runs out of memory would."""

from fake_engines.working import Working


class Failing(Working):
    def run_ids(self, input_ids, attention_mask):
        if input_ids.shape == (8, 32):
            raise MemoryError("8x32 does\nnot fit")
        return super().run_ids(input_ids, attention_mask)


def prepare(setup):
    return Failing()
