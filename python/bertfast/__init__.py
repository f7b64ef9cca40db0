"""BERT on CPU, fast: a Rust encoder that opens a plain Hugging Face folder, and what goes with it."""

from typing import TYPE_CHECKING, Any

from bertfast._bertfast import __version__, info

if TYPE_CHECKING:
    from bertfast.acceleration import accelerate, register_attention
    from bertfast.cross_encoder import CrossEncoder
    from bertfast.encoder import Encoder
    from bertfast.pipelines import pipeline
    from bertfast.sparse_encoder import SparseEncoder
    from bertfast.tokenizer import BatchEncoding, Ragged, Tokenizer

__all__ = [
    "BatchEncoding",
    "CrossEncoder",
    "Encoder",
    "Ragged",
    "SparseEncoder",
    "Tokenizer",
    "__version__",
    "accelerate",
    "info",
    "pipeline",
    "register_attention",
]

_MODULES = {
    "BatchEncoding": "bertfast.tokenizer",
    "CrossEncoder": "bertfast.cross_encoder",
    "Encoder": "bertfast.encoder",
    "Ragged": "bertfast.tokenizer",
    "SparseEncoder": "bertfast.sparse_encoder",
    "Tokenizer": "bertfast.tokenizer",
    "accelerate": "bertfast.acceleration",
    "pipeline": "bertfast.pipelines",
    "register_attention": "bertfast.acceleration",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: a program that only asks for the version does not wait for the rest.
    if name not in _MODULES:
        raise AttributeError(f"module 'bertfast' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
