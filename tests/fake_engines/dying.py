import os

from fake_engines.working import Working


class Dying(Working):
    def run_ids(self, input_ids, attention_mask):
        os.abort()


def prepare(setup):
    return Dying()
