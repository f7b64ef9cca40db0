"""Labels of texts, or numbers, as a task of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor, nn

from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError
from bertfast.models.losses import IGNORED
from bertfast.pipelines.text_classification import TextClassificationPipeline
from bertfast.training.finetuning import metrics
from bertfast.training.finetuning.data import (
    LabelledTexts,
    ProblemType,
    digest,
    label_numbers,
)
from bertfast.training.finetuning.report import Findings, Table, rounded
from bertfast.training.finetuning.rows import Rows
from bertfast.training.finetuning.starting import Start
from bertfast.training.finetuning.task import FinetuningTask
from bertfast.training.task import MicroBatch, output_of

_FIGURES = {
    "single_label_classification": ("accuracy", "macro_f1", "mcc"),
    "multi_label_classification": ("micro_f1", "macro_f1", "accuracy"),
    "regression": ("pearson", "spearman"),
}
# As pipelines: a label of several is there if this is reached.
_THRESHOLD = 0.5
_SMALLEST = 1e-300


class ClassificationTask(FinetuningTask[npt.NDArray[np.float64]]):
    """Labels of texts; a prediction is what the pipeline gives as scores, (K,)."""

    def __init__(
        self,
        start: Start,
        examples: LabelledTexts,
        evaluated: LabelledTexts,
        targets: Sequence[npt.NDArray[Any]],
        labels: list[str] | None,
        *,
        length: int,
        problem_type: ProblemType,
        **shared: Any,
    ) -> None:
        self.figures = _FIGURES[problem_type]
        self._files = (examples, evaluated)
        self._labels, self._length, self._kind = labels, length, problem_type
        self._right = targets[1]
        rows = _rows(start, examples, targets[0], length)
        texts = (evaluated.texts, evaluated.text_pairs, evaluated.labels)
        super().__init__(start, rows, evaluated=len(evaluated), digest=digest(length, *texts), **shared)

    def settings(self) -> dict[str, Any]:
        """See `bertfast.training.task.Task.settings`."""
        pooling = self.start.model.config.classifier_pooling
        return {**super().settings(), "problem_type": self._kind, "pooling": pooling}

    def counts(self, micro_batches: Sequence[MicroBatch]) -> dict[str, int]:
        """The labels that count."""
        return {"loss": sum(int(_counted(part["labels"]).sum()) for part in micro_batches)}

    def losses(self, model: nn.Module, micro_batch: MicroBatch) -> dict[str, Tensor]:
        """Cross entropy of one label, binary cross entropy of several, squared errors of numbers."""
        logits, labels = output_of(model, micro_batch).logits.float(), micro_batch["labels"]
        if self._kind == "single_label_classification":
            return {"loss": F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")}
        kept = _counted(labels)
        logits, labels = logits[kept], labels[kept]
        if self._kind == "regression":
            return {"loss": F.mse_loss(logits, labels, reduction="sum")}
        return {"loss": F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")}

    def predictions(self, encoder: Encoder, numbers: Sequence[int]) -> list[npt.NDArray[np.float64]]:
        """The scores of the pipeline for text classification."""
        classify = TextClassificationPipeline(encoder, top_k=None, truncation=True, max_length=self._length)
        texts, pairs = self._files[1].texts, self._files[1].text_pairs
        inputs: list[Any] = (
            [texts[number] for number in numbers]
            if pairs is None
            else [{"text": texts[number], "text_pair": pairs[number]} for number in numbers]
        )
        order = {name: place for place, name in enumerate(encoder.labels)}
        found = np.empty((len(inputs), len(order)))
        for row, result in zip(found, classify(inputs, batch_size=1024), strict=True):
            for one in result:
                row[order[one["label"]]] = one["score"]
        return list(found)

    def metrics(self, predictions: Sequence[npt.NDArray[np.float64]]) -> dict[str, float]:
        """The figures of the kind of problem, and the loss."""
        scores, right = np.stack(predictions), self._right
        if self._kind == "regression":
            return metrics.regression_metrics(right[:, 0].astype(np.float64), scores[:, 0])
        if self._kind == "multi_label_classification":
            chances = np.where(right == 1, scores, 1 - scores)
            found = metrics.multi_label_metrics(right == 1, scores >= _THRESHOLD)
        else:
            chances = scores[np.arange(len(scores)), right]
            found = metrics.classification_metrics(right, scores.argmax(axis=1), scores.shape[1])
        return {**found, "loss": float(-np.log(np.maximum(chances, _SMALLEST)).mean())}

    def findings(self, predictions: Sequence[npt.NDArray[np.float64]]) -> Findings:
        """Figures by label, and what was taken for what."""
        scores, labels = np.stack(predictions), self._labels
        table = confusion = None
        if labels is not None and self._kind == "single_label_classification":
            counts = metrics.confusion_matrix(self._right, scores.argmax(axis=1), len(labels))
            table = Table.of_scores("label", dict(zip(labels, metrics.label_scores(counts), strict=True)))
            confusion = (labels, counts)
        elif labels is not None:
            each = metrics.multi_label_scores(self._right == 1, scores >= _THRESHOLD)
            table = Table.of_scores("label", dict(zip(labels, each, strict=True)))
        pooling, notes = self.start.model.config.classifier_pooling, []
        if pooling != "cls":
            notes.append(
                f"The classifier reads the {pooling} of all tokens, which transformers does not know: there "
                "it would give other labels."
            )
        return Findings(
            task="text-classification",
            data=[
                (role, Path(one.name).name, f"{len(one):,} examples")
                for role, one in zip(("training", "evaluation"), self._files, strict=True)
            ],
            settings={
                "problem_type": self._kind,
                "max_seq_length": self._length,
                "pooling": pooling,
            },
            notes=notes,
            usage=f", truncation=True, max_length={self._length}",
            predictions=self._described(scores),
            table=table,
            confusion=confusion,
        )

    def _described(self, scores: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
        examples, labels = self._files[1], self._labels
        found = []
        for number, row in enumerate(scores):
            entry: dict[str, Any] = {"text": examples.texts[number]}
            if examples.text_pairs is not None:
                entry["text_pair"] = examples.text_pairs[number]
            entry["label"] = examples.labels[number]
            values = [rounded(value) for value in row.tolist()]
            if labels is None:
                entry["prediction"] = values[0]
            else:
                several = [name for name, value in zip(labels, row, strict=True) if value >= _THRESHOLD]
                is_one = self._kind == "single_label_classification"
                entry["prediction"] = labels[int(row.argmax())] if is_one else several
                entry["scores"] = dict(zip(labels, values, strict=True))
            found.append(entry)
        return found


def targets_of(examples: LabelledTexts, labels: list[str] | None, problem_type: str) -> npt.NDArray[Any]:
    """What the model is to say: (N,) integers, or (N, K) of numbers.

    Args:
        examples: With their labels.
        labels: Names of all labels; None for a regression.
        problem_type: What labels are.

    Raises:
        ArgumentError: A label is not among them.
    """
    if labels is None:
        return np.array(examples.labels, np.float32)[:, None]
    numbers = label_numbers(examples, labels)
    if problem_type == "single_label_classification":
        return np.array(numbers, np.int64)
    found = np.zeros((len(numbers), len(labels)), np.float32)
    for row, some in zip(found, numbers, strict=True):
        row[some] = 1
    return found


def _counted(labels: Tensor) -> Tensor:
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORED


def _rows(start: Start, examples: LabelledTexts, targets: npt.NDArray[Any], length: int) -> Rows:
    """The tokens of all texts; as in the pipeline, an empty second text is none."""
    pairs = examples.text_pairs or [""] * len(examples)
    tokens: dict[str, list[npt.NDArray[np.int32]]] = {"input_ids": [], "token_type_ids": []}
    lengths, order = [], []
    for has_pair in (False, True):
        numbers = [number for number, pair in enumerate(pairs) if bool(pair) == has_pair]
        ragged = start.tokenizer.encode_ragged(
            [examples.texts[number] for number in numbers],
            [pairs[number] for number in numbers] if has_pair else None,
            truncation=True,
            max_length=length,
            return_token_type_ids=start.wants_types,
        )
        order += numbers
        lengths.append(np.diff(ragged.cu_seqlens))
        tokens["input_ids"].append(ragged.input_ids)
        if ragged.token_type_ids is not None:
            tokens["token_type_ids"].append(ragged.token_type_ids)
    of_tokens = {name: np.concatenate(some) for name, some in tokens.items() if some}
    of_each = np.concatenate(lengths)
    for empty in np.flatnonzero(of_each == 0)[:1].tolist():
        raise ArgumentError(f"{examples.place(order[empty])}: expected at least one token, got none")
    rows = Rows(np.append(0, np.cumsum(of_each)).astype(np.int64), of_tokens, {})
    batch = rows.batch(np.argsort(np.array(order, np.int64)))
    return Rows(
        batch.pop("cu_seqlens").numpy(),
        {name: tensor.numpy() for name, tensor in batch.items()},
        {"labels": targets},
    )
