"""A random model is a real Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import AutoModel

from bertfast.bench import random_model
from bertfast.bench.workloads import ModelShape
from bertfast.errors import ArgumentError


def test_transformers_opens_it_and_misses_nothing(tmp_path: Path):
    random_model.write(tmp_path, "2x128")
    model, info = AutoModel.from_pretrained(str(tmp_path), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert model.config.num_attention_heads == 2
    weight = model.encoder.layer[1].output.dense.weight
    assert weight.shape == (128, 512)
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.embeddings.LayerNorm.weight.mean().item() == pytest.approx(1, abs=0.01)
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).last_hidden_state).all()


def test_the_same_size_gives_the_same_weights(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        random_model.write(tmp_path / name, "1x64")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_the_invented_vocabulary_knows_words_and_pieces(tmp_path: Path):
    random_model.write(tmp_path, "1x64")
    words = (tmp_path / "vocab.txt").read_text().split("\n")[:-1]
    assert len(words) == len(set(words)) == random_model.VOCABULARY == ModelShape.read(tmp_path).vocabulary
    tokens = BertWordPieceTokenizer(str(tmp_path / "vocab.txt")).encode("Baba bababebe, q!").tokens
    assert tokens == ["[CLS]", "baba", "bababe", "##b", "##e", ",", "q", "!", "[SEP]"]


def test_a_vocabulary_can_be_given(tmp_path: Path, zh_vocab: Path):
    random_model.write(tmp_path, "1x64", zh_vocab)
    assert (tmp_path / "vocab.txt").read_bytes() == zh_vocab.read_bytes()
    assert ModelShape.read(tmp_path).vocabulary == 21128


@pytest.mark.parametrize("size", ["", "12", "x768", "12x", "0x64", "12x0", "1x100", "12x768x3", "1 x 64"])
def test_other_sizes_are_errors(tmp_path: Path, size: str):
    with pytest.raises(ArgumentError, match="--random"):
        random_model.write(tmp_path, size)
