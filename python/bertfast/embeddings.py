"""What is done with sentence vectors in numpy: similarity, and precision that takes less memory.

Source: sentence-transformers 6.2, ``util/similarity.py`` and ``util/quantization.py``; the results agree with
    it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.errors import ArgumentError, ShapeError
from bertfast.padding import is_tensor

Array = npt.NDArray[Any]

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")

_logger = logging.getLogger("bertfast")


def quantize(vectors: Array, precision: str) -> Array:
    """Float vectors in a smaller precision.

    ``int8`` and ``uint8`` cut the range of each dimension, from its least to its greatest value in these
    vectors, into 256 steps; ``binary`` and ``ubinary`` keep one sign bit per dimension, eight to a byte.

    Args:
        vectors: (n, D) float32.
        precision: One of `PRECISIONS`.

    Returns:
        (n, D), or (n, ceil(D / 8)) for the binary ones; int8, uint8, int8, uint8.

    Raises:
        ArgumentError: Ranges from a single vector, which would be empty.

    Example:
        >>> quantize(np.array([[-1.0, 2.0], [3.0, 2.5]], np.float32), "ubinary")
        array([[ 64],
               [192]], dtype=uint8)
    """
    if precision == "float32":
        return vectors
    if precision in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=-1)
        # The bytes of int8 are those of uint8 minus 128.
        return bits if precision == "ubinary" else (bits ^ 0x80).view(np.int8)
    if len(vectors) == 1:
        raise ArgumentError(f"precision: ranges for {precision!r} cannot be taken from a single text")
    if len(vectors) == 0:
        return np.zeros(vectors.shape, np.int8 if precision == "int8" else np.uint8)
    if len(vectors) < 100:
        _logger.warning("Ranges for %s are taken from only %d texts", precision, len(vectors))
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps)
    values: Array = np.clip(np.floor((vectors - low) / steps), 0, 255)
    return values.astype(np.uint8) if precision == "uint8" else (values - 128).astype(np.int8)


def _unit(x: Array) -> Array:
    unit: Array = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return unit


def _rowwise(a: Array, b: Array, distance: Callable[[Array], Array]) -> Array:
    # Row by row: all differences at once would need n * m * D numbers.
    scores = np.empty((len(a), len(b)), np.result_type(a, b))
    for index, row in enumerate(a):
        scores[index] = -distance(b - row)
    return scores


def _euclidean(differences: Array) -> Any:
    return np.sqrt(np.square(differences).sum(axis=-1))


def _manhattan(differences: Array) -> Any:
    return np.abs(differences).sum(axis=-1)


_ALL_PAIRS: dict[str, Callable[[Array, Array], Any]] = {
    "cosine": lambda a, b: _unit(a) @ _unit(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: _rowwise(a, b, _euclidean),
    "manhattan": lambda a, b: _rowwise(a, b, _manhattan),
}

_PAIRWISE: dict[str, Callable[[Array, Array], Any]] = {
    "cosine": lambda a, b: (_unit(a) * _unit(b)).sum(axis=-1),
    "dot": lambda a, b: (a * b).sum(axis=-1),
    "euclidean": lambda a, b: -_euclidean(a - b),
    "manhattan": lambda a, b: -_manhattan(a - b),
}


def similarity(name: str, first: Any, second: Any, *, pairwise: bool = False) -> Any:
    """Scores of vectors with vectors, greater for the more similar.

    Args:
        name: ``"cosine"``, ``"dot"``, ``"euclidean"`` or ``"manhattan"`` (the last two are negated
            distances).
        first: (n, D) or (D,), numpy or torch, or a list of vectors.
        second: (m, D) or (D,).
        pairwise: Score ``first[i]`` with ``second[i]`` only.

    Returns:
        (n, m), or (n,) if pairwise; a torch tensor if either input is one, else numpy.

    Raises:
        ShapeError: The vectors do not fit together.
    """
    a, b = _floats(first), _floats(second)
    if pairwise:
        if a.shape != b.shape:
            raise ShapeError(f"embeddings2: expected shape {a.shape} like embeddings1, got {b.shape}")
        result = _PAIRWISE[name](a, b)
    else:
        a, b = np.atleast_2d(a), np.atleast_2d(b)
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
            raise ShapeError(f"embeddings2: expected shape (m, {a.shape[-1]}), got {b.shape}")
        result = _ALL_PAIRS[name](a, b)
    if any(is_tensor(x) or (isinstance(x, list) and x and is_tensor(x[0])) for x in (first, second)):
        import torch

        return torch.as_tensor(result)
    return result


def _floats(value: Any) -> Array:
    if isinstance(value, (list, tuple)):
        return np.stack([_floats(item) for item in value]) if len(value) else np.zeros((0, 0), np.float32)
    if is_tensor(value):
        value = value.detach().cpu().float().numpy()
    array = np.asarray(value)
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)
