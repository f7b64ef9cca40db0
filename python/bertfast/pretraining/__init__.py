"""Data for pretraining: token stores, samples with their pairs and masks, all of it a function of keys.

Torch is not imported here. ``docs/pretraining.md`` states the rules and where they come from.
"""

from bertfast.pretraining.batch_sampler import BatchSampler
from bertfast.pretraining.config import PretrainingConfig
from bertfast.pretraining.dataset import PretrainingDataset
from bertfast.pretraining.masking import Masking, Vocabulary, mask_tokens
from bertfast.pretraining.word_starts import word_start_table

__all__ = [
    "BatchSampler",
    "Masking",
    "PretrainingConfig",
    "PretrainingDataset",
    "Vocabulary",
    "mask_tokens",
    "word_start_table",
]
