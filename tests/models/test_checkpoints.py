"""Configurations and Hugging Face folders, read and written by the torch module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.numpy import save_file

from bert_folder import TINY, bert_tensors, make_bert_folder
from bertfast.errors import CheckpointError, ConfigError
from bertfast.models import BertConfig, BertModel


def same_weights(a: BertModel, b: Any) -> bool:
    theirs = b.state_dict()
    return a.state_dict().keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items()
    )


# -------------------------------------------------------------------------------------------- configuration


def test_defaults_are_those_of_transformers() -> None:
    theirs = transformers.BertConfig().to_dict()
    assert {name: theirs[name] for name in BertConfig().to_dict()} == BertConfig().to_dict()


def test_config_loses_nothing() -> None:
    values = TINY | {
        "id2label": {"0": "a"},
        "label2id": {"a": 0},
        "torch_dtype": "float16",
        "use_cache": True,
        "pad_token_id": None,
    }
    config = BertConfig.from_dict(values)
    assert config.hidden_size == 32
    assert config.pad_token_id is None
    assert config.to_dict() == values
    assert BertConfig.from_dict(config.to_dict()) == config


def test_null_counts_as_left_out() -> None:
    assert BertConfig.from_dict({"hidden_act": None, "layer_norm_eps": None}) == BertConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, "num_attention_heads: 5 heads do not divide hidden_size 32"),
        ({"hidden_act": "mish"}, "hidden_act: expected one of gelu, .* got 'mish'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected a positive integer, got 0"),
        ({"vocab_size": "97"}, "vocab_size: expected a positive integer, got '97'"),
        ({"hidden_size": True}, "hidden_size: expected a positive integer, got True"),
        ({"model_type": "gpt2"}, "model_type: expected 'bert', got 'gpt2'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: expected 'absolute'"),
        ({"is_decoder": True}, "is_decoder: expected False, got True"),
        ({"hidden_act": ["gelu"]}, "hidden_act: expected one of"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps: expected a number of at least 0, got -1.0"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob: expected a number"),
        ({"pad_token_id": "[PAD]"}, "pad_token_id: expected None or 0 to 96"),
        ({"pad_token_id": 97}, "pad_token_id: expected None or 0 to 96, got 97"),
    ],
)
def test_wrong_config(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BertConfig.from_dict(TINY | change)


@pytest.mark.parametrize("text", ["{", "[]", "null", ""])
def test_config_that_is_not_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        BertConfig.from_pretrained(tmp_path)


# -------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saved_folder_opens_in_transformers(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    # "torch_dtype" as an older file would have it, and wrong for what is saved here.
    config = BertConfig.from_dict(TINY | {"torch_dtype": "float64", "architectures": ["BertForMaskedLM"]})
    model = BertModel(config).to(dtype)
    model.save_pretrained(tmp_path)
    theirs, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.dtype == dtype
    assert same_weights(model, theirs)
    assert same_weights(model, BertModel.from_pretrained(tmp_path, dtype=dtype))
    assert BertConfig.from_pretrained(tmp_path).extra["architectures"] == ["BertModel"]


def test_folder_of_transformers_opens_here(tmp_path: Path) -> None:
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**TINY, num_labels=3)).eval()
    theirs.save_pretrained(tmp_path)
    ours = BertModel.from_pretrained(tmp_path)
    assert not ours.training
    assert same_weights(ours, theirs.bert)
    assert ours.config.id2label.keys() == {0, 1, 2}
    again = tmp_path / "again"
    ours.save_pretrained(again)
    assert transformers.BertConfig.from_pretrained(again).num_labels == 3


def test_old_names_prefix_and_shards(tmp_path: Path) -> None:
    expected = BertModel.from_pretrained(make_bert_folder(tmp_path / "new"))
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text(json.dumps(TINY))
    renamed = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in bert_tensors(TINY).items()
    }
    names = sorted(renamed)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, its_names in shards.items():
        save_file({name: renamed[name] for name in its_names}, old / shard)
    index = {"weight_map": {name: shard for shard, its_names in shards.items() for name in its_names}}
    (old / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same_weights(BertModel.from_pretrained(old), expected)


def test_subfolder(tmp_path: Path) -> None:
    expected = BertModel.from_pretrained(make_bert_folder(tmp_path / "inside"))
    assert same_weights(BertModel.from_pretrained(tmp_path, subfolder="inside"), expected)
    with pytest.raises(FileNotFoundError):
        BertModel.from_pretrained(tmp_path / "gone")


def test_no_pooler_in_the_file(tmp_path: Path) -> None:
    model = BertModel.from_pretrained(make_bert_folder(tmp_path, pooler=False))
    assert model.pooler is None
    assert model(torch.tensor([[1, 2]])).pooler_output is None


def test_parameters_do_not_hang_on_the_file(tmp_path: Path) -> None:
    model = BertModel.from_pretrained(make_bert_folder(tmp_path))
    assert all(parameter.requires_grad for parameter in model.parameters())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-4000, 2)
        file.write(b"\xff" * 4000)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_everything_missing_or_misshapen_is_listed(tmp_path: Path) -> None:
    make_bert_folder(tmp_path)
    tensors = bert_tensors(TINY)
    del tensors["encoder.layer.1.output.dense.bias"], tensors["pooler.dense.weight"]
    tensors["embeddings.word_embeddings.weight"] = tensors["embeddings.word_embeddings.weight"][:90]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        BertModel.from_pretrained(tmp_path)
    message = str(caught.value)
    assert "encoder.layer.1.output.dense.bias [32] is missing" in message
    assert "pooler.dense.weight [32, 32] is missing" in message
    assert "embeddings.word_embeddings.weight has shape [90, 32], expected [97, 32]" in message


def test_damaged_files(tmp_path: Path) -> None:
    make_bert_folder(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], b"\xff" * 8 + whole[8:]):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            BertModel.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        BertModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError):
        BertModel.from_pretrained(tmp_path)


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    make_bert_folder(tmp_path)
    tensors = bert_tensors(TINY)
    tensors["bert.pooler.dense.bias"] = tensors["pooler.dense.bias"] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"two tensors for pooler\.dense\.bias"):
        BertModel.from_pretrained(tmp_path)
