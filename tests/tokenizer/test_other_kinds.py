"""A `tokenizer.json` that is not BERT's: everything that a `Tokenizer` does, as transformers does it."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import DataCollatorWithPadding

from bertfast import Ragged, Tokenizer
from bertfast.errors import ArgumentError, DtypeError, ShapeError, TokenizerError, TokenizerKindError
from bertfast.other_kinds import OtherTokenizer
from bertfast.tokenizer_settings import DEFAULTS, SPECIAL_TOKENS
from bertfast.vocabulary import Kind, save_vocabulary, train_vocabulary
from tokenizers_reference import random_texts

OTHER_KINDS: tuple[Kind, ...] = ("byte-bpe", "unigram")
TEXTS = ["Hello world!", "", " and God said, Let there be light", "中文 <mask> [MASK] naïve  Ünïcödé", "😀 x"]
PAIRS = ["second", "the second text is longer than the first", "", " x y", "z"]
WORDS = [["Hello", "world!"], ["light", "", "中文 naïve", "<mask>"], ["a"] * 9, []]


@pytest.fixture(scope="session", params=OTHER_KINDS)
def folder(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a vocabulary of 2,500 tokens."""
    texts = (data_dir / "bible.txt").read_text(encoding="utf-8").splitlines()[:3000]
    texts += (data_dir / "chinese.txt").read_text(encoding="utf-8").splitlines()[:200]
    path = tmp_path_factory.mktemp(request.param)
    trained = train_vocabulary(texts, kind=request.param, size=2500)
    save_vocabulary(trained, path, kind=request.param, max_length=128)
    return path


@pytest.fixture(scope="session")
def ours(folder: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def theirs(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def same(ours: Any, theirs: Any, tokenizer: Any) -> None:
    """Entries in order, and where every token came from.

    Tokens are compared by their ids: their `tokens` shows the text of what is unknown, and the space before a
    mask, which is not what the vocabulary calls them.
    """
    assert list(ours) == list(theirs)
    for name in theirs:
        ours_, theirs_ = ours[name], theirs[name]
        if hasattr(theirs_, "dtype"):
            assert (ours_.dtype, ours_.shape) == (theirs_.dtype, theirs_.shape), name
            ours_, theirs_ = ours_.tolist(), theirs_.tolist()
        assert ours_ == theirs_, name
    for index, encoding in enumerate(theirs.encodings):
        assert ours.tokens(index) == tokenizer.convert_ids_to_tokens(encoding.ids)
        assert ours.word_ids(index) == theirs.word_ids(index)
        assert ours.sequence_ids(index) == theirs.sequence_ids(index)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"return_offsets_mapping": True, "return_length": True, "return_special_tokens_mask": True},
    {"return_token_type_ids": True, "return_attention_mask": False, "return_length": True},
    {"padding": True, "return_special_tokens_mask": True, "return_offsets_mapping": True},
    {"padding": True, "padding_side": "left", "return_offsets_mapping": True, "return_length": True},
    {"padding": True, "pad_to_multiple_of": 8, "return_tensors": "np"},
    {"padding": "max_length", "max_length": 40, "return_tensors": "pt", "return_offsets_mapping": True},
    {"padding": "max_length", "max_length": 16, "truncation": True, "pad_to_multiple_of": 8},
    {"padding": "max_length", "truncation": True},
    {"add_special_tokens": False, "return_special_tokens_mask": True, "return_offsets_mapping": True},
    {"truncation": "do_not_truncate", "max_length": 4},
    {"max_length": 7},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_calls_give_what_transformers_gives(ours: Tokenizer, theirs: Any, options: dict[str, Any]) -> None:
    same(ours(TEXTS, **options), theirs(TEXTS, **options), theirs)
    same(ours(TEXTS, PAIRS, **options), theirs(TEXTS, PAIRS, **options), theirs)
    for text, pair in zip(TEXTS, PAIRS, strict=True):
        same(ours(text, **options), theirs(text, **options), theirs)
        # "" alone is no second text; in a batch it is one.
        same(ours(text, pair, **options), theirs(text, pair, **options), theirs)
    split = {**options, "is_split_into_words": True}
    same(ours(WORDS, **split), theirs(WORDS, **split), theirs)
    same(ours(WORDS[1], **split), theirs(WORDS[1], **split), theirs)
    same(ours(WORDS, WORDS[::-1], **split), theirs(WORDS, WORDS[::-1], **split), theirs)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("is_split_into_words", [False, True])
def test_truncation_and_windows(folder: Path, side: str, is_split_into_words: bool) -> None:
    """Every strategy, length and stride that the reference does not fail at."""
    ours, theirs = Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    ours.truncation_side = theirs.truncation_side = side
    texts: list[Any] = [text.split() for text in TEXTS] if is_split_into_words else TEXTS
    pairs: list[Any] = [text.split() for text in PAIRS] if is_split_into_words else PAIRS
    compared = 0
    for pair, special, strategy, length, stride, windows in itertools.product(
        (None, pairs), (True, False), (True, "only_first", "only_second"), (5, 6, 9, 16), (0, 1, 3), (0, 1)
    ):
        options = {
            "add_special_tokens": special,
            "truncation": strategy,
            "max_length": length,
            "stride": stride,
            "return_overflowing_tokens": bool(windows),
            "return_token_type_ids": True,
            "return_offsets_mapping": True,
            "return_special_tokens_mask": True,
            "is_split_into_words": is_split_into_words,
        }
        try:
            us = ours(texts, pair, **options)
        except ArgumentError:
            # The reference fails there too, or ends the process; where this is right is tested below.
            continue
        same(us, theirs(texts, pair, **options | ({} if windows else {"stride": 0})), theirs)
        compared += 1
    assert compared > 100


def test_random_texts(ours: Tokenizer, theirs: Any) -> None:
    texts = random_texts(1500, seed=21)
    rng = random.Random(21)
    pairs = rng.sample(texts, len(texts))
    options: dict[str, Any] = {"return_offsets_mapping": True, "return_token_type_ids": True}
    same(ours(texts, **options), theirs(texts, **options), theirs)
    options |= {"truncation": True, "max_length": 40, "stride": 3, "return_overflowing_tokens": True}
    few = texts[:300], pairs[:300]  # which are thousands of windows
    same(ours(*few, **options), theirs(*few, **options), theirs)
    words = [texts[at : at + 3] for at in range(0, 1500, 3)]
    same(ours(words, is_split_into_words=True), theirs(words, is_split_into_words=True), theirs)


def test_positions_of_tokens_words_and_characters(ours: Tokenizer, theirs: Any) -> None:
    us, them = ours(TEXTS, PAIRS, padding=True), theirs(TEXTS, PAIRS, padding=True)
    assert us.n_sequences == 2
    for batch, texts in enumerate(zip(TEXTS, PAIRS, strict=True)):
        for token in range(len(us.tokens(batch))):
            assert us.token_to_word(batch, token) == them.token_to_word(batch, token)
            assert us.token_to_sequence(batch, token) == them.token_to_sequence(batch, token)
            assert us.token_to_chars(batch, token) == them.token_to_chars(batch, token)
        origins = list(zip(us.word_ids(batch), us.sequence_ids(batch), strict=True))
        for sequence, text in enumerate(texts):
            for char in range(len(text)):
                at = (batch, char, sequence)
                assert us.char_to_token(*at) == them.char_to_token(*at)
                if us.char_to_token(*at) is not None:
                    assert us.char_to_word(*at) == them.char_to_word(*at)
            for word in {word for word, of in origins if of == sequence}:
                assert word is not None
                at = (batch, word, sequence)
                assert us.word_to_tokens(*at) == them.word_to_tokens(*at)
                assert us.word_to_chars(*at) == them.word_to_chars(*at)


def test_an_encoding_travels(ours: Tokenizer) -> None:
    encoding = ours(TEXTS, padding=True, return_tensors="np")
    again = pickle.loads(pickle.dumps(encoding))
    assert again.keys() == encoding.keys()
    assert np.array_equal(again.input_ids, encoding.input_ids)
    assert [again.tokens(at) for at in range(5)] == [encoding.tokens(at) for at in range(5)]
    assert again.word_ids(2) == encoding.word_ids(2)
    assert again.token_to_chars(2, 3) == encoding.token_to_chars(2, 3) is not None


def test_ragged_arrays(ours: Tokenizer, theirs: Any) -> None:
    ragged = ours.encode_ragged(
        TEXTS,
        truncation=True,
        max_length=9,
        return_token_type_ids=True,
        return_offsets_mapping=True,
        return_word_ids=True,
        return_sequence_ids=True,
        return_overflowing_tokens=True,
    )
    expected = theirs(TEXTS, truncation=True, max_length=9, return_overflowing_tokens=True)
    assert ragged.overflow_to_sample is not None
    assert ragged.overflow_to_sample.tolist() == expected["overflow_to_sample_mapping"]
    assert ragged.input_ids.tolist() == list(itertools.chain(*expected["input_ids"]))
    assert np.diff(ragged.cu_seqlens).tolist() == list(map(len, expected["input_ids"]))
    assert ragged.truncated == np.count_nonzero(np.bincount(ragged.overflow_to_sample) > 1) > 0
    tokens = len(ragged.input_ids)
    for name, dtype, shape in [
        ("input_ids", np.int32, (tokens,)),
        ("cu_seqlens", np.int64, (len(ragged) + 1,)),
        ("token_type_ids", np.int32, (tokens,)),
        ("offset_mapping", np.int32, (tokens, 2)),
        ("word_ids", np.int32, (tokens,)),
        ("sequence_ids", np.int32, (tokens,)),
        ("overflow_to_sample", np.int64, (len(ragged),)),
    ]:
        array = getattr(ragged, name)
        assert (array.dtype, array.shape) == (dtype, shape), name
    plain = ours.encode_ragged(TEXTS, truncation=True, max_length=9)
    assert (plain.truncated, len(plain)) == (ragged.truncated, len(TEXTS))
    assert [plain.offset_mapping, plain.word_ids, plain.overflow_to_sample] == [None] * 3
    nothing = ours.encode_ragged([], [], return_offsets_mapping=True, return_overflowing_tokens=True)
    assert (len(nothing), nothing.cu_seqlens.tolist()) == (0, [0])
    assert nothing.offset_mapping is not None
    assert nothing.offset_mapping.shape == (0, 2)
    assert dict(ours([])) == {name: [] for name in ours.model_input_names}


def test_many_texts_are_the_same_as_few(ours: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are encoded in steps; where these end is not to be seen."""
    texts = [*TEXTS, *random_texts(200, seed=5)]
    options: dict[str, Any] = {"truncation": True, "max_length": 9, "return_overflowing_tokens": True}
    whole = ours.encode_ragged(texts, texts[::-1], **options)
    monkeypatch.setattr("bertfast.other_kinds._STEP", 20)
    parts = ours.encode_ragged(texts, texts[::-1], **options)
    for name in ("input_ids", "cu_seqlens", "overflow_to_sample", "truncated"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    with pytest.raises(ArgumentError, match=r"texts\[150\].*surrogate"):
        ours.encode_ragged([*texts[:150], "a\ud800"])


def test_conversions(ours: Tokenizer, theirs: Any) -> None:
    texts = [*TEXTS, "it 's , we do n't . ' x '", *random_texts(500, seed=8)]
    for text in texts:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.encode(text, "b", truncation=True, max_length=6) == theirs.encode(
            text, "b", truncation=True, max_length=6
        )
        tokens = theirs.convert_ids_to_tokens(ids)
        assert ours.tokenize(text, add_special_tokens=True) == tokens
        assert ours.convert_ids_to_tokens(ids) == tokens
        kept = theirs.convert_ids_to_tokens(ids, skip_special_tokens=True)
        assert ours.convert_ids_to_tokens(ids, skip_special_tokens=True) == kept
        unknown = [*tokens, "nosuchtoken"]
        assert ours.convert_tokens_to_ids(unknown) == theirs.convert_tokens_to_ids(unknown)
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
        assert ours.get_special_tokens_mask(ids) == theirs.get_special_tokens_mask(
            ids, already_has_special_tokens=True
        )
        for options in ({}, {"skip_special_tokens": True}, {"clean_up_tokenization_spaces": True}):
            assert ours.decode(ids, **options) == theirs.decode(ids, **options)
        if theirs.backend_tokenizer.normalizer is None:
            assert ours.normalize(text) == text
        else:
            assert ours.normalize(text) == theirs.backend_tokenizer.normalizer.normalize_str(text)
    batch = theirs(texts)["input_ids"]
    assert ours.batch_decode(ours.encode_ragged(texts), True) == theirs.batch_decode(
        batch, skip_special_tokens=True
    )
    assert ours.decode([10**6, 2**40]) == ""
    assert ours.convert_ids_to_tokens(10**6) is None


def test_padding_what_was_encoded(ours: Tokenizer, theirs: Any) -> None:
    us, them = ([dict(tokenizer(text)) for text in TEXTS] for tokenizer in (ours, theirs))
    for options in ({}, {"padding": "max_length", "max_length": 40}, {"padding_side": "left"}):
        assert dict(ours.pad(us, **options)) == dict(theirs.pad(them, **options))
    collated, expected = DataCollatorWithPadding(ours)(us), DataCollatorWithPadding(theirs)(them)
    assert all(np.array_equal(collated[name], expected[name]) for name in expected)


def test_names_and_numbers(ours: Tokenizer, theirs: Any) -> None:
    names = [*SPECIAL_TOKENS, *(f"{name}_id" for name in SPECIAL_TOKENS)]
    names += ["special_tokens_map", "all_special_tokens", "vocab", "vocab_size", "is_fast"]
    names += ["model_max_length", "model_input_names", "padding_side", "truncation_side"]
    names += ["clean_up_tokenization_spaces", "pad_token_type_id"]
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    assert len(ours) == len(theirs)
    for pair in (False, True):
        assert ours.num_special_tokens_to_add(pair) == theirs.num_special_tokens_to_add(pair)


def test_a_saved_folder_opens_in_both(ours: Tokenizer, tmp_path: Path) -> None:
    saved = ours.save_pretrained(tmp_path / "new" / "saved")
    assert all(Path(path).is_file() for path in saved)
    again = Tokenizer.from_pretrained(tmp_path / "new" / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "new" / "saved")
    assert ours(TEXTS)["input_ids"] == again(TEXTS)["input_ids"] == theirs(TEXTS)["input_ids"]
    assert again.special_tokens_map == ours.special_tokens_map == theirs.special_tokens_map


def test_a_saved_folder_says_what_config_json_said(folder: Path, tmp_path: Path) -> None:
    """Folders of old, such as RoBERTa's own, have the model's kind there and nowhere else."""
    source, saved = tmp_path / "source", tmp_path / "saved"
    source.mkdir()
    (source / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (source / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    kind = "roberta" if "byte-bpe" in folder.name else "albert"
    (source / "config.json").write_text(json.dumps({"model_type": kind}))
    ours, theirs = Tokenizer.from_pretrained(source), transformers.AutoTokenizer.from_pretrained(source)
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert {Path(path).name for path in ours.save_pretrained(saved)} == {
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for again in (Tokenizer.from_pretrained(saved), transformers.AutoTokenizer.from_pretrained(saved)):
        assert again.special_tokens_map == theirs.special_tokens_map
        assert (again.model_max_length, again.model_input_names) == (512, theirs.model_input_names)
        assert again(TEXTS, padding=True)["input_ids"] == theirs(TEXTS, padding=True)["input_ids"]


# ---------------------------------------------------------------------------------------------- threads


def test_threads_with_truncations_of_their_own(folder: Path) -> None:
    """The package keeps truncation in the tokenizer: no thread may see another's."""
    tokenizer = Tokenizer.from_pretrained(folder)
    texts = [text * 3 for text in TEXTS] * 10
    calls: list[dict[str, Any]] = [
        {"truncation": False},
        {"truncation": True, "max_length": 5},
        {"truncation": True, "max_length": 12},
        {"truncation": True, "max_length": 12, "return_overflowing_tokens": True},
        {"truncation": True, "max_length": 12, "stride": 2, "return_overflowing_tokens": True},
        {"truncation": "only_first", "max_length": 8, "truncation_side": "left"},
        {"truncation": False, "return_offsets_mapping": True},
        {"truncation": True, "max_length": 7, "add_special_tokens": False},
    ]

    def results(options: dict[str, Any]) -> list[Any]:
        ragged = tokenizer.encode_ragged(texts, **options)
        text = tokenizer.decode(ragged.input_ids)
        return [ragged.input_ids.tolist(), ragged.cu_seqlens.tolist(), ragged.truncated, text]

    alone = [results(options) for options in calls]
    assert len({str(result) for result in alone}) == len(calls) - 1  # offsets are not among what is compared
    start, wrong = threading.Barrier(len(calls)), list[Any]()

    def work(index: int) -> None:
        try:
            start.wait()
            for _ in range(20):
                if results(calls[index]) != alone[index]:
                    wrong.append(index)
        except BaseException as error:  # a thread's exception would be printed and forgotten
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ------------------------------------------------------------------------------- the core beside it, errors


@pytest.fixture(scope="module")
def twins(minilm: Path) -> tuple[Tokenizer, Tokenizer]:
    """One BERT tokenizer, in the core and through the package."""
    return Tokenizer.from_pretrained(minilm), Tokenizer(
        OtherTokenizer.from_folder(minilm, TokenizerKindError("BERT's"))
    )


def outcome(tokenizer: Tokenizer, *arguments: Any, **options: Any) -> Any:
    """The arrays, or the error."""
    try:
        ragged = tokenizer.encode_ragged(*arguments, **options)
    except Exception as error:
        return type(error), str(error)
    names = ("input_ids", "cu_seqlens", "token_type_ids", "offset_mapping", "overflow_to_sample", "word_ids")
    arrays = (getattr(ragged, name) for name in (*names, "sequence_ids"))
    return [None if array is None else array.tolist() for array in arrays], ragged.truncated


def test_arrays_and_errors_are_those_of_the_core(twins: tuple[Tokenizer, Tokenizer]) -> None:
    """Same arrays, and where there are none, the same error in the same words."""
    texts = ["a b c d e f g", "", "x", "中文 and unaffable"]
    pairs = ["one two", "a longer second text than that", "", "y"]
    errors = set()
    for pair, special, strategy, length, stride, windows, side in itertools.product(
        (None, pairs),
        (True, False),
        (True, "only_first", "only_second"),
        (0, 1, 2, 3, 4, 6, 9),
        (0, 1, 2, 5),
        (True, False),
        ("left", "right"),
    ):
        options = {
            "add_special_tokens": special,
            "truncation": strategy,
            "max_length": length,
            "stride": stride,
            "truncation_side": side,
            "return_overflowing_tokens": windows,
            "return_token_type_ids": True,
            "return_offsets_mapping": True,
            "return_word_ids": True,
            "return_sequence_ids": True,
        }
        core, package = (outcome(tokenizer, texts, pair, **options) for tokenizer in twins)
        if not special and core != package:
            # The package counts special tokens in, whether or not they are wanted.
            assert package[0] is ArgumentError
            assert package[1].startswith("stride: tokenizer stride set to"), package
            continue
        assert core == package, options
        if core[0] is ArgumentError:
            errors.add(core[1].split()[0])
    assert errors == {"max_length:", "stride:", "truncation:"}


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((b"bytes",), {}),
        ((["text", b"bytes"],), {}),
        ((None,), {}),
        ((3,), {}),
        (({"text"},), {}),
        ((["text"], "pair"), {}),
        ((["text"], [None]), {}),
        ((["a", "b"], ["c"]), {}),
        ((["ok", "b\ud800c"],), {}),
        ((["ok"], ["\udfff"]), {}),
        (([["a"], "b"],), {"is_split_into_words": True}),
        (([["a", 1]],), {"is_split_into_words": True}),
        (([["a", "\ud800"]],), {"is_split_into_words": True}),
        (([["a"]], [["b"], ["c"]]), {"is_split_into_words": True}),
        ((["a"],), {"truncation": True, "max_length": -1}),
        ((["a"],), {"truncation": "longest", "max_length": 3}),
        ((["a"],), {"truncation": 1}),
        ((["a"],), {"stride": -1}),
        ((["a"],), {"truncation_side": "up"}),
        ((["a"],), {"truncation": True, "max_length": 1}),
        (([],), {"truncation": True, "max_length": 1}),
        (
            (["a " * 100_000], ["a " * 100_000]),
            {"truncation": True, "max_length": 5, "return_overflowing_tokens": True},
        ),
    ],
)
def test_mistakes(
    twins: tuple[Tokenizer, Tokenizer], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    core, package = (outcome(tokenizer, *arguments, **options) for tokenizer in twins)
    assert core == package
    assert isinstance(core[0], type) is (arguments != ([],))


def test_a_length_that_is_missing_is_an_error_with_a_text_only(ours: Tokenizer, minilm: Path) -> None:
    for raw in (ours.raw, Tokenizer.from_pretrained(minilm).raw):
        assert len(raw.encode_ragged([], truncation=True)) == 0
        with pytest.raises(ArgumentError, match="max_length: expected a number with truncation, got None"):
            raw.encode_ragged(["a"], truncation=True)


def test_other_mistakes(ours: Tokenizer) -> None:
    with pytest.raises(TypeError, match="bytes"):
        ours.normalize(b"x")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="lone surrogate"):
        ours.normalize("\ud800")
    with pytest.raises(OverflowError):
        ours.encode_ragged(["a"], truncation=True, max_length=2**70)
    assert ours.decode(ours.encode("God"), skip_special_tokens=True).strip().lower() == "god"


# -------------------------------------------------------------------------------------------- opening


def write(folder: Path, tokenizer: tokenizers.Tokenizer, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def bare(**options: Any) -> tokenizers.Tokenizer:
    """A BPE of three letters and what RoBERTa's special tokens are called, none of them special yet."""
    vocab = {
        token: at for at, token in enumerate(["a", "b", "ab", "<s>", "</s>", "<pad>", "<mask>", "<unk>"])
    }
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, [("a", "b")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def reference(folder: Path) -> Any:
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {
            "tokenizer_config": {
                "pad_token": "<pad>",
                "unk_token": {"content": "<unk>", "__type": "AddedToken"},
                "mask_token": None,
            }
        },
        {
            "tokenizer_config": {
                "mask_token": {"content": "<mask>", "lstrip": True, "__type": "AddedToken"},
                "bos_token": "<s>",
                "additional_special_tokens": ["ab"],
            }
        },
        {
            "tokenizer_config": {"eos_token": "<s>", "pad_token": "<pad>"},
            "special_tokens_map": {"eos_token": {"content": "</s>", "lstrip": False}, "cls_token": "b"},
        },
        {
            "tokenizer_config": {"added_tokens_decoder": {"2": {"content": "ab", "special": False}}},
            "special_tokens_map": {"eos_token": "</s>"},
        },
        {"tokenizer_config": {"split_special_tokens": True, "mask_token": "<mask>"}},
        {
            "tokenizer_config": {
                "model_max_length": 7,
                "padding_side": "left",
                "truncation_side": "left",
                "pad_token": "<pad>",
                "model_input_names": ["input_ids", "token_type_ids"],
            }
        },
    ],
    ids=str,
)
def test_the_files_beside_it_decide_as_in_transformers(tmp_path: Path, files: dict[str, Any]) -> None:
    write(tmp_path, bare(), **files)
    ours, theirs = Tokenizer.from_pretrained(tmp_path), reference(tmp_path)
    texts = ["a ab b", "ab<mask> <pad></s> aab", "  <mask> x <s>ab"]
    assert dict(ours(texts)) == dict(theirs(texts))
    if ours.pad_token is not None:
        for options in ({"padding": True}, {"truncation": True}, {"padding": "max_length"}):
            assert dict(ours(texts, **options)) == dict(theirs(texts, **options))
    for name in (*SPECIAL_TOKENS, "special_tokens_map", "model_max_length", "padding_side", "vocab"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    assert ours.decode([0, 6, 3, 1], skip_special_tokens=True) == theirs.decode(
        [0, 6, 3, 1], skip_special_tokens=True
    )


def test_special_tokens_that_the_vocabulary_lacks_are_not_recognised(tmp_path: Path) -> None:
    """transformers numbers them on behind the vocabulary, where no model has a row for them."""
    write(tmp_path, bare(), tokenizer_config={"mask_token": "[MASK]", "pad_token": "<pad>"})
    ours = Tokenizer.from_pretrained(tmp_path)
    assert (ours.mask_token, ours.mask_token_id, ours.pad_token_id) == ("[MASK]", None, 5)
    assert max(ours("a [MASK]")["input_ids"]) < len(ours) == 8


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_what_classes_say_where_a_folder_does_not(name: str, tmp_path: Path) -> None:
    theirs = getattr(transformers, name)()
    for at, files in enumerate(
        (
            {"tokenizer_config": {"tokenizer_class": name}},
            {"tokenizer_config": {"tokenizer_class": f"{name}Fast"}},
            {"config": {"tokenizer_class": name, "model_type": "bert"}},
            {"config": {"model_type": type(theirs).__module__.split(".")[-2].replace("_", "-")}},
        )
    ):
        ours = Tokenizer.from_pretrained(write(tmp_path / str(at), bare(), **files))
        assert ours.special_tokens_map == theirs.special_tokens_map, files
        assert ours.model_input_names == theirs.model_input_names, files
    other = Tokenizer.from_pretrained(write(tmp_path / "other", bare()))
    assert (other.special_tokens_map, other.model_input_names) == ({}, ["input_ids", "attention_mask"])


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path: Path) -> None:
    tokenizer = bare()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    ours = Tokenizer.from_pretrained(write(tmp_path, tokenizer))
    assert ours("a b a b")["input_ids"] == [0, 1, 0, 1]
    assert ours.encode_ragged(["a b a b"], truncation=True, max_length=3).input_ids.tolist() == [0, 1, 0]


def test_any_part_that_is_not_berts(tmp_path: Path, minilm: Path) -> None:
    """WordPiece with other parts, WordLevel, and processors in a row: what the package gives."""
    texts = [*TEXTS, *random_texts(300, seed=3)]
    changes: list[tuple[str, Any]] = [
        ("normalizer", {"type": "NFC"}),
        ("pre_tokenizer", None),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("post_processor", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}),
        ("decoder", {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}),
    ]
    for at, (part, content) in enumerate(changes):
        parsed = json.loads((minilm / "tokenizer.json").read_text()) | {part: content}
        parsed |= {"truncation": None, "padding": None}
        (tmp_path / str(at)).mkdir()
        (tmp_path / str(at) / "tokenizer.json").write_text(json.dumps(parsed))
        check(tmp_path / str(at), texts)
    words = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "Hello": 1, "light": 2, "s": 3}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.Sequence(
        [processors.ByteLevel(), processors.TemplateProcessing("$A s:1", "$A s $B:1 s:1", [("s", 3)])]
    )
    check(write(tmp_path / "words", words), texts)
    letters = bare()
    letters.decoder = decoders.BPEDecoder()
    check(write(tmp_path / "letters", letters), texts)


def check(folder: Path, texts: list[str]) -> None:
    ours = Tokenizer.from_pretrained(folder)
    assert isinstance(ours.raw, OtherTokenizer)
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ragged = ours.encode_ragged(texts, texts[::-1], return_offsets_mapping=True, return_token_type_ids=True)
    expected = theirs.encode_batch(list(zip(texts, texts[::-1], strict=True)))
    assert ragged.offset_mapping is not None
    assert ragged.token_type_ids is not None
    assert ragged.input_ids.tolist() == [token for one in expected for token in one.ids]
    assert ragged.token_type_ids.tolist() == [number for one in expected for number in one.type_ids]
    assert ragged.offset_mapping.tolist() == [list(span) for one in expected for span in one.offsets]
    assert ours.batch_decode(ragged) == [
        theirs.decode(one.ids, skip_special_tokens=False) for one in expected
    ]
    tokens = expected[0].tokens
    joined = " ".join(tokens) if theirs.decoder is None else theirs.decoder.decode(tokens)
    assert ours.convert_tokens_to_string(tokens) == joined


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"type": "BPE"}}, r"BERT's kind.*got model BPE.*the tokenizers package cannot open"),
        ({"model": {}}, "got model of another type.*the tokenizers package cannot open"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}, "got model BPE.*Token `b`"),
        ({"model": {"type": "WordLevel", "vocab": {"a": 2**32 - 1}, "unk_token": "a"}}, "got 4294967295"),
        ({"model": {"type": "WordPiece"}, "normalizer": {"type": "Lower"}}, "got normalizer Lower"),
    ],
)
def test_hostile_files(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config": {"bos_token": 3}}, "bos_token: expected a token, got 3"),
        ({"tokenizer_config": {"eos_token": {"content": []}}}, "eos_token: expected a token"),
        ({"tokenizer_config": {"padding_side": "top"}}, 'padding_side: .*got "top"'),
        ({"config": []}, r"config\.json: expected a JSON object"),
    ],
)
def test_hostile_settings(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    write(tmp_path, bare(), **files)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_pretrained(tmp_path)


def test_a_character_that_no_token_stands_for(tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer(models.Unigram([("a", -1.0)], unk_id=None))
    ours = Tokenizer.from_pretrained(write(tmp_path, tokenizer))
    assert ours("aa")["input_ids"] == [0, 0]
    with pytest.raises(TokenizerError, match=r"the tokenizers package failed: .*unknown token"):
        ours("axa")


def test_without_the_package(folder: Path, minilm: Path) -> None:
    """An error that says what is needed; BERT's own kind needs nothing."""
    code = f"""
import sys
sys.modules["tokenizers"] = None  # what makes its import fail
from bertfast import Tokenizer
from bertfast.errors import TokenizerError
assert Tokenizer.from_pretrained({str(minilm)!r})("Hello")["input_ids"] == [101, 7592, 102]
try:
    Tokenizer.from_pretrained({str(folder)!r})
except TokenizerError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "BERT's kind" in done.stdout
    assert "got model BPE" in done.stdout or "got model Unigram" in done.stdout
    assert 'pip install "bertfast[tokenizers]"' in done.stdout


def test_the_package_is_imported_only_where_it_is_needed(folder: Path, minilm: Path) -> None:
    code = f"""
import sys
from bertfast import Tokenizer
Tokenizer.from_pretrained({str(minilm)!r})("Hello", return_offsets_mapping=True).tokens()
print("tokenizers" in sys.modules)
Tokenizer.from_pretrained({str(folder)!r})("Hello")
print("tokenizers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


# ---------------------------------------------------------------------------------- arrays from Python


def test_ragged_from_arrays() -> None:
    ids, ends = np.arange(5, dtype=np.int32), np.array([0, 2, 2, 5])
    ragged = Ragged(ids, ends, offset_mapping=np.zeros((5, 2), np.int32), truncated=1)
    assert (len(ragged), repr(ragged)) == (3, "Ragged(3 sequences, 5 tokens)")
    assert ragged.input_ids is ids
    assert (ragged.truncated, ragged.word_ids) == (1, None)
    wrong: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        ([1, 2], ends, {}, TypeError, "input_ids: expected a numpy array, got list"),
        (ids.astype(np.int64), ends, {}, DtypeError, "input_ids: expected int32, got int64"),
        (ids, ends.astype(np.int32), {}, DtypeError, "cu_seqlens: expected int64, got int32"),
        (ids[None], ends, {}, ShapeError, r"input_ids: expected shape \(any\), got \[1, 5\]"),
        (ids, ends[:-1], {}, ShapeError, "cu_seqlens: expected to rise from 0 to 5"),
        (ids, ends[1:], {}, ShapeError, "cu_seqlens: expected to rise from 0 to 5"),
        (ids, ends[:0], {}, ShapeError, "cu_seqlens: expected to rise from 0 to 5"),
        (ids, np.array([0, 3, 2, 5]), {}, ShapeError, "cu_seqlens: expected to rise from 0 to 5"),
        (ids, ends, {"word_ids": ids[:4]}, ShapeError, r"word_ids: expected shape \(5\), got \[4\]"),
        (
            ids,
            ends,
            {"offset_mapping": ids},
            ShapeError,
            r"offset_mapping: expected shape \(5, 2\), got \[5\]",
        ),
        (ids, ends, {"overflow_to_sample": ends}, ShapeError, r"overflow_to_sample: expected shape \(3\)"),
        (ids, ends, {"sequence_ids": ids * 1.0}, DtypeError, "sequence_ids: expected int32, got float64"),
        (ids, ends, {"truncated": -1}, OverflowError, "negative"),
    ]
    for input_ids, cu_seqlens, more, error, message in wrong:
        with pytest.raises(error, match=message):
            Ragged(input_ids, cu_seqlens, **more)
