"""Hugging Face folders of small random BERTs, written by numpy and safetensors alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

TINY: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.1,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
}


def bert_tensors(config: dict[str, Any], *, pooler: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 weights of a BERT, by the names that `transformers.BertModel.state_dict()` has.

    Nothing is left at its initial 0 or 1 (biases, LayerNorm), so that nothing can be forgotten unnoticed.
    """
    random = np.random.default_rng(seed)
    scale = config["initializer_range"]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    tensors: dict[str, np.ndarray] = {}

    def normal(name: str, *shape: int, mean: float = 0.0) -> None:
        tensors[name] = random.normal(mean, scale, shape).astype(np.float32)

    def linear(name: str, outputs: int, inputs: int) -> None:
        normal(f"{name}.weight", outputs, inputs)
        normal(f"{name}.bias", outputs)

    def layer_norm(name: str) -> None:
        normal(f"{name}.weight", hidden, mean=1.0)
        normal(f"{name}.bias", hidden)

    normal("embeddings.word_embeddings.weight", config["vocab_size"], hidden)
    normal("embeddings.position_embeddings.weight", config["max_position_embeddings"], hidden)
    normal("embeddings.token_type_embeddings.weight", config["type_vocab_size"], hidden)
    layer_norm("embeddings.LayerNorm")
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", hidden, hidden)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        layer_norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", inner, hidden)
        linear(f"{layer}.output.dense", hidden, inner)
        layer_norm(f"{layer}.output.LayerNorm")
    if pooler:
        linear("pooler.dense", hidden, hidden)
    return tensors


def make_bert_folder(folder: Path, *, pooler: bool = True, seed: int = 0, **config: Any) -> Path:
    """Write `config.json` and `model.safetensors` of a random BERT into `folder`, which is made if need be.

    Args:
        folder: Where to write, for example pytest's `tmp_path`.
        pooler: Whether the checkpoint has a pooler.
        seed: Same seed and configuration, same bytes.
        **config: Entries of `config.json` that differ from `TINY`.

    Returns:
        `folder`. It has no tokenizer files: add a `vocab.txt` where a test needs one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    full = TINY | config
    (folder / "config.json").write_text(json.dumps(full, indent=2))
    save_file(
        bert_tensors(full, pooler=pooler, seed=seed), folder / "model.safetensors", metadata={"format": "pt"}
    )
    return folder
