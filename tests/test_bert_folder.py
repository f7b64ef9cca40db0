"""The random models that other tests use are what `transformers` takes them for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from bert_folder import make_bert_folder


@pytest.mark.parametrize("pooler", [True, False])
def test_transformers_reads_every_tensor(tmp_path: Path, pooler: bool) -> None:
    folder = make_bert_folder(tmp_path, pooler=pooler, hidden_size=36, num_attention_heads=3)
    model, loaded = transformers.BertModel.from_pretrained(
        folder, add_pooling_layer=pooler, output_loading_info=True
    )
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    output = model(torch.tensor([[1, 2, 3]])).last_hidden_state
    assert output.shape == (1, 3, 36)
    assert torch.isfinite(output).all()


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first, second = make_bert_folder(tmp_path / "first"), make_bert_folder(tmp_path / "second")
    other = make_bert_folder(tmp_path / "other", seed=1)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (first, second, other)]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_real_texts_are_mixed(real_texts: list[str]) -> None:
    lengths = sorted(map(len, real_texts))
    assert len(lengths) == 2000
    assert lengths[0] < 50
    assert lengths[1000] > 100
    assert lengths[-1] > 1000
