"""From logits to probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["sigmoid", "softmax"]

Float64Array = npt.NDArray[np.float64]


def sigmoid(logits: npt.NDArray[Any]) -> Float64Array:
    """``1 / (1 + exp(-x))`` of each, without overflow."""
    # The exponent is never positive.
    small = np.exp(-np.abs(logits, dtype=np.float64))
    result: Float64Array = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return result


def softmax(logits: npt.NDArray[Any]) -> Float64Array:
    """``exp(x) / sum(exp(x))`` along the last axis."""
    shifted: Float64Array = np.subtract(logits, logits.max(axis=-1, keepdims=True), dtype=np.float64)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted
