"""One vector per sequence out of its hidden states."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bertfast.errors import ArgumentError
from bertfast.models.sequences import Boundaries


def pool(hidden: Tensor, boundaries: Boundaries, modes: Sequence[str], skip: int) -> Tensor:
    """One vector per sequence, by the rules of sentence-transformers.

    Args:
        hidden: (T, D), the tokens of all sequences.
        boundaries: Where these begin.
        modes: Of ``cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken``.
        skip: How many tokens at the start of every sequence are left out; its last one never is.

    Returns:
        (B, P * D), the P modes one after the other.

    Raises:
        ArgumentError: An unknown mode.

    Source: sentence-transformers 6.2, ``sentence_transformer/modules/pooling.py``, which differs in one case:
    where ``skip`` leaves nothing of a sequence, it divides by zero.
    """
    lengths = boundaries.lengths.to(hidden.device)
    skipped = (lengths - 1).clamp(max=skip)  # (B,)
    counted = (boundaries.position >= skipped[boundaries.sequence])[:, None]  # (T, 1)
    weights = counted.to(hidden.dtype)

    def over(values: Tensor, reduce: str) -> Tensor:
        return torch.segment_reduce(values.contiguous(), reduce, lengths=lengths, unsafe=True)

    def mean(factors: Tensor) -> Tensor:
        return over(hidden * factors, "sum") / over(factors, "sum")

    pooled = []
    for mode in modes:
        if mode == "cls":
            pooled.append(hidden[boundaries.first + skipped])
        elif mode == "max":
            pooled.append(over(hidden.masked_fill(~counted, -torch.inf), "max"))
        elif mode == "mean":
            pooled.append(mean(weights))
        elif mode == "mean_sqrt_len_tokens":
            pooled.append(over(hidden * weights, "sum") / over(weights, "sum").sqrt())
        elif mode == "weightedmean":
            pooled.append(mean(weights * (boundaries.position[:, None] + 1)))
        elif mode == "lasttoken":
            pooled.append(hidden[boundaries.last])
        else:
            raise ArgumentError(f"modes: {mode!r} is unknown")
    return torch.cat(pooled, dim=1)
