"""Which code computes ``softmax(q k^T * scale + mask) v``: the Rust kernel or PyTorch.

Letters: B batch, N heads, S sequence length, H head size.

On a CPU and without gradients the fused attention of the Rust engine runs, as the registered operator
``torch.ops.bertfast.attention``: it holds no weights, so it can never be stale, and it computes no masked
column. With gradients, on a GPU, in another dtype than float32, with dropout, or with a mask that is not a
plain key-padding mask, PyTorch's own ``scaled_dot_product_attention`` runs.

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1.
"""

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor

from bertfast import _bertfast
from bertfast.models.sequences import Boundaries

AttentionImplementation: TypeAlias = Literal["auto", "sdpa", "eager"]
ATTENTION_IMPLEMENTATIONS: tuple[str, ...] = ("auto", "sdpa", "eager")
Mask: TypeAlias = Tensor | Boundaries | None
"""What the layers hand on: which keys there are, or where the sequences of a ragged batch are."""
Weights: TypeAlias = Tensor | tuple[Tensor, ...] | None
"""Attention weights: (B, N, S, S), or of a ragged batch (N, s, s) for each sequence."""


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
    implementation: AttentionImplementation = "auto",
) -> Tensor:
    """Scaled dot-product attention.

    Args:
        query: (B, N, S, H), any strides; so are ``key`` and ``value``.
        key: As ``query``.
        value: As ``query``.
        mask: None; or a key-padding mask, bool (B, S), true where a key may be attended to, in any pattern;
            or anything broadcastable to (B, N, S, S) with four dimensions: bool as before, or float, added to
            the scores.
        scale: Factor on the scores, usually ``H ** -0.5``.
        dropout: Probability of dropping an attention weight; 0 outside training.
        implementation: ``"auto"`` as described above; ``"sdpa"`` always PyTorch's fused attention;
            ``"eager"`` the formula written out.

    Returns:
        (B, N, S, H). A sequence with every key masked has no defined result.

    Example:
        >>> q = k = v = torch.randn(2, 12, 7, 64)
        >>> attention(q, k, v, scale=64**-0.5).shape
        torch.Size([2, 12, 7, 64])
    """
    if implementation == "auto" and dropout == 0.0 and rust_can(query, key, value, mask):
        return rust_attention(query, key, value, mask, scale)
    if implementation == "eager":
        return eager_attention(query, key, value, mask, scale=scale, dropout=dropout)[0]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=_four_dimensional(mask), dropout_p=dropout, scale=scale
    )


def eager_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The formula written out, which is the way to see the attention weights.

    Arguments as in `attention`.

    Returns:
        The result (B, N, S, H) and the weights (B, N, S, S), after dropout.
    """
    scores = query @ key.transpose(-1, -2) * scale  # (B, N, S, S)
    mask = _four_dimensional(mask)
    if mask is not None:
        if mask.dtype == torch.bool:
            # The lowest finite number, not -inf: a fully masked row would be 0 / 0.
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + mask
    weights = F.dropout(scores.softmax(dim=-1), p=dropout, training=dropout > 0.0)
    return weights @ value, weights


def _four_dimensional(mask: Tensor | None) -> Tensor | None:
    """A key-padding mask (B, S) as (B, 1, 1, S); other masks as they are."""
    return mask[:, None, None, :] if mask is not None and mask.dim() == 2 else mask


def rust_can(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether the Rust operator is defined for these tensors; it has no gradient."""
    tensors = (query, key, value)
    if any(t.device.type != "cpu" or t.dtype != torch.float32 for t in tensors):
        return False
    if mask is not None and (mask.dim() != 2 or mask.dtype != torch.bool or mask.device.type != "cpu"):
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))


@torch.library.custom_op("bertfast::attention", mutates_args=(), device_types="cpu")
def rust_attention(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scale: float
) -> Tensor:
    """The fused attention of the Rust engine on float32 CPU tensors, read in place whatever their strides.

    Args:
        query: (B, N, S, H) float32 on the CPU; so are ``key`` and ``value``.
        key: As ``query``.
        value: As ``query``.
        key_mask: bool (B, S) or None.
        scale: Factor on the scores.

    Returns:
        (B, N, S, H) float32, contiguous.
    """
    result = _bertfast.attention(
        query.detach().numpy(),
        key.detach().numpy(),
        value.detach().numpy(),
        None if key_mask is None else key_mask.numpy(),
        scale,
        torch.get_num_threads(),
    )
    return torch.from_numpy(result)


@rust_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scale: float) -> Tensor:
    return query.new_empty(query.shape)
