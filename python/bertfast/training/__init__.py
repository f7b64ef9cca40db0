"""Training BERT, ALBERT and RoBERTa with PyTorch."""

from bertfast.training.data_collator import DataCollator

__all__ = ["DataCollator"]
