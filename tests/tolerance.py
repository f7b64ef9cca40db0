"""How far a result in float32 may lie from ``transformers``: one rule for both engines.

The truth is the float64 run of ``transformers``. Float32 implementations of one formula differ from it by
rounding alone, by an amount that depends on the model and the input more than on the code: a large
``initializer_range`` makes attention nearly a choice of one token and multiplies every earlier rounding
error. So the yardstick is measured on the very same input: the float32 run of ``transformers``. Another order
of summation draws its rounding errors anew; the largest of many such draws varies little, and twice theirs
leaves room for that variation and for no mistake.

Where theirs happens to be tiny (one layer, few columns), the floor counts: 2e-5 of the largest value, at
least of 1. One product over K terms rounds by about sqrt(K) * 2^-24 of its size, which is 3.3e-6 at K = 3072,
the widest of BERT-base, and the errors of about 40 such products in a row, LayerNorm keeping their size, add
up to 2e-5.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

FACTOR = 2.0
FLOOR = 2e-5
GRADIENT_OF_TENSOR = 1e-5
GRADIENT_OF_ALL = 1e-6
COSINE = 0.999999


def float64(values: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().to(torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)


def assert_as_good_as_transformers(
    ours: torch.Tensor | np.ndarray,
    their_f32: torch.Tensor | np.ndarray,
    their_f64: torch.Tensor | np.ndarray,
    what: str = "result",
) -> None:
    """The rule above, for arrays of one shape."""
    a, b, truth = float64(ours), float64(their_f32), float64(their_f64)
    assert a.shape == truth.shape == b.shape, f"{what}: shapes {a.shape}, {b.shape}, {truth.shape}"
    assert np.isfinite(a).all(), f"{what}: not finite"
    error = np.abs(a - truth).max(initial=0.0)
    their_error = np.abs(b - truth).max(initial=0.0)
    limit = max(FACTOR * their_error, FLOOR * max(1.0, np.abs(truth).max(initial=0.0)))
    assert error <= limit, (
        f"{what}: off by {error:.3g}, allowed {limit:.3g} (transformers in float32: {their_error:.3g})"
    )


def assert_gradients_close(
    ours: Mapping[str, torch.Tensor],
    truth: Mapping[str, torch.Tensor],
    their_f32: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Per tensor: |difference| <= 1e-5 |gradient| + 1e-6 |all gradients together|.

    The second term is there because some true gradients are zero: adding the same number to every score
    changes no softmax, so the bias of the key has none, and what float32 computes there is rounding error
    alone.

    With ``their_f32``, twice its distance from the truth is allowed if that is more: 12 layers of random
    weights of size 0.1 carry rounding errors back to the first layer at twice the limit above, ours and
    theirs alike.
    """
    assert ours.keys() == truth.keys()
    of_all = np.sqrt(sum(np.sum(float64(gradient) ** 2) for gradient in truth.values()))
    wrong = []
    for name, gradient in truth.items():
        expected = float64(gradient)
        error = np.linalg.norm(float64(ours[name]) - expected)
        limit = GRADIENT_OF_TENSOR * np.linalg.norm(expected) + GRADIENT_OF_ALL * of_all
        if their_f32 is not None:
            limit = max(limit, FACTOR * np.linalg.norm(float64(their_f32[name]) - expected))
        if not error <= limit:
            wrong.append(f"{name}: off by {error:.3g}, allowed {limit:.3g}")
    assert not wrong, "\n".join(wrong)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, D), (n, D) to the cosine of each pair of rows, (n,)."""
    a, b = float64(a), float64(b)
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
