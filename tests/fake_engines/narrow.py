"""Vectors of another model."""

from fake_engines.working import Working


class Narrow(Working):
    def encode(self, texts):
        return super().encode(texts)[:, :1]


def prepare(setup):
    return Narrow()
