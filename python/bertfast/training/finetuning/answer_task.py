"""Answers to questions as a task of the loop."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor, nn

from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError
from bertfast.models.losses import IGNORED
from bertfast.models.sequences import Boundaries
from bertfast.pipelines.question_answering import QuestionAnsweringPipeline
from bertfast.training.checkpoints import ANSWERS
from bertfast.training.finetuning import answer_metrics
from bertfast.training.finetuning.data import digest
from bertfast.training.finetuning.report import Findings, rounded
from bertfast.training.finetuning.rows import Rows
from bertfast.training.finetuning.squad import Question, Questions
from bertfast.training.finetuning.starting import Start, encoder_of
from bertfast.training.finetuning.task import FinetuningTask
from bertfast.training.task import MicroBatch, output_of

_QUESTIONS = 256


class Answered(NamedTuple):
    """What is said to a question."""

    text: str
    """``""`` for no answer."""
    odds: float
    """log(probability of no answer / that of the best one); minus infinity if there has to be one."""
    best: list[dict[str, Any]]
    """The best answers, as the pipeline gives them, without none."""


class QuestionAnsweringTask(FinetuningTask[Answered]):
    """Answers to questions."""

    figures = ("f1", "exact_match")

    def __init__(
        self,
        start: Start,
        questions: Questions,
        evaluated: Questions,
        pipeline: dict[str, Any],
        *,
        threshold: float,
        rule: answer_metrics.Rule | None,
        **shared: Any,
    ) -> None:
        self._files, self._pipeline, self._threshold = (questions, evaluated), pipeline, threshold
        self._right = [item.answers for item in evaluated.items]
        self._rule = answer_metrics.rule_for(self._right) if rule is None else rule
        content = digest(pipeline, threshold, self._rule, [item._asdict() for item in evaluated.items])
        super().__init__(start, self._rows(start), evaluated=len(evaluated), digest=content, **shared)

    def _rows(self, start: Start) -> Rows:
        """The windows of all contexts, and where in them the answers are."""
        pipeline = QuestionAnsweringPipeline(encoder_of(start.model, start.tokenizer), **self._pipeline)
        lengths, starts, ends = [], [], []
        tokens: dict[str, list[npt.NDArray[np.int32]]] = {"input_ids": [], "token_type_ids": []}
        context_is = 1 if start.tokenizer.padding_side == "right" else 0
        for items, place in _pieces(self._files[0], range(len(self._files[0]))):
            with place:
                ragged = pipeline.windows(_asked(items))
            lengths.append(np.diff(ragged.cu_seqlens))
            tokens["input_ids"].append(ragged.input_ids)
            if ragged.token_type_ids is not None:
                tokens["token_type_ids"].append(ragged.token_type_ids)
            first, last = answer_places(ragged, items, context_is)
            starts.append(first)
            ends.append(last)
        return Rows(
            np.append(0, np.cumsum(np.concatenate(lengths))).astype(np.int64),
            {name: np.concatenate(some) for name, some in tokens.items() if some},
            {"start_positions": np.concatenate(starts), "end_positions": np.concatenate(ends)},
        )

    def counts(self, micro_batches: Sequence[MicroBatch]) -> dict[str, int]:
        """The windows."""
        return {"loss": sum(int((part["start_positions"] != IGNORED).sum()) for part in micro_batches)}

    def losses(self, model: nn.Module, micro_batch: MicroBatch) -> dict[str, Tensor]:
        """The mean of the cross entropies of where answers start and end."""
        output = output_of(model, micro_batch)
        boundaries = Boundaries.of(micro_batch["cu_seqlens"], output.start_logits)
        losses = [
            F.cross_entropy(
                boundaries.padded(logits.float(), -math.inf),
                micro_batch[name],
                ignore_index=IGNORED,
                reduction="sum",
            )
            for name, logits in (
                ("start_positions", output.start_logits),
                ("end_positions", output.end_logits),
            )
        ]
        return {"loss": (losses[0] + losses[1]) / 2}

    def predictions(self, encoder: Encoder, numbers: Sequence[int]) -> list[Answered]:
        """The answers of the pipeline for question answering."""
        pipeline = QuestionAnsweringPipeline(encoder, **self._pipeline)
        found = []
        for items, place in _pieces(self._files[1], numbers):
            with place:
                answers = pipeline.answers(_asked(items))
            for one in answers:
                # With none among them there may be one more.
                best = [answer for answer in one.best(self._pipeline["top_k"] + 1) if answer["answer"]]
                best = best[: self._pipeline["top_k"]]
                found.append(self._decided(best, one.null))
        return found

    def _decided(self, best: list[dict[str, Any]], null: float) -> Answered:
        score = best[0]["score"] if best else 0.0
        if not self._pipeline["handle_impossible_answer"]:
            return Answered(best[0]["answer"] if best else "", -math.inf, best)
        odds = math.log(max(null, 1e-300)) - math.log(max(score, 1e-300))
        # Not by the odds, which are rounded: with a threshold of 0 it is what the pipeline decides.
        is_null = not best or null > score * math.exp(min(self._threshold, 700.0))
        return Answered("" if is_null else best[0]["answer"], odds, best)

    def metrics(self, predictions: Sequence[Answered]) -> dict[str, float]:
        """Exact match and F1."""
        return answer_metrics.answer_metrics(self._right, [one.text for one in predictions], self._rule)

    def findings(self, predictions: Sequence[Answered]) -> Findings:
        """Answers, and from which odds on there should have been none."""
        items, pipeline = self._files[1].items, self._pipeline
        scores = [
            answer_metrics.answer_scores(item.answers, one.text, self._rule)
            for item, one in zip(items, predictions, strict=True)
        ]
        notes = [
            "Exact match and F1 are those of CMRC 2018: the longest run of characters that both have."
            if self._rule == "cmrc"
            else "Exact match and F1 are those of SQuAD's evaluation, but between 0 and 1."
        ]
        if pipeline["handle_impossible_answer"]:
            given = [one.best[0]["answer"] if one.best else "" for one in predictions]
            f1 = [
                answer_metrics.answer_scores(item.answers, text, self._rule)[1]
                for item, text in zip(items, given, strict=True)
            ]
            best, threshold = answer_metrics.best_threshold(
                self._right, f1, [one.odds for one in predictions]
            )
            notes.append(
                f"With a null_score_diff_threshold of {threshold:.4f}, chosen on this file, F1 would be "
                f"{best:.4f}."
            )
        return Findings(
            task="question-answering",
            data=[
                (role, Path(one.name).name, f"{len(one):,} questions about {one.contexts:,} texts")
                for role, one in zip(("training", "evaluation"), self._files, strict=True)
            ],
            settings={
                "max_seq_length": pipeline["max_seq_len"],
                "doc_stride": pipeline["doc_stride"],
                "max_query_length": pipeline["max_question_len"],
                "n_best_size": pipeline["top_k"],
                "max_answer_length": pipeline["max_answer_len"],
                "version_2_with_negative": pipeline["handle_impossible_answer"],
                "null_score_diff_threshold": self._threshold,
                "answer_rule": self._rule,
            },
            notes=notes,
            usage="".join(f", {name}={value!r}" for name, value in pipeline.items()),
            predictions=[
                _described(item, one, *score)
                for item, one, score in zip(items, predictions, scores, strict=True)
            ],
            files={
                ANSWERS: json.dumps(
                    {item.id: one.text for item, one in zip(items, predictions, strict=True)},
                    indent=1,
                    ensure_ascii=False,
                )
                + "\n"
            },
        )


def _described(item: Question, answered: Answered, exact: float, f1: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": item.id,
        "question": item.question,
        "answers": list(item.answers),
        "prediction": answered.text,
        "exact_match": exact,
        "f1": rounded(f1),
    }
    if math.isfinite(answered.odds):
        found["null_odds"] = rounded(answered.odds)
    found["n_best"] = [{**answer, "score": rounded(answer["score"])} for answer in answered.best]
    return found


def _asked(items: Sequence[Question]) -> list[dict[str, str]]:
    return [{"question": item.question, "context": item.context} for item in items]


def _pieces(questions: Questions, numbers: Sequence[int]) -> Iterator[tuple[list[Question], Any]]:
    """Some questions at a time, with what names them in messages about inputs."""
    for first in range(0, len(numbers), _QUESTIONS):
        some = numbers[first : first + _QUESTIONS]
        yield [questions.items[number] for number in some], _naming(questions, some)


@contextmanager
def _naming(questions: Questions, numbers: Sequence[int]) -> Iterator[None]:
    """A message about ``inputs[3]`` becomes one about a question, and options have the names of here."""
    try:
        yield
    except ArgumentError as error:
        message = re.sub(
            r"inputs\[(\d+)\](\['question'\])?",
            lambda found: questions.place(numbers[int(found[1])]),
            str(error),
        )
        for theirs, ours in (("max_seq_len", "max_seq_length"), ("max_question_len", "max_query_length")):
            message = re.sub(rf"\b{theirs}\b", ours, message)
        raise ArgumentError(message) from error


def answer_places(
    ragged: Any, items: Sequence[Question], context_is: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """In each window the first and the last token of the answer; both 0 if it is not in there."""
    first, last = (np.zeros(len(ragged), np.int64) for _ in range(2))
    ends = ragged.cu_seqlens.tolist()
    for window, sample in enumerate(ragged.overflow_to_sample.tolist()):
        item = items[sample]
        if not item.answers:
            continue
        here = slice(ends[window], ends[window + 1])
        places = np.flatnonzero(ragged.sequence_ids[here] == context_is)
        if not len(places):
            continue
        offsets = ragged.offset_mapping[here][places]
        begin, stop = item.start, item.start + len(item.answers[0].strip())
        if offsets[0, 0] > begin or offsets[-1, 1] < stop:
            continue
        # The first token that goes beyond the answer's start, and the last that begins before its end.
        a = int(np.searchsorted(offsets[:, 1], begin, side="right"))
        b = int(np.searchsorted(offsets[:, 0], stop, side="left")) - 1
        if a <= b:
            first[window], last[window] = places[a], places[b]
    return first, last
