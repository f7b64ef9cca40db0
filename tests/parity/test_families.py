"""Every family of models beside ``transformers``: random weights, odd sizes, padded and ragged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import bertfast
from bertfast import _bertfast
from bertfast.checkpoint import PACKED_FILE, find_weight_files, read_config
from bertfast.errors import ArgumentError, CheckpointError, ConfigError, ShapeError
from family_models import LENGTHS, MODELS, make_batch, make_folder
from tolerance import assert_as_good_as_transformers, cosines


class Reference:
    def __init__(self, folder: Path, name: str) -> None:
        self.f32, self.f64 = (
            MODELS[name][1].from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
            for dtype in (torch.float32, torch.float64)
        )

    @torch.no_grad()
    def __call__(self, **inputs: Any) -> tuple[Any, Any]:
        wanted = {"output_hidden_states": True, "output_attentions": True}
        return self.f32(**inputs, **wanted), self.f64(**inputs, **wanted)


def assert_all_outputs(ours: Any, f32: Any, f64: Any, valid: Any, rows: Any) -> None:
    triples = [("last_hidden_state", ours.last_hidden_state, f32.last_hidden_state, f64.last_hidden_state)]
    assert len(ours.hidden_states) == len(f64.hidden_states)
    for index, values in enumerate(ours.hidden_states):
        triples.append(
            (f"hidden_states[{index}]", values, f32.hidden_states[index], f64.hidden_states[index])
        )
    for what, a, b, truth in triples:
        assert_as_good_as_transformers(rows(a), valid(b), valid(truth), what)
    if getattr(f64, "pooler_output", None) is not None:
        assert_as_good_as_transformers(
            ours.pooler_output, f32.pooler_output, f64.pooler_output, "pooler_output"
        )
    else:
        assert ours.pooler_output is None


@pytest.mark.parametrize("name", MODELS)
def test_padded_and_ragged(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path, name)
    batch = make_batch(name, LENGTHS)
    f32, f64 = Reference(folder, name)(**batch)
    encoder = bertfast.Encoder.from_pretrained(folder)
    assert encoder.info()["unused"] == []
    mask = batch["attention_mask"].bool()

    ours = encoder(
        **{key: value.numpy() for key, value in batch.items()},
        output_hidden_states=True,
        output_attentions=True,
    )
    assert_all_outputs(ours, f32, f64, lambda x: x[mask], lambda x: x[mask.numpy()])
    for layer, (got, theirs, truth) in enumerate(
        zip(ours.attentions, f32.attentions, f64.attentions, strict=True)
    ):
        for row, length in enumerate(LENGTHS):
            part = (row, slice(None), slice(length), slice(length))
            assert_as_good_as_transformers(
                got[part], theirs[part], truth[part], f"attentions[{layer}][{row}]"
            )

    ends = np.concatenate([[0], np.cumsum(LENGTHS)])
    types = batch.get("token_type_ids")
    ragged = encoder.forward_ragged(
        batch["input_ids"][mask].numpy(),
        ends,
        None if types is None else types[mask].numpy(),
        output_hidden_states=True,
    )
    assert_all_outputs(ragged, f32, f64, lambda x: x[mask], lambda x: x)


@pytest.mark.parametrize("name", MODELS)
def test_one_sequence_on_all_threads(tmp_path: Path, name: str) -> None:
    """Few rows are shared by columns: another way through the same layers."""
    folder = make_folder(tmp_path, name)
    for length in (1, 5, 16):
        batch = make_batch(name, [length])
        f32, f64 = Reference(folder, name)(**batch)
        ours = bertfast.Encoder.from_pretrained(folder)(
            **{key: value.numpy() for key, value in batch.items()}, output_hidden_states=True
        )
        assert_all_outputs(ours, f32, f64, lambda x: x, lambda x: x)


@pytest.mark.parametrize("name", ["roberta", "xlm_roberta_padding_3"])
@pytest.mark.parametrize("pattern", ["left", "padding_inside", "holes"])
def test_positions_behind_the_padding_token(tmp_path: Path, name: str, pattern: str) -> None:
    folder = make_folder(tmp_path, name)
    batch = make_batch(name, [20] * 4)
    padding = MODELS[name][2]["pad_token_id"]
    if pattern == "left":
        mask = torch.arange(20)[None] >= torch.tensor([0, 3, 19, 7])[:, None]
        batch["input_ids"][~mask] = padding
        batch["attention_mask"] = mask.long()
    elif pattern == "padding_inside":
        batch["input_ids"][:, [2, 3, 9]] = padding
    else:
        batch["attention_mask"][:, [2, 3, 9]] = 0
    mask = batch["attention_mask"].bool()
    f32, f64 = Reference(folder, name)(**batch)
    encoder = bertfast.Encoder.from_pretrained(folder)
    ours = encoder(**{key: value.numpy() for key, value in batch.items()})
    assert_as_good_as_transformers(
        ours.last_hidden_state[mask.numpy()], f32.last_hidden_state[mask], f64.last_hidden_state[mask]
    )
    if pattern == "padding_inside":
        ragged = encoder.forward_ragged(
            batch["input_ids"].ravel().numpy(), [0, 20, 40, 60, 80], batch["token_type_ids"].ravel().numpy()
        )
        theirs = (o.last_hidden_state.reshape(80, -1) for o in (f32, f64))
        assert_as_good_as_transformers(ragged.last_hidden_state, *theirs)


@pytest.mark.parametrize("name", ["roberta", "albert", "albert_groups", "distilbert", "electra"])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_other_dtypes_stay_close(tmp_path: Path, name: str, dtype: str) -> None:
    if dtype not in _bertfast.dtypes():
        pytest.skip(f"this CPU does not multiply {dtype}")
    wide = (
        {"dim": 96, "hidden_dim": 192}
        if name == "distilbert"
        else {"hidden_size": 96, "intermediate_size": 192}
    )
    folder = make_folder(tmp_path / "model", name, **wide)
    batch = {key: value.numpy() for key, value in make_batch(name, LENGTHS).items()}
    mask = batch["attention_mask"].astype(bool)
    exact = bertfast.Encoder.from_pretrained(folder)(**batch).last_hidden_state[mask]
    encoder = bertfast.Encoder.from_pretrained(folder, dtype=dtype)
    layers = {"albert": 1, "albert_groups": 2}.get(name, 3)
    assert encoder.info()["layer_dtypes"] == [dtype] * layers
    got = encoder(**batch).last_hidden_state[mask]
    assert cosines(got, exact).min() > {"bfloat16": 0.999, "int8": 0.995}[dtype]
    assert not np.array_equal(got, exact)


@pytest.mark.parametrize("name", ["roberta", "albert_groups", "distilbert", "electra"])
def test_a_packed_folder_gives_the_same_bits(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "model", name)
    exact = bertfast.Encoder.from_pretrained(folder)
    layers = len(exact.info()["layer_dtypes"])
    packed = tmp_path / "packed"
    packed.mkdir()
    config = read_config(folder)
    (packed / "config.json").write_text(config)
    weights = [str(path) for path in find_weight_files(folder)]
    _bertfast.pack(config, weights, ["float32"] * layers, packed / PACKED_FILE, None)
    again = bertfast.Encoder.from_pretrained(packed)
    assert again.info()["mapped"]
    batch = {key: value.numpy() for key, value in make_batch(name, LENGTHS).items()}
    assert np.array_equal(again(**batch).last_hidden_state, exact(**batch).last_hidden_state)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("roberta", transformers.RobertaForMaskedLM),
        ("xlm_roberta_padding_3", transformers.XLMRobertaForSequenceClassification),
        ("albert", transformers.AlbertForTokenClassification),
        ("distilbert", transformers.DistilBertForQuestionAnswering),
        ("electra", transformers.ElectraForPreTraining),
    ],
)
def test_checkpoints_of_classes_with_a_head(tmp_path: Path, name: str, head: Any) -> None:
    folder = make_folder(tmp_path, name, head)
    encoder = bertfast.Encoder.from_pretrained(folder)
    assert encoder.info()["unused"], "the head"
    batch = make_batch(name, [9, 4])
    f32, f64 = Reference(folder, name)(**batch)
    mask = batch["attention_mask"].bool()
    ours = encoder(**{key: value.numpy() for key, value in batch.items()})
    assert_as_good_as_transformers(
        ours.last_hidden_state[mask.numpy()], f32.last_hidden_state[mask], f64.last_hidden_state[mask]
    )


def test_longest_sequence_behind_the_padding_token(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "roberta")
    encoder = bertfast.Encoder.from_pretrained(folder)
    assert encoder.max_seq_length == 68
    assert encoder([[5] * 68]).last_hidden_state.shape == (1, 68, 36)
    with pytest.raises(ShapeError, match="at most 68"):
        encoder([[5] * 69])
    with pytest.raises(ShapeError, match="at most 68"):
        encoder.forward_ragged([5] * 69, [0, 69])


def test_token_types_where_there_are_none(tmp_path: Path) -> None:
    encoder = bertfast.Encoder.from_pretrained(make_folder(tmp_path, "distilbert"))
    with pytest.raises(ArgumentError, match="no token types"):
        encoder([[5, 6]], token_type_ids=[[0, 0]])
    with pytest.raises(ArgumentError, match="no token types"):
        encoder.forward_ragged([5, 6], [0, 2], [0, 0])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("albert", {"inner_group_num": 2}, "inner_group_num: expected 1"),
        ("albert", {"num_hidden_groups": 4}, "num_hidden_groups: 4 groups are more than the 3 layers"),
        ("distilbert", {"n_heads": 7}, "7 heads do not divide"),
        ("distilbert", {"dim": None}, "dim is missing"),
        ("roberta", {"max_position_embeddings": 2}, "max_position_embeddings: expected more than 2"),
        ("roberta", {"model_type": "mpnet"}, "model_type: expected one of"),
    ],
)
def test_configurations_that_cannot_be(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    folder = make_folder(tmp_path, name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConfigError, match=message):
        bertfast.Encoder.from_pretrained(folder)


def test_a_checkpoint_of_another_family_lists_what_is_missing(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "electra_equal_widths")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "albert"}))
    with pytest.raises(CheckpointError, match="albert_layer_groups"):
        bertfast.Encoder.from_pretrained(folder)


def test_positions_without_a_padding_token_begin_at_1(tmp_path: Path) -> None:
    """Padded and ragged alike: transformers has no such model, but a file may say null."""
    folder = make_folder(tmp_path, "roberta")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    encoder = bertfast.Encoder.from_pretrained(folder)
    ids = np.array([[5, 6, 7]])
    expected = encoder(ids, position_ids=np.array([[1, 2, 3]])).last_hidden_state
    assert np.array_equal(encoder(ids).last_hidden_state, expected)
    assert np.array_equal(encoder.forward_ragged(ids[0], [0, 3]).last_hidden_state, expected[0])
