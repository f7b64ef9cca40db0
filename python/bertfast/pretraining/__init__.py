"""Data for pretraining: token stores, samples with their pairs and masks, all of it a function of keys.

Torch is not imported here. ``docs/pretraining.md`` states the rules and where they come from.
"""

from bertfast.pretraining.masking import Masking, Vocabulary, mask_tokens
from bertfast.pretraining.word_starts import word_start_table

__all__ = ["Masking", "Vocabulary", "mask_tokens", "word_start_table"]
