"""`compat="google"`: the ids of Google's original tokenizer, which runs beside ours."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bertfast import Tokenizer
from bertfast.errors import ArgumentError, TokenizerError
from conftest import existing
from google_reference import assert_same_ids, ids_of, load
from tokenizers_reference import SPECIAL, as_json, bert, random_texts

# Our tables are of this Unicode version; the original asks the running Python.
OURS = "14.0.0"
KNOWN = unicodedata.unidata_version == OURS
NEEDS_ALL = pytest.mark.skipif(
    not KNOWN, reason=f"our tables are of Unicode {OURS}, this Python has {unicodedata.unidata_version}"
)
CHARS = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]

Both = tuple[Tokenizer, Any]


@pytest.fixture(scope="module")
def original(data_dir: Path) -> ModuleType:
    return load(existing(data_dir / "google/tokenization.py"))


def write(folder: Path, vocab: list[str] | bytes, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = vocab if isinstance(vocab, bytes) else "".join(f"{token}\n" for token in vocab).encode()
    (folder / "vocab.txt").write_bytes(text)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def opened(original: ModuleType, folder: Path, vocab: list[str] | bytes, do_lower_case: bool = True) -> Both:
    """Ours and the original for a vocabulary."""
    write(folder, vocab, do_lower_case=do_lower_case)
    ours = Tokenizer.from_pretrained(folder, compat="google")
    return ours, original.FullTokenizer(str(folder / "vocab.txt"), do_lower_case=do_lower_case)


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def characters(
    request: pytest.FixtureRequest, original: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Both:
    """Every character is a token, at the start of words and inside: no difference hides in an unknown one."""
    tokens = [char for char in CHARS if char == char.strip() and char.isprintable() | (char > "\x7f")]
    vocab = [*SPECIAL, *tokens, *(f"##{char}" for char in tokens)]
    return opened(original, tmp_path_factory.mktemp("characters"), vocab, request.param)


@pytest.fixture(scope="module")
def uncased(original: ModuleType, minilm: Path) -> Both:
    ours = Tokenizer.from_pretrained(minilm, compat="google")
    return ours, original.FullTokenizer(str(minilm / "vocab.txt"))


@pytest.fixture(scope="module")
def chinese(original: ModuleType, zh_vocab: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return opened(original, tmp_path_factory.mktemp("chinese"), zh_vocab.read_bytes())


@NEEDS_ALL
def test_every_code_point(characters: Both) -> None:
    # Alone and between letters, twenty to a text.
    texts = ["".join(f" {c} q{c}z" for c in CHARS[start : start + 20]) for start in range(0, len(CHARS), 20)]
    assert_same_ids(*characters, texts)


@NEEDS_ALL
def test_every_character_that_changes_among_marks(characters: Both) -> None:
    """Beside marks that survive and may change places, and beside capital sigmas."""
    changed = [
        char
        for char in CHARS
        if not 0xAC00 <= ord(char) < 0xD800
        and (
            unicodedata.normalize("NFD", char) != char
            or char.lower() != char
            or char.upper() != char
            or unicodedata.category(char) in ("Mn", "Mc", "Me", "Lm", "Sk", "Cf", "Po")
        )
    ]
    around = (
        "e{0}\u302e\U0001d165\u1b44\U0001d16d\u0323x a{0}\u03a3 a\u03a3{0} a\u03a3{0}b {0}\u03a3 \u03a3{0}"
    )
    assert len(changed) > 7000
    assert_same_ids(*characters, [around.format(char) for char in changed])


@NEEDS_ALL
def test_random_strings(characters: Both, uncased: Both) -> None:
    texts = random_texts(20_000, seed=21)
    assert_same_ids(*characters, texts)
    assert_same_ids(*uncased, texts)


def test_random_words_with_sigmas(characters: Both) -> None:
    """Of characters that all Unicode versions agree on: this runs in every Python."""
    rng = random.Random(22)
    pool = "\u03a3\u03a3\u03a3\u03c3\u03c2\u0391\u03b1aB1. ,'\u2019\u0301\u00ad\u200b\u0345\u02b0\u4e2d:-\t"
    texts = ["".join(rng.choices(pool, k=rng.randrange(1, 14))) for _ in range(20_000)]
    assert_same_ids(*characters, texts)


def test_real_text(uncased: Both, chinese: Both, english_texts: list[str], chinese_texts: list[str]) -> None:
    for both in (uncased, chinese):
        assert_same_ids(*both, english_texts[::50])
        assert_same_ids(*both, chinese_texts[::20])


@pytest.mark.parametrize(
    ("text", "google", "huggingface"),
    [
        ("\u039f\u0394\u039f\u03a3", "\u03bf\u03b4\u03bf\u03c2", "\u03bf\u03b4\u03bf\u03c3"),
        ("a\U0002b820b", "a \U0002b820 b", "a\U0002b820b"),
        ("a\ue000b", "a\ue000b", "ab"),
        ("a\u0378b", "a\u0378b", "a\u0378b"),
        ("a\u2e52b", "a \u2e52 b", "a\u2e52b"),
        ("a\u1df6b", "ab", "a\u1df6b"),
        ("a\u2028b\x1c\x85c", "a bc", "a bc"),
        ("[MASK]", "[ mask ]", "[MASK]"),
        ("[UNK] x", "[ unk ] x", "[UNK] x"),
        ("\U00010d50", "\U00010d50", "\U00010d70"),
        ("\u0130", "i", "i"),
    ],
)
def test_what_differs(tmp_path: Path, text: str, google: str, huggingface: str) -> None:
    """The words of the page in the documentation, by ours alone."""
    words = dict.fromkeys((google + " " + huggingface).split())
    write(tmp_path, [*SPECIAL, *(word for word in words if word not in SPECIAL)])
    for compat, expected in (("google", google), ("huggingface", huggingface)):
        assert Tokenizer.from_pretrained(tmp_path, compat=compat).tokenize(text) == expected.split()  # type: ignore[arg-type]


def test_words_of_up_to_200_characters(original: ModuleType, tmp_path: Path) -> None:
    ours, reference = opened(original, tmp_path, [*SPECIAL, "a", "##a", "##b", ".", "\u4e2d"])
    texts = ["a" * length for length in (63, 64, 65, 99, 100, 101, 128, 199, 200, 201, 300)]
    texts += [f"{text}." for text in texts] + [f"\u4e2d{text}" for text in texts]
    texts += [f"{text[1:]}\u00e1" for text in texts] + ["\u00e1" * 200, "\u00e1" * 201]
    assert_same_ids(ours, reference, texts)
    assert [len(ids) for ids in ids_of(ours, ["a" * 200, "a" * 201])] == [200, 1]


def test_lines_of_a_vocabulary(original: ModuleType, tmp_path: Path) -> None:
    """Whitespace, as Python knows it, is removed at both ends; HF's at the end only."""
    vocab = b"[PAD]\r\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n a \nb\xe3\x80\x80\n\x1chello\x1f\nx\ry\n\xc2\xa0last"
    ours, reference = opened(original, tmp_path, vocab)
    assert ours.get_vocab() == dict(reference.vocab)
    assert_same_ids(ours, reference, ["a b hello x y last"])
    assert ours.convert_tokens_to_ids("hello") == 7
    assert Tokenizer.from_pretrained(tmp_path).convert_tokens_to_ids("hello") == 1


def test_offsets_are_those_of_the_default_where_the_words_are(minilm: Path) -> None:
    google, default = Tokenizer.from_pretrained(minilm, compat="google"), Tokenizer.from_pretrained(minilm)
    compared = 0
    for text in random_texts(5000, seed=23):
        ours, theirs = (
            tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
            for tokenizer in (google, default)
        )
        if ours["input_ids"] != theirs["input_ids"] or google.unk_token_id in ours["input_ids"]:
            continue
        compared += 1
        assert dict(ours) == dict(theirs)
        assert ours.word_ids() == theirs.word_ids()
    assert compared > 500


@NEEDS_ALL
def test_offsets_lead_to_what_became_the_token(characters: Both) -> None:
    """Every token is one character here: the text between its offsets has it, tokenized by itself."""
    ours, reference = characters
    for text in random_texts(3000, seed=24):
        # Sigmas look around, and marks that change places keep the offsets of their places.
        if any(c == "\u03a3" or (unicodedata.combining(c) and unicodedata.category(c) != "Mn") for c in text):
            continue
        ragged = ours.encode_ragged([text], add_special_tokens=False, return_offsets_mapping=True)
        for token_id, (start, end) in zip(
            ragged.input_ids.tolist(), ragged.offset_mapping.tolist(), strict=True
        ):
            token = ours.convert_ids_to_tokens(token_id).removeprefix("##")
            found = [piece.removeprefix("##") for piece in reference.tokenize(text[start:end])]
            assert end == start + 1, (text, token)
            assert token in found, (text, token)


def test_special_tokens_are_special_in_ids_only(minilm: Path) -> None:
    """Their ids are known to the template, to decoding and to masks; in texts they are words like others."""
    google, default = Tokenizer.from_pretrained(minilm, compat="google"), Tokenizer.from_pretrained(minilm)
    assert google.all_special_ids == default.all_special_ids
    assert google.get_added_vocab() == default.get_added_vocab()
    assert google.get_vocab() == default.get_vocab()
    ids = google("[SEP]", "b", max_length=6, truncation=True, padding="max_length")["input_ids"]
    assert [ids[0], ids[-1]] == [google.cls_token_id, google.sep_token_id]
    assert google.convert_ids_to_tokens(ids) == ["[CLS]", "[", "sep", "[SEP]", "b", "[SEP]"]
    assert google.decode(ids, skip_special_tokens=True) == default.decode(ids, skip_special_tokens=True)


def test_added_tokens_are_not_looked_for(tmp_path: Path) -> None:
    write(
        tmp_path,
        [*SPECIAL, "foo", "bar", "##bar"],
        added_tokens_decoder={"8": {"content": "foobar", "normalized": True, "special": False}},
    )
    default = Tokenizer.from_pretrained(tmp_path)
    google = Tokenizer.from_pretrained(tmp_path, compat="google")
    assert default.tokenize("FOOBAR bar") == ["foobar", "bar"]
    assert google.tokenize("FOOBAR bar") == ["foo", "##bar", "bar"]
    assert google.convert_tokens_to_ids("foobar") == 8 == default.convert_tokens_to_ids("foobar")


def json_folder(folder: Path, vocab: dict[str, int], change: Callable[[dict[str, Any]], None]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    parsed = as_json(bert(vocab))
    change(parsed)
    (folder / "tokenizer.json").write_text(json.dumps(parsed))
    return folder


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [None, "as lowercase"])
@pytest.mark.parametrize("length", [100, 200])
def test_tokenizer_json_says_whether_to_lower_case(
    original: ModuleType, tmp_path: Path, zh_vocab: Path, lowercase: bool, strip_accents: Any, length: int
) -> None:
    def change(parsed: dict[str, Any]) -> None:
        parsed["normalizer"]["lowercase"] = lowercase
        parsed["normalizer"]["strip_accents"] = None if strip_accents is None else lowercase
        parsed["model"]["max_input_chars_per_word"] = length

    reference = original.FullTokenizer(str(zh_vocab), do_lower_case=lowercase)
    ours = Tokenizer.from_pretrained(json_folder(tmp_path, dict(reference.vocab), change), compat="google")
    assert_same_ids(ours, reference, ["H\u00e9llo \u039f\u0394\u039f\u03a3 [MASK]", "a" * 150])


def set_normalizer(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda parsed: parsed["normalizer"].update(options)


def set_model(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda parsed: parsed["model"].update(options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_normalizer(clean_text=False), 'clean_text: expected true for compat="google", got false'),
        (set_normalizer(handle_chinese_chars=False), "handle_chinese_chars: expected true"),
        (set_normalizer(strip_accents=False), "strip_accents: expected true .* got false"),
        (set_normalizer(strip_accents=True, lowercase=False), "strip_accents: expected false .* got true"),
        (lambda parsed: parsed.update(normalizer=None), "normalizer: expected BertNormalizer .* got none"),
        (set_model(continuing_subword_prefix="@@"), 'continuing_subword_prefix: expected "##".*got "@@"'),
        (set_model(max_input_chars_per_word=50), "max_input_chars_per_word: expected 100 .* or 200.*got 50"),
    ],
)
def test_options_that_the_original_does_not_have(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = json_folder(tmp_path, {token: i for i, token in enumerate([*SPECIAL, "a"])}, change)
    Tokenizer.from_pretrained(folder)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json: {message}"):
        Tokenizer.from_pretrained(folder, compat="google")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_lower_case": True, "strip_accents": False}, "strip_accents: expected true .* got false"),
        ({"do_lower_case": False, "strip_accents": True}, "strip_accents: expected false .* got true"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars: expected true .* got false"),
    ],
    ids=str,
)
def test_options_beside_a_vocabulary(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    write(tmp_path, [*SPECIAL, "a"], **config)
    Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match=rf"tokenizer_config\.json: {message}"):
        Tokenizer.from_pretrained(tmp_path, compat="google")


@pytest.mark.parametrize("compat", ["", "Google", "hf", None, 1, b"google", ["google"]])
def test_other_values(minilm: Path, compat: Any) -> None:
    with pytest.raises(ArgumentError, match='compat: expected "huggingface" or "google", got'):
        Tokenizer.from_pretrained(minilm, compat=compat)


def test_what_is_saved_and_shown(minilm: Path, tmp_path: Path) -> None:
    google = Tokenizer.from_pretrained(minilm, compat="google")
    assert google.compat == "google"
    assert "compat='google'" in repr(google)
    google.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.compat == "huggingface"
    assert "compat" not in repr(again)
    assert Tokenizer.from_pretrained(tmp_path, compat="google").tokenize("[MASK]") == ["[", "mask", "]"]


def test_truncation_leaves_words_unread_and_they_change_nothing(uncased: Both) -> None:
    """Texts are read as far as needed; a capital sigma sends them the other way."""
    ours, _ = uncased
    texts = random_texts(2000, seed=25, words=["\u039f\u0394\u039f\u03a3", "\u03a3", " a b c ", "unaffable"])
    whole = ids_of(ours, texts)
    for length in (1, 2, 5, 9):
        cut = ours.encode_ragged(texts, add_special_tokens=False, truncation=True, max_length=length)
        ids = cut.input_ids.tolist()
        got = [ids[start:stop] for start, stop in pairwise(cut.cu_seqlens.tolist())]
        assert got == [row[:length] for row in whole]
