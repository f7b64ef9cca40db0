"""The Rust attention as an attention of ``transformers``: ``attn_implementation="bertfast"``.

Letters: B batch, N heads, S sequence length, H head size.

Source: https://github.com/huggingface/transformers, ``AttentionInterface`` in modeling_utils.py and
``AttentionMaskInterface`` in masking_utils.py of version 5.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bertfast.errors import BertFastError
from bertfast.models.attention import rust_attention, rust_can

NAME = "bertfast"
"""What ``attn_implementation`` says."""

try:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import bidirectional_mask_function, sdpa_mask
    from transformers.utils.import_utils import is_tracing
except ImportError as error:
    raise BertFastError("register_attention needs transformers 5: pip install 'transformers>=5'") from error


def register() -> None:
    """Make `attention_forward` and `key_padding_mask` known to ``transformers``; again changes nothing."""
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, key_padding_mask)


def key_padding_mask(**arguments: Any) -> Tensor | None:
    """The mask that a model of ``transformers`` hands to the attention of each of its layers.

    Args:
        **arguments: Those of ``transformers.masking_utils.sdpa_mask``.

    Returns:
        Where every token may attend to every other one that is no padding, None if there is no padding, else
        bool (B, 1, 1, S), true for keys that are none. In all other cases what ``sdpa_mask`` returns.
    """
    padding = arguments.get("attention_mask")
    if not (
        isinstance(padding, Tensor)
        and arguments.get("mask_function") is bidirectional_mask_function
        and arguments.get("allow_is_bidirectional_skip", False)
        and padding.shape == (arguments["batch_size"], arguments["kv_length"])
        and not arguments.get("kv_offset", 0)
    ):
        mask: Tensor | None = sdpa_mask(**arguments)
        return mask
    # What is compiled or traced may not depend on values.
    if not is_tracing(padding) and padding.all():
        return None
    return padding[:, None, None, :].to(torch.bool)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The Rust attention where it is defined, else what ``attn_implementation="sdpa"`` does.

    Args:
        module: The layer that asks.
        query: (B, N, S, H), as are ``key`` and ``value`` in the attention of a sequence with itself.
        key: As ``query``.
        value: As ``query``.
        attention_mask: What `key_padding_mask` gave, or the caller of the model: anything broadcastable to
            (B, N, S, S).
        dropout: Probability of dropping an attention weight.
        scaling: Factor on the scores; None for ``H ** -0.5``.
        is_causal: Whether a token sees only those before it, if there is no mask; None leaves it to
            ``module``.
        **kwargs: What else the model passes on.

    Returns:
        (B, S, N, H), and None for the weights.
    """
    causal = attention_mask is None and (
        getattr(module, "is_causal", True) if is_causal is None else is_causal
    )
    plain = (
        not causal
        and dropout == 0.0
        and query.shape == key.shape == value.shape
        and all(kwargs.get(name) is None for name in ("position_bias", "softcap"))
        and not kwargs.get("output_attentions")
    )
    if plain:
        key_mask = None
        if attention_mask is not None and attention_mask.shape == (query.shape[0], 1, 1, key.shape[2]):
            key_mask = attention_mask[:, 0, 0, :]
        if (attention_mask is None) == (key_mask is None) and rust_can(query, key, value, key_mask):
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            return rust_attention(query, key, value, key_mask, scale).transpose(1, 2).contiguous(), None
    result: tuple[Tensor, None] = sdpa_attention_forward(
        module,
        query,
        key,
        value,
        attention_mask,
        dropout=dropout,
        scaling=scaling,
        is_causal=is_causal,
        **kwargs,
    )
    return result
