"""Answers for a while: the first text, and a warm-up."""

from fake_engines.working import Working


class FailingLate(Working):
    answered = 0

    def encode(self, texts):
        FailingLate.answered += 1
        if FailingLate.answered > 52:
            raise MemoryError("worn out")
        return super().encode(texts)


def prepare(setup):
    return FailingLate()
