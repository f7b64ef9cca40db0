"""BERT on CPU, fast: a Rust encoder that opens a plain Hugging Face folder, and what goes with it."""

from bertfast._bertfast import __version__
from bertfast.tokenizer import BatchEncoding, Ragged, Tokenizer

__all__ = ["BatchEncoding", "Ragged", "Tokenizer", "__version__"]
