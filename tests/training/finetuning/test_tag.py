"""Taggers: what is learned, words that are cut or lost, and the same figures outside."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import bertfast
from bertfast.errors import ArgumentError
from bertfast.training.finetuning import FinetuningResult, finetune_tagger
from bertfast.training.finetuning.conll import read_conll
from bertfast.training.finetuning.entities import entity_scores
from bertfast.training.finetuning.windows import word_windows
from tiny_finetuning import FAST, make_model, tagged, write_tags

SLOW = replace(FAST, learning_rate=3e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tags")
    # A word of which the tokenizer leaves nothing, and one that is all of a sentence.
    extra = "\nbob B-PER\n\u200b I-PER\nrome B-LOC\n\n\u200b O\n"
    return (
        write_tags(folder / "train.conll", 200, extra=extra),
        write_tags(folder / "dev.conll", 50, seed=1, extra=extra),
    )


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
def test_what_can_be_learned_is(models, files, family, tmp_path):
    result = finetune_tagger(models[family], *files, tmp_path / "out", options=FAST, batch_size=16)
    # Of the word without tokens nothing can be known: one entity is not found whole.
    assert 0.95 < result.metrics["f1"] < 1
    assert result.metrics["f1"] == pytest.approx(result.history[-1]["f1"])
    assert result.metrics["f1"] == result.metrics["strict_f1"]
    find = bertfast.pipeline("ner", result.folder, aggregation_strategy="first")
    found = find("word1 ann eve word2 oslos town word3 cid")
    assert [(one["entity_group"], one["word"]) for one in found] == [
        ("PER", "ann eve"),
        ("LOC", "oslos town"),
        ("PER", "cid"),
    ]


@pytest.fixture(scope="module", params=["bert", "roberta", "albert"])
def halfway(models, files, request, tmp_path_factory) -> Any:
    """A result that is neither all right nor all wrong."""
    folder = tmp_path_factory.mktemp("halfway") / "out"
    result = finetune_tagger(models[request.param], *files, folder, options=SLOW, epochs=1, batch_size=16)
    assert 0.1 < result.metrics["f1"] < 0.97
    return result


def figures(files: tuple[Path, Path], predictions: list[list[str]]) -> dict[str, float]:
    right = read_conll(files[1]).tags
    kind, strict = (entity_scores(right, predictions, strict=strict).micro for strict in (False, True))
    pairs = [pair for one, two in zip(right, predictions, strict=True) for pair in zip(one, two, strict=True)]
    return {
        "f1": kind.f1,
        "precision": kind.precision,
        "recall": kind.recall,
        "strict_f1": strict.f1,
        "accuracy": float(np.mean([one == other for one, other in pairs])),
    }


def test_the_pipeline_has_the_same_figures(halfway, files):
    find = bertfast.pipeline("ner", halfway.folder, is_split_into_words=True, ignore_labels=[])
    sentences = read_conll(files[1]).words
    predictions = []
    for words, found in zip(sentences, find(sentences), strict=True):
        by_start = {one["start"]: one["entity"] for one in found}
        starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])]).tolist()
        predictions.append([by_start.get(start, "O") for start in starts])
    expected = figures(files, predictions)
    assert expected == {name: halfway.metrics[name] for name in expected}


def test_transformers_has_the_same_figures(halfway, files):
    tokenizer = bertfast.Tokenizer.from_pretrained(halfway.folder)
    model = transformers.AutoModelForTokenClassification.from_pretrained(halfway.folder).eval()
    predictions = []
    for words in read_conll(files[1]).words:
        batch = tokenizer(words, is_split_into_words=True, return_tensors=None)
        with torch.no_grad():
            logits = model(**{name: torch.tensor([row]) for name, row in batch.items()}).logits[0]
        tags = ["O"] * len(words)
        for place, word in reversed(list(enumerate(batch.word_ids()))):
            if word is not None:
                tags[word] = model.config.id2label[int(logits[place].argmax())]
        predictions.append(tags)
    expected = figures(files, predictions)
    assert expected == {name: halfway.metrics[name] for name in expected}


def card_of(result: FinetuningResult) -> str:
    return (result.folder / "README.md").read_text()


def test_the_files_say_the_same(halfway, files):
    rows = [json.loads(line) for line in (halfway.folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["words"] for row in rows] == read_conll(files[1]).words
    expected = figures(files, [row["predictions"] for row in rows])
    assert expected == {name: halfway.metrics[name] for name in expected}
    assert rows[-1] == {"words": ["\u200b"], "tags": ["O"], "predictions": ["O"]}
    card = card_of(halfway)
    assert "| `LOC` |" in card
    assert "| training | `train.conll` | 202 sentences," in card
    assert (halfway.folder / "confusion_matrix.png").exists()


def test_no_word_of_a_long_sentence_is_lost(models, tmp_path):
    """Sentences of hundreds of words, which the model reads 12 tokens at a time."""
    draw = random.Random(2)

    def write(name: str, sentences: int) -> Path:
        lines = []
        for _ in range(sentences):
            words = [word for _ in range(30) for word in tagged(draw)]
            lines.append("".join(f"{word} {tag}\n" for word, tag in words))
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path / name

    files = write("train.conll", 10), write("dev.conll", 3)
    result = finetune_tagger(
        models["bert"], *files, tmp_path / "out", options=FAST, batch_size=16, max_seq_length=12, stride=4
    )
    assert result.metrics["accuracy"] > 0.98
    rows = [json.loads(line) for line in (result.folder / "predictions.jsonl").read_text().splitlines()]
    assert [len(row["predictions"]) for row in rows] == [len(tags) for tags in read_conll(files[1]).tags]
    # The windows of the call on the card are as long.
    how = {"max_length": 12, "aggregation_strategy": "first", "stride": 4}
    assert ", ".join(f"{name}={json.dumps(value)}" for name, value in how.items()) in card_of(result)
    find = bertfast.pipeline("token-classification", result.folder, **how)
    for text in (" ".join(row["words"]) for row in rows):
        assert find(text)[-1]["end"] > 0.95 * len(text)


def test_other_schemes_and_plain_tags(models, tmp_path):
    draw = random.Random(0)

    def write(name: str, rename: Any) -> Path:
        sentences = [[(word, tag) for word, tag in tagged(draw)] for _ in range(120)]
        text = "\n".join(
            "".join(f"{word} {rename(s, i)}\n" for i, (word, _) in enumerate(s)) for s in sentences
        )
        (tmp_path / name).write_text(text)
        return tmp_path / name

    def iobes(sentence: list[tuple[str, str]], place: int) -> str:
        tag = sentence[place][1]
        goes_on = place + 1 < len(sentence) and sentence[place + 1][1][0] == "I"
        return {"B": "B" if goes_on else "S", "I": "I" if goes_on else "E", "O": "O"}[tag[0]] + tag[1:]

    def iob1(sentence: list[tuple[str, str]], place: int) -> str:
        tag = sentence[place][1]
        touches = place and sentence[place - 1][1][1:] == tag[1:]
        return tag if touches or tag == "O" else f"I{tag[1:]}"

    def plain(sentence: list[tuple[str, str]], place: int) -> str:
        return {"O": "X"}.get(sentence[place][1], "NOUN")

    course: dict[str, Any] = {"options": FAST, "epochs": 4, "batch_size": 16}
    for number, (rename, labels) in enumerate(
        (
            (iobes, ["B-LOC", "B-PER", "E-LOC", "E-PER", "O", "S-LOC", "S-PER"]),
            (iob1, ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]),
            (plain, ["NOUN", "X"]),
        )
    ):
        train, dev = write("train", rename), write("dev", rename)
        result = finetune_tagger(models["bert"], train, dev, tmp_path / f"out{number}", **course)
        find = bertfast.pipeline("ner", result.folder)
        assert find.encoder.labels == labels
        name = "accuracy" if rename is plain else "f1"
        assert result.metric_for_best_model == name
        assert result.metrics[name] > 0.9


# --------------------------------------------------------------------------------------------------- windows


WORDS = st.lists(st.sampled_from(["ann", "anns", "annss", "\u200b", "word1", "?!"]), max_size=25)


@settings(deadline=None, max_examples=200)
@given(sentences=st.lists(WORDS, min_size=1, max_size=3), length=st.integers(4, 14), data=st.data())
def test_every_word_has_its_first_token_once(models, sentences, length, data):
    stride = data.draw(st.integers(0, length - 3))
    tokenizer = bertfast.Tokenizer.from_pretrained(models["bert"])
    ragged, at = word_windows(tokenizer, sentences, length=length, stride=stride, types=False)
    expected = [
        (number, place, tokenizer.encode(word, add_special_tokens=False)[0])
        for number, words in enumerate(sentences)
        for place, word in enumerate(words)
        if tokenizer.encode(word, add_special_tokens=False)
    ]
    ids = ragged.input_ids[at.token].tolist()
    assert list(zip(at.sentence.tolist(), at.word.tolist(), ids, strict=True)) == expected
    assert np.diff(ragged.cu_seqlens).max() <= length


def test_a_word_is_read_where_most_is_around_it(models):
    tokenizer = bertfast.Tokenizer.from_pretrained(models["bert"])
    words = [f"word{number}" for number in range(10)]
    # Windows of 6: words 0 to 5, 2 to 7, 4 to 9.
    ragged, at = word_windows(tokenizer, [words], length=8, stride=4, types=False)
    windows = (np.searchsorted(ragged.cu_seqlens, at.token, side="right") - 1).tolist()
    assert windows == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]


# -------------------------------------------------------------------------------------------------- mistakes


def refused(message: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        finetune_tagger(*arguments, **options)
    assert str(caught.value) == message


def test_tags_that_are_not_in_the_training_file(models, files, tmp_path):
    dev = tmp_path / "dev.conll"
    dev.write_text("ann B-PER\n\nrome B-LOC\noslo B-ORG\n")
    refused(
        f"{dev}:4: tag 'B-ORG' is not in 'B-LOC', 'B-PER', 'I-LOC', 'I-PER', 'O'",
        models["bert"],
        files[0],
        dev,
        tmp_path / "out",
    )


def test_one_scheme_for_both_files(models, tmp_path):
    train, dev = tmp_path / "train.conll", tmp_path / "dev.conll"
    train.write_text("ann B-PER\nbob E-PER\nx O\n")
    dev.write_text("ann B-PER\nbob O\n")
    refused(
        f"{dev}: expected tags of IOBES as in {train}, found IOB2",
        models["bert"],
        train,
        dev,
        tmp_path / "out",
    )
    dev.write_text("ann O\n")
    assert (
        finetune_tagger(models["bert"], train, dev, tmp_path / "out", options=FAST, epochs=1).metrics["f1"]
        == 0
    )
    # These may be of either scheme, and are of that of the other file.
    dev.write_text("ann S-PER\nx O\nrome B-PER\noslo E-PER\n")
    train.write_text(dev.read_text() + "bob B-PER\neve M-PER\ncid E-PER\n")
    finetune_tagger(models["bert"], train, dev, tmp_path / "short", options=FAST, epochs=1)
    assert "| tags | `bmes` |" in (tmp_path / "short/README.md").read_text()
    train.write_text("ann O\n")
    refused(f"{train}: expected at least two tags, found 'O'", models["bert"], train, dev, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_seq_length": 2}, "max_seq_length: expected more than the 2 special tokens, got 2"),
        ({"max_seq_length": 10, "stride": 8}, "stride: expected an integer from 0 to 7, got 8"),
        ({"stride": -1}, "stride: expected an integer from 0 to 45, got -1"),
        (
            {"metric_for_best_model": "loss"},
            "metric_for_best_model: expected one of f1, strict_f1, macro_f1, accuracy, got 'loss'",
        ),
    ],
)
def test_bad_options(models, files, tmp_path, options, message):
    refused(message, models["bert"], *files, tmp_path / "out", **options)


def test_chinese_characters_are_words(tmp_path, zh_vocab):
    """A real vocabulary: a character each, and a word of letters that is cut."""
    folder = make_model(tmp_path / "model", vocab_size=21128)
    (folder / "vocab.txt").write_bytes(zh_vocab.read_bytes())
    text = "\u5317 B-LOC\n\u4eac I-LOC\n\u3000 O\n\u6709 O\nwordpieces O\n\n"
    train = tmp_path / "train.conll"
    train.write_text(text * 8)
    result = finetune_tagger(folder, train, train, tmp_path / "out", options=FAST, epochs=8, batch_size=4)
    assert result.metrics["f1"] == 1
