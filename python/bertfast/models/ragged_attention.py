"""Attention of ragged batches: every sequence with itself, without padding.

On a GPU it is PyTorch's attention of jagged tensors, whose kernels take sequences of any lengths; on a CPU it
goes through one sequence after the other.

Letters: B sequences, T tokens of all of them, N heads, H head size, s length of one sequence.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor

from bertfast.models.attention import AttentionImplementation, attention, eager_attention
from bertfast.models.sequences import Boundaries


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
    if query.device.type != "cpu" and implementation != "eager" and not output_attentions:
        return _jagged(query, key, value, boundaries, scale, dropout), None
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


def _jagged(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, scale: float, dropout: float
) -> Tensor:
    """By PyTorch's jagged tensors: flash attention in 16 bits, memory-efficient attention in float32."""

    def jagged(x: Tensor) -> Tensor:
        """(T, N, H) to (B, N, s, H)."""
        rows = torch.nested.nested_tensor_from_jagged(
            x.contiguous(), boundaries.on_device, min_seqlen=1, max_seqlen=boundaries.longest
        )
        return rows.transpose(1, 2)

    query, key, value = jagged(query), jagged(key), jagged(value)
    context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)
    return context.transpose(1, 2).contiguous().values()
