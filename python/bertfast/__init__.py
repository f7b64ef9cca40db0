"""BERT on CPU, fast: a Rust encoder that opens a plain Hugging Face folder, and what goes with it."""

from bertfast._bertfast import __version__, info
from bertfast.encoder import Encoder
from bertfast.tokenizer import BatchEncoding, Ragged, Tokenizer

__all__ = ["BatchEncoding", "Encoder", "Ragged", "Tokenizer", "__version__", "info"]
