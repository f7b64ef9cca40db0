"""ALBERT: BERT with one layer for all places of the stack, and embeddings narrower than the hidden state.

The names of modules are Hugging Face's, which are not those of BERT; what they compute is.

Sources:
    Lan et al. 2020, "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations",
    https://arxiv.org/abs/1909.11942
    https://github.com/huggingface/transformers, models/albert/modeling_albert.py
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bertfast import outputs
from bertfast.errors import ConfigError
from bertfast.models.attention import AttentionImplementation, Mask, Weights
from bertfast.models.bert import BertModel, BertSelfAttention, run_layers
from bertfast.models.config import ACTIVATIONS, BertConfig
from bertfast.models.dropout import Dropout

__all__ = ["AlbertConfig", "AlbertModel"]


@dataclass
class AlbertConfig(BertConfig):
    """The sizes of an ALBERT, with Hugging Face's names and defaults (which are those of ALBERT-xxlarge).

    Example:
        >>> AlbertConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072).embedding_width
        128
    """

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_hidden_groups: int = 1
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    inner_group_num: int = 1
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1

    model_types: ClassVar[tuple[str, ...]] = ("albert",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner_group_num != 1:
            raise ConfigError(f"inner_group_num: expected 1, got {self.inner_group_num}")
        if self.num_hidden_groups > self.num_hidden_layers:
            raise ConfigError(
                f"num_hidden_groups: {self.num_hidden_groups} groups are more than the "
                f"{self.num_hidden_layers} layers"
            )

    @property
    def embedding_width(self) -> int:
        """Width of an embedding (E)."""
        return self.embedding_size

    @property
    def head_dropout(self) -> float:
        """Dropout before a classifier."""
        return self.classifier_dropout_prob


class AlbertAttention(BertSelfAttention):
    """The attention half of a layer."""

    def __init__(self, config: BertConfig, attn_implementation: AttentionImplementation) -> None:
        super().__init__(config, attn_implementation)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.output_dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, mask: Mask, output_attentions: bool) -> tuple[Tensor, Weights]:
        """(B, S, D) to (B, S, D) and, if asked for, the weights (B, N, S, S)."""
        context, probabilities = super().forward(hidden_states, mask, output_attentions)
        attended = hidden_states + self.output_dropout(self.dense(context))
        return self.LayerNorm(attended), probabilities


class AlbertLayer(nn.Module):
    """Attention, then feed-forward (without dropout); each adds its input and normalizes after."""

    def __init__(self, config: BertConfig, attn_implementation: AttentionImplementation) -> None:
        super().__init__()
        self.attention = AlbertAttention(config, attn_implementation)
        self.ffn = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]()
        self.ffn_output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.full_layer_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, mask: Mask, output_attentions: bool) -> tuple[Tensor, Weights]:
        """(B, S, D) to (B, S, D) and, if asked for, the attention weights (B, N, S, S)."""
        attended, probabilities = self.attention(hidden_states, mask, output_attentions)
        fed = self.ffn_output(self.activation(self.ffn(attended)))
        return self.full_layer_layer_norm(fed + attended), probabilities


class AlbertLayerGroup(nn.Module):
    """One layer, which stands for all of its group."""

    def __init__(self, config: BertConfig, attn_implementation: AttentionImplementation) -> None:
        super().__init__()
        self.albert_layers = nn.ModuleList([AlbertLayer(config, attn_implementation)])

    def forward(self, hidden_states: Tensor, mask: Mask, output_attentions: bool) -> tuple[Tensor, Weights]:
        """As `AlbertLayer.forward`."""
        result: tuple[Tensor, Weights] = self.albert_layers[0](hidden_states, mask, output_attentions)
        return result


class AlbertTransformer(nn.Module):
    """From embeddings to hidden states, then the stack, whose places share the layers of the groups."""

    gradient_checkpointing = False
    """See `PretrainedModel.gradient_checkpointing_enable`."""

    def __init__(self, config: AlbertConfig, attn_implementation: AttentionImplementation) -> None:
        super().__init__()
        self.config = config
        self.embedding_hidden_mapping_in = nn.Linear(config.embedding_size, config.hidden_size)
        self.albert_layer_groups = nn.ModuleList(
            AlbertLayerGroup(config, attn_implementation) for _ in range(config.num_hidden_groups)
        )

    def forward(
        self, embeddings: Tensor, mask: Mask, output_attentions: bool, output_hidden_states: bool
    ) -> outputs.ModelOutput:
        """(B, S, E) to (B, S, D), and what else is asked for."""
        hidden_states = self.embedding_hidden_mapping_in(embeddings)
        places, groups = self.config.num_hidden_layers, self.config.num_hidden_groups
        layers = (self.albert_layer_groups[int(place / (places / groups))] for place in range(places))
        again = self.gradient_checkpointing and self.training
        return run_layers(layers, hidden_states, mask, output_attentions, output_hidden_states, again)


class AlbertPooler(nn.Linear):
    """tanh of a linear map of the first token: what the sentence-order head reads in pretraining."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, S, D) to (B, D)."""
        return torch.tanh(super().forward(hidden_states[:, 0]))


class AlbertModel(BertModel):
    """The bare ALBERT: used as `BertModel` is.

    Example:
        >>> config = AlbertConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072)
        >>> sum(parameter.numel() for parameter in AlbertModel(config).parameters())
        11683584
    """

    config_class: ClassVar[type[BertConfig]] = AlbertConfig
    base_model_prefix: ClassVar[str] = "albert"
    encoder_class: ClassVar[type[nn.Module]] = AlbertTransformer
    pooler_class: ClassVar[type[nn.Module]] = AlbertPooler
