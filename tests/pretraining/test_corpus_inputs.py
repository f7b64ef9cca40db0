"""What corpora are built from: formats, folders, and what is said about files that are damaged."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bertfast.errors import ArgumentError, CorpusError
from bertfast.pretraining import build_corpus
from bertfast.pretraining.inputs import InputFile, Part, blocks_of
from corpora import arrays_of, assert_stored, contents, documents_of
from token_store import files

TEXTS = ["One. Two.\nThree.", "", " ", 'zwölf 中文 "quoted" \\ \t\u2028x', "last one\r\n\r\nof all"]


@pytest.fixture
def records(data_dir: Path) -> list[str]:
    """Real texts of all lengths, line breaks in some of them."""
    texts = (data_dir / "bible-chapters.txt").read_text(encoding="utf-8").split("\n\n")[:60] + TEXTS
    random.Random(1).shuffle(texts)
    return texts


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"n": 1, "body": text}) + "\n" for text in texts))
    return path


def write_parquet(
    path: Path, texts: list[str | None], kind: pa.DataType | None = None, **options: object
) -> Path:
    table = pa.table({"n": range(len(texts)), "body": pa.array(texts, kind or pa.string())})
    pq.write_table(table, path, **options)
    return path


@pytest.mark.parametrize("block", [1, 5000, 1 << 24])
@pytest.mark.parametrize("split", [False, True])
def test_one_corpus_from_every_format(tokenizer, tmp_path, records, monkeypatch, block, split):
    monkeypatch.setattr("bertfast.pretraining.inputs.BLOCK", block)
    sources = {"jsonl": write_jsonl(tmp_path / "a.jsonl", records)}
    data = sources["jsonl"].read_bytes()
    sources["gzip"] = tmp_path / "b"
    # Two members, as `cat` of two files gives.
    sources["gzip"].write_bytes(gzip.compress(data[:7000]) + gzip.compress(data[7000:]))
    sources["zstd"] = tmp_path / "c"
    compress = zstandard.ZstdCompressor(write_content_size=False).compress
    sources["zstd"].write_bytes(compress(data[:7000]) + compress(data[7000:]))
    sources["parquet"] = write_parquet(tmp_path / "d", records, row_group_size=37)
    sources["large"] = write_parquet(tmp_path / "e", records, pa.large_string(), compression="zstd")
    sources["dictionary"] = write_parquet(tmp_path / "f", records, pa.dictionary(pa.int32(), pa.string()))
    expected = arrays_of(documents_of([records], "line"), tokenizer)
    stores = []
    for name, path in sources.items():
        stores.append(tmp_path / f"store-{name}")
        corpus = build_corpus(path, tokenizer, stores[-1], field="body", split_sentences=split)
        if not split:
            assert_stored(corpus, expected)
    assert all(files(store) == files(stores[0]) for store in stores)


def test_reading_goes_on_behind_any_block(tmp_path, monkeypatch):
    monkeypatch.setattr("bertfast.pretraining.inputs.BLOCK", 300)
    draw = random.Random(3)
    texts = [draw.choice(["short", "long " * 40, "two\nlines", "\r", "", "中文"]) for _ in range(130)]
    objects = "".join(json.dumps({"body": text}) + "\n" for text in texts).encode()
    (tmp_path / "a").write_bytes(objects)
    (tmp_path / "b").write_bytes(gzip.compress(objects))
    column = pa.field("body", pa.string())
    with pq.ParquetWriter(tmp_path / "c", pa.schema([column]), use_dictionary=False) as writer:
        for start, end in itertools.pairwise([0, 50, 50, 57, 58, 120, 130]):
            writer.write_table(pa.table({"body": pa.array(texts[start:end], pa.string())}))
    for name in "abc":
        part = Part(0, InputFile.of(tmp_path / name))
        blocks = list(blocks_of(part, "body"))
        found = [block.lines.to_list() for block in blocks]
        assert [text for some in found for text in some] == texts
        assert len(blocks) > 10
        line = 0
        for place, block in enumerate(blocks):
            assert block.first_line == line + 1
            line += len(found[place])
            assert block.line == line
            rest = list(blocks_of(part, "body", block.offset, block.line))
            assert [text for one in rest for text in one.lines.to_list()] == texts[line:]
            if rest:
                assert rest[0].first_line == line + 1
                assert rest[-1][1:2] + rest[-1][3:] == blocks[-1][1:2] + blocks[-1][3:]
        reads = [block.read for block in blocks]
        assert reads == sorted(reads)
        assert reads[-1] == part.size


def test_text_of_every_format(data_dir, tokenizer, tmp_path):
    data = (data_dir / "bible-chapters.txt").read_bytes()[:300_000]
    (tmp_path / "plain").write_bytes(data)
    (tmp_path / "gzip").write_bytes(gzip.compress(data))
    (tmp_path / "zstd").write_bytes(zstandard.compress(data))
    stores = [tmp_path / f"store-{name}" for name in ("plain", "gzip", "zstd")]
    for store in stores:
        build_corpus(tmp_path / store.name.removeprefix("store-"), tokenizer, store)
    assert files(stores[0]) == files(stores[1]) == files(stores[2])


def test_a_record_that_ends_documents(tokenizer, tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    corpus = build_corpus(path, tokenizer, tmp_path / "a", field="body", documents="blank_line")
    assert [len(document) for document in contents(corpus)] == [2, 3]
    corpus = build_corpus(path, tokenizer, tmp_path / "b", field="body", documents="file")
    assert [len(document) for document in contents(corpus)] == [5]


def test_parquet_has_a_column_and_its_own_documents_if_nothing_is_said(tokenizer, tmp_path):
    pq.write_table(pa.table({"text": ["one", "two\nthree"]}), tmp_path / "a.parquet")
    corpus = build_corpus(tmp_path / "a.parquet", tokenizer, tmp_path / "store")
    assert contents(corpus) == [["one"], ["two", "three"]]
    (tmp_path / "text").write_text("four\n\nfive")
    corpus = build_corpus([tmp_path / "a.parquet", tmp_path / "text"], tokenizer, tmp_path / "both")
    assert contents(corpus) == [["one", "two", "three"], ["four"], ["five"]]


def test_text_that_begins_like_parquet(tokenizer, tmp_path):
    for name, text in [("a", "PAR1"), ("b", "PAR1 is a magic word")]:
        (tmp_path / name).write_text(text)
    corpus = build_corpus([tmp_path / "a", tmp_path / "b"], tokenizer, tmp_path / "store")
    assert contents(corpus) == [["par1"], ["par1 is a magic word"]]


def test_a_large_window_of_zstd(tokenizer, tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True, write_content_size=False)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a").write_bytes(data.compress(b"one\n") + data.flush())
    assert contents(build_corpus(tmp_path / "a", tokenizer, tmp_path / "store")) == [["one"]]


def test_folders_are_sorted_by_name_at_every_level(tokenizer, tmp_path):
    for name in ("b/z", "b/a/x", "b.txt", "a", "b/.git/config", "b/_SUCCESS", "c"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name.replace("/", " "))
    corpus = build_corpus([tmp_path / "in/c", tmp_path / "in"], tokenizer, tmp_path / "store")
    assert [document[0] for document in contents(corpus)] == ["c", "a", "b a x", "b z", "b. txt", "c"]


def test_a_name_that_is_no_text(tokenizer, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")
    Path(path).write_bytes(b"good\nb\xffd\n")
    with pytest.raises(ArgumentError, match="\ufffd\\.txt:2: not UTF-8"):
        build_corpus(path, tokenizer, tmp_path / "store")
    Path(path).write_bytes(b"good\n")
    assert contents(build_corpus(path, tokenizer, tmp_path / "store")) == [["good"]]


BAD_FIELDS = [
    (b'{"body": "a"}\n{"text": "b"}\n', r'2: no field "body", only "text"$'),
    (b'{"body": "a"}\n{"body": null}\n', r'2: field "body" must be a string, got null$'),
    (b'{"body": "a"}\n{"body": "b\n', r"2: not a JSON object: "),
    (b'{"body": "a"}\n\n', r"2: not a JSON object: "),
    (b'{"body": "a"}\n{"body": "\xff"}\n', r"2: not UTF-8: byte 0xff at position 10$"),
]


@pytest.mark.parametrize(("data", "message"), BAD_FIELDS)
@pytest.mark.parametrize("block", [1, 1 << 24])
def test_a_bad_record_is_named(tokenizer, tmp_path, monkeypatch, data, message, block):
    monkeypatch.setattr("bertfast.pretraining.inputs.BLOCK", block)
    path = tmp_path / "bad.jsonl"
    path.write_bytes(data)
    for split in (False, lambda text: [text]):
        with pytest.raises(ArgumentError, match=rf"^{re.escape(str(path))}:{message}"):
            build_corpus(path, tokenizer, tmp_path / "store", field="body", split_sentences=split)
        assert not (tmp_path / "store").exists()


def test_bad_parquet_is_named(tokenizer, tmp_path):
    path = tmp_path / "a.parquet"

    def error(field: str = "body", kind: type[Exception] = ArgumentError) -> str:
        with pytest.raises(kind) as caught:
            build_corpus(path, tokenizer, tmp_path / "store", field=field)
        assert not (tmp_path / "store").exists()
        assert str(caught.value).startswith(str(path))
        return str(caught.value).removeprefix(str(path))

    write_parquet(path, ["a"] * 20 + [None], row_group_size=8)
    assert error() == ':21: field "body" must be a string, got null'
    assert error("text") == ": no column 'text', only 'n', 'body'"
    assert error("n") == ": column 'n': expected strings, got int64"
    write_parquet(path, [None, None], pa.null())
    assert error() == ':1: field "body" must be a string, got null'
    broken = pa.StringArray.from_buffers(3, *pa.array([b"a", b"b\xe4", b"c"], pa.binary()).buffers()[1:])
    pq.write_table(pa.table({"body": broken}), path)
    assert error() == ":2: not UTF-8: byte 0xe4 at position 1"
    write_parquet(path, ["text"] * 1000)
    good = path.read_bytes()
    path.write_bytes(good[:4] + bytes(len(good) - 8) + good[-4:])
    assert error().startswith(": damaged Parquet: ")
    path.write_bytes(good)
    place = pq.read_metadata(path).row_group(0).column(1).dictionary_page_offset
    path.write_bytes(good[:place] + b"\xff" * 30 + good[place + 30 :])
    assert error().startswith(": damaged Parquet: ")


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_damage_of_compressed_files_is_named(tokenizer, tmp_path, pack):
    data = pack(os.urandom(50_000).hex().encode().replace(b"0", b"\n"))
    (tmp_path / "short").write_bytes(data[: len(data) // 2])
    damaged = bytearray(data)
    damaged[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    (tmp_path / "damaged").write_bytes(damaged)
    for name in ("short", "damaged"):
        with pytest.raises(ArgumentError, match=rf"/{name}: damaged (gzip|zstd) data after line \d"):
            build_corpus(tmp_path / name, tokenizer, tmp_path / "store")
        assert not (tmp_path / "store").exists()


def test_a_wrong_option_costs_no_store(tokenizer, tmp_path):
    (tmp_path / "a").write_text("one")
    corpus = build_corpus(tmp_path / "a", tokenizer, tmp_path / "store")
    for seconds in ("10", None):
        with pytest.raises(TypeError, match="checkpoint_seconds: expected a number"):
            build_corpus(
                tmp_path / "a", tokenizer, tmp_path / "store", overwrite=True, checkpoint_seconds=seconds
            )
    assert contents(corpus) == [["one"]]


def test_what_is_no_input(tokenizer, tmp_path):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for inputs, error, message in [
        ([], ArgumentError, "inputs: expected at least one file, got none"),
        ([tmp_path / "empty"], ArgumentError, "inputs: expected files in .*empty, found none"),
        ([tmp_path / "absent"], FileNotFoundError, "absent"),
        ([tmp_path / "pipe"], ArgumentError, "inputs: expected files and folders, got .*pipe"),
        ([3], TypeError, "inputs: expected paths, got int"),
    ]:
        with pytest.raises(error, match=message):
            build_corpus(inputs, tokenizer, tmp_path / "store")
    for texts in ([b""], [b"\n \n", b"\xe3\x80\x80"], [b"\xe2\x80\x8b\n"]):
        paths = [tmp_path / f"text{index}" for index in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_bytes(text)
        with pytest.raises(
            CorpusError, match=r"^inputs: expected text, found none in .*text0( and 1 more)?$"
        ):
            build_corpus(paths, tokenizer, tmp_path / "store")
        assert not (tmp_path / "store").exists()
    (tmp_path / "empty/text").write_text("one")
    for store in (tmp_path / "empty", tmp_path / "empty/a/b"):
        with pytest.raises(ArgumentError, match="store: expected a folder outside of the inputs"):
            build_corpus(tmp_path / "empty", tokenizer, store)


def test_a_file_that_becomes_shorter_meanwhile(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("bertfast.pretraining.inputs.BLOCK", 1000)
    path = tmp_path / "text"
    path.write_text("some words\n" * 10_000)

    def split(text: str) -> list[str]:
        os.truncate(path, 50_000)
        return [text]

    with pytest.raises(ArgumentError, match="text: became shorter while it was read"):
        build_corpus(path, tokenizer, tmp_path / "store", split_sentences=split)


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from bertfast.pretraining import build_corpus
from bertfast.pretraining.inputs import InputFile, Part, blocks_of
try:
    build_corpus(sys.argv[2], sys.argv[3], sys.argv[4], segmenter="jieba" if sys.argv[1] == "jieba" else None)
except ImportError as error:
    print(error)
"""


def test_a_missing_package_is_named_with_its_extra(minilm, tmp_path):
    (tmp_path / "a.zst").write_bytes(zstandard.compress(b"one"))
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("one")
    for package, name in [("zstandard", "a.zst"), ("pyarrow", "a.parquet"), ("jieba", "a.txt")]:
        arguments = [package, str(tmp_path / name), str(minilm), str(tmp_path / "store")]
        command = [sys.executable, "-c", WITHOUT, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert package in done.stdout
        assert done.stdout.endswith("pip install 'bertfast[corpus]'\n")
        assert not (tmp_path / "store").exists()
