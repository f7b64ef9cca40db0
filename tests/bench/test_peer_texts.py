"""What the peers get for text: order, truncation and pooling must be right, or the comparison is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bertfast.bench import random_model
from bertfast.bench.engines import Setup
from bertfast.bench.peer_texts import BATCH_SIZE, PeerTexts
from bertfast.errors import ConfigError

TRANSFORMER = {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_model.write(tmp_path, "1x64")
    return tmp_path


def add_modules(folder: Path, pooling: dict[str, object], *more: str) -> None:
    modules = [TRANSFORMER, {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    modules += [{"idx": 2, "path": "2", "type": f"sentence_transformers.models.{name}"} for name in more]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))


def peer(folder: Path) -> PeerTexts:
    return PeerTexts(Setup(folder, folder, 1))


def run_ids(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Hidden states that tell token and place; a huge number where padding must not be looked at."""
    columns = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    hidden = np.stack([ids, columns, -ids], axis=2).astype(np.float32)
    return np.where(mask[:, :, None] == 1, hidden, 1e30).astype(np.float32)


def ids_of(text: str, folder: Path) -> list[int]:
    words = (folder / "vocab.txt").read_text().split("\n")
    return [words.index("[CLS]"), *(words.index(word) for word in text.split()), words.index("[SEP]")]


TEXTS = ["baba", "bebe bibi bobo bubu", "dada dede"]


def test_mean_without_normalization_is_the_default(folder: Path):
    vectors = peer(folder).encode(TEXTS, run_ids)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = ids_of(text, folder)
        expected = [np.mean(ids), (len(ids) - 1) / 2, -np.mean(ids)]
        assert vector == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "config", [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}]
)
def test_cls(folder: Path, config: dict[str, object]):
    add_modules(folder, config)
    cls = ids_of("", folder)[0]
    assert peer(folder).encode(TEXTS, run_ids).tolist() == [[cls, 0, -cls]] * 3


def test_max_and_normalize(folder: Path):
    add_modules(folder, {"pooling_mode_max_tokens": True}, "Normalize")
    vectors = peer(folder).encode(TEXTS, run_ids)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = ids_of(text, folder)
        expected = np.array([max(ids), len(ids) - 1, -min(ids)])
        assert vector == pytest.approx(expected / np.linalg.norm(expected), rel=1e-6)


def test_batches_are_sorted_by_length_and_the_result_is_not(folder: Path):
    texts = [" ".join(["baba"] * n) for n in np.random.default_rng(0).permutation(BATCH_SIZE * 2 + 5)]
    shapes = []

    def spy(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        shapes.append(ids.shape)
        return run_ids(ids, mask)

    vectors = peer(folder).encode(texts, spy)
    assert shapes == [(32, 70), (32, 38), (5, 6)]
    assert [2 * v + 1 for v in vectors[:, 1]] == [len(text.split()) + 2 for text in texts]


def test_texts_are_truncated_as_the_folder_says(folder: Path):
    long = " ".join(["baba"] * 1000)
    assert peer(folder).count_tokens([long, ""]) == [512, 2]
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 128, "do_lower_case": false}')
    assert peer(folder).count_tokens([long, "baba"]) == [128, 3]


@pytest.mark.parametrize(
    ("pooling", "more", "message"),
    [
        ({"pooling_mode_mean_sqrt_len_tokens": True}, [], "pooling_mode_mean_sqrt_len_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, [], "pooling"),
        ({}, [], "pooling None"),
        ({"pooling_mode_mean_tokens": True}, ["Dense"], "a Dense module"),
    ],
)
def test_what_the_peers_cannot_get_is_an_error(folder: Path, pooling, more, message):
    add_modules(folder, pooling, *more)
    with pytest.raises(ConfigError, match=message):
        peer(folder)
