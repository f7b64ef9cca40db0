"""BERT on CPU, fast: a Rust encoder that opens a plain Hugging Face folder, and what goes with it."""

from bertfast._bertfast import __version__

__all__ = ["__version__"]
