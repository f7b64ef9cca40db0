"""Vocabularies trained from texts: special tokens, folders that open, errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

from bertfast import Tokenizer
from bertfast.errors import ArgumentError
from bertfast.vocabulary import KINDS, Kind, save_vocabulary, train_vocabulary

PROBES = ["In the beginning God created the heaven and the earth.", "Ünïcödé 中文 \u2603 [MASK] <mask>", ""]
SPECIAL = {
    "wordpiece": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "byte-bpe": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "unigram": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
}


@pytest.fixture(scope="module")
def texts(data_dir: Path) -> list[str]:
    lines = (data_dir / "bible.txt").read_text(encoding="utf-8").splitlines()[:3000]
    return lines + (data_dir / "chinese.txt").read_text(encoding="utf-8").splitlines()[:300]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_trained_folder_opens(texts: list[str], kind: Kind, lowercase: bool, tmp_path: Path) -> None:
    trained = train_vocabulary(texts, kind=kind, size=2500, lowercase=lowercase)
    assert trained.get_vocab_size() == 2500
    assert [trained.id_to_token(index) for index in range(5)] == SPECIAL[kind]
    paths = save_vocabulary(
        trained, tmp_path / "new" / "folder", kind=kind, lowercase=lowercase, max_length=128
    )
    assert sorted(Path(path).name for path in paths) == sorted(
        path.name for path in (tmp_path / "new" / "folder").iterdir()
    )
    theirs: Any = transformers.AutoTokenizer.from_pretrained(tmp_path / "new" / "folder")
    assert theirs.model_max_length == 128
    expected = [encoding.ids for encoding in trained.encode_batch([*PROBES, *texts[:100]])]
    assert theirs([*PROBES, *texts[:100]])["input_ids"] == expected
    pair = trained.encode("one", "two")
    assert theirs("one", "two")["input_ids"] == pair.ids
    ours = Tokenizer.from_pretrained(tmp_path / "new" / "folder")
    assert ours([*PROBES, *texts])["input_ids"] == theirs([*PROBES, *texts])["input_ids"]
    assert (ours.model_max_length, ours.special_tokens_map) == (128, theirs.special_tokens_map)
    if kind == "byte-bpe":
        assert pair.tokens[0] == "<s>"
        assert pair.tokens.count("</s>") == 3
        assert trained.decode(trained.encode(texts[-1]).ids) == texts[-1]
        assert trained.encode("a <mask>").ids == [0, trained.token_to_id("a"), 4, 2]
        return
    assert pair.tokens[0] == "[CLS]"
    assert pair.type_ids == theirs("one", "two")["token_type_ids"]
    assert theirs.mask_token_id in theirs("[MASK]")["input_ids"]
    assert (
        "God" in trained.encode("In God").tokens or "▁God" in trained.encode("In God").tokens
    ) is not lowercase


def test_wrong_arguments(texts: list[str]) -> None:
    with pytest.raises(ArgumentError, match="kind: expected one of wordpiece, byte-bpe, unigram, got 'bpe'"):
        train_vocabulary(texts, kind="bpe")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="size: expected more than the 261 tokens"):
        train_vocabulary(texts, kind="byte-bpe", size=261)
    with pytest.raises(ArgumentError, match="at least one that is not empty"):
        train_vocabulary(["", " "], size=100)


def test_a_unigram_vocabulary_has_every_character(texts: list[str]) -> None:
    english = ["Ünïcödé (twice)", *texts[:200]]
    with pytest.raises(ArgumentError, match=r"size: expected at least \d+, .* got 10$") as caught:
        train_vocabulary(english, kind="unigram", size=10)
    least = int(str(caught.value).split("at least ")[1].split(",")[0])
    assert train_vocabulary(english, kind="unigram", size=least).get_vocab_size() == least
    # Here the package gives more tokens than asked for.
    for size in range(least - 6, least):
        with pytest.raises(ArgumentError, match=f"at least {least}, .* got {size}$"):
            train_vocabulary(english, kind="unigram", size=size)
    with pytest.raises(ArgumentError, match="at least one that is not empty"):
        train_vocabulary(["", " "], kind="unigram", size=6)

    def broken() -> Iterator[str]:
        yield "not large enough"
        raise RuntimeError("the file is not large enough")

    with pytest.raises(RuntimeError, match="the file"):
        train_vocabulary(broken(), kind="unigram", size=100)


def test_the_command(texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("\n".join(texts[:500]), encoding="utf-8")
    (tmp_path / "two.txt").write_text("\n".join(texts[500:1000]), encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bertfast", "vocab", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("train", "one.txt", "two.txt", "--size", "400", "-o", "out", "--type", "wordpiece", "--cased")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "400 tokens (wordpiece) in out\n"
    tokenizer = Tokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.vocab_size == 400
    assert tokenizer.normalize("God É") == "God É"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    failed = run("train", "one.txt", "missing.txt", "-o", "other")
    assert failed.returncode == 2
    assert "missing.txt" in failed.stderr
    assert not (tmp_path / "other").exists()
    assert run("train", "one.txt", "-o", "other", "--size", "3").returncode == 2
    (tmp_path / "empty.txt").touch()  # That there is nothing to learn from is found later.
    failed = run("train", "empty.txt", "-o", "one.txt")
    assert failed.returncode == 2
    assert "one.txt: File exists" in failed.stderr
    assert "train" in run().stderr


def test_a_folder_of_another_tokenizer_and_one_of_a_model(texts: list[str], tmp_path: Path) -> None:
    """What stays of another one would be read beside what is written; its weights would not fit any more."""
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": "[MASK]", "cls_token": "[CLS]"}')
    (tmp_path / "vocab.txt").write_text("[CLS]\n")
    (tmp_path / "notes.txt").write_text("mine")
    trained = train_vocabulary(texts[:200], kind="byte-bpe", size=300)
    save_vocabulary(trained, tmp_path, kind="byte-bpe")
    assert Tokenizer.from_pretrained(tmp_path).mask_token == "<mask>"
    names = {"tokenizer.json", "tokenizer_config.json", "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == names
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(
        ArgumentError, match=r"no model with its vocabulary, found model\.safetensors and tokenizer\.json"
    ):
        save_vocabulary(trained, tmp_path, kind="byte-bpe")
