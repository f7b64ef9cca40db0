"""Shards of a corpus: each document in one of them, and together the bytes of one build."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertfast.errors import ArgumentError, CorpusError
from bertfast.pretraining import Corpus, build_corpus, merge_corpora
from bertfast.pretraining.inputs import InputFile
from bertfast.pretraining.sharding import document_start, parts_of
from corpora import contents
from token_store import files


@pytest.fixture(scope="module")
def inputs(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Text, nothing, one long line, compressed text, and text again."""
    folder = tmp_path_factory.mktemp("inputs")
    bible = (data_dir / "bible-chapters.txt").read_bytes()
    (folder / "a").write_bytes(bible[:200_001])
    (folder / "b").write_bytes(b"")
    (folder / "c").write_bytes(bible[300_000:400_000].replace(b"\n", b" "))
    (folder / "d").write_bytes(gzip.compress(bible[400_000:500_000]))
    (folder / "e").write_bytes(b"\xef\xbb\xbf \r\n" + bible[500_000:600_000].replace(b"\n", b"\r\n"))
    return [folder / name for name in "abcde"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "options", [{}, {"documents": "line"}, {"documents": "file"}, {"split_sentences": lambda text: [text]}]
)
def test_shards_put_together_are_one_build(inputs, tokenizer, tmp_path, monkeypatch, count, options):
    monkeypatch.setattr("bertfast.pretraining.inputs.BLOCK", 30_000)
    build_corpus(inputs, tokenizer, tmp_path / "whole", **options)
    stores = []
    for index in range(count):
        stores.append(tmp_path / f"shard{index}")
        corpus = build_corpus(inputs, tokenizer, stores[-1], shard=(index, count), **options)
        assert corpus.shard == (index, count)
        assert files(stores[-1]) != files(tmp_path / "whole")
    random.Random(count).shuffle(stores)
    merged = merge_corpora(stores, tmp_path / "merged")
    assert merged.shard is None
    assert files(tmp_path / "merged") == files(tmp_path / "whole")
    if options.get("documents") != "file":
        assert all(Corpus(store).num_documents for store in stores)


def test_more_shards_than_documents(tokenizer, tmp_path):
    (tmp_path / "text").write_text("one\n\ntwo\nthree\n")
    stores = [tmp_path / str(index) for index in range(15)]
    counts = [
        build_corpus(tmp_path / "text", tokenizer, store, shard=(index, 15)).num_documents
        for index, store in enumerate(stores)
    ]
    assert sorted(counts) == [0] * 13 + [1, 1]
    assert contents(merge_corpora(stores, tmp_path / "merged")) == [["one"], ["two", "three"]]
    build_corpus(tmp_path / "text", tokenizer, tmp_path / "whole")
    assert files(tmp_path / "merged") == files(tmp_path / "whole")


def test_parquet_and_records(data_dir, tokenizer, tmp_path):
    texts = (data_dir / "bible-chapters.txt").read_text().split("\n\n")[:60]
    lines = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:40]))
    pq.write_table(pa.table({"text": texts[40:50]}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text("\n".join(lines[50:]) + "\n")
    paths = [tmp_path / name for name in ("a.jsonl", "b.parquet", "c.jsonl")]
    build_corpus(paths, tokenizer, tmp_path / "whole", field="text")
    stores = [tmp_path / str(index) for index in range(4)]
    counts = [
        build_corpus(paths, tokenizer, store, field="text", shard=(index, 4)).num_documents
        for index, store in enumerate(stores)
    ]
    assert sum(counts) == 60
    assert all(counts[:3])
    merge_corpora(stores, tmp_path / "merged")
    assert files(tmp_path / "merged") == files(tmp_path / "whole")


LINES = st.lists(
    st.sampled_from([b"", b" ", b"\xe3\x80\x80\t", b"a", b"\xef\xbb\xbf", b"bc de", b"\xff", b"x" * 50]),
    max_size=12,
)


@given(LINES, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.sampled_from(["blank_line", "line"]))
def test_a_document_may_begin_where_the_plainest_program_says(tmp_path_factory, lines, end, whole, documents):
    data = end.join(lines) + (end if whole else b"")
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(data)
    starts, at, blank = [0], 0, True
    first, *others = data.splitlines(keepends=True) or [b""]
    for line in (first, *others):
        if documents == "line" or blank:
            starts.append(at)
        at += len(line)
        if line is first:
            line = line.removeprefix(b"\xef\xbb\xbf")
        blank = not line.replace(b"\xe3\x80\x80", b"").strip()
    if documents == "line" or blank:
        starts.append(at)
    starts.append(len(data))
    file = InputFile.of(path)
    for place in range(len(data) + 2):
        expected = min((start for start in starts if start >= place), default=len(data))
        assert document_start(file, place, documents, None) == expected
    # Every byte is in one shard, in order.
    for count in (1, 2, 3, 7):
        parts = [parts_of([file], (index, count), documents, None) for index in range(count)]
        bounds = [(part.start, part.end) for part in itertools.chain.from_iterable(parts)]
        assert [start for start, _ in bounds] == [0, *(end for _, end in bounds)][: len(bounds)]
        assert not data or bounds[-1][1] == len(data)


def test_a_line_longer_than_what_is_searched_at_once(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"a\n" + b"x" * 200_000 + b"\n\nb\n")
    file = InputFile.of(path)
    for place in (3, 70_000, 200_000, 200_003):
        assert document_start(file, place, "blank_line", None) == 200_004
    assert document_start(file, 2, "line", None) == 2
    assert document_start(file, 3, "line", None) == 200_003


def test_a_bad_line_has_its_number_in_the_file(data_dir, tokenizer, tmp_path):
    data = (data_dir / "bible-chapters.txt").read_bytes()[:100_000] + b"good\nbad \xff\n"
    (tmp_path / "text").write_bytes(data)
    number = data.count(b"\n")
    for split in (False, lambda text: [text]):
        for index, count in ((0, 1), (1, 2), (4, 5)):
            with pytest.raises(ArgumentError, match=rf"/text:{number}: not UTF-8: byte 0xff at position 4$"):
                build_corpus(
                    tmp_path / "text",
                    tokenizer,
                    tmp_path / "store",
                    shard=(index, count),
                    documents="line",
                    split_sentences=split,
                )


def test_shards_that_do_not_go_together(inputs, tokenizer, minilm, tmp_path):
    stores = [tmp_path / str(index) for index in range(2)]
    for index, store in enumerate(stores):
        build_corpus(inputs[:2], tokenizer, store, shard=(index, 2))
    other = tmp_path / "other"
    merged = tmp_path / "merged"
    for options, message in [
        ({"inputs": inputs[:1]}, r'inputs: expected "2 files, 200001 bytes .*got "1 files, 200001 bytes'),
        ({"documents": "line"}, r'options\.documents: expected "blank_line", got "line", unlike shard 0'),
        ({"shard": (0, 2)}, r"shard: expected \[1, 2\], got \[0, 2\]"),
        ({"shard": (1, 3)}, r"shard: expected \[1, 2\], got \[1, 3\]"),
        ({"shard": None}, r"shard: expected \[0, 2\], got no part of a corpus"),
    ]:
        arguments = {"inputs": inputs[:2], "shard": (1, 2)} | options
        build_corpus(tokenizer=tokenizer, store=other, overwrite=True, **arguments)
        with pytest.raises(CorpusError, match=message):
            merge_corpora([stores[0], other], merged)
        assert not merged.exists()
    with pytest.raises(CorpusError, match=r"shard: expected \[0, 1\], got \[1, 2\]"):
        merge_corpora(stores[1:], merged)
    with pytest.raises(ArgumentError, match="shards: expected at least one, got none"):
        merge_corpora([], merged)
    for single in ("part", b"part", stores[0]):
        with pytest.raises(TypeError, match="shards: expected a sequence of folders, got"):
            merge_corpora(single, merged)
    with pytest.raises(CorpusError, match="expected another folder than those of the shards"):
        merge_corpora(stores, stores[0], overwrite=True)
    tokens = stores[1] / "tokens.bin"
    tokens.write_bytes(b"\x01\x02" + tokens.read_bytes()[2:])
    with pytest.raises(CorpusError, match=r"1/tokens\.bin: damaged"):
        merge_corpora(stores, merged)
    assert not merged.exists()


def test_shards_without_text(tokenizer, tmp_path):
    (tmp_path / "text").write_text("\n\n")
    stores = [tmp_path / str(index) for index in range(2)]
    for index, store in enumerate(stores):
        assert build_corpus(tmp_path / "text", tokenizer, store, shard=(index, 2)).num_documents == 0
    with pytest.raises(CorpusError, match="expected text in one of the shards, found none"):
        merge_corpora(stores, tmp_path / "merged")


@pytest.mark.parametrize(
    "shard", [(1, 1), (-1, 2), (0, 0), (0.0, 1), (0, 2**32), 3, "0/2", (0, 1, 2), (True, 2)]
)
def test_what_is_no_shard(tokenizer, tmp_path, shard):
    with pytest.raises(ArgumentError, match=r"shard: expected \(i, n\)"):
        build_corpus(tmp_path, tokenizer, tmp_path / "store", shard=shard)
