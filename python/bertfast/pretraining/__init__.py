"""Data for pretraining: token stores, samples with their pairs and masks, all of it a function of keys.

Torch is not imported here. ``docs/pretraining.md`` states the rules and where they come from.
"""

from bertfast.pretraining.batch_sampler import BatchSampler
from bertfast.pretraining.build import build_corpus
from bertfast.pretraining.config import PretrainingConfig
from bertfast.pretraining.corpus import Corpus, merge_corpora
from bertfast.pretraining.dataset import PretrainingDataset
from bertfast.pretraining.export import export_samples
from bertfast.pretraining.masking import Masking, Vocabulary, mask_tokens
from bertfast.pretraining.split import split_corpus
from bertfast.pretraining.word_starts import word_start_table

__all__ = [
    "BatchSampler",
    "Corpus",
    "Masking",
    "PretrainingConfig",
    "PretrainingDataset",
    "Vocabulary",
    "build_corpus",
    "export_samples",
    "mask_tokens",
    "merge_corpora",
    "split_corpus",
    "word_start_table",
]
