"""One vector per sequence out of its hidden states."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bertfast.errors import ArgumentError


def pool(hidden: Tensor, mask: Tensor, modes: Sequence[str], skip: int) -> Tensor:
    """One vector per sequence, by the rules of sentence-transformers.

    Args:
        hidden: (B, S, D).
        mask: bool (B, S), true for tokens; they stand at the left.
        modes: Of ``cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken``.
        skip: How many tokens at the start of every sequence are left out; its last one never is.

    Returns:
        (B, P * D), the P modes one after the other.

    Source: sentence-transformers 6.2, ``sentence_transformer/modules/pooling.py``, which differs in one case:
    where ``skip`` leaves nothing of a sequence, it divides by zero.
    """
    columns = torch.arange(hidden.shape[1], device=hidden.device)
    last = mask.sum(dim=1) - 1  # (B,)
    counted = mask & (columns >= last.clamp(max=skip)[:, None])  # (B, S)
    weights = counted[..., None].to(hidden.dtype)
    rows = torch.arange(len(hidden), device=hidden.device)

    def mean(factors: Tensor) -> Tensor:
        return (hidden * factors).sum(dim=1) / factors.sum(dim=1)

    pooled = []
    for mode in modes:
        if mode == "cls":
            pooled.append(hidden[rows, counted.int().argmax(dim=1)])
        elif mode == "max":
            pooled.append(hidden.masked_fill(~counted[..., None], -torch.inf).amax(dim=1))
        elif mode == "mean":
            pooled.append(mean(weights))
        elif mode == "mean_sqrt_len_tokens":
            pooled.append((hidden * weights).sum(dim=1) / weights.sum(dim=1).sqrt())
        elif mode == "weightedmean":
            pooled.append(mean(weights * (columns[:, None] + 1)))
        elif mode == "lasttoken":
            pooled.append(hidden[rows, last])
        else:
            raise ArgumentError(f"modes: {mode!r} is unknown")
    return torch.cat(pooled, dim=1)
