"""What `PretrainingDataset` and `PretrainingConfig` refuse, and stores that are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertfast.errors import ArgumentError, BertFastError, CorpusError, DtypeError, ShapeError
from bertfast.pretraining import Masking, PretrainingConfig, PretrainingDataset
from numbered_store import numbered, random_lengths, write_store

FORMATS = ["nsp", "sop", "full_sentences", "doc_sentences"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("corpus") / "store", numbered(random_lengths(50)))


def config(format: str = "nsp", **changes: Any) -> PretrainingConfig:
    return PretrainingConfig(**{"format": format, "max_seq_length": 64, **changes})


def test_what_is_wrong_is_an_error(store: Path, tmp_path: Path):
    dataset = PretrainingDataset(store, seed=1)
    count = len(dataset)
    for index in (count, -count - 1, 2**63, -(2**63), 2**70):
        with pytest.raises(IndexError):
            dataset[index]
    for indices in ([0, count], [-1], np.array([2**63], np.uint64)):
        with pytest.raises(IndexError):
            dataset.batch(indices)
        with pytest.raises(IndexError):
            dataset.lengths(indices)
    with pytest.raises(DtypeError, match="indices: expected integers, got float64"):
        dataset.batch([0.5])
    with pytest.raises(DtypeError, match="got bool"):
        dataset.batch(np.array([True]))
    with pytest.raises(ShapeError, match=r"expected shape \(B,\), got \(1, 1\)"):
        dataset.batch([[0]])
    with pytest.raises(ShapeError, match="indices: expected an array, got rows of different lengths"):
        dataset.batch([[0, 1], [2]])
    with pytest.raises(ArgumentError, match="padding: expected one of 'longest', 'max_length', None"):
        dataset.batch([0], padding="left")
    assert dataset.batch([])["input_ids"].shape == (0, 0)
    assert dataset.batch([], padding=None)["cu_seqlens"].tolist() == [0]
    for start, number in ((0, count + 1), (-1, 1), (count, 1), (0.5, 1)):
        with pytest.raises(ArgumentError):
            dataset.order(start, number)
    for epoch in (-1, 2**28, 1.5, True):
        with pytest.raises(ArgumentError, match="epoch: expected an integer from 0 to 268435455"):
            dataset.set_epoch(epoch)
        with pytest.raises(ArgumentError, match="epoch"):
            PretrainingDataset(store, seed=1, epoch=epoch)
    with pytest.raises(ArgumentError, match=r"epoch: expected a number in 0\.\.=134217727, got 134217728"):
        PretrainingDataset(store, config(dupe_factor=2), seed=1, epoch=2**27)
    assert dataset.epoch == 0
    for seed in (-1, 2**64, None, "1"):
        with pytest.raises(ArgumentError, match="seed: expected an integer from 0 to"):
            PretrainingDataset(store, seed=seed)
    with pytest.raises(ArgumentError, match="num_threads"):
        PretrainingDataset(store, seed=1, num_threads=0)
    with pytest.raises(ArgumentError, match="num_threads: expected at most 65536"):
        PretrainingDataset(store, seed=1, num_threads=2**64)
    with pytest.raises(TypeError, match="config: expected PretrainingConfig, got dict"):
        PretrainingDataset(store, {}, seed=1)
    with pytest.raises(FileNotFoundError):
        PretrainingDataset(store / "nothing", seed=1)
    with pytest.raises(FileNotFoundError):
        PretrainingDataset(store, seed=1, plan_folder=tmp_path / "nothing")
    with pytest.raises(OSError, match="Not a directory"):
        PretrainingDataset(store, seed=1, plan_folder=store / "tokens.bin")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"format": "mlm"},
            "format: expected one of 'nsp', 'sop', 'full_sentences', 'doc_sentences', got 'mlm'",
        ),
        ({"max_seq_length": 4}, "max_seq_length: expected an integer from 5 to 65535, got 4"),
        ({"max_seq_length": 2, "format": "doc_sentences"}, "from 3 to 65535, got 2"),
        ({"max_seq_length": 65536}, "got 65536"),
        ({"max_seq_length": 10.0}, "max_seq_length: expected a positive integer, got 10.0"),
        ({"short_seq_prob": 1.5}, r"short_seq_prob: expected a probability in \[0, 1\], got 1.5"),
        ({"short_seq_prob": float("nan")}, "got nan"),
        ({"short_seq_prob": "a"}, "got 'a'"),
        ({"dupe_factor": 0}, "dupe_factor: expected a positive integer, got 0"),
        ({"dupe_factor": 257}, "dupe_factor: expected an integer from 1 to 256, got 257"),
        ({"static": 3}, "static: expected one of False, True, got 3"),
    ],
)
def test_configurations_that_are_not_allowed(settings: dict[str, Any], message: str):
    with pytest.raises(ArgumentError, match=message):
        PretrainingConfig(**settings)


def test_stores_without_enough_in_them(tmp_path: Path):
    empty = write_store(tmp_path / "empty", [])
    for format in FORMATS:
        with pytest.raises(ArgumentError, match="store: expected documents, got an empty corpus"):
            PretrainingDataset(empty, config(format), seed=1)
    one = write_store(tmp_path / "one", [[[5, 6], [7, 8]]])
    with pytest.raises(ArgumentError, match="store: expected at least two documents for next sentences"):
        PretrainingDataset(one, config(), seed=1)
    for format in FORMATS[1:]:
        assert len(PretrainingDataset(one, config(format), seed=1)) == 1
    words = write_store(tmp_path / "words", [[[5]], [[6]]])
    with pytest.raises(ArgumentError, match="expected text for at least one sample"):
        PretrainingDataset(words, config("sop"), seed=1)
    assert len(PretrainingDataset(words, config(), seed=1)) == 2
    shard = write_store(tmp_path / "shard", [[[5]], [[6]]], shard=(1, 3))
    with pytest.raises(
        ArgumentError, match="store: expected a whole corpus, got shard 1 of 3: merge the shards"
    ):
        PretrainingDataset(shard, config(), seed=1)
    bare = write_store(tmp_path / "bare", [[[5]], [[6]]], mask_token_id=None)
    with pytest.raises(ArgumentError, match=r"expected a tokenizer with a \[MASK\] token"):
        PretrainingDataset(bare, config(), seed=1)


@pytest.mark.parametrize("name", ["tokens.bin", "sentences.bin", "documents.bin", "word_starts.bin"])
def test_a_damaged_store_gives_errors_or_samples_but_never_a_crash(tmp_path: Path, name: str):
    rng = np.random.default_rng(0)
    for trial in range(12):
        folder = write_store(
            tmp_path / f"{trial}", numbered(random_lengths(40)), vocab_size=5000, word_every=3
        )
        data = np.fromfile(folder / name, np.uint8)
        offsets = name in ("sentences.bin", "documents.bin")
        # The first and the last offset are looked at when a store is opened.
        inner = slice(8, -8) if offsets else slice(None)
        places = rng.integers(0, data[inner].size, 20)
        data[inner][places] = rng.integers(0, 256, places.size, dtype=np.uint8)
        data.tofile(folder / name)
        for format in FORMATS:
            masking = Masking(unit=["token", "span"][trial % 2], count="ceil")
            try:
                dataset = PretrainingDataset(folder, config(format, masking=masking), seed=trial)
            except BertFastError:
                continue
            for index in range(len(dataset)):
                try:
                    dataset[index]
                except CorpusError as error:
                    assert f"sample {index}:" in str(error)  # noqa: PT017
