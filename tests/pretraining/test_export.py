"""Samples as files with Google's columns, and as a person reads them."""

import json
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

import bertfast
from bertfast.errors import ArgumentError
from bertfast.pretraining import PretrainingConfig, PretrainingDataset, build_corpus
from bertfast.pretraining.export import export_samples
from bertfast.pretraining.show import render


@pytest.fixture(scope="module")
def store(data_dir: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    verses = (data_dir / "bible.txt").read_text(encoding="utf-8").splitlines()[:400]
    folder = tmp_path_factory.mktemp("export")
    text = "\n\n".join("\n".join(verses[start : start + 20]) for start in range(0, 400, 20))
    (folder / "bible.txt").write_text(text, encoding="utf-8")
    build_corpus([folder / "bible.txt"], bertfast.Tokenizer.from_pretrained(minilm), folder / "store")
    return folder / "store"


def make(store: Path, preset: str, **changes: object) -> PretrainingDataset:
    return PretrainingDataset(store, PretrainingConfig.preset(preset, max_seq_length=64, **changes), seed=3)


def rows_of(path: Path) -> list[dict]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("preset", ["bert", "albert", "roberta", "spanbert"])
def test_files_have_the_samples(store: Path, tmp_path: Path, preset: str, kind: str):
    dataset = make(store, preset, dupe_factor=2)
    path = tmp_path / f"samples.{kind}"
    assert export_samples(dataset, str(path), format=kind) == len(dataset)
    rows = rows_of(path)
    assert len(rows) == len(dataset) > 100
    is_pair = preset in ("bert", "albert")
    names = ["input_ids", "input_mask", *(["segment_ids"] if is_pair else []), "masked_lm_positions"]
    names += ["masked_lm_ids", "masked_lm_weights", *(["next_sentence_labels"] if is_pair else [])]
    assert list(rows[0]) == names
    for number in (0, 1, 57, len(dataset) - 1):
        row, sample = rows[number], dataset[number]
        length = len(sample["input_ids"])
        assert row["input_ids"] == [*sample["input_ids"], *[0] * (64 - length)]
        assert row["input_mask"] == [1] * length + [0] * (64 - length)
        positions = np.flatnonzero(sample["labels"] != -100).tolist()
        padding = [0] * (10 - len(positions) if is_pair else 0)
        assert row["masked_lm_positions"] == positions + padding
        assert row["masked_lm_ids"] == sample["labels"][positions].tolist() + padding
        assert row["masked_lm_weights"] == [1.0] * len(positions) + [0.0] * len(padding)
        if is_pair:
            assert row["segment_ids"] == [*sample["token_type_ids"], *[0] * (64 - length)]
            label = sample["next_sentence_label" if preset == "bert" else "sentence_order_label"]
            assert row["next_sentence_labels"] == [label]


def test_the_package_datasets_reads_them(store: Path, tmp_path: Path):
    dataset = make(store, "bert")
    for kind, loader in (("parquet", "parquet"), ("jsonl", "json")):
        path = tmp_path / f"samples.{kind}"
        export_samples(dataset, str(path), format=kind)
        cache = str(tmp_path / "cache")
        loaded = datasets.load_dataset(loader, data_files=str(path), split="train", cache_dir=cache)
        assert len(loaded) == len(dataset)
        assert loaded[5]["masked_lm_ids"] == rows_of(path)[5]["masked_lm_ids"]


def test_nothing_is_left_of_a_file_that_failed(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = make(store, "bert")
    with pytest.raises(ArgumentError, match="format: expected one of 'parquet', 'jsonl'"):
        export_samples(dataset, str(tmp_path / "x"), format="tfrecord")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        export_samples(dataset, str(tmp_path / "no" / "x.jsonl"), format="jsonl")
    (tmp_path / "x").write_text("before")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"bertfast\[corpus\]"):
        export_samples(dataset, str(tmp_path / "x"))
    assert (tmp_path / "x").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_sample_as_a_person_reads_it(minilm: Path):
    tokenizer = bertfast.Tokenizer.from_pretrained(minilm)
    ids = np.array(tokenizer("unbelievably good food", "中国人 ##")["input_ids"])
    labels = np.full_like(ids, -100)
    sample = {"input_ids": ids, "labels": labels, "next_sentence_label": np.int64(1)}
    assert render(sample, tokenizer).splitlines() == [
        "[CLS] unbelievably good food [SEP] 中 国 人 # # [SEP]",
        "next_sentence_label 1: sentences of another document",
    ]
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    masked, random, kept = (tokens.index(token) for token in ("##ie", "good", "food"))
    labels[[masked, random, kept]] = ids[[masked, random, kept]]
    ids[masked], ids[random] = tokenizer.mask_token_id, tokenizer.convert_tokens_to_ids("cat")
    del sample["next_sentence_label"]
    assert render(sample, tokenizer) == (
        "[CLS] unbel[MASK](ie)vably {cat}(good) <food>(food) [SEP] 中 国 人 # # [SEP]"
    )
    coloured = render(sample, tokenizer, color=True)
    assert "\x1b[1;31m[MASK]\x1b[0m\x1b[32mie\x1b[0mvably" in coloured
    assert "{" not in coloured
