"""The token store of the extension, against the plainest program that does the same."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from bertfast._bertfast import Lines, Store, merge_stores, split_sentences
from bertfast.errors import ArgumentError
from bertfast.pretraining import word_start_table
from token_store import FILES, blocks_of, build, contents, describe, files, naive, shards, writer


@pytest.mark.parametrize("documents", ["blank_line", "line"])
@pytest.mark.parametrize("split", [False, True])
def test_store_has_what_the_plainest_program_finds(tmp_path, tokenizer, texts, documents, split):
    options = {"documents": documents, "split_sentences": split}
    store = build(tmp_path / "a", tokenizer, blocks_of(texts, 3), **options)
    expected = naive(tokenizer, texts, documents, split)
    assert len(expected) > 400
    assert contents(store) == expected
    assert store.num_documents == len(expected)
    assert store.num_sentences == sum(map(len, expected))
    assert store.num_tokens == sum(len(ids) for document in expected for ids in document)
    table = word_start_table(tokenizer.get_vocab())
    for sentence in range(store.num_sentences):
        starts = table[store.sentence(sentence)]
        starts[0] = True
        np.testing.assert_array_equal(store.word_starts_of(sentence), starts)
    store.verify()
    assert set(files(tmp_path / "a")) == FILES
    # Neither blocks nor threads are to be seen in the files.
    build(tmp_path / "b", tokenizer, blocks_of(texts, 1), num_threads=1, **options)
    build(tmp_path / "c", tokenizer, blocks_of(texts, 40), num_threads=3, **options)
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


def test_files_are_as_documented(tmp_path, tokenizer):
    block = Lines(b"Hello world\nunaffable\n\n\n  \nBye\n\n")
    for token_bits, dtype in [(16, "<u2"), (32, "<u4")]:
        folder = tmp_path / str(token_bits)
        build(folder, tokenizer, iter([block]), token_bits)
        words = tokenizer(["Hello world", "unaffable", "Bye"], add_special_tokens=False)["input_ids"]
        ids = [id for sentence in words for id in sentence]
        found = files(folder)
        assert np.frombuffer(found["tokens.bin"], dtype).tolist() == ids
        assert np.frombuffer(found["sentences.bin"], "<u8").tolist() == [0, 2, 2 + len(words[1]), len(ids)]
        assert np.frombuffer(found["documents.bin"], "<u8").tolist() == [0, 2, 3]
        bits = np.unpackbits(np.frombuffer(found["word_starts.bin"], np.uint8), bitorder="little")
        pieces = tokenizer.convert_ids_to_tokens(ids)
        assert len(words[1]) > 1
        assert bits.tolist() == [not piece.startswith("##") for piece in pieces] + [0] * (-len(ids) % 8)
        manifest = json.loads(found["manifest.json"])
        assert manifest["files"] == {
            name: {"bytes": len(found[name]), "sha256": hashlib.sha256(found[name]).hexdigest()}
            for name in FILES - {"manifest.json"}
        }
        counts = {"tokens": len(ids), "sentences": 3, "documents": 2, "token_bits": token_bits}
        assert manifest | counts == manifest
        assert {"format": "bertfast-corpus", "version": 1} | manifest == manifest
        assert manifest["tokenizer"] == json.loads(describe(tokenizer))["tokenizer"]


def test_json_lines_have_paragraphs(tmp_path, tokenizer):
    texts = ["One. Two.\nThree.\r\n\r\nFour.", "", "\n", "Five."]
    data = "".join(json.dumps({"body": text}) + "\n" for text in texts).encode()
    for documents, split, expected in [
        ("line", False, [["One. Two.", "Three.", "Four."], ["Five."]]),
        ("line", True, [["One.", "Two.", "Three.", "Four."], ["Five."]]),
        ("blank_line", True, [["One.", "Two.", "Three.", "Four."], ["Five."]]),
    ]:
        lines = Lines(data, field="body")
        folder = tmp_path / f"{documents}{split}"
        store = build(folder, tokenizer, iter([lines]), documents=documents, split_sentences=split)
        ids = [tokenizer(document, add_special_tokens=False)["input_ids"] for document in expected]
        assert contents(store) == ids


def test_arrays_are_as_good_as_lines(tmp_path, tokenizer, texts):
    build(tmp_path / "lines", tokenizer, blocks_of(texts, 1))
    encoded = tokenizer._raw.encode_ragged(texts, add_special_tokens=False)
    ends = np.array([not text.strip() for text in texts])
    for name, cuts in [("one", [len(texts)]), ("some", [0, 1, 700, 701, 2000, len(texts)])]:
        store = writer(tmp_path / name, tokenizer)
        first = 0
        for cut in cuts:
            boundaries = encoded.cu_seqlens[first : cut + 1]
            ids = encoded.input_ids[boundaries[0] : boundaries[-1]]
            store.append_arrays(ids, boundaries - boundaries[0], ends[first:cut])
            first = cut
        store.finish()
        assert files(tmp_path / name) == files(tmp_path / "lines")


def test_word_starts_of_arrays_replace_the_table(tmp_path, tokenizer):
    store = writer(tmp_path, tokenizer)
    ids, cu_seqlens = np.arange(1000, 1007, dtype=np.int32), np.array([0, 0, 3, 3, 7])
    starts = np.array([0, 1, 0, 0, 0, 1, 1], bool)
    store.append_arrays(ids, cu_seqlens, np.array([True, False, True, False]), starts)
    store.end_document()
    store.end_document()
    store.finish()
    store = Store(tmp_path)
    assert contents(store) == [[[1000, 1001, 1002]], [[1003, 1004, 1005, 1006]]]
    assert store.word_starts_of(0).tolist() == [True, True, False]
    assert store.word_starts_of(1).tolist() == [True, False, True, True]


def test_a_writer_goes_on_behind_its_checkpoint(tmp_path, tokenizer, texts):
    build(tmp_path / "whole", tokenizer, blocks_of(texts, 1))
    folder = tmp_path / "parts"
    cuts = [0, 11, 12, 900, 2500, len(texts)]
    for number, (first, last) in enumerate(itertools.pairwise(cuts)):
        store = writer(folder, tokenizer)
        position = str(first) if number else None
        assert store.position == position
        for block in blocks_of(texts[first:last], 3):
            store.append_lines(tokenizer._raw, block)
        counts = [store.num_tokens, store.num_sentences, store.num_documents]
        store.checkpoint(str(last))
        # What comes after it and was never finished leaves no trace, though it is written.
        for _ in range(3):
            store.append_lines(tokenizer._raw, next(blocks_of(texts, 1)))
        store.end_document()
        del store
        with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
            Store(folder)
        store = writer(folder, tokenizer)
        assert [store.num_tokens, store.num_sentences, store.num_documents] == counts
        assert store.position == str(last)
        del store
    writer(folder, tokenizer).finish()
    assert files(folder) == files(tmp_path / "whole")


def test_one_that_was_killed_goes_on(tmp_path, tokenizer, texts):
    build(tmp_path / "whole", tokenizer, blocks_of(texts[:500], 1))
    folder = tmp_path / "killed"
    store = writer(folder, tokenizer)
    store.append_lines(tokenizer._raw, next(blocks_of(texts[:100], 1)))
    store.checkpoint("100")
    del store
    # As a system that fails leaves it: with more than the journal says, or with other bytes behind it.
    for name in FILES - {"manifest.json"}:
        with open(folder / name, "ab") as file:
            file.write(b"\xff" * 1001)
    (folder / "journal.json.new").write_bytes(b"{")
    store = writer(folder, tokenizer)
    assert store.position == "100"
    store.append_lines(tokenizer._raw, next(blocks_of(texts[100:500], 1)))
    store.finish()
    assert files(folder) == files(tmp_path / "whole")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
import bertfast
from bertfast._bertfast import Lines, StoreWriter
from bertfast.errors import CorpusError
from bertfast.pretraining import word_start_table

tokenizer = bertfast.Tokenizer.from_pretrained(sys.argv[2])
block = Lines(b"some words in a line\\n" * 100_000)
table = word_start_table(tokenizer.get_vocab())
store = StoreWriter(sys.argv[1], token_bits=16, word_starts=table, description=sys.stdin.read())
store.append_lines(tokenizer._raw, block)
store.checkpoint("one")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
try:
    for _ in range(10):
        store.append_lines(tokenizer._raw, block)
except OSError as error:
    assert "tokens.bin: File too large" in str(error), error
else:
    raise SystemExit("no error")
for again in (lambda: store.checkpoint("two"), store.finish, store.end_document):
    try:
        again()
    except CorpusError as error:
        assert "open the folder again" in str(error), error
    else:
        raise SystemExit("no error")
print("as it should be")
"""


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, tokenizer, data_dir):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(data_dir / "minilm"), *sys.path],
        input=describe(tokenizer),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "as it should be\n", done.stderr
    store = writer(tmp_path, tokenizer)
    assert (store.position, store.num_sentences) == ("one", 100_000)


def test_shards_together_are_the_whole(tmp_path, tokenizer, texts):
    (tmp_path / "whole/tokenizer").mkdir(parents=True)
    (tmp_path / "whole/tokenizer/vocab.txt").write_text("a\nb\n")
    whole = build(tmp_path / "whole", tokenizer, blocks_of(texts, 1), documents="line")
    for name, cuts in [("a", []), ("b", [1, 2, 7, 8, 100, 100, 2000]), ("c", [0, 1500, len(texts)])]:
        parts = shards(tmp_path / name, tokenizer, texts, cuts)
        seen: list[tuple[int, int]] = []
        merge_stores(parts, tmp_path / name / "all", lambda *progress, seen=seen: seen.append(progress))
        assert seen[-1][0] == seen[-1][1] > whole.num_tokens * 2
        assert files(tmp_path / name / "all") == files(tmp_path / "whole")
        Store(tmp_path / name / "all").verify()
    assert "tokenizer/vocab.txt" in files(tmp_path / "whole")


def test_an_empty_corpus_is_a_store(tmp_path, tokenizer):
    store = build(tmp_path, tokenizer, iter([Lines(b"\n \n")]))
    assert (store.num_documents, store.num_sentences, store.num_tokens) == (0, 0, 0)
    store.verify()


def test_split_sentences():
    assert split_sentences("") == split_sentences(" \n") == []
    text = " Mr. X said: \u201cGo!\u201d He went. \u4ed6\u8bf4\u201c\u597d\u3002\u201d\u4f60\u5462!"
    assert split_sentences(text) == [
        "Mr. X said: \u201cGo!\u201d",
        "He went.",
        "\u4ed6\u8bf4\u201c\u597d\u3002\u201d",
        "\u4f60\u5462!",
    ]
    with pytest.raises(TypeError):
        split_sentences(b"x")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="text: expected text that can be written as UTF-8"):
        split_sentences("\ud800")
