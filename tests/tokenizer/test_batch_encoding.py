"""What users of a transformers tokenizer touch: options of a call, where tokens came from, conversions."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

from bertfast import BatchEncoding, Tokenizer
from bertfast.errors import ArgumentError, TokenIdError
from tokenizers_reference import random_texts

TEXTS = [
    "Hello world!",
    "",
    "a much longer text that goes on and on, unaffable",
    "中文 [MASK] naïve  Ünïcödé",
]
PAIRS = ["second", "the second text is longer than the first", "", "x y"]
WORDS = [["Hello", "world!"], ["unaffable", "", "中文 naïve", "[MASK]"], ["a"] * 9]


def same(ours: Any, theirs: Any) -> None:
    """Entries in order, and where every token came from."""
    assert list(ours) == list(theirs)
    for name in theirs:
        ours_, theirs_ = ours[name], theirs[name]
        if hasattr(theirs_, "dtype"):
            assert ours_.dtype == theirs_.dtype, name
            assert ours_.shape == theirs_.shape, name
            ours_, theirs_ = ours_.tolist(), theirs_.tolist()
        assert ours_ == theirs_, name
    for index, encoding in enumerate(theirs.encodings):
        assert ours.tokens(index) == encoding.tokens
        assert ours.word_ids(index) == theirs.word_ids(index)
        assert ours.sequence_ids(index) == theirs.sequence_ids(index)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"return_offsets_mapping": True, "return_length": True, "return_special_tokens_mask": True},
    {"return_token_type_ids": False, "return_attention_mask": False, "return_length": True},
    {
        "padding": True,
        "return_special_tokens_mask": True,
        "return_offsets_mapping": True,
        "return_length": True,
    },
    {
        "padding": True,
        "padding_side": "left",
        "return_special_tokens_mask": True,
        "return_offsets_mapping": True,
    },
    {"padding": True, "pad_to_multiple_of": 8},
    {"padding": "max_length", "max_length": 16, "truncation": True, "pad_to_multiple_of": 8},
    {"padding": "max_length", "max_length": 30, "return_offsets_mapping": True},
    {"truncation": True, "max_length": 9, "stride": 1, "return_overflowing_tokens": True},
    {
        "truncation": "only_first",
        "max_length": 16,
        "stride": 2,
        "return_overflowing_tokens": True,
        "padding": True,
        "return_offsets_mapping": True,
        "return_special_tokens_mask": True,
        "return_length": True,
    },
    {"add_special_tokens": False, "return_special_tokens_mask": True, "return_offsets_mapping": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_calls_give_what_transformers_gives(ours: Tokenizer, theirs: Any, options: dict[str, Any]) -> None:
    same(ours(TEXTS, **options), theirs(TEXTS, **options))
    for text in TEXTS:
        same(ours(text, **options), theirs(text, **options))
    if options.get("truncation") != "only_first":
        same(ours(TEXTS, PAIRS, **options), theirs(TEXTS, PAIRS, **options))
        same(ours(TEXTS[3], TEXTS[2], **options), theirs(TEXTS[3], TEXTS[2], **options))


@pytest.mark.parametrize("options", OPTIONS)
def test_words_that_are_split_already(ours: Tokenizer, theirs: Any, options: dict[str, Any]) -> None:
    options = {**options, "is_split_into_words": True}
    same(ours(WORDS, **options), theirs(WORDS, **options))
    same(ours(WORDS[1], **options), theirs(WORDS[1], **options))
    same(ours(WORDS, WORDS[::-1], **options), theirs(WORDS, WORDS[::-1], **options))


def test_random_words_that_are_split_already(ours: Tokenizer, theirs: Any) -> None:
    rng = random.Random(11)
    texts = random_texts(11, 900)
    batch = [texts[at : at + 3] for at in range(0, 900, 3)]
    pairs = [[rng.choice(texts) for _ in range(rng.randrange(1, 4))] for _ in batch]
    options: dict[str, Any] = {
        "is_split_into_words": True,
        "truncation": True,
        "max_length": 24,
        "stride": 3,
        "return_overflowing_tokens": True,
        "return_offsets_mapping": True,
        "return_special_tokens_mask": True,
    }
    same(ours(batch, **options), theirs(batch, **options))
    same(ours(batch, pairs, **{**options, "stride": 0}), theirs(batch, pairs, **{**options, "stride": 0}))


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_tensors(ours: Tokenizer, theirs: Any, kind: Any) -> None:
    options: dict[str, Any] = {
        "padding": True,
        "return_tensors": kind,
        "return_special_tokens_mask": True,
        "return_offsets_mapping": True,
        "return_length": True,
        "truncation": True,
        "max_length": 7,
        "return_overflowing_tokens": True,
    }
    same(ours(TEXTS, **options), theirs(TEXTS, **options))
    same(ours(TEXTS[2], **options), theirs(TEXTS[2], **options))
    same(ours(TEXTS[0], return_tensors=kind), theirs(TEXTS[0], return_tensors=kind))


def test_positions_of_tokens_words_and_characters(ours: Tokenizer, theirs: Any) -> None:
    calls: list[tuple[Any, ...]] = [(TEXTS, PAIRS), (TEXTS,)]
    for call in calls:
        us, them = ours(*call, padding=True), theirs(*call, padding=True)
        assert us.n_sequences == them.encodings[0].n_sequences
        for batch in range(len(TEXTS)):
            for token in range(len(us.tokens(batch))):
                assert us.token_to_word(batch, token) == them.token_to_word(batch, token)
                assert us.token_to_sequence(batch, token) == them.token_to_sequence(batch, token)
                assert us.token_to_chars(batch, token) == them.token_to_chars(batch, token)
            for sequence in range(len(call)):
                for char in range(len(call[sequence][batch])):
                    at = (batch, char, sequence)
                    assert us.char_to_token(*at) == them.char_to_token(*at)
                    if them.char_to_token(*at) is not None:
                        assert us.char_to_word(*at) == them.char_to_word(*at)
                for word in range(max((w or 0) for w in us.word_ids(batch))):
                    at = (batch, word, sequence)
                    if word in {
                        w
                        for w, s in zip(us.word_ids(batch), us.sequence_ids(batch), strict=True)
                        if s == sequence
                    }:
                        assert us.word_to_tokens(*at) == them.word_to_tokens(*at)
                        assert us.word_to_chars(*at) == them.word_to_chars(*at)
    one, theirs_one = ours("Hello unaffable"), theirs("Hello unaffable")
    assert [one.token_to_chars(token) for token in range(6)] == [
        theirs_one.token_to_chars(t) for t in range(6)
    ]
    assert one.token_to_chars(-2) == one.token_to_chars(len(one.tokens()) - 2)
    assert one.word_to_tokens(1) == theirs_one.word_to_tokens(1)
    assert one.char_to_token(7) == theirs_one.char_to_token(7)
    assert one.char_to_word(7) == 1
    assert (one.word_to_tokens(9), one.word_to_chars(9), one.char_to_token(99), one.char_to_word(99)) == (
        None,
    ) * 4
    assert (one.token_to_word(99), one.token_to_sequence(99), one.token_to_chars(99)) == (None,) * 3


def test_an_encoding_is_a_dict_that_travels(ours: Tokenizer) -> None:
    encoding = ours(["Hello world", "x"], padding=True)
    again = pickle.loads(pickle.dumps(encoding))
    assert dict(again) == dict(encoding)
    assert again.word_ids(1) == encoding.word_ids(1) == [None, 0, None, None]
    assert encoding.convert_to_tensors("pt") is encoding
    assert encoding.to("cpu").input_ids.device == torch.device("cpu")
    assert encoding.to("meta").input_ids.device == torch.device("meta")
    with pytest.raises(AttributeError, match="nothing"):
        _ = encoding.nothing
    with pytest.raises(ArgumentError, match="lengths of input_ids from 3 to 4"):
        ours(["Hello world", "x"]).convert_to_tensors("np")
    with pytest.raises(ArgumentError, match="nothing says where"):
        BatchEncoding({"input_ids": [1]}).word_ids()


def test_padding_what_was_encoded(ours: Tokenizer, theirs: Any) -> None:
    def entries(tokenizer: Any) -> list[dict[str, Any]]:
        return [dict(tokenizer(text, return_special_tokens_mask=True)) for text in TEXTS]

    for options in (
        {},
        {"padding": "max_length", "max_length": 40},
        {"pad_to_multiple_of": 16, "return_tensors": "np"},
        {"padding_side": "left", "return_tensors": "pt"},
        {"padding": False},
    ):
        us, them = ours.pad(entries(ours), **options), theirs.pad(entries(theirs), **options)
        assert us.keys() == them.keys()
        for name in them:
            assert (
                np.array_equal(us[name], them[name])
                if hasattr(them[name], "dtype")
                else us[name] == them[name]
            )
    ids = {"input_ids": [[101, 102], [101, 7592, 102]]}
    assert dict(ours.pad(ids)) == dict(theirs.pad(ids))
    assert dict(ours.pad({"input_ids": [101]}, padding="max_length", max_length=3)) == {
        "input_ids": [101, 0, 0],
        "attention_mask": [1, 0, 0],
    }
    for one in ({"input_ids": [101, 102]}, {"input_ids": np.array([[101, 102], [101, 103]])}):
        for kind in (None, "np"):
            us, them = (tokenizer.pad(dict(one), return_tensors=kind) for tokenizer in (ours, theirs))
            assert {name: np.shape(us[name]) for name in us} == {name: np.shape(them[name]) for name in them}
            assert type(us["input_ids"]) is type(them["input_ids"])
    tensors = ours(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(ours.pad(tensors, return_tensors="pt").input_ids, tensors.input_ids)
    with pytest.raises(ArgumentError, match="input_ids"):
        ours.pad({"labels": [1]})


def test_collators_of_transformers_take_it(ours: Tokenizer, theirs: Any) -> None:
    def features(tokenizer: Any) -> list[dict[str, Any]]:
        return [{**tokenizer(text), "labels": [1] * len(tokenizer(text)["input_ids"])} for text in TEXTS]

    def labelled(tokenizer: Any) -> list[dict[str, Any]]:
        return [{**tokenizer(text), "label": 1} for text in TEXTS]

    for collator, entries in (
        (DataCollatorForTokenClassification, features),
        (DataCollatorWithPadding, labelled),
    ):
        us, them = collator(ours)(entries(ours)), collator(theirs)(entries(theirs))
        assert us.keys() == them.keys()
        assert all(torch.equal(us[name], them[name]) for name in them)


def test_a_list_may_be_used_again(ours: Tokenizer) -> None:
    words = [["A", "cat"], ["sits"]]
    texts = ["A cat", "sits"]
    alone = ours(words[0], is_split_into_words=True)
    split, whole = ours(words, is_split_into_words=True), ours(texts, padding=True, return_tensors="np")
    words[0][:] = ["something", "else", "altogether"]
    texts.clear()
    assert alone.tokens() == split.tokens(0) == whole.tokens(0) == ["[CLS]", "a", "cat", "[SEP]"]
    assert split.word_ids(0) == [None, 0, 1, None]


def test_a_length_that_is_no_multiple(ours: Tokenizer, theirs: Any) -> None:
    options: dict[str, Any] = {"truncation": True, "max_length": 10, "pad_to_multiple_of": 8}
    for padding in (True, "max_length"):
        with pytest.raises(ValueError, match="not a multiple"):
            theirs(TEXTS, padding=padding, **options)
        with pytest.raises(ArgumentError, match=r"^pad_to_multiple_of: expected a divisor of .* 10 .*got 8$"):
            ours(TEXTS, padding=padding, **options)
    options["max_length"] = 16
    assert dict(ours(TEXTS, padding=True, **options)) == dict(theirs(TEXTS, padding=True, **options))


def test_conversions(ours: Tokenizer, theirs: Any) -> None:
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.encode(text, "b", truncation=True, max_length=6) == theirs.encode(
            text, "b", truncation=True, max_length=6
        )
        assert ours.tokenize(text) == theirs.tokenize(text)
        assert ours.tokenize(text, "b") == theirs.tokenize(text, "b")
        tokens = theirs.convert_ids_to_tokens(ids)
        assert ours.convert_ids_to_tokens(ids) == tokens
        assert ours.convert_ids_to_tokens(np.array(ids)) == tokens
        kept = theirs.convert_ids_to_tokens(ids, skip_special_tokens=True)
        assert ours.convert_ids_to_tokens(ids, skip_special_tokens=True) == kept
        assert ours.convert_tokens_to_ids([*tokens, "nosuchtoken"]) == theirs.convert_tokens_to_ids(
            [*tokens, "nosuchtoken"]
        )
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
        assert ours.get_special_tokens_mask(ids) == theirs.get_special_tokens_mask(
            ids, already_has_special_tokens=True
        )
    batch = theirs(TEXTS)["input_ids"]
    assert ours.batch_decode(batch) == theirs.batch_decode(batch)
    assert ours.batch_decode(ours.encode_ragged(TEXTS), True) == theirs.batch_decode(
        batch, skip_special_tokens=True
    )
    assert ours.batch_decode(ours.encode_ragged([])) == []
    for ids in ([[101], [102]], [[101], [7592, 102]]):
        with pytest.raises(ArgumentError, match="token_ids: expected one sequence"):
            ours.decode(ids)  # type: ignore[arg-type]
    assert ours.convert_ids_to_tokens(10**6) is None
    with pytest.raises(TokenIdError, match="1000000"):
        ours.convert_ids_to_tokens([10**6])
    with pytest.raises(ArgumentError, match="return_special_tokens_mask"):
        ours.get_special_tokens_mask([1], already_has_special_tokens=False)


def test_names_and_numbers(ours: Tokenizer, theirs: Any) -> None:
    for name in (
        "special_tokens_map",
        "all_special_tokens",
        "vocab",
        "is_fast",
        "pad_token_type_id",
        "model_max_length",
        "model_input_names",
        "padding_side",
        "truncation_side",
        "vocab_size",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("files", [None, ["vocab.txt", "tokenizer_config.json"], ["vocab.txt"]])
def test_a_saved_folder_opens_in_both(minilm: Path, tmp_path: Path, files: list[str] | None) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for file in minilm.iterdir():
        if file.is_file() and (files is None or file.name in files):
            (source / file.name).write_bytes(file.read_bytes())
    tokenizer = Tokenizer.from_pretrained(source)
    saved = tokenizer.save_pretrained(tmp_path / "new" / "saved")
    assert all(Path(path).is_file() for path in saved)
    want = tokenizer(TEXTS)["input_ids"]
    assert Tokenizer.from_pretrained(tmp_path / "new" / "saved")(TEXTS)["input_ids"] == want
    theirs = transformers.BertTokenizerFast.from_pretrained(tmp_path / "new" / "saved")
    assert theirs(TEXTS)["input_ids"] == want


def test_bad_arguments(ours: Tokenizer) -> None:
    with pytest.raises(ArgumentError, match='padding_side: expected "left" or "right", got \'up\''):
        ours("a", padding_side="up")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"texts\[1\]: expected a list of str, got str"):
        ours.encode_ragged([["a"], "b"], is_split_into_words=True)  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"texts\[0\]\[1\]: expected str, got int"):
        ours([["a", 1]], is_split_into_words=True)  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match=r"texts\[0\]\[0\].*surrogate"):
        ours(["\ud800"], is_split_into_words=True)
