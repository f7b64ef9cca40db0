"""Real corpora from text to tokens, against the plainest program that does the same."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import bertfast
from bertfast._bertfast import split_sentences
from bertfast.errors import ArgumentError, CorpusError
from bertfast.pretraining import Corpus, build_corpus
from corpora import arrays_of, assert_stored, contents, documents_of
from token_store import files


@pytest.fixture(scope="session")
def chinese(data_dir: Path) -> bertfast.Tokenizer:
    return bertfast.Tokenizer.from_pretrained(data_dir / "vocab-zh")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read in many pieces."""
    monkeypatch.setattr("bertfast.pretraining.inputs.BLOCK", 100_000)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


@pytest.mark.usefixtures("small_blocks")
def test_the_bible_by_chapters(data_dir, tokenizer, tmp_path):
    path = data_dir / "bible-chapters.txt"
    corpus = build_corpus(path, tokenizer, tmp_path / "store")
    expected = arrays_of(documents_of([lines(path)], "blank_line"), tokenizer)
    assert len(expected["documents"]) == 1190
    assert_stored(corpus, expected)
    assert corpus.tokenizer.decode(corpus.document(0)[0]) == (
        "in the beginning god created the heaven and the earth."
    )


@pytest.mark.usefixtures("small_blocks")
def test_chinese_reviews_and_news_in_one_folder(data_dir, chinese, tmp_path):
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    reviews = lines(data_dir / "chinese.txt")[:10_000]
    (folder / "b/reviews.txt").write_text("\n".join(reviews), encoding="utf-8")
    shutil.copy(data_dir / "newspaper.txt", folder / "a.txt")
    (folder / ".hidden").write_text("no text")
    texts = [lines(folder / "a.txt"), reviews]
    for documents, split in [("blank_line", True), ("line", True), ("file", False)]:
        store = tmp_path / documents
        corpus = build_corpus(folder, chinese, store, documents=documents, split_sentences=split)
        splitter = split_sentences if split else lambda text: [text]
        assert_stored(corpus, arrays_of(documents_of(texts, documents, splitter), chinese))
        assert corpus.num_documents > 2000 or documents == "file"


def test_a_dictionary_with_functions_that_split(data_dir, tokenizer, tmp_path):
    path = tmp_path / "entries"
    texts = lines(data_dir / "english.txt")[:4000]
    path.write_text("\n".join(texts), encoding="utf-8")
    corpus = build_corpus([path], tokenizer, tmp_path / "a", documents="line", split_sentences=True)
    assert_stored(corpus, arrays_of(documents_of([texts], "line", split_sentences), tokenizer))

    def at_semicolons(text: str) -> list[str]:
        return re.split("(?<=;)", text)

    corpus = build_corpus([path], tokenizer, tmp_path / "b", documents="line", split_sentences=at_semicolons)
    assert_stored(corpus, arrays_of(documents_of([texts], "line", at_semicolons), tokenizer))
    assert corpus.manifest["options"]["split_sentences"].endswith("at_semicolons")
    # A function of Python that does what the core does gives the same, but for its name.
    build_corpus([path], tokenizer, tmp_path / "c", documents="line", split_sentences=split_sentences)
    same, other = files(tmp_path / "a"), files(tmp_path / "c")
    assert json.loads(same.pop("manifest.json")) != json.loads(other.pop("manifest.json"))
    assert same == other


# Each line with what documents come of it; \x1c is whitespace to Python and not to Unicode.
ODD = ["one", "", "two", "\u3000 \t", " \x0b", "three", "\x1c", "\u200b", "four", "\x85", "five", "", ""]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_without_text(tokenizer, tmp_path, end, mark):
    path = tmp_path / "text"
    path.write_bytes((mark + end.join(ODD)).encode())
    expected = [["one"], ["two"], ["three", "four"], ["five"]]
    assert contents(build_corpus(path, tokenizer, tmp_path / "a")) == expected
    # The same in Python, where it is split by a function.
    corpus = build_corpus(path, tokenizer, tmp_path / "b", split_sentences=lambda text: [text])
    assert contents(corpus) == expected
    corpus = build_corpus(
        path, tokenizer, tmp_path / "c", documents="file", split_sentences=lambda text: [text]
    )
    assert contents(corpus) == [["one", "two", "three", "four", "five"]]
    assert contents(build_corpus(path, tokenizer, tmp_path / "d", documents="file")) == contents(corpus)
    corpus = build_corpus(
        path, tokenizer, tmp_path / "e", documents="line", split_sentences=lambda text: [text]
    )
    assert contents(corpus) == [["one"], ["two"], ["three"], ["four"], ["five"]]


def test_a_document_ends_with_its_file(tokenizer, tmp_path):
    for name, text in [("a", "one"), ("b", ""), ("c", "two\n\nthree\n"), ("d", "\n\n"), ("e", "four")]:
        (tmp_path / name).write_text(text)
    paths = [tmp_path / name for name in "abcde"]
    corpus = build_corpus(paths, tokenizer, tmp_path / "store")
    assert contents(corpus) == [["one"], ["two"], ["three"], ["four"]]
    corpus = build_corpus(paths, tokenizer, tmp_path / "files", documents="file")
    assert contents(corpus) == [["one"], ["two", "three"], ["four"]]


def test_threads_and_blocks_are_not_to_be_seen(data_dir, tokenizer, tmp_path, monkeypatch):
    path = data_dir / "newspaper.txt"
    build_corpus(path, tokenizer, tmp_path / "a", split_sentences=True)
    monkeypatch.setattr("bertfast.pretraining.inputs.BLOCK", 1_000_000)
    build_corpus(path, tokenizer, tmp_path / "b", split_sentences=True, num_threads=1)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_an_open_corpus(tokenizer, minilm, tmp_path):
    (tmp_path / "text").write_text("Hello world\nunaffable\n\nBye\n")
    corpus = build_corpus(tmp_path / "text", minilm, tmp_path / "store")
    again = pickle.loads(pickle.dumps(Corpus.open(tmp_path / "store")))
    for one in (corpus, again):
        assert (one.num_documents, one.num_sentences, len(one), one.shard) == (2, 3, 2, None)
        assert list(one.sentences_of(0)) == [0, 1]
        assert one.sentence(2).tolist() == tokenizer("Bye", add_special_tokens=False)["input_ids"]
        assert one.word_starts(1).tolist() == [True] + [False] * (len(one.sentence(1)) - 1)
        assert [[len(ids) for ids in document] for document in one.documents()] == [[2, 3], [1]]
        assert one.tokenizer.get_vocab() == tokenizer.get_vocab()
        for wrong in (3, -1, 2**63, 2**64, -(2**70)):
            message = rf"sentence: expected a number in 0\.\.3, got {wrong}$"
            with pytest.raises(IndexError, match=message):
                one.sentence(wrong)
            with pytest.raises(IndexError, match=message):
                one.word_starts(wrong)
            with pytest.raises(IndexError, match=rf"document: expected a number in 0\.\.2, got {wrong}$"):
                one.document(wrong)
        with pytest.raises(TypeError):
            one.sentence("0")
    assert files(tmp_path / "store/tokenizer") == dict(tokenizer.files)
    with pytest.raises(FileNotFoundError):
        Corpus(tmp_path / "absent")
    with pytest.raises(ArgumentError, match="num_threads: expected at most 65536"):
        build_corpus(tmp_path / "text", minilm, tmp_path / "other", num_threads=2**64)
    assert "num_sentences=3" in repr(corpus)


@pytest.mark.parametrize(
    "name", ["tokens.bin", "sentences.bin", "documents.bin", "word_starts.bin", "tokenizer/vocab.txt"]
)
def test_damage_is_found_and_named(tokenizer, tmp_path, name):
    (tmp_path / "text").write_text("Hello world\nunaffable\n\nBye\n")
    corpus = build_corpus(tmp_path / "text", tokenizer, tmp_path / "store")
    path = tmp_path / "store" / name
    good = path.read_bytes()
    for place in {0, len(good) // 2, len(good) - 1}:
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        path.write_bytes(bad)
        with pytest.raises(CorpusError, match=f"{name}: "):
            Corpus(tmp_path / "store").verify()
    path.write_bytes(good)
    Corpus(tmp_path / "store").verify()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Corpus(tmp_path / "store").verify()
    assert corpus.num_tokens == 6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"mask_token_id": 103', '"mask_token_id": 104', "mask_token_id: expected 103, .* got 104"),
        ('"kind": "wordpiece"', '"kind": "unigram"', "kind: expected 'wordpiece'"),
        ('"vocab_size": 30522', '"vocab_size": 30523', "vocab_size: expected 30522"),
        ('"tokens": 6', '"tokens": 8', "tokens.bin: expected 16 bytes for the counts, got 12"),
        ('"format": "bertfast', '"format": "', 'format: expected "bertfast-corpus"'),
        ("{", "", "not JSON"),
    ],
)
def test_damage_of_the_manifest_is_named(tokenizer, tmp_path, old, new, message):
    (tmp_path / "text").write_text("Hello world\nunaffable\n\nBye\n")
    build_corpus(tmp_path / "text", tokenizer, tmp_path / "store")
    path = tmp_path / "store/manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CorpusError, match=rf"manifest\.json: .*{message}"):
        Corpus(tmp_path / "store").verify()


def test_ids_of_32_bits(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{index}" for index in range(66_000))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "text").write_text("w65999 w1\nw0\n")
    corpus = build_corpus(tmp_path / "text", folder, tmp_path / "store")
    assert corpus.manifest["token_bits"] == 32
    assert np.fromfile(tmp_path / "store/tokens.bin", "<u4").tolist() == [66_004, 6, 5]
    corpus.verify()


def test_the_tokenizer_of_google(minilm, tmp_path):
    (tmp_path / "text").write_text("[MASK] them\n")
    google = bertfast.Tokenizer.from_pretrained(minilm, compat="google")
    corpus = build_corpus(tmp_path / "text", google, tmp_path / "store")
    assert len(corpus.sentence(0)) == 4
    assert Corpus(tmp_path / "store").tokenizer.compat == "google"
