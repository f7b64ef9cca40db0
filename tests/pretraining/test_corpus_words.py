"""Where words begin: by a segmenter, by the vocabulary, and with tokenizers of other kinds."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jieba
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

import bertfast
from bertfast._bertfast import split_sentences
from bertfast.errors import ArgumentError, TokenizerKindError
from bertfast.pretraining import build_corpus
from bertfast.pretraining.segmentation import Segmentation
from bertfast.pretraining.tokenizer_record import tokenizer_record, vocabulary_sha256, word_starts_of
from bertfast.vocabulary import save_vocabulary, train_vocabulary
from corpora import arrays_of, assert_stored, contents, documents_of
from token_store import files

Starts = Callable[[str, np.ndarray], list[bool]]


@pytest.fixture(scope="session")
def chinese(data_dir: Path) -> bertfast.Tokenizer:
    return bertfast.Tokenizer.from_pretrained(data_dir / "vocab-zh")


@pytest.fixture(scope="session", params=["byte-bpe", "unigram"])
def other(request, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bertfast.Tokenizer:
    """A tokenizer of another kind, with 3,000 tokens."""
    texts = (data_dir / "bible.txt").read_text(encoding="utf-8").splitlines()[:2000]
    texts += (data_dir / "chinese.txt").read_text(encoding="utf-8").splitlines()[:500]
    path = tmp_path_factory.mktemp(request.param)
    save_vocabulary(train_vocabulary(texts, kind=request.param, size=3000), path, kind=request.param)
    return bertfast.Tokenizer.from_pretrained(path)


def by(segmenter: Callable[[str], list[str]]) -> Starts:
    """The plainest program that says which tokens are the first that begin in a word."""

    def starts(sentence: str, offsets: np.ndarray) -> list[bool]:
        word_of, number = [], 0
        for number, word in enumerate(segmenter(sentence)):
            word_of += [number] * len(word)
        words = []
        for start in offsets[:, 0].tolist():
            while start < len(sentence) and sentence[start].isspace():
                start += 1
            words.append(word_of[start] if start < len(sentence) else number + 1)
        return [place == 0 or words[place - 1] != word for place, word in enumerate(words)]

    return starts


def test_the_words_of_the_news(data_dir, chinese, tmp_path):
    lines = (data_dir / "newspaper-words.txt").read_text(encoding="utf-8").splitlines()[:4000]
    words = {"".join(line.split()): line.split() for line in lines}
    path = tmp_path / "text"
    path.write_text("\n".join(line.replace(" ", "") for line in lines), encoding="utf-8")
    corpus = build_corpus(path, chinese, tmp_path / "store", segmenter=words.__getitem__)
    texts = [line.replace(" ", "") for line in lines]
    expected = arrays_of(documents_of([texts], "blank_line"), chinese, by(words.__getitem__))
    assert_stored(corpus, expected)
    total = sum(len(line.split()) for line in lines)
    assert 0.99 * total < expected["word_starts"].sum() <= total
    assert expected["word_starts"].sum() < 0.8 * len(expected["tokens"])
    assert corpus.manifest["options"]["segmenter"] == "dict.__getitem__"


def test_jieba_by_its_name(data_dir, chinese, tmp_path):
    lines = (data_dir / "newspaper.txt").read_text(encoding="utf-8").splitlines()[:150]
    lines += ["Hello world\uff0c你好 world", " 前后 空格 ", "don't"]
    path = tmp_path / "text"
    path.write_text("\n".join(lines), encoding="utf-8")
    corpus = build_corpus(path, chinese, tmp_path / "a", segmenter="jieba", split_sentences=True)
    documents = documents_of([lines], "blank_line", split_sentences)
    assert_stored(corpus, arrays_of(documents, chinese, by(jieba.lcut)))
    assert corpus.manifest["options"]["segmenter"] == f"jieba {jieba.__version__}"
    # A segmenter that leaves out the spaces says the same.
    build_corpus(
        path,
        chinese,
        tmp_path / "b",
        segmenter=lambda text: (word for word in jieba.cut(text) if word.strip()),
        split_sentences=True,
    )
    same, again = files(tmp_path / "a"), files(tmp_path / "b")
    del same["manifest.json"], again["manifest.json"]
    assert same == again


def test_words_of_other_kinds_of_tokenizers(data_dir, other, tmp_path):
    lines = (data_dir / "newspaper.txt").read_text(encoding="utf-8").splitlines()[:60]
    lines += (data_dir / "bible-chapters.txt").read_text(encoding="utf-8").splitlines()[:60]
    lines += ["Hello world\uff0c你好  world ", "  前后 空格 \u3000", "𠀀𠀁 ☃"]
    path = tmp_path / "text"
    path.write_text("\n".join(lines), encoding="utf-8")
    corpus = build_corpus(path, other, tmp_path / "plain")
    kind = other.raw.kind
    assert corpus.manifest["tokenizer"]["kind"] == {"BPE": "byte-bpe", "Unigram": "unigram"}[kind]
    assert_stored(corpus, arrays_of(documents_of([lines], "blank_line"), other))
    sign = {"BPE": "\u0120", "Unigram": "\u2581"}[kind]
    for number in range(corpus.num_sentences):
        tokens = other.convert_ids_to_tokens(corpus.sentence(number).tolist())
        starts = [place == 0 or token.startswith(sign) for place, token in enumerate(tokens)]
        assert corpus.word_starts(number).tolist() == starts
    corpus = build_corpus(path, other, tmp_path / "words", segmenter="jieba")
    assert_stored(corpus, arrays_of(documents_of([lines], "blank_line"), other, by(jieba.lcut)))
    assert corpus.tokenizer.get_vocab() == other.get_vocab()
    assert 0.2 < corpus.word_starts(0).mean() < 1


class Taken:
    """In the place of a store's writer."""

    def __init__(self) -> None:
        self.starts: list[bool] = []

    def append_arrays(
        self, ids: np.ndarray, ends: np.ndarray, documents: np.ndarray, starts: np.ndarray
    ) -> None:
        assert len(starts) == len(ids) == ends[-1]
        assert len(documents) == len(ends) - 1
        self.starts += starts.tolist()


PIECES = ["a", "bc", " ", "  ", "\u3000", "中", "国人", "don't", ".", "ß", "𠀀"]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12), max_size=4))
def test_any_words(chinese, other, texts):
    """Also a segmenter that cuts in the middle of tokens, and one that leaves out spaces."""
    words = {"".join(text): text for text in texts}
    lines = [line for line in words if line.strip()]
    by_character: Callable[[str], list[str]] = list
    for segmenter, whole in [
        (words.__getitem__, words.__getitem__),
        (lambda line: [word for word in words[line] if word.strip()], words.__getitem__),
        (by_character, by_character),
    ]:
        for tokenizer in (chinese, other):
            writer: Any = Taken()
            Segmentation("file", None, segmenter).append(writer, tokenizer, lines, "file", 1)
            ragged = tokenizer.encode_ragged(lines, add_special_tokens=False, return_offsets_mapping=True)
            ends = ragged.cu_seqlens.tolist()
            expected: list[bool] = []
            for line, (first, last) in zip(lines, itertools.pairwise(ends), strict=True):
                starts = by(whole)(line, ragged.offset_mapping[first:last])
                expected += starts
                # The writer takes care of the first token.
                if first < last:
                    writer.starts[first] = True
            assert writer.starts == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one"], r"expected words that add up to 'one two three', got \['one'\]"),
        (["one", "two", "three", "four"], "add up to 'one two three'"),
        (["one", "three", "two"], "add up to 'one two three'"),
        ([], r"got \[\]"),
    ],
)
def test_words_that_are_not_those_of_the_text(tokenizer, tmp_path, words, message):
    (tmp_path / "text").write_text("good\n\none two three\n")
    with pytest.raises(ArgumentError, match=rf"/text:3: segmenter: .*{message}"):
        build_corpus(
            tmp_path / "text",
            tokenizer,
            tmp_path / "store",
            segmenter=lambda text: words if " " in text else [text],
        )


def test_callbacks_that_give_something_else(tokenizer, tmp_path):
    (tmp_path / "text").write_text("one two\n")
    for name, what in [("segmenter", "words"), ("split_sentences", "sentences")]:
        for result, message in [
            ("one two", f"expected a list of {what} for .*text:1, got str"),
            (7, f"expected a list of {what} for .*text:1, got int"),
            (["one", 2], f"expected {what} of type str for .*text:1, got int"),
        ]:
            function = functools.partial(lambda text, result: result, result=result)
            with pytest.raises(TypeError, match=f"^{name}: {message}"):
                build_corpus(tmp_path / "text", tokenizer, tmp_path / "store", **{name: function})

    def raises(text: str) -> list[str]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build_corpus(tmp_path / "text", tokenizer, tmp_path / "store", segmenter=raises)
    for options, error, message in [
        ({"segmenter": "pkuseg"}, ArgumentError, "segmenter: expected 'jieba' or a function, got 'pkuseg'"),
        ({"split_sentences": "yes"}, TypeError, "split_sentences: expected a bool or a function, got str"),
        ({"documents": "page"}, ArgumentError, "documents: expected one of 'blank_line', 'line', 'file'"),
        ({"field": 3}, TypeError, "field: expected str or None, got int"),
        ({"num_threads": 0}, ArgumentError, "num_threads: expected a positive integer or None, got 0"),
    ]:
        with pytest.raises(error, match=message):
            build_corpus(tmp_path / "text", tokenizer, tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


def test_what_is_known_of_a_tokenizer(tokenizer, chinese, minilm, tmp_path):
    record = tokenizer_record(tokenizer)
    assert record == {
        "vocabulary_sha256": vocabulary_sha256(tokenizer.get_vocab()),
        "vocab_size": 30522,
        "cls_token_id": 101,
        "sep_token_id": 102,
        "mask_token_id": 103,
        "pad_token_id": 0,
        "unk_token_id": 100,
        "special_token_ids": [0, 100, 101, 102, 103],
        "kind": "wordpiece",
    }
    assert vocabulary_sha256({"ab": 0, "c": 2}) == (
        # printf '\2\0\0\0ab\377\377\377\377\1\0\0\0c' | sha256sum
        "c7d5e50449260a3cda63f0593789e4a01fad71274ebb4191bfb9f089d5fef0b2"
    )
    assert vocabulary_sha256(chinese.get_vocab()) != record["vocabulary_sha256"]
    for wrong in ("transformers", 3, None):
        with pytest.raises((TypeError, FileNotFoundError)):
            build_corpus(tmp_path, wrong, tmp_path / "store")


def saved(tokenizer: tokenizers.Tokenizer, folder: Path) -> bertfast.Tokenizer:
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return bertfast.Tokenizer.from_pretrained(folder)


def test_kinds_of_tokenizers(tmp_path, minilm):
    words = {"[UNK]": 0, "play": 1, "@@ing": 2, "##ed": 3, "s": 5}
    other = tokenizers.Tokenizer(
        models.WordPiece(
            words, unk_token="[UNK]", continuing_subword_prefix="@@", max_input_chars_per_word=100
        )
    )
    other.normalizer, other.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    other.decoder = decoders.WordPiece(prefix="@@")
    opened = saved(other, tmp_path / "prefix")
    assert word_starts_of(opened).tolist() == [True, True, False, True, True, True]
    level = tokenizers.Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    level.pre_tokenizer = pre_tokenizers.Whitespace()
    opened = saved(level, tmp_path / "words")
    assert tokenizer_record(opened)["kind"] == "wordlevel"
    assert word_starts_of(opened).all()
    (tmp_path / "text").write_text("play s\n")
    corpus = build_corpus(tmp_path / "text", opened, tmp_path / "store")
    assert contents(corpus) == [["play s"]]
    assert corpus.word_starts(0).tolist() == [True, True]
    corpus.verify()
    ends = tokenizers.Tokenizer(models.BPE({"a": 0, "a</w>": 1}, [], end_of_word_suffix="</w>"))
    opened = saved(ends, tmp_path / "ends")
    for call in (tokenizer_record, word_starts_of):
        with pytest.raises(
            TokenizerKindError, match=r"says which tokens begin a word .* got BPE without a sign"
        ):
            call(opened)
    with pytest.raises(TokenizerKindError, match="says which tokens begin a word"):
        build_corpus(tmp_path / "text", opened, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    # Of Chinese text byte-level BPE has no token that begins with the sign but the sign itself.
    signs = tokenizers.Tokenizer(models.BPE({"\u0120": 0, "##": 1, "a": 2}, []))
    opened = saved(signs, tmp_path / "signs")
    assert tokenizer_record(opened)["kind"] == "byte-bpe"
    assert word_starts_of(opened).tolist() == [True, False, False]
    raw = json.loads((minilm / "tokenizer.json").read_text())
    assert raw["model"]["continuing_subword_prefix"] == "##"


def test_a_tokenizer_that_was_not_opened_from_a_folder(tmp_path, tokenizer):
    (tmp_path / "text").write_text("one\n")
    with pytest.raises(ArgumentError, match="tokenizer: expected one that was opened from a folder"):
        build_corpus(tmp_path / "text", bertfast.Tokenizer(tokenizer.raw), tmp_path / "store")
