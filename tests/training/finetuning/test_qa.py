"""Question answering: where answers are in windows, what is learned, the same figures outside."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import bertfast
from bertfast.errors import ArgumentError
from bertfast.pipelines.question_answering import QuestionAnsweringPipeline
from bertfast.training.finetuning import finetune_question_answering
from bertfast.training.finetuning.answer_metrics import answer_metrics, best_threshold
from bertfast.training.finetuning.answer_task import answer_places
from bertfast.training.finetuning.squad import Question, read_squad
from tiny_finetuning import FAST, make_model, write_questions

WINDOWS = {"max_query_length": 4, "doc_stride": 10}
SLOW = replace(FAST, learning_rate=3e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A third of the questions has no answer, and most texts are several windows."""
    folder = tmp_path_factory.mktemp("questions")
    more: dict[str, Any] = {"impossible": 0.33, "fillers": 60}
    return (
        write_questions(folder / "train.json", 300, **more),
        write_questions(folder / "dev.json", 40, seed=1, **more),
    )


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
def test_what_can_be_learned_is(models, family, tmp_path):
    train, dev = (write_questions(tmp_path / f"{seed}.json", 400 - 350 * seed, seed) for seed in range(2))
    result = finetune_question_answering(
        models[family],
        train,
        dev,
        tmp_path / "out",
        options=FAST,
        epochs=6,
        batch_size=16,
        **{"max_query_length": 4},
    )
    assert result.metrics == {"exact_match": pytest.approx(1, abs=0.05), "f1": pytest.approx(1, abs=0.05)}
    answer = bertfast.pipeline("question-answering", result.folder)
    context = "word1 oslo word2 cid word3"
    assert answer(question="who", context=context)["answer"] == "cid"
    assert answer(question="where", context=context)["answer"] == "oslo"


def test_no_answer_can_be_learned(models, files, tmp_path):
    result = finetune_question_answering(
        models["bert"], *files, tmp_path / "out", options=FAST, epochs=7, batch_size=16, **WINDOWS
    )
    for name in ("f1", "has_answer_f1", "no_answer_exact_match"):
        assert result.metrics[name] > 0.9, name
    card = (result.folder / "README.md").read_text()
    assert "| version_2_with_negative | `true` |" in card


@pytest.fixture(scope="module", params=["bert", "roberta", "albert"])
def halfway(models, files, request, tmp_path_factory) -> Any:
    """A result that is neither all right nor all wrong."""
    folder = tmp_path_factory.mktemp("halfway") / "out"
    result = finetune_question_answering(
        models[request.param], *files, folder, options=SLOW, epochs=2, batch_size=16, **WINDOWS
    )
    assert 0.05 < result.metrics["f1"] < 0.97
    return result


def asked(files: tuple[Path, Path]) -> tuple[list[dict[str, str]], list[Any]]:
    items = read_squad(files[1]).items
    return (
        [{"question": item.question, "context": item.context} for item in items],
        [item.answers for item in items],
    )


OPTIONS: dict[str, Any] = {
    "top_k": 20,
    "max_seq_len": 48,
    "doc_stride": 10,
    "max_question_len": 4,
    "max_answer_len": 30,
    "handle_impossible_answer": True,
}


def test_the_pipeline_has_the_same_figures(halfway, files):
    examples, right = asked(files)
    answer = bertfast.pipeline("question-answering", halfway.folder, **OPTIONS)
    found = [answers[0]["answer"] for answers in answer(examples)]
    assert answer_metrics(right, found) == halfway.metrics
    # It is what the card says.
    arguments = ", ".join(f"{name}={value!r}" for name, value in OPTIONS.items())
    assert f'"question-answering", "out", {arguments})' in (halfway.folder / "README.md").read_text()


class Theirs:
    """A model of transformers in place of an engine."""

    def __init__(self, folder: Path, engine: Any) -> None:
        self._model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
        self.info = engine.info

    def forward(self, ids: Any, ends: Any, types: Any, **_: Any) -> dict[str, Any]:
        found = []
        for start, end in pairwise(ends.tolist()):
            batch = {"input_ids": torch.from_numpy(ids[start:end])[None].long()}
            if types is not None:
                batch["token_type_ids"] = torch.from_numpy(types[start:end])[None].long()
            with torch.no_grad():
                output = self._model(**batch)
            found.append(torch.stack([output.start_logits[0], output.end_logits[0]], dim=1).numpy())
        return {"logits": np.concatenate(found)}


def test_transformers_has_the_same_figures(halfway, files):
    """Its logits, chosen from as we do: version 5 has no such pipeline."""
    examples, right = asked(files)
    opened = bertfast.Encoder.from_pretrained(halfway.folder, head="question-answering")
    theirs = bertfast.Encoder(
        Theirs(halfway.folder, opened.engine),
        {},
        tokenizer=bertfast.Tokenizer.from_pretrained(halfway.folder),
    )
    found = [answers[0]["answer"] for answers in QuestionAnsweringPipeline(theirs, **OPTIONS)(examples)]
    assert answer_metrics(right, found) == halfway.metrics


def test_the_files_say_the_same(halfway, files):
    rows = [json.loads(line) for line in (halfway.folder / "predictions.jsonl").read_text().splitlines()]
    squad = json.loads((halfway.folder / "predictions.json").read_text())
    assert squad == {row["id"]: row["prediction"] for row in rows}
    assert np.mean([row["f1"] for row in rows]) == pytest.approx(halfway.metrics["f1"], abs=1e-5)
    for row in rows:
        # No answer is given just where it is the more probable.
        assert (row["prediction"] == "") == (row["null_odds"] > 0)
        assert 0 < len(row["n_best"]) <= 20
        assert row["prediction"] in ("", row["n_best"][0]["answer"])


@pytest.mark.parametrize(("threshold", "answered"), [(-1000.0, 0), (1000.0, 40)])
def test_the_threshold(models, files, threshold, answered, tmp_path):
    result = finetune_question_answering(
        models["bert"],
        *files,
        tmp_path / "out",
        options=replace(FAST, learning_rate=1e-9),
        epochs=1,
        null_score_diff_threshold=threshold,
        **WINDOWS,
    )
    squad = json.loads((result.folder / "predictions.json").read_text())
    assert sum(text != "" for text in squad.values()) == answered


def test_the_best_threshold_is_the_best():
    random = np.random.default_rng(0)
    for _ in range(50):
        right = [["x"] if random.random() < 0.6 else [] for _ in range(12)]
        f1 = [float(random.integers(0, 3)) / 2 if some else 0.0 for some in right]
        odds = random.integers(-3, 4, 12).astype(float).tolist()

        def mean(threshold: float, right: Any = right, f1: Any = f1, odds: Any = odds) -> float:
            given = [odd <= threshold for odd in odds]
            scores = [
                one if gives and some else float(not some and not gives)
                for one, gives, some in zip(f1, given, right, strict=True)
            ]
            return sum(scores) / len(scores)

        best, threshold = best_threshold(right, f1, odds)
        assert best == pytest.approx(mean(threshold))
        assert best == pytest.approx(max(map(mean, [-math.inf, *odds])))


# --------------------------------------------------------------------------------------------------- windows


def untrained(folder: Path) -> Any:
    config = bertfast.models.BertConfig.from_pretrained(folder)
    return bertfast.models.BertForQuestionAnswering(config).eval()


def test_answers_lie_where_the_windows_have_them(english_texts, minilm, tmp_path):
    """Pieces of real texts, in windows of 24 tokens: the tokens that are marked say the answer."""
    random = np.random.default_rng(3)
    folder = make_model(tmp_path / "model", vocab_size=30522)
    (folder / "vocab.txt").write_bytes((minilm / "vocab.txt").read_bytes())
    model = untrained(folder)
    encoder = model.to_encoder(tokenizer=bertfast.Tokenizer.from_pretrained(folder))
    pipeline = QuestionAnsweringPipeline(encoder, max_seq_len=24, doc_stride=6, max_question_len=5)
    items = []
    for number, text in enumerate(english_texts[:400:2]):
        words = text.split(" ")
        first = int(random.integers(0, len(words)))
        answer = " ".join(words[first : first + int(random.integers(1, 5))])
        begin = len(" ".join(words[:first])) + (first > 0)
        # What follows may touch it, as what is before it.
        begin += len(answer) - len(answer.lstrip(" ([\"'"))
        answer = answer.strip(" ([\"'.,;:)]")
        if answer:
            items.append(Question(str(number), "what is it, again and again?", text, (answer,), begin))
    ragged = pipeline.windows([{"question": one.question, "context": one.context} for one in items])
    starts, ends = answer_places(ragged, items, 1)
    whole = pipeline.tokenizer([one.context for one in items], return_offsets_mapping=True)["offset_mapping"]
    found = set()
    for window, sample in enumerate(ragged.overflow_to_sample.tolist()):
        if not starts[window]:
            assert not ends[window]
            continue
        base, item = ragged.cu_seqlens[window], items[sample]
        first = ragged.offset_mapping[base + starts[window], 0]
        last = ragged.offset_mapping[base + ends[window], 1]
        text = item.context[first:last]
        # No less than the answer, and no token more than needed.
        assert item.answers[0] in text
        starts_there = {start for start, _ in whole[sample]}
        stops_there = {stop for _, stop in whole[sample]}
        stop = item.start + len(item.answers[0])
        assert first == max(start for start in starts_there if start <= item.start)
        assert last == min(end for end in stops_there if end >= stop)
        found.add(sample)
    lengths = [len(pipeline.tokenizer.encode(one.answers[0], add_special_tokens=False)) for one in items]
    # What windows share is as long as that: one of them has the whole answer.
    short = {number for number, length in enumerate(lengths) if 0 < length <= 6}
    assert len(short) > 120
    assert short <= found
    assert len(found) < len(items)


def test_unanswerable_questions_point_at_the_first_token(models):
    item = Question("a", "who", "word1 ann", (), -1)
    model = untrained(models["bert"])
    encoder = model.to_encoder(tokenizer=bertfast.Tokenizer.from_pretrained(models["bert"]))
    ragged = QuestionAnsweringPipeline(encoder).windows([{"question": "who", "context": item.context}])
    assert [part.tolist() for part in answer_places(ragged, [item], 1)] == [[0], [0]]
    item = item._replace(answers=("ann",), start=6)
    assert [part.tolist() for part in answer_places(ragged, [item], 1)] == [[4], [4]]


# -------------------------------------------------------------------------------------------------- mistakes


def refused(message: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        finetune_question_answering(*arguments, **options)
    assert str(caught.value) == message


def test_questions_without_answers_have_to_be_allowed(models, files, tmp_path):
    first = next(item.id for item in read_squad(files[0]).items if not item.answers)
    refused(
        f"{files[0]}: question {first!r}: expected an answer, got none (version_2_with_negative allows it)",
        models["bert"],
        *files,
        tmp_path / "out",
        version_2_with_negative=False,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_seq_length": 385}, "max_seq_length: expected 1 to 48, what the model takes, got 385"),
        ({"doc_stride": -1}, "doc_stride: expected a number of tokens or None, got -1"),
        ({"max_answer_length": 0}, "max_answer_len: expected a positive integer, got 0"),
        ({"answer_rule": "bleu"}, "answer_rule: expected one of None, 'squad', 'cmrc', got 'bleu'"),
        ({"max_seq_length": 3}, "max_seq_length: expected more than the 3 special tokens, got 3"),
    ],
)
def test_bad_options(models, files, tmp_path, options, message):
    refused(message, models["bert"], *files, tmp_path / "out", **{"max_query_length": 4} | options)


def test_a_question_that_leaves_no_room_is_named(models, tmp_path):
    context = "word1 " * 60
    entry = {"id": "long", "question": "who " * 40, "answers": [{"text": "word1", "answer_start": 0}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": [entry]}]}]}))
    refused(
        f"doc_stride: expected less than 5, the tokens that max_seq_length and the question leave for the "
        f"context of {path}: question 'long', got 24",
        models["bert"],
        path,
        path,
        tmp_path / "out",
    )
