"""What makes scores of a classifier's logits: numpy's own functions by PyTorch's names, or the caller's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.errors import ConfigError

Float32Array = npt.NDArray[np.float32]
Activation = Callable[[Any], Any]
"""Logits (n, K) to scores, (n, K) too."""


def identity(x: Float32Array) -> Float32Array:
    """The logits themselves."""
    return x


def relu(x: Float32Array) -> Float32Array:
    """max(x, 0)."""
    result: Float32Array = np.maximum(x, np.float32(0))
    return result


def sigmoid(x: Float32Array) -> Float32Array:
    """1 / (1 + exp(-x)), accurate where it is close to 0 too; nothing overflows."""
    small = np.exp(-np.abs(x))
    result: Float32Array = np.where(x >= 0, 1, small) / (1 + small)
    return result


def softmax(x: Float32Array) -> Float32Array:
    """Probabilities that sum to 1 along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Float32Array = powers / powers.sum(axis=-1, keepdims=True)
    return result


ACTIVATIONS: dict[str, Activation] = {
    "Identity": identity,
    "ReLU": relu,
    "Sigmoid": sigmoid,
    "Softmax": softmax,
    "Tanh": np.tanh,
}
"""By the names of PyTorch's classes."""


def activation_of(name: str, where: Any) -> Activation:
    """The function that does what a class of PyTorch does.

    Args:
        name: Full name of the class, such as ``torch.nn.modules.activation.Sigmoid``.
        where: What says so, for the message.

    Raises:
        ConfigError: It is none of `ACTIVATIONS`.

    Example:
        >>> activation_of("torch.nn.Sigmoid", "config.json")(np.zeros(1, np.float32))
        array([0.5], dtype=float32)
    """
    kind = name.rpartition(".")[2]
    if not name.startswith("torch.nn.") or kind not in ACTIVATIONS:
        raise ConfigError(
            f"{where}: activation_fn: expected torch.nn's {', '.join(ACTIVATIONS)}, got {name!r}; "
            "give activation_fn to use another one"
        )
    return ACTIVATIONS[kind]


def activated(logits: Float32Array, activation: Activation) -> Float32Array:
    """Scores of logits; a module or function of PyTorch gets a tensor, everything else an array."""
    if not len(logits):
        return logits
    if not _wants_tensor(activation):
        return np.asarray(activation(logits), np.float32)
    import torch

    with torch.inference_mode():
        scores = activation(torch.from_numpy(logits))
    result: Float32Array = scores.float().cpu().numpy()
    return result


def _wants_tensor(activation: Activation) -> bool:
    """Whether it is one of PyTorch's own; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    name = getattr(activation, "__name__", "")
    module = getattr(activation, "__module__", None) or ""
    return (
        isinstance(activation, torch.nn.Module)
        or module.startswith("torch.")
        or (name != "" and getattr(torch, name, None) is activation)
    )
