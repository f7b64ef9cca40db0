"""Attention of ragged batches: every sequence with itself, without padding.

On a CPU it is the Rust engine's, all sequences and heads in one call, with its gradient and with dropout: the
registered operator ``torch.ops.bertfast.ragged_attention``. On a GPU it is one of PyTorch's kernels that take
sequences of any lengths.

Letters: B sequences, T tokens of all of them, N heads, H head size, s length of one sequence.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor

from bertfast import _bertfast
from bertfast.errors import ShapeError
from bertfast.models.arrays import array_of
from bertfast.models.attention import AttentionImplementation, attention, eager_attention
from bertfast.models.sequences import Boundaries

_HEAD_MULTIPLE = 8


def ragged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Boundaries,
    *,
    scale: float,
    dropout: float = 0.0,
    implementation: AttentionImplementation = "auto",
    output_attentions: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """Scaled dot-product attention of each sequence with itself.

    Args:
        query: (T, N, H), as are ``key`` and ``value``.
        key: As ``query``.
        value: As ``query``.
        boundaries: Where the sequences are.
        scale: Factor on the scores, usually ``H ** -0.5``.
        dropout: Probability of dropping an attention weight; 0 outside training.
        implementation: As in `bertfast.models.attention.attention`.
        output_attentions: Also the weights, which needs the formula written out.

    Returns:
        (T, N, H), and B of (N, s, s) or None.
    """
    if implementation != "eager" and not output_attentions:
        if query.device.type != "cpu":
            return _on_gpu(query, key, value, boundaries, scale, dropout), None
        if implementation == "auto" and query.dtype in (torch.float32, torch.bfloat16):
            # Drawn from PyTorch's generator, so that it says what is dropped.
            seed = torch.randint(2**62, (1,)) if dropout else torch.zeros(1, dtype=torch.int64)
            q, k, v = (x.contiguous() for x in (query, key, value))
            return rust_ragged_attention(q, k, v, boundaries.cu_seqlens, seed, scale, dropout)[0], None
    contexts, weights = [], []
    for tokens in boundaries.slices:
        q, k, v = (x[tokens].transpose(0, 1)[None] for x in (query, key, value))  # (1, N, s, H)
        if output_attentions:
            context, probabilities = eager_attention(q, k, v, scale=scale, dropout=dropout)
            weights.append(probabilities[0])
        else:
            context = attention(q, k, v, scale=scale, dropout=dropout, implementation=implementation)
        contexts.append(context[0].transpose(0, 1))
    return torch.cat(contexts), tuple(weights) if output_attentions else None


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, scale: float, dropout: float
) -> Tensor:
    """By the fastest of PyTorch's kernels for sequences of any lengths that takes these tensors."""
    width = query.shape[-1]
    # Those kernels take heads whose sizes are multiples of 8; columns of zeros change no score.
    more = -width % _HEAD_MULTIPLE
    query, key, value = (F.pad(x, (0, more)) if more else x.contiguous() for x in (query, key, value))
    kernel = _kernel(query, key, value, dropout)
    return kernel(query, key, value, boundaries, scale, dropout)[..., :width]


def _kernel(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Callable[..., Tensor]:
    """What PyTorch takes for tensors of this dtype and size on this GPU."""
    if query.device.type == "cuda":
        q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
        params = torch.backends.cuda.SDPAParams(q, k, v, None, dropout, False, False)
        if torch.backends.cuda.can_use_flash_attention(params):
            return _flash
        if torch.backends.cuda.can_use_efficient_attention(params):
            return _memory_efficient
    return _jagged


# The two operators are those that PyTorch's attention of jagged tensors calls as well. Jagged tensors by
# themselves keep the CPU busy for several times as long as all the rest of a model's forward pass, and a GPU
# waits for it (docs/performance.md). `torch.nn.attention.varlen` has no dropout.


def _flash(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, scale: float, dropout: float
) -> Tensor:
    """Flash attention, of 16 bits."""
    cu_seqlens, longest = boundaries.on_device, boundaries.longest
    context: Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, cu_seqlens, cu_seqlens, longest, longest, dropout, False, False, scale=scale
    )[0]
    return context


def _memory_efficient(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, scale: float, dropout: float
) -> Tensor:
    """Memory-efficient attention, of float32 too."""
    cu_seqlens, longest = boundaries.on_device, boundaries.longest
    has_gradient = query.requires_grad or key.requires_grad or value.requires_grad
    context: Tensor = torch.ops.aten._efficient_attention_forward(
        query[None],
        key[None],
        value[None],
        None,
        cu_seqlens,
        cu_seqlens,
        longest,
        longest,
        dropout,
        0,
        has_gradient,
        scale=scale,
    )[0]
    return context[0]


def _jagged(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, scale: float, dropout: float
) -> Tensor:
    """PyTorch's attention of jagged tensors, which every device has."""

    def jagged(x: Tensor) -> Tensor:
        """(T, N, H) to (B, N, s, H)."""
        rows = torch.nested.nested_tensor_from_jagged(
            x, boundaries.on_device, min_seqlen=1, max_seqlen=boundaries.longest
        )
        return rows.transpose(1, 2)

    query, key, value = jagged(query), jagged(key), jagged(value)
    context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)
    return context.transpose(1, 2).contiguous().values()


@torch.library.custom_op("bertfast::ragged_attention", mutates_args=(), device_types="cpu")
def rust_ragged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    seed: Tensor,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """The attention of the Rust engine; it has a gradient.

    Args:
        query: (T, N, H) float32 or bfloat16, contiguous, on the CPU; so are ``key`` and ``value``.
        key: As ``query``.
        value: As ``query``.
        cu_seqlens: (B + 1,) int64: where each sequence begins, and T.
        seed: (1,) int64, from 0 on: which weights are dropped.
        scale: Factor on the scores.
        dropout: Probability of dropping a weight, in steps of 2^-16.

    Returns:
        (T, N, H); and (N, T) float32, the logarithms to base 2 of the denominators of softmax.

    Raises:
        ShapeError: Shapes that do not fit one another, or boundaries that do not rise from 0 to T.
        ArgumentError: ``dropout`` is no probability.
    """
    for name, x in (("key", key), ("value", value)):
        if x.shape != query.shape:
            raise ShapeError(f"{name}: expected shape {tuple(query.shape)} like query, got {tuple(x.shape)}")
    out = torch.empty_like(query)
    lse = torch.empty(query.shape[1], query.shape[0])
    _bertfast.ragged_attention(
        [array_of(x) for x in (query, key, value)],
        array_of(out),
        lse.numpy(),
        cu_seqlens.numpy(),
        (scale, dropout, int(seed)),
        torch.get_num_threads(),
    )
    return out, lse


@rust_ragged_attention.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)


@torch.library.custom_op("bertfast::ragged_attention_backward", mutates_args=(), device_types="cpu")
def _rust_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    seed: Tensor,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of ``query``, ``key`` and ``value`` from that of the result."""
    grads = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
    _bertfast.ragged_attention_backward(
        array_of(grad),
        [array_of(x) for x in (query, key, value)],
        lse.numpy(),
        [array_of(x) for x in grads],
        cu_seqlens.numpy(),
        (scale, dropout, int(seed)),
        torch.get_num_threads(),
    )
    return grads


@_rust_backward.register_fake
def _(_grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, cu_seqlens, seed, ctx.scale, ctx.dropout = inputs
    ctx.save_for_backward(query, key, value, output[1], cu_seqlens, seed)


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    query, key, value, lse, cu_seqlens, seed = ctx.saved_tensors
    grads = _rust_backward(
        grad.contiguous(), query, key, value, lse, cu_seqlens, seed, ctx.scale, ctx.dropout
    )
    return (*grads, None, None, None, None)


rust_ragged_attention.register_autograd(_backward, setup_context=_setup_context)
