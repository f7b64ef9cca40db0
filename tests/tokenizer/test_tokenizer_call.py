"""Calling and decoding, as a transformers tokenizer does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bertfast import Tokenizer
from bertfast.errors import ArgumentError, TokenIdError
from tokenizers_reference import random_texts

TEXTS = ["Hello world!", "", "a much longer text that goes on and on and on", "中文 [MASK] naïve"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": True},
        {"padding": "longest"},
        {"padding": "max_length"},
        {"padding": "max_length", "max_length": 9},
        {"padding": "max_length", "max_length": 9, "truncation": True},
        {"truncation": True, "max_length": 6},
        {"truncation": True},
        {"max_length": 6},
        {"max_length": 6, "truncation": False},
        {"truncation": "only_first", "max_length": 8},
        {"truncation": "do_not_truncate", "padding": "do_not_pad"},
        {"add_special_tokens": False},
        {"add_special_tokens": False, "truncation": True, "max_length": 3, "padding": True},
    ],
)
def test_lists_are_those_of_transformers(ours: Tokenizer, theirs: Any, options: dict[str, Any]) -> None:
    assert dict(ours(TEXTS, **options)) == dict(theirs(TEXTS, **options))
    for text in TEXTS:
        assert dict(ours(text, **options)) == dict(theirs(text, **options))
    if options.get("truncation") != "only_first":
        pairs = [*TEXTS[2:], "", "x"]
        assert dict(ours(TEXTS, pairs, **options)) == dict(theirs(TEXTS, pairs, **options))
        assert dict(ours(TEXTS[0], TEXTS[2], **options)) == dict(theirs(TEXTS[0], TEXTS[2], **options))


def test_an_empty_second_text_is_none_alone_and_one_in_a_batch(ours: Tokenizer, theirs: Any) -> None:
    for arguments in (("hello", ""), (["hello"], [""])):
        assert dict(ours(*arguments)) == dict(theirs(*arguments))
    assert ours("hello", "")["input_ids"] == [101, 7592, 102]
    assert ours(["hello"], [""])["input_ids"] == [[101, 7592, 102, 102]]


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_tensors(ours: Tokenizer, theirs: Any, kind: Any) -> None:
    for text in (TEXTS, TEXTS[0]):
        got = ours(text, padding=True, return_tensors=kind)
        expected = theirs(text, padding=True, return_tensors=kind)
        assert got.keys() == expected.keys()
        for name, values in got.items():
            assert isinstance(values, np.ndarray if kind == "np" else torch.Tensor)
            assert values.dtype == expected[name].dtype
            assert values.tolist() == expected[name].tolist()
            assert getattr(got, name) is values
    with pytest.raises(ArgumentError, match="lengths of input_ids from 2 to 1"):
        ours(TEXTS, return_tensors=kind)


def test_the_folder_decides_about_sides_and_arrays(minilm: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes((minilm / "vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        '{"padding_side": "left", "truncation_side": "left", "model_max_length": 7,'
        ' "model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": true}'
    )
    ours, theirs = Tokenizer.from_pretrained(tmp_path), transformers.BertTokenizer.from_pretrained(tmp_path)
    for options in ({"padding": True}, {"truncation": True}, {"padding": "max_length", "truncation": True}):
        assert dict(ours(TEXTS, **options)) == dict(theirs(TEXTS, **options))
    assert ours.model_max_length == theirs.model_max_length == 7
    assert ours.decode([2057, 1005, 2310]) == theirs.decode([2057, 1005, 2310]) == "we've"


def test_decoding(ours: Tokenizer, theirs: Any) -> None:
    texts = [*TEXTS, *random_texts(2000, seed=11), "don't . do not ! it 's , we 've ' x ' n't"]
    for text in texts:
        ids = ours(text)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids)
        skipped = {"skip_special_tokens": True}
        assert ours.decode(ids, **skipped) == theirs.decode(ids, **skipped)
        cleaned = {"clean_up_tokenization_spaces": True, **skipped}
        assert ours.decode(np.array(ids), **cleaned) == theirs.decode(ids, **cleaned)
    assert ours.decode(7592) == theirs.decode(7592) == "hello"
    assert ours.decode([]) == theirs.decode([]) == ""
    assert (
        ours.decode(torch.tensor([7592, 30522, 2088])) == theirs.decode([7592, 30522, 2088]) == "hello world"
    )
    with pytest.raises(TokenIdError, match="-1"):
        ours.decode([7592, -1])
    with pytest.raises(ArgumentError, match=r"\(1, 2\)"):
        ours.decode([[1, 2]])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="float64"):
        ours.decode(np.array([1.5]))  # type: ignore[arg-type]


def test_vocabulary_and_special_tokens(ours: Tokenizer, theirs: Any) -> None:
    assert ours.get_vocab() == theirs.get_vocab()
    assert (ours.vocab_size, len(ours)) == (theirs.vocab_size, len(theirs)) == (30522, 30522)
    for name in ("unk", "sep", "pad", "cls", "mask"):
        for attribute in (f"{name}_token", f"{name}_token_id"):
            assert getattr(ours, attribute) == getattr(theirs, attribute)
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    assert ours.model_max_length == theirs.model_max_length == 512
    assert ours.model_input_names == theirs.model_input_names
    for token in ("hello", "[MASK]", "no such token"):
        assert ours.convert_tokens_to_ids(token) == theirs.convert_tokens_to_ids(token)
    for token_id in (0, 103, 7592, 30521):
        assert ours.convert_ids_to_tokens(token_id) == theirs.convert_ids_to_tokens(token_id)
    assert ours.convert_ids_to_tokens(30522) is None
    for pair in (False, True):
        assert ours.num_special_tokens_to_add(pair) == theirs.num_special_tokens_to_add(pair)


def test_ragged_arrays(ours: Tokenizer) -> None:
    ragged = ours.encode_ragged(TEXTS)
    assert (ragged.input_ids.dtype, ragged.cu_seqlens.dtype) == (np.int32, np.int64)
    assert ragged.cu_seqlens.tolist() == [0, 5, 7, 20, 26]
    assert len(ragged) == 4
    assert repr(ragged) == "Ragged(4 sequences, 26 tokens)"
    assert ragged.truncated == 0
    asked = ("token_type_ids", "offset_mapping", "overflow_to_sample", "word_ids")
    assert [getattr(ragged, name) for name in asked] == [None] * 4
    with pytest.raises(AttributeError):
        ragged.input_ids = None  # type: ignore[misc]

    ragged = ours.encode_ragged(
        TEXTS,
        truncation=True,
        max_length=6,
        return_token_type_ids=True,
        return_offsets_mapping=True,
        return_word_ids=True,
        return_overflowing_tokens=True,
    )
    tokens, sequences = len(ragged.input_ids), len(ragged)
    assert ragged.overflow_to_sample is not None
    assert ragged.overflow_to_sample.tolist() == [0, 1, 2, 2, 2, 3]
    assert ragged.truncated == 1
    for name, dtype, shape in [
        ("token_type_ids", np.int32, (tokens,)),
        ("offset_mapping", np.int32, (tokens, 2)),
        ("word_ids", np.int32, (tokens,)),
        ("overflow_to_sample", np.int64, (sequences,)),
    ]:
        array = getattr(ragged, name)
        assert (array.dtype, array.shape) == (dtype, shape)


def test_nothing_to_do(ours: Tokenizer) -> None:
    assert ours("")["input_ids"] == [101, 102]
    assert ours("", add_special_tokens=False)["input_ids"] == []
    assert dict(ours([])) == {"input_ids": [], "token_type_ids": [], "attention_mask": []}
    assert ours([], padding=True, return_tensors="np")["input_ids"].shape == (0, 0)
    ragged = ours.encode_ragged([], [], return_offsets_mapping=True)
    assert (ragged.input_ids.shape, ragged.cu_seqlens.tolist()) == ((0,), [0])
    assert ragged.offset_mapping is not None
    assert ragged.offset_mapping.shape == (0, 2)
