"""The torch twins of RoBERTa and ALBERT beside ``transformers``: numbers, gradients, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

import bertfast
from bertfast.errors import ConfigError, ShapeError
from bertfast.models import AlbertConfig, AlbertModel, BertModel, RobertaConfig
from bertfast.models.backend import model_class_of
from tolerance import assert_as_good_as_transformers, assert_gradients_close

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "max_position_embeddings": 50,
    "initializer_range": 0.1,
}
KINDS = {
    "roberta": (
        transformers.RobertaConfig,
        transformers.RobertaModel,
        {"type_vocab_size": 1, "pad_token_id": 1},
    ),
    "xlm-roberta": (transformers.XLMRobertaConfig, transformers.XLMRobertaModel, {"pad_token_id": 3}),
    "camembert": (transformers.CamembertConfig, transformers.CamembertModel, {"type_vocab_size": 1}),
    "albert": (transformers.AlbertConfig, transformers.AlbertModel, {"embedding_size": 26}),
    "albert-groups": (
        transformers.AlbertConfig,
        transformers.AlbertModel,
        {"embedding_size": 36, "num_hidden_layers": 5, "num_hidden_groups": 2},
    ),
}
ROBERTAS = ("roberta", "xlm-roberta", "camembert")


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make_config, make_model, changes = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    make_model(make_config(**SIZES | changes)).save_pretrained(folder)
    return folder


def twin(folder: Path) -> type[BertModel]:
    return model_class_of((folder / "config.json").read_text())


def reference(folder: Path, dtype: torch.dtype) -> Any:
    return transformers.AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def make_batch(folder: Path, pattern: str) -> dict[str, Tensor]:
    padding = json.loads((folder / "config.json").read_text())["pad_token_id"]
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(padding + 1, 97, (4, 20), generator=generator)
    columns = torch.arange(20)[None]
    lengths = torch.tensor([20, 1, 13, 7])[:, None]
    mask = {
        "right": columns < lengths,
        "left": columns >= 20 - lengths,
        "inside": torch.ones(4, 20, dtype=torch.bool),
        "holes": (columns != 2) & (columns != 9) | (columns == 0) & (lengths > 0),
    }[pattern]
    if pattern in ("right", "left"):
        ids[~mask] = padding
    elif pattern == "inside":
        ids[:, [2, 3, 9]] = padding
    return {"input_ids": ids, "attention_mask": mask.long()}


@pytest.mark.parametrize("pattern", ["right", "left", "inside", "holes"])
def test_numbers(folder: Path, pattern: str) -> None:
    batch = make_batch(folder, pattern)
    mask = batch["attention_mask"].bool()
    ours = twin(folder).from_pretrained(folder)
    with torch.no_grad():
        f32, f64, got = (
            model(**batch, output_hidden_states=True)
            for model in (reference(folder, torch.float32), reference(folder, torch.float64), ours)
        )
    assert len(got.hidden_states) == len(f64.hidden_states)
    for index in range(len(f64.hidden_states)):
        triple = (out.hidden_states[index][mask] for out in (got, f32, f64))
        assert_as_good_as_transformers(*triple, f"hidden_states[{index}]")
    first = mask[:, 0]
    assert_as_good_as_transformers(*(out.pooler_output[first] for out in (got, f32, f64)), "pooler_output")


def test_gradients(folder: Path) -> None:
    batch = make_batch(folder, "right")
    mask = batch["attention_mask"].bool()

    def gradients(model: Any) -> dict[str, Tensor]:
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        hidden = model(**batch).last_hidden_state[mask]
        (hidden * torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view_as(hidden)).sum().backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    ours = gradients(twin(folder).from_pretrained(folder, attn_implementation="sdpa"))
    f32, f64 = (gradients(reference(folder, dtype)) for dtype in (torch.float32, torch.float64))
    shared = ours.keys() & f64.keys()
    assert {name for name in ours if not name.startswith("pooler")} == shared
    assert_gradients_close(
        {n: ours[n] for n in shared}, {n: f64[n] for n in shared}, {n: f32[n] for n in shared}
    )


def test_tree_and_start_values(folder: Path) -> None:
    config = twin(folder).config_class.from_pretrained(folder)
    ours, theirs = twin(folder)(config), reference(folder, torch.float32)
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes
    padding = config.pad_token_id
    embeddings = [ours.embeddings.word_embeddings]
    if config.first_position:
        embeddings.append(ours.embeddings.position_embeddings)
    for embedding in embeddings:
        assert embedding.padding_idx == padding
        assert not embedding.weight[padding].any()
        assert embedding.weight[padding + 1].std() > 0.05


def test_saved_it_opens_everywhere(folder: Path, tmp_path: Path) -> None:
    model = twin(folder).from_pretrained(folder)
    model.save_pretrained(tmp_path)
    kept, written = (json.loads((path / "config.json").read_text()) for path in (folder, tmp_path))
    assert written["model_type"] == kept["model_type"]
    batch = make_batch(folder, "right")
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = model(**batch).last_hidden_state[mask]
        theirs = reference(tmp_path, torch.float32)(**batch).last_hidden_state[mask]
    torch.testing.assert_close(theirs, expected, rtol=0, atol=2e-5)
    arrays = {name: tensor.numpy() for name, tensor in batch.items()}
    for encoder in (
        model.to_encoder(),
        bertfast.Encoder.from_pretrained(tmp_path),
        bertfast.Encoder.from_pretrained(tmp_path, backend="torch"),
    ):
        got = encoder(**arrays).last_hidden_state[mask.numpy()]
        np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=2e-5)
        assert encoder.max_seq_length == 50 - model.config.first_position


def test_embeddings_in_place_of_ids(folder: Path) -> None:
    ours, theirs = twin(folder).from_pretrained(folder), reference(folder, torch.float32)
    width = ours.config.embedding_width
    embeds = torch.randn(2, 7, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, expected = (model(inputs_embeds=embeds).last_hidden_state for model in (ours, theirs))
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)


def test_too_long_and_too_small(folder: Path) -> None:
    model = twin(folder).from_pretrained(folder)
    longest = 50 - model.config.first_position
    with torch.no_grad():
        model(torch.full((1, longest), 5))
        with pytest.raises(ShapeError, match=f"positions for {longest}"):
            model(torch.full((1, longest + 1), 5))
    with pytest.raises(ConfigError, match="expected more than 2"):
        RobertaConfig(max_position_embeddings=2)
    with pytest.raises(ConfigError, match="'roberta' or 'xlm-roberta' or 'camembert', got 'bert'"):
        RobertaConfig.from_dict({"model_type": "bert"})
    with pytest.raises(ConfigError, match="inner_group_num: expected 1, got 2"):
        AlbertConfig(inner_group_num=2)
    with pytest.raises(ConfigError, match="13 groups are more than the 12 layers"):
        AlbertConfig(num_hidden_groups=13)
    small = AlbertConfig(**SIZES | {"embedding_size": 26})
    with pytest.raises(ShapeError, match=r"inputs_embeds: expected shape \(B, S, 26\)"):
        AlbertModel(small)(inputs_embeds=torch.zeros(1, 2, 36))


def test_shared_layers_are_trained_together() -> None:
    model = AlbertModel(AlbertConfig(**SIZES | {"embedding_size": 26}))
    assert sum("ffn.weight" in name for name, _ in model.named_parameters()) == 1
    model(torch.tensor([[5, 6, 7]])).last_hidden_state.sum().backward()
    assert model.encoder.albert_layer_groups[0].albert_layers[0].ffn.weight.grad is not None
