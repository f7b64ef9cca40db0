"""Opening folders: `vocab.txt` beside `tokenizer_config.json` as in transformers, and hostile files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from tokenizers import models

from bertfast import Tokenizer, _bertfast
from bertfast.errors import TokenizerError, TokenizerKindError
from tokenizers_reference import SPECIAL, as_json, assert_same, bert, random_texts

VOCAB = [*SPECIAL, "hello", "world", "##s", "Hello", "é", "e", "中", "x", "foo", "bar", ".", "i", "##i"]
TEXTS = [*random_texts(1500, seed=12), "Hello worlds é foo FOO bar. x中x [MASK]hello <new> <NEW>", "İi"]


def write(folder: Path, vocab: list[str] | bytes, **files: Any) -> Path:
    """A folder with `vocab.txt` and JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    text = vocab if isinstance(vocab, bytes) else "".join(f"{token}\n" for token in vocab).encode()
    (folder / "vocab.txt").write_bytes(text)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": True, "strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"never_split": ["foo"], "do_basic_tokenize": True},
        {"additional_special_tokens": ["foo", "<new>"]},
        {"extra_special_tokens": ["<new>"]},
        {"mask_token": {"content": "[MASK]", "lstrip": True, "__type": "AddedToken"}},
        {"mask_token": "bar", "unk_token": "x"},
        {"sep_token": "foo", "cls_token": "bar", "pad_token": "world"},
        {
            "added_tokens_decoder": {
                "18": {"content": "<new>", "special": False, "normalized": True},
                "13": {"content": "foo", "special": True, "single_word": True},
                "4": {"content": "[MASK]", "special": True, "lstrip": True, "rstrip": True},
            }
        },
    ],
    ids=str,
)
def test_tokenizer_config_decides_as_in_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    write(tmp_path, VOCAB, tokenizer_config=config)
    ours, theirs = Tokenizer.from_pretrained(tmp_path), transformers.BertTokenizer.from_pretrained(tmp_path)
    reference = theirs.backend_tokenizer
    assert_same(ours, reference, TEXTS)
    assert_same(ours, reference, TEXTS, TEXTS[::-1])
    assert ours.get_vocab() == theirs.get_vocab()
    for name in ("unk", "sep", "pad", "cls", "mask"):
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"<new>": 18, "foo": 13}},
        {"special_tokens_map": {"mask_token": {"content": "[MASK]", "lstrip": True}, "unk_token": "x"}},
        {"special_tokens_map": {"unk_token": "x"}, "tokenizer_config": {"unk_token": "bar"}},
        {
            "special_tokens_map": {"unk_token": "x"},
            "added_tokens": {"<new>": 18},
            "tokenizer_config": {"added_tokens_decoder": {}},
        },
    ],
    ids=str,
)
def test_the_older_files_beside_it(tmp_path: Path, files: dict[str, Any]) -> None:
    write(tmp_path, VOCAB, **files)
    ours, theirs = Tokenizer.from_pretrained(tmp_path), transformers.BertTokenizer.from_pretrained(tmp_path)
    assert_same(ours, theirs.backend_tokenizer, TEXTS)
    assert ours.get_vocab() == theirs.get_vocab()


def test_the_real_folder_without_its_tokenizer_json(minilm: Path, tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).write_bytes((minilm / name).read_bytes())
    ours = Tokenizer.from_pretrained(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    assert_same(ours, theirs.backend_tokenizer, random_texts(5000, seed=13))
    assert ours.get_vocab() == Tokenizer.from_pretrained(minilm).get_vocab()


def test_lines_of_a_vocabulary(tmp_path: Path) -> None:
    """Ends of lines, spaces at them, empty lines; of a repeated token the last line counts, as there."""
    vocab = b"[PAD]\n[UNK]\r\n[CLS]\n[SEP]\n[MASK]\n a \nb\xe3\x80\x80\n\nhello\nb\nx\ry\nhello\nlast"
    write(tmp_path, vocab)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_pretrained(tmp_path)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.convert_tokens_to_ids("hello") == 11
    assert ours("hello b")["input_ids"] == theirs("hello b")["input_ids"] == [2, 11, 9, 3]


def test_tokenizer_json_wins(tmp_path: Path) -> None:
    """Over `vocab.txt` and the options of `tokenizer_config.json`; its truncation and padding are ignored."""
    write(tmp_path, SPECIAL, tokenizer_config={"do_lower_case": True, "model_max_length": 100})
    reference = bert({token: i for i, token in enumerate(VOCAB)}, lowercase=False)
    reference.enable_truncation(4)
    reference.enable_padding(length=50)
    reference.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_pretrained(tmp_path)
    assert ours("Hello world hello")["input_ids"] == [2, 8, 6, 5, 3]
    assert ours.model_max_length == 100


def test_ids_with_holes_are_kept(tmp_path: Path) -> None:
    vocab = {token: i * 1000 + 7 for i, token in enumerate(VOCAB)}
    reference = bert(vocab)
    reference.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_pretrained(tmp_path)
    assert_same(ours, reference, TEXTS)
    assert ours.decode([2007, 5007, 8, 7007]) == reference.decode([2007, 5007, 8, 7007], False)
    assert (ours.vocab_size, len(ours)) == (len(VOCAB), len(VOCAB))


def minimal() -> dict[str, Any]:
    return as_json(bert({token: i for i, token in enumerate(VOCAB)}))


def change(*path: Any, to: Any = None, remove: bool = False) -> Callable[[dict[str, Any]], None]:
    def apply(parsed: dict[str, Any]) -> None:
        *outer, last = path
        for key in outer:
            parsed = parsed[key]
        if remove:
            del parsed[last]
        else:
            parsed[last] = to

    return apply


HOSTILE = [
    (change("model", "vocab", "hello", to=-3), 'got -3 for "hello"'),
    (change("model", "vocab", "hello", to=2**31), "got 2147483648"),
    (change("model", "vocab", "hello", to=2**80), "floating point"),
    (change("model", "vocab", "hello", to=1.5), "float"),
    (change("model", "vocab", "hello", to="5"), "string"),
    (change("model", "vocab", "hello", to=0), 'got 0 for both "\\[PAD\\]" and "hello"'),
    (change("model", "vocab", to={}), "at least one token"),
    (change("model", "vocab", to=["a"]), "a map from token to id"),
    (change("model", "vocab", remove=True), "vocab"),
    (change("model", "vocab", "[UNK]", remove=True), 'unknown token "\\[UNK\\]" is missing'),
    (change("model", "unk_token", to=7), "string"),
    (change("model", "max_input_chars_per_word", to=-1), "max_input_chars_per_word|usize|-1"),
    (change("model", to=None), "null|model"),
    (change("model", remove=True), "model"),
    (change("model", "type", to="BPE"), "got model BPE"),
    (change("model", "type", to="Unigram"), "got model Unigram"),
    (change("normalizer", "lowercase", to="yes"), "boolean"),
    (change("normalizer", "lowercase", remove=True), "lowercase"),
    (change("pre_tokenizer", "type", to="Blank"), "got pre_tokenizer Blank"),
    (change("post_processor", to={"type": "ByteLevel"}), "got post_processor ByteLevel"),
    (change("post_processor", "single", to=[]), "sequences A, got"),
    (change("post_processor", "pair", 3, to={"Sequence": {"id": "C", "type_id": 0}}), "unknown variant `C`"),
    (change("post_processor", "special_tokens", to={}), 'uses "\\[CLS\\]"'),
    (change("post_processor", "special_tokens", "[CLS]", "ids", to=[2**32 - 1]), "4294967295"),
    (change("post_processor", "special_tokens", "[CLS]", "ids", to=[-1]), "-1"),
    (change("decoder", "type", to="ByteLevel"), "got decoder ByteLevel"),
    (change("added_tokens", to={"a": 1}), "sequence"),
    (change("added_tokens", 0, "content", to=None), "null"),
    (change("added_tokens", 0, "lstrip", to=1), "boolean"),
    (change("version", to="2.0"), 'expected "1.0", got "2.0"'),
]


@pytest.mark.parametrize(("apply", "message"), HOSTILE, ids=[message for _, message in HOSTILE])
def test_hostile_tokenizer_json(
    tmp_path: Path, apply: Callable[[dict[str, Any]], None], message: str
) -> None:
    parsed = minimal()
    apply(parsed)
    (tmp_path / "tokenizer.json").write_text(json.dumps(parsed))
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b'"x"', b"{}", b"\xff\xfe{}", b"[" * 100_000, b'{"model":' * 100_000],
    ids=range(10),
)
def test_tokenizer_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_real_tokenizer_of_another_kind_is_not_the_cores(tmp_path: Path) -> None:
    """It says so by a class of its own, which is how `Tokenizer` knows what to do instead."""
    bpe = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    bpe.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerKindError, match=r"BERT's kind.*got model BPE"):
        _bertfast.Tokenizer.from_folder(tmp_path, "huggingface")
    unigram = tokenizers.Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)]))
    unigram.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerKindError, match=r"BERT's kind.*got model Unigram"):
        _bertfast.Tokenizer.from_folder(tmp_path, "huggingface")


def test_what_is_wrong_with_berts_kind_is_no_other_kind(tmp_path: Path) -> None:
    """Were it one, the package would open what is refused here."""
    for apply in (
        change("model", "unk_token", to="[NONE]"),
        change("model", "vocab", "hello", to=0),
        change("post_processor", "pair", to=[{"Sequence": {"id": "B", "type_id": 0}}]),
        change("version", to="2.0"),
    ):
        parsed = minimal()
        apply(parsed)
        (tmp_path / "tokenizer.json").write_text(json.dumps(parsed))
        with pytest.raises(TokenizerError) as raised:
            Tokenizer.from_pretrained(tmp_path)
        assert type(raised.value) is TokenizerError


@pytest.mark.parametrize(
    ("vocab", "files", "message"),
    [
        (b"", {}, "at least one token"),
        (b"\xff\n", {}, "vocab.txt: expected UTF-8"),
        ([token for token in VOCAB if token != "[UNK]"], {}, r'"\[UNK\]" is missing'),
        ([token for token in VOCAB if token != "[CLS]"], {}, r'"\[CLS\]" is missing'),
        ([token for token in VOCAB if token != "[SEP]"], {}, r'"\[SEP\]" is missing'),
        (VOCAB, {"tokenizer_config": []}, "tokenizer_config.json: expected a JSON object"),
        (VOCAB, {"tokenizer_config": {"do_lower_case": "yes"}}, 'do_lower_case: expected .*got "yes"'),
        (VOCAB, {"tokenizer_config": {"model_max_length": -1}}, "model_max_length: .*got -1"),
        (VOCAB, {"tokenizer_config": {"mask_token": 3}}, "mask_token: expected a token, got 3"),
        (VOCAB, {"tokenizer_config": {"padding_side": "top"}}, 'padding_side: .*got "top"'),
        (VOCAB, {"tokenizer_config": {"model_input_names": "x"}}, "model_input_names: .*list of strings"),
        (VOCAB, {"tokenizer_config": {"extra_special_tokens": 3}}, "extra_special_tokens: .*got 3"),
        (VOCAB, {"tokenizer_config": {"added_tokens_decoder": {"x": {}}}}, "added_tokens_decoder: .*got"),
        (VOCAB, {"special_tokens_map": {"unk_token": []}}, r"special_tokens_map.json: unk_token: .*got \[\]"),
        (VOCAB, {"added_tokens": {"<new>": "x"}}, 'added_tokens.json: <new>: expected an id, got "x"'),
    ],
    ids=str,
)
def test_hostile_vocabulary_and_configuration(
    tmp_path: Path, vocab: list[str] | bytes, files: dict[str, Any], message: str
) -> None:
    write(tmp_path, vocab, **files)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_pretrained(tmp_path)


def test_special_tokens_that_a_vocabulary_lacks_are_not_recognised(tmp_path: Path) -> None:
    """transformers numbers them on behind the vocabulary, where no model has a row for them."""
    write(tmp_path, [token for token in VOCAB if token not in ("[MASK]", "[PAD]")])
    ours = Tokenizer.from_pretrained(tmp_path)
    assert (ours.mask_token_id, ours.pad_token_id) == (None, None)
    assert max(ours("[MASK] hello")["input_ids"]) < len(ours)


def test_added_tokens_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    parsed = minimal()
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    parsed["added_tokens"] += [{"id": 18, "content": "New", **token}, {"id": 19, "content": "nEW", **token}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(parsed))
    with pytest.raises(TokenizerError, match='"New" and "nEW" are the same'):
        Tokenizer.from_pretrained(tmp_path)
    parsed["added_tokens"][-2:] = [{"id": 18, "content": "\u0301", **token}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(parsed))
    with pytest.raises(TokenizerError, match="nothing is left"):
        Tokenizer.from_pretrained(tmp_path)


def test_folders_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json or vocab\.txt"):
        Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError):
        Tokenizer.from_pretrained(tmp_path / "missing")
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(OSError, match=r"tokenizer\.json"):
        Tokenizer.from_pretrained(tmp_path)
