"""The three tasks: how a model is fine-tuned for one, and how good it is in `bertfast.pipeline`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import bertfast
from bertfast.training.finetuning import (
    FinetuningResult,
    finetune_classifier,
    finetune_question_answering,
    finetune_tagger,
)
from bertfast.training.finetuning.answer_metrics import answer_scores
from bertfast.training.finetuning.entities import entity_scores

Example = tuple[Any, Any]
"""What a pipeline is given, and what is right."""
Decision = Any
"""What a pipeline says, in a form that can be compared."""

# Positions of more tokens were never trained.
_WINDOW, _STRIDE, _QUESTION, _ANSWER = 256, 96, 64, 30


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        base: What of a family's folders the pretrained model is.
        pipeline: Its name in `bertfast.pipeline`.
        options: Of the pipeline.
        train: The function that fine-tunes, and what it is given.
        settings: Arguments of it.
        learning_rate: The highest.
        files: Names of the files to train on, to choose the best epoch on, and to test on.
        metric: The figure that counts; `score` computes it too.
        read: A file's examples.
        decide: What can be compared of an input's result: a label, an answer, the labels of all characters.
        score: That figure of decisions.
    """

    base: str
    pipeline: str
    options: dict[str, Any]
    train: Callable[..., FinetuningResult]
    settings: dict[str, Any]
    learning_rate: float
    files: tuple[str, str, str]
    metric: str
    read: Callable[[Path], list[Example]]
    decide: Callable[[Any, Any], Decision]
    score: Callable[[Sequence[Decision], Sequence[Any]], float]

    def with_epochs(self, epochs: int) -> Task:
        """The same with so many epochs."""
        return replace(self, settings={**self.settings, "epochs": epochs})

    def decisions(self, folder: Path, examples: Sequence[Example], dtype: str = "float32") -> list[Decision]:
        """What the model in a folder says of examples."""
        return self.decided(bertfast.pipeline(self.pipeline, str(folder), dtype=dtype), examples)

    def decided(self, pipeline: Any, examples: Sequence[Example]) -> list[Decision]:
        """What a pipeline says of examples."""
        inputs = [given for given, _ in examples]
        results = pipeline(inputs, **self.options)
        return [self.decide(given, result) for given, result in zip(inputs, results, strict=True)]


# --------------------------------------------------------------------------------------------------- reviews


def read_reviews(path: Path) -> list[Example]:
    """Texts and labels."""
    rows = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")[1:]
    return [(text, label) for text, label in (row.split("\t") for row in rows)]


def accuracy(found: Sequence[Decision], right: Sequence[Any]) -> float:
    """The share that is right."""
    return sum(a == b for a, b in zip(found, right, strict=True)) / len(right)


# ----------------------------------------------------------------------------------------------------- names


def read_sentences(path: Path) -> list[Example]:
    """The characters of sentences, and their labels."""
    lines = path.read_text(encoding="utf-8").split("\n")
    blocks = [list(block) for is_text, block in groupby(lines, key=bool) if is_text]
    return [([line[0] for line in block], [line[2:] for line in block]) for block in blocks]


def labels_of(characters: Sequence[str], result: list[dict[str, Any]]) -> list[str]:
    """The label of each character: that of its first token, as in training."""
    labels: dict[int, str] = {}
    for token in result:
        # Between two characters the pipeline has a space, which some tokenizers make a token of its own.
        labels.setdefault((token["start"] + 1) // 2, token["entity"])
    return [labels.get(place, "O") for place in range(len(characters))]


def f1_of_names(found: Sequence[Decision], right: Sequence[Any]) -> float:
    """Of names of which kind and both ends are right."""
    return float(entity_scores(right, found).micro.f1)


# ------------------------------------------------------------------------------------------------- questions


def read_questions(path: Path) -> list[Example]:
    """Questions with their contexts, and the answers."""
    data = json.loads(path.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for entry in data for paragraph in entry["paragraphs"]]
    return [
        (
            {"question": qa["question"], "context": paragraph["context"]},
            [answer["text"] for answer in qa["answers"]],
        )
        for paragraph in paragraphs
        for qa in paragraph["qas"]
    ]


def best_answer(_: Any, result: Any) -> str:
    """That of a pipeline."""
    return str((result[0] if isinstance(result, list) else result)["answer"])


def f1_of_answers(found: Sequence[Decision], right: Sequence[Any]) -> float:
    """Of the characters of answers, as CMRC 2018 counts."""
    scores = [answer_scores(answers, answer, "cmrc")[1] for answer, answers in zip(found, right, strict=True)]
    return sum(scores) / len(scores)


def agreement(one: Sequence[Decision], other: Sequence[Decision]) -> float:
    """The share of decisions that are the same; of sentences each character counts."""
    pairs = [
        pair
        for a, b in zip(one, other, strict=True)
        for pair in (zip(a, b, strict=True) if isinstance(a, list) else [(a, b)])
    ]
    return sum(a == b for a, b in pairs) / max(len(pairs), 1)


TASKS = {
    "classify": Task(
        "adapted",
        "text-classification",
        {"truncation": True, "max_length": 128, "batch_size": 256},
        finetune_classifier,
        # A model that was adapted has no layer over the first token.
        {"epochs": 6, "batch_size": 16, "max_seq_length": 128, "pooling": "mean"},
        2e-4,
        ("classify/few.tsv", "classify/validation.tsv", "classify/test.tsv"),
        "accuracy",
        read_reviews,
        lambda _, result: result["label"],
        accuracy,
    ),
    "tag": Task(
        "pretrained",
        "token-classification",
        {"is_split_into_words": True, "ignore_labels": [], "batch_size": 256},
        finetune_tagger,
        {"epochs": 12, "batch_size": 16},
        3e-4,
        ("tag/few.conll", "tag/validation.conll", "tag/test.conll"),
        "f1",
        read_sentences,
        labels_of,
        f1_of_names,
    ),
    "qa": Task(
        "pretrained",
        "question-answering",
        {
            "max_seq_len": _WINDOW,
            "doc_stride": _STRIDE,
            "max_question_len": _QUESTION,
            "max_answer_len": _ANSWER,
            "batch_size": 64,
            # As many of each window as training compares: windows overlap, and their scores are added up.
            "top_k": 20,
        },
        finetune_question_answering,
        {
            "epochs": 3,
            "batch_size": 16,
            "max_seq_length": _WINDOW,
            "doc_stride": _STRIDE,
            "max_query_length": _QUESTION,
            "max_answer_length": _ANSWER,
        },
        3e-4,
        ("qa/train.json", "qa/validation.json", "qa/test.json"),
        "f1",
        read_questions,
        best_answer,
        f1_of_answers,
    ),
}
