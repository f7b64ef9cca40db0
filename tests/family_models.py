"""Random models of every family, made with ``transformers``, of sizes that are no whole number of panels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

SIZES = {"vocab_size": 97, "max_position_embeddings": 70, "initializer_range": 0.1}
BERT_SIZES = {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 50}

MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bert": (transformers.BertConfig, transformers.BertModel, BERT_SIZES),
    "roberta": (
        transformers.RobertaConfig,
        transformers.RobertaModel,
        BERT_SIZES | {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5},
    ),
    "xlm_roberta_padding_3": (
        transformers.XLMRobertaConfig,
        transformers.XLMRobertaModel,
        BERT_SIZES | {"type_vocab_size": 2, "pad_token_id": 3},
    ),
    "camembert": (
        transformers.CamembertConfig,
        transformers.CamembertModel,
        BERT_SIZES | {"type_vocab_size": 1, "pad_token_id": 1},
    ),
    "albert": (transformers.AlbertConfig, transformers.AlbertModel, BERT_SIZES | {"embedding_size": 26}),
    "albert_equal_widths": (
        transformers.AlbertConfig,
        transformers.AlbertModel,
        BERT_SIZES | {"embedding_size": 36, "hidden_act": "gelu"},
    ),
    "albert_wide_embeddings": (
        transformers.AlbertConfig,
        transformers.AlbertModel,
        BERT_SIZES | {"embedding_size": 130, "num_hidden_layers": 1},
    ),
    "albert_groups": (
        transformers.AlbertConfig,
        transformers.AlbertModel,
        BERT_SIZES | {"embedding_size": 26, "num_hidden_layers": 5, "num_hidden_groups": 2},
    ),
    "distilbert": (
        transformers.DistilBertConfig,
        transformers.DistilBertModel,
        {"dim": 36, "n_layers": 3, "n_heads": 3, "hidden_dim": 50},
    ),
    "distilbert_relu": (
        transformers.DistilBertConfig,
        transformers.DistilBertModel,
        {"dim": 52, "n_layers": 2, "n_heads": 2, "hidden_dim": 33, "activation": "relu"},
    ),
    "electra": (
        transformers.ElectraConfig,
        transformers.ElectraModel,
        BERT_SIZES | {"embedding_size": 26},
    ),
    "electra_equal_widths": (
        transformers.ElectraConfig,
        transformers.ElectraModel,
        BERT_SIZES | {"embedding_size": 36},
    ),
}
LENGTHS = [23, 1, 60, 7, 31, 40, 2, 16]


def make_folder(folder: Path, name: str, head: Any = None, **changes: Any) -> Path:
    """A random model in which no weight has its initial 0 or 1."""
    make_config, make_model, sizes = MODELS[name]
    config = make_config(**SIZES | sizes | changes)
    torch.manual_seed(0)
    model = (head or make_model)(config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            mean = 1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0
            weight.normal_(mean, 0.1)
    model.save_pretrained(folder)
    return folder


def make_batch(name: str, lengths: list[int]) -> dict[str, Tensor]:
    """Right-padded; padding has the padding token's id, which no token has."""
    sizes = MODELS[name][2]
    padding = sizes.get("pad_token_id", 0)
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(padding + 1, SIZES["vocab_size"], mask.shape, generator=generator)
    batch = {"input_ids": torch.where(mask.bool(), ids, padding), "attention_mask": mask}
    if not name.startswith("distilbert"):
        types = sizes.get("type_vocab_size", 2)
        batch["token_type_ids"] = torch.randint(0, types, mask.shape, generator=generator) * mask
    return batch
