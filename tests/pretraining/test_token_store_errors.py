"""What a token store refuses, and what is said about it."""

from __future__ import annotations

import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bertfast._bertfast import Lines, Store, StoreWriter, merge_stores
from bertfast.errors import ArgumentError, CorpusError, ShapeError, TokenIdError
from bertfast.pretraining import word_start_table
from token_store import FILES, blocks_of, build, contents, describe, files, shards, writer


def test_a_line_that_is_not_utf8_is_named_and_not_there(tmp_path, tokenizer):
    store = writer(tmp_path, tokenizer)
    store.append_lines(tokenizer._raw, Lines(b"one\n"))
    with pytest.raises(ArgumentError, match=r"^some\.txt:12: not UTF-8: byte 0xff at position 2$"):
        store.append_lines(tokenizer._raw, Lines(b"two\nab\xff\n", name="some.txt", first_line=11))
    with pytest.raises(ArgumentError, match=r'^some\.jsonl:5: no field "text", only "body"$'):
        store.append_lines(
            tokenizer._raw, Lines(b'{"body": ""}', field="text", name="some.jsonl", first_line=5)
        )
    store.append_lines(tokenizer._raw, Lines(b"three\n"))
    store.finish()
    assert contents(Store(tmp_path)) == [tokenizer(["one", "three"], add_special_tokens=False)["input_ids"]]


def test_what_a_writer_refuses(tmp_path, tokenizer):
    table = word_start_table(tokenizer.get_vocab())

    def open_one(token_bits: object = 16, word_starts: object = table, **changes: object) -> StoreWriter:
        return StoreWriter(
            tmp_path / "new",
            token_bits=token_bits,
            word_starts=word_starts,
            description=describe(tokenizer, **changes),
        )

    record = json.loads(describe(tokenizer))["tokenizer"]
    for changes, error, message in [
        ({"token_bits": 8}, ArgumentError, "token_bits: expected 16 or 32, got 8"),
        ({"word_starts": table[:-1]}, ShapeError, r"word_starts: expected shape \(30522,\)"),
        ({"shard": [2, 2]}, ArgumentError, r"shard: expected \[i, n\] with i < n, got \[2, 2\]"),
        ({"tokenizer": record | {"vocab": 1}}, ArgumentError, "description: unknown field `vocab`"),
        ({"tokenizer": record | {"vocab_size": 0}}, ArgumentError, r"vocab_size: expected a number in 1\.\."),
        ({"tokenizer": record | {"vocab_size": 65537}}, ArgumentError, r"in 1\.\.=65536, got 65537"),
        ({"tokenizer": record | {"mask_token_id": 30522}}, ArgumentError, "got 30522"),
        ({"option": {}}, ArgumentError, "unknown field `option`"),
        ({"options": 3}, ArgumentError, "invalid type"),
    ]:
        with pytest.raises(error, match=message):
            open_one(**changes)
    assert not (tmp_path / "new").exists()

    store = open_one()
    with pytest.raises(CorpusError, match=r"tokens\.bin: another process is writing it"):
        open_one()
    ids, ends = np.array([5, 6, 7], np.int32), np.array([False, False])
    for arguments, error, message in [
        ((ids, np.array([0, 1, 2]), ends), ShapeError, "expected to rise from 0 to 3"),
        ((ids, np.array([0, 4, 3]), ends), ShapeError, "expected to rise from 0 to 3"),
        ((ids, np.array([], np.int64), ends), ShapeError, "expected to rise from 0 to 3"),
        ((ids, np.array([0, 3]), ends), ShapeError, r"document_ends: expected shape \(1,\), got \(2,\)"),
        (
            (ids, np.array([0, 1, 3]), ends, ends),
            ShapeError,
            r"word_starts: expected shape \(3,\), got \(2,\)",
        ),
        (
            (ids - 6, np.array([0, 1, 3]), ends),
            TokenIdError,
            r"input_ids: expected ids in 0\.\.30522, got -1",
        ),
        ((ids + 30516, np.array([0, 1, 3]), ends), TokenIdError, "got 30523"),
    ]:
        with pytest.raises(error, match=message):
            store.append_arrays(*arguments)
    with pytest.raises(
        ArgumentError, match='documents: expected one of "blank_line", "line", "file", got "page"'
    ):
        store.append_lines(tokenizer._raw, Lines(b""), documents="page")
    with pytest.raises(ArgumentError, match="num_threads"):
        store.append_lines(tokenizer._raw, Lines(b""), num_threads=0)
    store.append_arrays(ids, np.array([0, 1, 3]), ends)
    (tmp_path / "new/tokenizer/inside").mkdir(parents=True)
    with pytest.raises(CorpusError, match="tokenizer/inside: expected a file"):
        store.finish()
    (tmp_path / "new/tokenizer/inside").rmdir()
    store.finish()
    for action in (store.finish, store.end_document, lambda: store.checkpoint("x")):
        with pytest.raises(CorpusError, match=r"new: is finished$"):
            action()
    with pytest.raises(CorpusError, match="new: is a finished corpus already"):
        open_one()
    assert contents(Store(tmp_path / "new")) == [[[5], [6, 7]]]

    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    with pytest.raises(CorpusError, match=r"other: expected an empty folder, found thesis\.tex"):
        writer(tmp_path / "other", tokenizer)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        writer(tmp_path / "file", tokenizer)


def test_the_journal_is_read_under_the_lock(tmp_path, tokenizer):
    writer(tmp_path, tokenizer)
    journal = tmp_path / "journal.json"
    journal.unlink()
    os.mkfifo(journal)
    with ThreadPoolExecutor(1) as executor:
        opening = executor.submit(writer, tmp_path, tokenizer)
        # Waits until it is opened for reading.
        with journal.open("w") as pipe, (tmp_path / "tokens.bin").open("rb") as tokens:
            with pytest.raises(BlockingIOError):
                fcntl.flock(tokens, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pipe.write("{}")
        with pytest.raises(CorpusError, match=r"journal\.json: damaged"):
            opening.result(60)


def test_a_lock_without_a_journal_is_of_no_matter(tmp_path, tokenizer):
    (tmp_path / "tokens.bin").touch()
    store = writer(tmp_path, tokenizer)
    store.append_lines(tokenizer._raw, Lines(b"one\n"))
    store.finish()
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokens.bin").write_bytes(b"mine")
    with pytest.raises(CorpusError, match=r"other: expected an empty folder, found tokens\.bin"):
        writer(other, tokenizer)
    assert (other / "tokens.bin").read_bytes() == b"mine"


def test_whoever_goes_on_must_want_the_same(tmp_path, tokenizer):
    writer(tmp_path, tokenizer)
    for changes, message in [
        ({"options": {"split": True}}, "description.options.split: expected false, got true"),
        ({"token_bits": 32}, "token_bits: expected 16, got 32"),
        ({"shard": [0, 2]}, r"description.shard: expected null, got \[0,2\]"),
    ]:
        with pytest.raises(CorpusError, match=rf"journal\.json: was begun with other arguments: {message}"):
            writer(tmp_path, tokenizer, **changes)
    with pytest.raises(CorpusError, match="word_starts_sha256"):
        StoreWriter(
            tmp_path,
            token_bits=16,
            word_starts=~word_start_table(tokenizer.get_vocab()),
            description=describe(tokenizer),
        )


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path, tokenizer):
    record = json.loads(describe(tokenizer))["tokenizer"] | {"vocab_size": 2000, "special_token_ids": []}
    store = StoreWriter(
        tmp_path,
        token_bits=16,
        word_starts=np.ones(2000, bool),
        description=describe(tokenizer, tokenizer=record),
    )
    with pytest.raises(TokenIdError, match=r"expected ids in 0\.\.2000"):
        store.append_lines(tokenizer._raw, Lines(b"hello world\n"))
    with pytest.raises(CorpusError, match=r"failed before .*open the folder again"):
        store.append_lines(tokenizer._raw, Lines(b"the\n"))


def test_shards_that_do_not_go_together(tmp_path, tokenizer, texts):
    parts = shards(tmp_path, tokenizer, texts[:50], [10, 30])
    to = tmp_path / "all"
    whole = tmp_path / "whole"
    build(whole, tokenizer, blocks_of(texts[:50], 1))
    for folders, message in [
        (parts[:2], r"0/manifest\.json: shard: expected \[0, 2\], got \[0, 3\]"),
        ([parts[0], parts[2], parts[1]], r"2/manifest\.json: shard: expected \[1, 3\], got \[2, 3\]"),
        ([parts[0]] * 3, r"shard: expected \[1, 3\], got \[0, 3\]"),
        ([whole], r"shard: expected \[0, 1\], got no part of a corpus"),
    ]:
        with pytest.raises(CorpusError, match=message):
            merge_stores(folders, to)
    with pytest.raises(ArgumentError, match="shards: expected at least one, got none"):
        merge_stores([], to)
    with pytest.raises(CorpusError, match="whole: is a finished corpus already"):
        merge_stores(parts, whole)
    with pytest.raises(KeyError, match="stop"):
        merge_stores(parts, to, lambda *_: {}["stop"])
    assert not to.exists()

    def in_the_way(done: int, total: int) -> None:
        (to / "manifest.json").mkdir(exist_ok=True)

    with pytest.raises(OSError, match=r"manifest\.json"):
        merge_stores(parts, to, in_the_way)
    assert [path.name for path in to.iterdir()] == ["manifest.json"]
    (to / "manifest.json").rmdir()
    to.rmdir()
    manifest = parts[1] / "manifest.json"
    before = manifest.read_text()
    manifest.write_text(before.replace('"split": false', '"split": true'))
    with pytest.raises(CorpusError, match=r"options\.split: expected false, got true, unlike shard 0"):
        merge_stores(parts, to)
    manifest.write_text(before)
    tokens = parts[1] / "tokens.bin"
    tokens.write_bytes(b"\0\0" + tokens.read_bytes()[2:])
    with pytest.raises(CorpusError, match=r"1/tokens\.bin: damaged: expected the SHA-256"):
        merge_stores(parts, to)
    assert not to.exists()
    to.mkdir()
    (to / "note").touch()
    with pytest.raises(CorpusError, match="expected an empty folder, found note"):
        merge_stores(parts, to)
    assert [path.name for path in to.iterdir()] == ["note"]


def test_every_damaged_byte_is_found(tmp_path, tokenizer):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/vocab.txt").write_text("a\nb\n")
    text = b"Hello unaffable world\nBye\n\nAnother one\n" * 5
    store = build(tmp_path, tokenizer, iter([Lines(text)]))
    seen: list[tuple[int, int]] = []
    store.verify(lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert (
        seen[-1][0]
        == seen[-1][1]
        == sum(len(data) for name, data in files(tmp_path).items() if "json" not in name)
    )
    with pytest.raises(KeyError, match="stop"):
        store.verify(lambda *_: {}["stop"])
    del store
    for name in [*(FILES - {"manifest.json"}), "tokenizer/vocab.txt"]:
        path = tmp_path / name
        good = path.read_bytes()
        for place in {0, 1, 7, 8, 9, len(good) // 2, len(good) - 1} & set(range(len(good))):
            for byte in {0, 255, good[place] ^ 1, good[place] ^ 128} - {good[place]}:
                path.write_bytes(good[:place] + bytes([byte]) + good[place + 1 :])
                with pytest.raises(CorpusError, match=rf"{name}: damaged: "):
                    Store(tmp_path).verify()
        for other in (good[:-1], good + b"\0", b""):
            path.write_bytes(other)
            with pytest.raises(CorpusError, match=name):
                Store(tmp_path).verify()
        path.unlink()
        with pytest.raises(FileNotFoundError, match=name):
            Store(tmp_path).verify()
        path.write_bytes(good)
    Store(tmp_path).verify()


def test_a_damaged_offset_is_told_by_its_place(tmp_path, tokenizer):
    build(tmp_path, tokenizer, iter([Lines(b"one two\nthree\n\nfour\nfive\n")]))
    path = tmp_path / "sentences.bin"
    good = path.read_bytes()
    path.write_bytes(good[:8] + (77).to_bytes(8, "little") + good[16:])
    store = Store(tmp_path)
    with pytest.raises(
        CorpusError, match=r"sentences\.bin: damaged: expected an offset above 77 at byte 16, got 3"
    ):
        store.verify()
    # Cut off where the tokens end: nothing else is read.
    assert (
        store.sentence(0).tolist()
        == tokenizer("one two three four five", add_special_tokens=False)["input_ids"]
    )
    assert store.sentence(1).tolist() == []


def test_manifests_that_are_none(tmp_path, tokenizer):
    build(tmp_path, tokenizer, iter([Lines(b"one two\n")]))
    path = tmp_path / "manifest.json"
    good = json.loads(path.read_text())
    tokens = good["files"]["tokens.bin"]
    for changed, message in [
        ({"format": "x"}, 'format: expected "bertfast-corpus", got "x"'),
        ({"version": 2}, "version: expected 1, got 2"),
        ({"tokens": 3}, r"files: tokens\.bin: expected 6 bytes for the counts, got 4"),
        ({"tokens": 2**63}, "too many"),
        ({"sentences": 2**64 - 1}, "too many"),
        ({"documents": -1}, "invalid value"),
        ({"token_bits": 12}, "token_bits: expected 16 or 32, got 12"),
        ({"shard": [1, 1]}, "shard"),
        ({"extra": 1}, "unknown field `extra`"),
        ({"files": {}}, r"files: tokens\.bin is missing"),
        ({"files": good["files"] | {"../tokens.bin": tokens}}, "is no file of a corpus"),
        ({"files": good["files"] | {"tokenizer/..": tokens}}, "is no file of a corpus"),
        (
            {"files": good["files"] | {"tokens.bin": tokens | {"sha256": "x"}}},
            "expected 64 hexadecimal digits",
        ),
    ]:
        path.write_text(json.dumps(good | changed))
        with pytest.raises(CorpusError, match=rf"manifest\.json: .*{message}"):
            Store(tmp_path)
    for text in ["", "[]", "{", "null", '"x"', "[" * 100_000]:
        path.write_text(text)
        with pytest.raises(CorpusError, match=r"manifest\.json: "):
            Store(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CorpusError, match="not the manifest of a corpus"):
        Store(tmp_path)


def test_numbers_of_sentences_and_documents(tmp_path, tokenizer):
    store = build(tmp_path, tokenizer, iter([Lines(b"one two\n")]))
    for method, name in [
        (store.sentence, "sentence"),
        (store.word_starts_of, "sentence"),
        (store.document, "document"),
    ]:
        for index in (-1, 1):
            with pytest.raises(IndexError, match=rf"{name}: expected a number in 0\.\.1, got {index}"):
                method(index)
