"""BERT in one file, from the embeddings to the pooled output, with Hugging Face's names.

It is the readable definition of the model, the module to train, what runs on a GPU, and the twin that the
tests of the Rust engine compare with; RoBERTa and ALBERT are made of it. Letters in the comments: B batch, S
sequence length, D hidden size, E width of an embedding (D in BERT), N heads, H head size (D = N * H), F
intermediate size, V vocabulary, L layers. Ragged batches have T tokens in place of (B, S): the sequences one
after the other, with `Boundaries` in place of a mask.

Sources:
    Devlin, Chang, Lee, Toutanova 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", https://arxiv.org/abs/1810.04805
    https://github.com/google-research/bert, modeling.py: the original
    https://github.com/huggingface/transformers, models/bert/modeling_bert.py: the names of modules and
    parameters
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bertfast import outputs
from bertfast.errors import ArgumentError, ShapeError
from bertfast.models.attention import (
    ATTENTION_IMPLEMENTATIONS,
    AttentionImplementation,
    Mask,
    Weights,
    attention,
    eager_attention,
)
from bertfast.models.config import ACTIVATIONS, BertConfig
from bertfast.models.dropout import Dropout
from bertfast.models.pretrained import PretrainedModel
from bertfast.models.ragged_attention import ragged_attention
from bertfast.models.sequences import Boundaries
from bertfast.models.weights import WeightFiles

if TYPE_CHECKING:
    from typing_extensions import Self


class BertEmbeddings(nn.Module):
    """Word + token type + position embedding, then LayerNorm and dropout (section 3, figure 2)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.first_position = config.first_position
        # Where positions begin behind the padding token's, that is the row for padding.
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings,
            width,
            padding_idx=self.first_position - 1 if self.first_position else None,
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """Integers (B, S), or (B, S, E) in place of the words, to (B, S, E); see `BertModel.forward`."""
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        shape, device = inputs_embeds.shape[:-1], inputs_embeds.device
        if token_type_ids is None:
            token_type_ids = torch.zeros(shape, dtype=torch.long, device=device)
        if position_ids is None:
            position_ids = self.default_positions(input_ids, shape[1], device)
        embeddings = inputs_embeds + self.token_type_embeddings(token_type_ids)
        embeddings = embeddings + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(embeddings))

    def default_positions(self, input_ids: Tensor | None, length: int, device: torch.device) -> Tensor:
        """The positions (B, S) or (1, S) of tokens whose caller gives none.

        Where they begin behind the padding token's id, padding tokens have that position and do not count, in
        whatever columns they are.
        """
        if self.first_position == 0 or input_ids is None:
            return torch.arange(self.first_position, self.first_position + length, device=device)[None]
        counts = input_ids != self.first_position - 1
        return counts.cumsum(dim=1) * counts + self.first_position - 1


class BertSelfAttention(nn.Module):
    """Multi-head scaled dot-product attention of a sequence with itself."""

    def __init__(self, config: BertConfig, attn_implementation: AttentionImplementation) -> None:
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.attn_implementation: AttentionImplementation = attn_implementation
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def split_heads(self, x: Tensor) -> Tensor:
        """(..., D) to (..., N, H), without copying."""
        return x.view(*x.shape[:-1], self.num_attention_heads, self.attention_head_size)

    def forward(self, hidden_states: Tensor, mask: Mask, output_attentions: bool) -> tuple[Tensor, Weights]:
        """(B, S, D) to (B, S, D) and, if asked for, the weights (B, N, S, S)."""
        query = self.split_heads(self.query(hidden_states))
        key = self.split_heads(self.key(hidden_states))
        value = self.split_heads(self.value(hidden_states))
        scale = self.attention_head_size**-0.5
        dropout = self.dropout.p if self.training else 0.0
        probabilities: Weights = None
        if isinstance(mask, Boundaries):
            context, probabilities = ragged_attention(
                query,
                key,
                value,
                mask,
                scale=scale,
                dropout=dropout,
                implementation=self.attn_implementation,
                output_attentions=output_attentions,
            )
            return context.flatten(-2), probabilities
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (B, N, S, H)
        if output_attentions:
            context, probabilities = eager_attention(query, key, value, mask, scale=scale, dropout=dropout)
        else:
            context = attention(
                query, key, value, mask, scale=scale, dropout=dropout, implementation=self.attn_implementation
            )
        return context.transpose(1, 2).flatten(2), probabilities  # (B, N, S, H) to (B, S, D)


class BertSelfOutput(nn.Module):
    """Mixes the heads, adds the layer's input, normalizes."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, residual: Tensor) -> Tensor:
        """(B, S, D) and (B, S, D) to (B, S, D)."""
        hidden_states = self.dropout(self.dense(hidden_states))
        return self.LayerNorm(hidden_states + residual)


class BertAttention(nn.Module):
    """The attention half of a layer."""

    def __init__(self, config: BertConfig, attn_implementation: AttentionImplementation) -> None:
        super().__init__()
        self.self = BertSelfAttention(config, attn_implementation)
        self.output = BertSelfOutput(config)

    def forward(self, hidden_states: Tensor, mask: Mask, output_attentions: bool) -> tuple[Tensor, Weights]:
        """(B, S, D) to (B, S, D) and, if asked for, the weights (B, N, S, S)."""
        context, probabilities = self.self(hidden_states, mask, output_attentions)
        return self.output(context, hidden_states), probabilities


class BertIntermediate(nn.Module):
    """The first half of the feed-forward network."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = ACTIVATIONS[config.hidden_act]()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, S, D) to (B, S, F)."""
        return self.intermediate_act_fn(self.dense(hidden_states))


class BertOutput(nn.Module):
    """The second half of the feed-forward network, adds its input, normalizes."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, residual: Tensor) -> Tensor:
        """(B, S, F) and (B, S, D) to (B, S, D)."""
        hidden_states = self.dropout(self.dense(hidden_states))
        return self.LayerNorm(hidden_states + residual)


class BertLayer(nn.Module):
    """Attention, then feed-forward; each adds its input and normalizes after ("post-LN")."""

    def __init__(self, config: BertConfig, attn_implementation: AttentionImplementation) -> None:
        super().__init__()
        self.attention = BertAttention(config, attn_implementation)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config)

    def forward(self, hidden_states: Tensor, mask: Mask, output_attentions: bool) -> tuple[Tensor, Weights]:
        """(B, S, D) to (B, S, D) and, if asked for, the attention weights (B, N, S, S)."""
        attended, probabilities = self.attention(hidden_states, mask, output_attentions)
        return self.output(self.intermediate(attended), attended), probabilities


class BertEncoder(nn.Module):
    """The stack of layers."""

    gradient_checkpointing = False
    """See `PretrainedModel.gradient_checkpointing_enable`."""

    def __init__(self, config: BertConfig, attn_implementation: AttentionImplementation) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            BertLayer(config, attn_implementation) for _ in range(config.num_hidden_layers)
        )

    def forward(
        self, hidden_states: Tensor, mask: Mask, output_attentions: bool, output_hidden_states: bool
    ) -> outputs.ModelOutput:
        """(B, S, D) to (B, S, D), and what else is asked for."""
        again = self.gradient_checkpointing and self.training
        return run_layers(self.layer, hidden_states, mask, output_attentions, output_hidden_states, again)


def run_layers(
    layers: Iterable[nn.Module],
    hidden_states: Tensor,
    mask: Mask,
    output_attentions: bool,
    output_hidden_states: bool,
    again: bool,
) -> outputs.ModelOutput:
    """(B, S, D) through one layer after the other to (B, S, D), and what else is asked for.

    With ``again`` the inside of a layer is not kept for the gradient, but computed once more.
    """
    all_hidden_states, all_attentions = [hidden_states], []
    for layer in layers:
        if again:
            inputs = (hidden_states, mask, output_attentions)
            hidden_states, probabilities = checkpoint(layer, *inputs, use_reentrant=False)
        else:
            hidden_states, probabilities = layer(hidden_states, mask, output_attentions)
        if output_hidden_states:
            all_hidden_states.append(hidden_states)
        if output_attentions:
            all_attentions.append(probabilities)
    return outputs.ModelOutput(
        last_hidden_state=hidden_states,
        hidden_states=tuple(all_hidden_states) if output_hidden_states else None,
        attentions=tuple(all_attentions) if output_attentions else None,
    )


class BertPooler(nn.Module):
    """tanh of a linear map of the first token, [CLS]: what the next-sentence head reads in pretraining."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = nn.Tanh()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, S, D) to (B, D)."""
        return self.activation(self.dense(hidden_states[:, 0]))


class BertModel(PretrainedModel):
    """The bare BERT: ids to hidden states and the pooled [CLS] vector.

    Args:
        config: The sizes; BERT-base if left out.
        add_pooling_layer: False leaves the pooler away; ``pooler_output`` is then None.
        attn_implementation: ``"auto"`` (Rust on a CPU without gradients, else PyTorch's), ``"sdpa"`` or
            ``"eager"``; see `bertfast.models.attention`.

    Raises:
        ArgumentError: ``attn_implementation`` is none of these.

    Example:
        >>> model = BertModel(BertConfig(num_hidden_layers=2)).eval()
        >>> with torch.no_grad():
        ...     output = model(torch.tensor([[101, 7592, 102]]))
        >>> output.last_hidden_state.shape, output.pooler_output.shape
        (torch.Size([1, 3, 768]), torch.Size([1, 768]))
    """

    config_class: ClassVar[type[BertConfig]] = BertConfig
    base_model_prefix: ClassVar[str] = "bert"
    """What the model is called inside of one with a head."""
    encoder_class: ClassVar[type[nn.Module]] = BertEncoder
    pooler_class: ClassVar[type[nn.Module]] = BertPooler

    def __init__(
        self,
        config: BertConfig | None = None,
        add_pooling_layer: bool = True,
        attn_implementation: AttentionImplementation = "auto",
    ) -> None:
        super().__init__(config)
        if attn_implementation not in ATTENTION_IMPLEMENTATIONS:
            raise ArgumentError(
                f"attn_implementation: expected one of {', '.join(ATTENTION_IMPLEMENTATIONS)}, "
                f"got {attn_implementation!r}"
            )
        self.embeddings = BertEmbeddings(self.config)
        self.encoder = self.encoder_class(self.config, attn_implementation)
        self.pooler = self.pooler_class(self.config) if add_pooling_layer else None
        self.apply(self._init_weights)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        cu_seqlens: Tensor | Boundaries | None = None,
    ) -> outputs.ModelOutput:
        """Runs the model, on a padded batch or on a ragged one.

        Args:
            input_ids: Integers (B, S) below ``vocab_size``. Either these or ``inputs_embeds``.
            attention_mask: (B, S) of any dtype, nonzero where a token may be attended to, in any pattern; or
                (B, S, S) of any dtype, the same for each pair (query, key); or, broadcastable to
                (B, N, S, S), integers or bool as before, or floats that are added to the scores.
            token_type_ids: Integers (B, S) below ``type_vocab_size``; 0 if left out.
            position_ids: Integers (B, S) or (1, S) below ``max_position_embeddings``; the column if left out,
                in RoBERTa the number among the tokens that are no padding, counted from the padding token's
                id.
            inputs_embeds: (B, S, E) in place of the rows of the word embedding.
            output_attentions: Also the attention weights; they are then computed the slow way.
            output_hidden_states: Also the input of every layer.
            cu_seqlens: Makes the batch a ragged one, which computes no padding: (B + 1,) integers, on the CPU
                at best, where each sequence starts, and T. All above then has (T,) in place of (B, S), ``T =
                cu_seqlens[-1]``, and there is no ``attention_mask``. Positions are the place in the sequence
                (in RoBERTa counted from the padding token's id).

        Returns:
            ``last_hidden_state`` (B, S, D); ``pooler_output`` (B, D) or None; ``hidden_states``, L + 1 of (B,
            S, D), or None; ``attentions``, L of (B, N, S, S), or None. Rows of masked tokens hold values of
            no meaning, as in ``transformers``. Of a ragged batch (T, D) in place of (B, S, D), and
            ``attentions`` are per layer B of (N, s, s).

        Raises:
            ArgumentError: Not exactly one of ``input_ids`` and ``inputs_embeds``, or both ``attention_mask``
                and ``cu_seqlens``.
            ShapeError: Shapes that do not fit, more columns than there are positions, or ``cu_seqlens`` do
                not rise strictly from 0 to T.
            DtypeError: ``cu_seqlens`` are not integers.
        """
        mask: Mask
        if cu_seqlens is None:
            shape = self._check_inputs(input_ids, token_type_ids, position_ids, inputs_embeds)
            mask = _prepare_mask(attention_mask, shape)
        else:
            mask = self._check_ragged(input_ids, token_type_ids, position_ids, inputs_embeds, cu_seqlens)
            if attention_mask is not None:
                raise ArgumentError("expected either attention_mask or cu_seqlens")
            if position_ids is None:
                position_ids = mask.position + self.config.first_position
        embeddings = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        output: outputs.ModelOutput = self.encoder(embeddings, mask, output_attentions, output_hidden_states)
        if self.pooler is None:
            return output
        hidden = output.last_hidden_state
        first = hidden[mask.first, None] if isinstance(mask, Boundaries) else hidden
        return replace(output, pooler_output=self.pooler(first))

    def _check_ragged(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        cu_seqlens: Tensor | Boundaries,
    ) -> Boundaries:
        """The boundaries, after checking that everything else is (T,)."""
        rows = input_ids if inputs_embeds is None else inputs_embeds
        if rows is None or (input_ids is not None and inputs_embeds is not None):
            raise ArgumentError("expected either input_ids or inputs_embeds")
        if input_ids is not None and input_ids.dim() != 1:
            raise ShapeError(f"input_ids: expected shape (T,) with cu_seqlens, got {tuple(input_ids.shape)}")
        width = self.config.embedding_width
        if inputs_embeds is not None and inputs_embeds.shape != (len(rows), width):
            raise ShapeError(f"inputs_embeds: expected shape (T, {width}), got {tuple(inputs_embeds.shape)}")
        for name, ids in (("token_type_ids", token_type_ids), ("position_ids", position_ids)):
            if ids is not None and ids.shape != (len(rows),):
                raise ShapeError(f"{name}: expected shape ({len(rows)},), got {tuple(ids.shape)}")
        boundaries = Boundaries.of(cu_seqlens, rows)
        limit = self.config.max_position_embeddings - self.config.first_position
        if position_ids is None and not torch.compiler.is_compiling() and boundaries.longest > limit:
            raise ShapeError(
                f"input_ids: a sequence of {boundaries.longest} tokens, but there are positions for {limit}"
            )
        return boundaries

    def _check_inputs(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> tuple[int, int]:
        """(B, S), after checking that everything has that shape."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ArgumentError("expected either input_ids or inputs_embeds")
        if input_ids is not None:
            if input_ids.dim() != 2:
                raise ShapeError(f"input_ids: expected shape (B, S), got {tuple(input_ids.shape)}")
            batch, length = input_ids.shape
        elif inputs_embeds is not None:
            width = self.config.embedding_width
            if inputs_embeds.dim() != 3 or inputs_embeds.shape[2] != width:
                raise ShapeError(
                    f"inputs_embeds: expected shape (B, S, {width}), got {tuple(inputs_embeds.shape)}"
                )
            batch, length = inputs_embeds.shape[:2]
        shape = (batch, length)
        if token_type_ids is not None and token_type_ids.shape != shape:
            raise ShapeError(f"token_type_ids: expected shape {shape}, got {tuple(token_type_ids.shape)}")
        if position_ids is not None and position_ids.shape not in (shape, (1, length)):
            raise ShapeError(
                f"position_ids: expected shape {shape} or (1, {length}), got {tuple(position_ids.shape)}"
            )
        limit = self.config.max_position_embeddings - self.config.first_position
        if position_ids is None and length > limit:
            raise ShapeError(f"input_ids: {length} columns, but there are positions for {limit}")
        return shape

    @classmethod
    def _unfilled(
        cls, config: BertConfig, files: WeightFiles, attn_implementation: AttentionImplementation
    ) -> "Self":
        # A folder without a pooler gives a model without one.
        pooler = any(name.startswith("pooler.") for name in files.names)
        return cls(config, add_pooling_layer=pooler, attn_implementation=attn_implementation)


def _prepare_mask(attention_mask: Tensor | None, shape: tuple[int, int]) -> Tensor | None:
    """What callers pass as ``attention_mask`` to what `attention` takes as ``mask``."""
    if attention_mask is None:
        return None
    batch, length = shape
    got = tuple(attention_mask.shape)
    if attention_mask.dim() == 4:
        return attention_mask if attention_mask.is_floating_point() else attention_mask.to(torch.bool)
    if attention_mask.dim() == 3 and got == (batch, length, length):
        return attention_mask[:, None].to(torch.bool)  # (B, 1, S, S)
    if attention_mask.dim() != 3 and got == (batch, length):
        return attention_mask.to(torch.bool)
    raise ShapeError(f"attention_mask: expected shape {shape} like input_ids, got {got}")
