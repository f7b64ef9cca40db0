"""PyTorch's attention kernels for sequences of any lengths, which only a GPU has, by the formula on a CPU.

What is around them runs then as on a GPU: what they are given, PyTorch's gradient of them, `torch.compile`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def _formula(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, scale: float) -> Tensor:
    """(T, N, H) of each sequence with itself."""
    out = torch.empty_like(query)
    for start, end in pairwise(ends.tolist()):
        q, k, v = (x[start:end].transpose(0, 1).float() for x in (query, key, value))
        out[start:end] = ((q @ k.mT * scale).softmax(-1) @ v).transpose(0, 1)
    return out


def _gradients(grad: Tensor, qkv: tuple[Tensor, ...], ends: Tensor, scale: float) -> tuple[Tensor, ...]:
    """Those of `_formula`, written out: no gradient is recorded inside of an operator."""
    grads = tuple(torch.empty_like(x) for x in qkv)
    for start, end in pairwise(ends.tolist()):
        q, k, v, upstream = (x[start:end].transpose(0, 1).float() for x in (*qkv, grad))
        weights = (q @ k.mT * scale).softmax(-1)
        of_weights = upstream @ v.mT
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * scale
        found = (of_scores @ k, of_scores.mT @ q, weights.mT @ upstream)
        for one, rows in zip(grads, found, strict=True):
            one[start:end] = rows.transpose(0, 1)
    return grads


def _check(qkv: tuple[Tensor, ...], cu_q: Tensor, cu_k: Tensor, longest: tuple[int, int]) -> None:
    """What the kernels ask for."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert torch.equal(cu_q, cu_k)
    assert longest == (int(cu_q.diff().max()),) * 2
    for x in qkv:
        assert x.stride(-1) == 1
        assert x.shape[-1] % 8 == 0


@contextmanager
def kernels_on_the_cpu() -> Iterator[list[tuple[str, float]]]:
    """Until it is left; yields the calls: which kernel, and what share of the weights it was to drop."""
    calls: list[tuple[str, float]] = []

    def flash(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, *rest: Any, scale: float) -> Any:
        *longest, dropout, causal, debug = rest
        _check((q, k, v), cu_q, cu_k, (longest[0], longest[1]))
        assert (causal, debug) == (False, False)
        assert q.dtype in (torch.bfloat16, torch.float16)
        calls.append(("flash", dropout))
        random = torch.zeros(2, dtype=torch.uint64)
        return _formula(q, k, v, cu_q, scale), torch.zeros(q.shape[1::-1]), random, random[:0], q[:0]

    def flash_backward(
        grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *rest: Any, scale: float
    ) -> Any:
        assert lse.shape == q.shape[1::-1]
        calls.append(("flash backward", rest[4]))
        return _gradients(grad, (q, k, v), rest[0], scale)

    def efficient(
        q: Tensor, k: Tensor, v: Tensor, bias: None, cu_q: Tensor, cu_k: Tensor, *rest: Any, scale: float
    ) -> Any:
        *longest, dropout, mask, lse = rest
        _check((q, k, v), cu_q, cu_k, (longest[0], longest[1]))
        assert mask == 0
        calls.append(("efficient", dropout))
        sums = q.new_zeros((len(cu_q) - 1, q.shape[2], longest[0] if lse else 0), dtype=torch.float32)
        seed = torch.zeros((), dtype=torch.int64)
        return _formula(q[0], k[0], v[0], cu_q, scale)[None], sums, seed, seed, *longest

    def efficient_backward(
        grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: None, out: Tensor, *rest: Any, scale: float
    ) -> Any:
        cu_q, _, _, _, lse, dropout = rest[:6]
        assert lse.numel(), "the logarithms of the sums are there if there is a gradient"
        calls.append(("efficient backward", dropout))
        grads = _gradients(grad[0], (q[0], k[0], v[0]), cu_q, scale)
        return *(one[None] for one in grads), torch.empty(0)

    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_flash_attention_forward", flash, "CPU")
        library.impl("_flash_attention_backward", flash_backward, "CPU")
        library.impl("_efficient_attention_forward", efficient, "CPU")
        library.impl("_efficient_attention_backward", efficient_backward, "CPU")
        yield calls
