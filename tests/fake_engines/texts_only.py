"""Knows no ids, and counts other tokens."""

from fake_engines.working import Working


class TextsOnly(Working):
    def run_ids(self, input_ids, attention_mask):
        return None

    def count_tokens(self, texts):
        return [n + 1 for n in super().count_tokens(texts)]


def prepare(setup):
    return TextsOnly()
