"""Corpora that are split: every document on one side, equal ones together, whatever their order is."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bertfast
import confidence
from bertfast._bertfast import Store
from bertfast.errors import ArgumentError, CorpusError
from bertfast.pretraining import Corpus, PretrainingDataset, build_corpus, merge_corpora, split_corpus
from corpora import stored
from numbered_store import write_store
from token_store import files

Documents = list[tuple[tuple[int, ...], ...]]


def documents_in(corpus: Corpus | Store) -> Documents:
    if isinstance(corpus, Corpus):
        corpus = corpus._store
    return [
        tuple(tuple(corpus.sentence(sentence).tolist()) for sentence in range(*corpus.document(document)))
        for document in range(corpus.num_documents)
    ]


def write_corpus(folder: Path, tokenizer: bertfast.Tokenizer, texts: list[str]) -> Corpus:
    path = folder.with_suffix(".txt")
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return build_corpus(path, tokenizer, folder)


@pytest.fixture(scope="module")
def texts(data_dir: Path) -> list[str]:
    """Chapters of the Bible, one in ten of them twice."""
    chapters = (data_dir / "bible-chapters.txt").read_text(encoding="utf-8").strip().split("\n\n")[:600]
    draw = random.Random(3)
    chapters += draw.sample(chapters, 60)
    draw.shuffle(chapters)
    return chapters


@pytest.fixture(scope="module")
def corpus(tokenizer, texts, tmp_path_factory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "store", tokenizer, texts)


def test_every_document_is_on_one_side_in_order(corpus, tmp_path):
    before = files(corpus.folder)
    sides = split_corpus(corpus.folder, tmp_path / "train", tmp_path / "held_out", held_out=0.2, seed=1)
    whole = documents_in(corpus)
    train, held_out = map(documents_in, sides)
    assert min(len(train), len(held_out)) > 50
    # Equal documents are together: what a document is says where it went.
    assert not set(train) & set(held_out)
    assert max(Counter(train).values()) == max(Counter(held_out).values()) == 2
    assert train == [document for document in whole if document in set(train)]
    assert held_out == [document for document in whole if document in set(held_out)]
    assert len(train) + len(held_out) == len(whole)
    for side in sides:
        side.verify()
    assert files(corpus.folder) == before


def test_both_are_corpora_like_the_whole(corpus, tokenizer, tmp_path):
    sides = split_corpus(corpus.folder, tmp_path / "train", tmp_path / "held_out", held_out=0.2, seed=7)
    for side, name in zip(sides, ["train", "held_out"], strict=True):
        assert {path.name for path in side.folder.iterdir()} == {
            path.name for path in corpus.folder.iterdir()
        }
        assert files(side.folder / "tokenizer") == dict(tokenizer.files)
        split = {"held_out": 0.2, "seed": 7, "side": name}
        assert side.manifest["options"] == corpus.manifest["options"] | {"splits": [split]}
        for entry in ("format", "version", "token_bits", "tokenizer"):
            assert side.manifest[entry] == corpus.manifest[entry]
        for file in ("tokens.bin", "sentences.bin", "documents.bin", "word_starts.bin"):
            data = (side.folder / file).read_bytes()
            record = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            assert side.manifest["files"][file] == record
        assert len(PretrainingDataset(side, seed=1, tokenizer=tokenizer)) > 20
    # The words of a document begin where they did.
    begins = [
        tuple(np.concatenate([side.word_starts(s) for s in range(side.num_sentences)])) for side in sides
    ]
    for side, bits in zip(sides, begins, strict=True):
        assert tuple(stored(side.folder)["word_starts"]) == bits
    starts = {tuple(corpus.sentence(s)): tuple(corpus.word_starts(s)) for s in range(corpus.num_sentences)}
    for side in sides:
        for sentence in range(side.num_sentences):
            assert starts[tuple(side.sentence(sentence))] == tuple(side.word_starts(sentence))
    # One of them is split again; with the same seed there would be nothing to hold out.
    again = split_corpus(tmp_path / "train", tmp_path / "a", tmp_path / "b", held_out=0.1, seed=8)
    assert [len(side.manifest["options"]["splits"]) for side in again] == [2, 2]
    with pytest.raises(ArgumentError, match="held_out: expected a share that leaves documents on both sides"):
        split_corpus(tmp_path / "train", tmp_path / "c", tmp_path / "d", held_out=0.1, seed=7)
    assert not (tmp_path / "c").exists()


def test_neither_order_nor_other_documents_matter(corpus, texts, tokenizer, tmp_path):
    _, held_out = split_corpus(corpus.folder, tmp_path / "a", tmp_path / "b", held_out=0.3, seed=2)
    expected = set(documents_in(held_out))
    shuffled = random.Random(4).sample(texts, len(texts))
    for name, others in (("shuffled", shuffled), ("half", shuffled[:300]), ("more", [*texts, "One.\nTwo."])):
        other = write_corpus(tmp_path / name, tokenizer, others)
        train, held_out = split_corpus(
            other.folder, tmp_path / f"{name}1", tmp_path / f"{name}2", held_out=0.3, seed=2
        )
        odd = set(documents_in(other)) - set(documents_in(corpus))
        assert set(documents_in(held_out)) - odd == expected & set(documents_in(other))
        assert not expected & set(documents_in(train))
    _, other_seed = split_corpus(corpus.folder, tmp_path / "c", tmp_path / "d", held_out=0.3, seed=3)
    assert set(documents_in(other_seed)) != expected
    # A larger share of the same seed holds out all that a smaller one does.
    _, more = split_corpus(corpus.folder, tmp_path / "e", tmp_path / "f", held_out=0.5, seed=2)
    assert set(documents_in(more)) > expected


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.95])
def test_the_share(tmp_path: Path, share: float):
    number = 20_000
    store = Store(write_store(tmp_path / "store", [[[5 + i % 999, 5 + i // 999]] for i in range(number)]))
    counts = []
    for seed in range(3):
        train, held_out = tmp_path / f"train{seed}", tmp_path / f"held_out{seed}"
        store.split(train, held_out, share, seed)
        counts.append(Store(held_out).num_documents)
        assert Store(train).num_documents + counts[-1] == number
    for count in counts:
        confidence.share(count, number, share)
    assert len(set(counts)) > 1


def test_what_decides_is_stated(tmp_path: Path):
    """SHA-256 of the ids, 32 bits each, as the index of a stream of Philox4x32-10."""

    def philox(key: list[int], counter: list[int]) -> list[int]:
        for number in range(10):
            keys = [(key[0] + number * 0x9E3779B9) % 2**32, (key[1] + number * 0xBB67AE85) % 2**32]
            first, second = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
            counter = [
                (second >> 32) ^ counter[1] ^ keys[0],
                second % 2**32,
                (first >> 32) ^ counter[3] ^ keys[1],
                first % 2**32,
            ]
        return counter

    def is_held_out(document: list[list[int]], share: float, seed: int) -> bool:
        ids = np.concatenate(document).astype("<i4").tobytes()
        index = int.from_bytes(hashlib.sha256(ids).digest()[:8], "little")
        words = philox([seed % 2**32, seed >> 32], [0, index % 2**32, index >> 32, 6 << 28])
        return ((words[0] | words[1] << 32) >> 11) / 2**53 < share

    draw = random.Random(1)
    documents = [[[draw.randrange(5, 999) for _ in range(3)]] * draw.randrange(1, 4) for _ in range(300)]
    # One that is hashed in pieces.
    documents.append([[draw.randrange(5, 999) for _ in range(200_001)]])
    for vocab_size in (60_000, 70_000):
        store = Store(write_store(tmp_path / f"{vocab_size}", documents, vocab_size=vocab_size))
        for seed in (0, 2**63 + 5):
            folders = tmp_path / f"{vocab_size}a{seed}", tmp_path / f"{vocab_size}b{seed}"
            store.split(*folders, 0.4, seed)
            for folder, side in zip(folders, (False, True), strict=True):
                expected = [document for document in documents if is_held_out(document, 0.4, seed) is side]
                found = [[list(sentence) for sentence in one] for one in documents_in(Store(folder))]
                assert found == expected


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.integers(5, 40), min_size=1, max_size=20), min_size=1, max_size=4), max_size=9
    ),
    st.integers(0, 2**64 - 1),
)
def test_any_corpus(tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]], seed: int):
    folder = tmp_path_factory.mktemp("any")
    store = Store(write_store(folder / "store", documents, vocab_size=41, word_every=3))
    try:
        store.split(folder / "train", folder / "held_out", 0.5, seed)
    except ArgumentError:
        assert [path.name for path in folder.iterdir()] == ["store"]
        return
    sides = [Store(folder / name) for name in ("train", "held_out")]
    assert sorted(documents_in(sides[0]) + documents_in(sides[1])) == sorted(documents_in(store))
    for name, side in zip(("train", "held_out"), sides, strict=True):
        side.verify()
        # The same bytes as a store that is written of these documents.
        found = [[list(sentence) for sentence in document] for document in documents_in(side)]
        write_store(folder / "expected", found, vocab_size=41, word_every=3)
        assert {**files(folder / name), "manifest.json": b""} == {
            **files(folder / "expected"),
            "manifest.json": b"",
        }
        shutil.rmtree(folder / "expected")


def test_what_is_not_allowed(corpus, tokenizer, tmp_path):
    train, held_out = tmp_path / "train", tmp_path / "held_out"
    for share in (0, 1, 0.0, 1.0, -0.1, 1.5, float("nan"), "0.1", None, True):
        with pytest.raises(ArgumentError, match="held_out: expected a share between 0 and 1, got"):
            split_corpus(corpus.folder, train, held_out, held_out=share)
    for seed in (-1, 2**64, 1.0, None):
        with pytest.raises(ArgumentError, match="seed: expected an integer from 0 to"):
            split_corpus(corpus.folder, train, held_out, seed=seed)
    number = corpus.num_documents
    for share, count in ((1e-9, 0), (1 - 1e-9, number)):
        message = f"held_out: expected a share that leaves documents .* which holds out {count} of {number}$"
        with pytest.raises(ArgumentError, match=message):
            split_corpus(corpus.folder, train, held_out, held_out=share)
    for folders in (
        (train, train),
        (train, train / "inside"),
        (train / "inside", train),
        (corpus.folder, held_out),
        (train, corpus.folder),
        (corpus.folder / "a", held_out),
        (train, corpus.folder / "tokenizer"),
    ):
        with pytest.raises(ArgumentError, match="store: expected a folder"):
            split_corpus(corpus.folder, *folders, overwrite=True)
    with pytest.raises(FileNotFoundError):
        split_corpus(tmp_path / "absent", train, held_out)
    (tmp_path / "text").write_text("one\n\ntwo\n\nthree\n\nfour\n\nfive\n")
    build_corpus(tmp_path / "text", tokenizer, tmp_path / "part", shard=(0, 1))
    with pytest.raises(
        CorpusError, match="expected a whole corpus, got shard 0 of 1: merge the shards first"
    ):
        split_corpus(tmp_path / "part", train, held_out, held_out=0.5)
    merge_corpora([tmp_path / "part"], tmp_path / "merged")
    assert not train.exists()
    assert not held_out.exists()
    split_corpus(tmp_path / "merged", train, held_out, held_out=0.5)


def test_what_is_there_already(corpus, tmp_path):
    train, held_out = tmp_path / "train", tmp_path / "held_out"
    split_corpus(corpus.folder, train, held_out, held_out=0.2)
    before = files(tmp_path)
    for folders in ((train, tmp_path / "x"), (tmp_path / "x", held_out)):
        with pytest.raises(FileExistsError, match="is a finished corpus"):
            split_corpus(corpus.folder, *folders)
    # What is wrong comes to light before anything is lost.
    with pytest.raises(ArgumentError, match="held_out"):
        split_corpus(corpus.folder, train, held_out, held_out=1e-9, overwrite=True)
    assert files(tmp_path) == before
    (held_out / "notes").write_text("mine")
    with pytest.raises(CorpusError, match="held_out: expected a corpus or an empty folder, found notes"):
        split_corpus(corpus.folder, train, held_out, overwrite=True)
    (held_out / "notes").unlink()
    assert files(tmp_path) == before
    split_corpus(corpus.folder, train, held_out, held_out=0.2, seed=9, overwrite=True)
    assert files(train) != {name.removeprefix("train/"): data for name, data in before.items()}
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes").write_text("mine")
    with pytest.raises(CorpusError, match="full: expected an empty folder, found notes"):
        split_corpus(corpus.folder, tmp_path / "new", tmp_path / "full")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    split_corpus(corpus.folder, tmp_path / "new", tmp_path / "empty")
    assert Corpus(tmp_path / "empty").num_documents > 0


@pytest.mark.parametrize(
    "name", ["tokens.bin", "sentences.bin", "documents.bin", "word_starts.bin", "tokenizer/vocab.txt"]
)
def test_damage_is_found_before_anything_is_written(corpus, tmp_path, name):
    shutil.copytree(corpus.folder, tmp_path / "store")
    path = tmp_path / "store" / name
    good = path.read_bytes()
    for place in (len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bad)
        with pytest.raises(CorpusError, match=f"{name}: "):
            split_corpus(tmp_path / "store", tmp_path / "train", tmp_path / "held_out", held_out=0.2)
        assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_damage_never_crashes(tmp_path: Path):
    draw = random.Random(5)
    good = write_store(tmp_path / "store", [[[5, 6, 7], [8]], [[9], [10, 11]], [[12] * 20]] * 9)
    for trial in range(60):
        shutil.copytree(good, tmp_path / "bad")
        path = (
            tmp_path / "bad" / ["tokens.bin", "sentences.bin", "documents.bin", "word_starts.bin"][trial % 4]
        )
        bad = bytearray(path.read_bytes())
        for _ in range(5):
            bad[draw.randrange(8, len(bad) - 8)] = draw.randrange(256)
        path.write_bytes(bad)
        with contextlib.suppress(ArgumentError):
            Store(tmp_path / "bad").split(tmp_path / "a", tmp_path / "b", 0.5, trial)
        for name in ("bad", "a", "b"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)


def test_whoever_stops_it_finds_nothing(corpus, tmp_path):
    for kept in (False, True):
        if kept:
            (tmp_path / "train").mkdir()
            (tmp_path / "held_out").mkdir()
        with pytest.raises(KeyError, match="stop"):
            corpus._store.split(tmp_path / "train", tmp_path / "held_out", 0.2, 1, lambda *_: {}["stop"])
        assert {path.name for path in tmp_path.iterdir()} == ({"train", "held_out"} if kept else set())
        assert files(tmp_path) == {}

    # Nor where only the second of them fails.
    def in_the_way(done: int, total: int) -> None:
        (tmp_path / "held_out/manifest.json").mkdir(exist_ok=True)

    with pytest.raises(OSError, match=r"manifest\.json"):
        corpus._store.split(tmp_path / "train", tmp_path / "held_out", 0.2, 1, in_the_way)
    assert files(tmp_path) == {}
    (tmp_path / "held_out/manifest.json").rmdir()
    seen: list[tuple[int, int]] = []
    corpus._store.split(tmp_path / "train", tmp_path / "held_out", 0.2, 1, lambda *at: seen.append(at))
    assert seen[-1][0] == seen[-1][1] == (corpus.folder / "tokens.bin").stat().st_size
