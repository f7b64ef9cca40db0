"""``transformers`` in float32 and float64 on one folder, and the models and inputs it is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

ODD_SHAPES: dict[str, dict[str, Any]] = {
    "one_layer_hidden_36": {
        "hidden_size": 36,
        "num_attention_heads": 3,
        "num_hidden_layers": 1,
        "intermediate_size": 50,
    },
    "head_size_26": {
        "hidden_size": 78,
        "num_attention_heads": 3,
        "num_hidden_layers": 3,
        "intermediate_size": 131,
    },
    "one_head_of_26_narrow": {
        "hidden_size": 26,
        "num_attention_heads": 1,
        "num_hidden_layers": 2,
        "intermediate_size": 7,
        "type_vocab_size": 1,
        "hidden_act": "relu",
    },
    "tinybert_312": {
        "hidden_size": 312,
        "num_attention_heads": 12,
        "num_hidden_layers": 4,
        "intermediate_size": 1200,
    },
    "heads_of_3": {
        "hidden_size": 15,
        "num_attention_heads": 5,
        "num_hidden_layers": 5,
        "intermediate_size": 33,
        "type_vocab_size": 4,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
    },
    "wide_heads_of_130": {
        "hidden_size": 260,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 257,
        "vocab_size": 1031,
        "hidden_act": "silu",
    },
}
"""Sizes that no vector width, tile or cache line divides, and every activation with a kernel of its own."""

BASE: dict[str, Any] = {
    "vocab_size": 21128,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
"""BERT-base with the vocabulary of bert-base-chinese."""


@dataclass(frozen=True)
class Reference:
    """Two copies of the same weights."""

    f32: transformers.BertModel
    f64: transformers.BertModel

    @classmethod
    def of(cls, folder: Path, attn_implementation: str = "sdpa") -> Reference:
        def load(dtype: torch.dtype) -> transformers.BertModel:
            model, report = transformers.BertModel.from_pretrained(
                folder, dtype=dtype, attn_implementation=attn_implementation, output_loading_info=True
            )
            assert not report["missing_keys"], report
            return model.eval()

        return cls(load(torch.float32), load(torch.float64))

    @torch.no_grad()
    def __call__(self, **inputs: Any) -> tuple[Any, Any]:
        """The outputs in float32 and in float64."""
        return self.f32(**inputs), self.f64(**inputs)


def random_batch(config: dict[str, Any], lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Right-padded ids, types and mask, int64 (B, S), for sequences of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    columns = torch.arange(max(lengths))[None]
    mask = (columns < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(1, config["vocab_size"], shape, generator=generator)
    types = torch.randint(0, config["type_vocab_size"], shape, generator=generator)
    return {"input_ids": ids * mask, "token_type_ids": types * mask, "attention_mask": mask}


@cache
def reference_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """That of ``transformers``, loaded once."""
    return transformers.AutoTokenizer.from_pretrained(folder)


def real_batch(folder: Path, texts: list[str], max_length: int) -> dict[str, Tensor]:
    """Right-padded ids of real texts, by the reference tokenizer."""
    tokenizer = reference_tokenizer(folder)
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    return dict(encoded)
