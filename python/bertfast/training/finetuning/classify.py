"""Fine-tuning for labels of texts or of pairs of texts, and for numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor, nn

from bertfast.arguments import check_choice
from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError
from bertfast.models.losses import IGNORED
from bertfast.pipelines.text_classification import TextClassificationPipeline
from bertfast.training.finetuning import metrics
from bertfast.training.finetuning.data import (
    LabelledTexts,
    ProblemType,
    digest,
    label_names,
    label_numbers,
    listed,
    read_labelled_texts,
)
from bertfast.training.finetuning.report import Findings, FinetuningResult, Table, rounded
from bertfast.training.finetuning.rows import Rows
from bertfast.training.finetuning.run import Course, Init, PathLike, finetune
from bertfast.training.finetuning.starting import Start
from bertfast.training.finetuning.task import FinetuningTask, output_of
from bertfast.training.options import TrainingOptions
from bertfast.training.task import MicroBatch

Pooling = Literal["cls", "mean", "max"]

_FIGURES = {
    "single_label_classification": ("accuracy", "macro_f1", "mcc"),
    "multi_label_classification": ("micro_f1", "macro_f1", "accuracy"),
    "regression": ("pearson", "spearman"),
}
# As pipelines: a label of several is there if this is reached.
_THRESHOLD = 0.5
_SMALLEST = 1e-300


def finetune_classifier(
    model: PathLike,
    train: PathLike,
    eval: PathLike,
    output: PathLike,
    *,
    options: TrainingOptions | None = None,
    epochs: int = 3,
    batch_size: int = 32,
    max_seq_length: int | None = None,
    pooling: Pooling | None = None,
    problem_type: ProblemType = "single_label_classification",
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
    metric_for_best_model: str | None = None,
    early_stopping_patience: int | None = None,
    init: Init = "pretrained",
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
) -> FinetuningResult:
    """Trains a classifier of texts, or a regression, on the examples of a file.

    After each epoch it is evaluated, and at the end `output` has the weights of the best one: a folder that
    `transformers`, `bertfast.pipeline` and `bertfast.Encoder` open, with a report (``README.md``), the
    predictions for `eval`, a picture of the confusions, ``log.csv``, and the newest checkpoints. In a program
    that ``torchrun`` has started several times they train one model together.

    Args:
        model: Hugging Face folder of a BERT, RoBERTa or ALBERT with its tokenizer, or a name on the hub.
        train: Examples to learn from; `read_labelled_texts` says how a file looks. Its labels, in sorted
            order, are those of the model.
        eval: Examples to evaluate on; its labels have to be among them.
        output: The folder to make.
        options: How to train; a learning rate of 5e-5 if left out. Without ``eval_every`` and ``save_every``
            each epoch ends with both.
        epochs: How often all examples are gone through.
        batch_size: Examples of a batch: of all processes, and of all parts that it is cut into.
        max_seq_length: In tokens; longer texts are cut off. None for what the model takes.
        pooling: What the classifier reads: the first token, or the mean or maximum of all (which
            `transformers` does not know). None for what the folder says, usually ``"cls"``.
        problem_type: One label (cross entropy), several at once (a binary cross entropy each), or a number
            (mean squared error).
        text_column: Name of the text in the files.
        text_pair_column: Of the second text, if there is one.
        label_column: Of the label.
        metric_for_best_model: Figure that decides which epoch is the best: ``"accuracy"`` (what is taken if
            left out), ``"macro_f1"`` or ``"mcc"``; with several labels ``"micro_f1"``, ``"macro_f1"`` or
            ``"accuracy"``; for a regression ``"pearson"`` or ``"spearman"``.
        early_stopping_patience: End after so many evaluations without a better one.
        init: ``"scratch"`` for the same model with start values in place of the weights, to compare with.
        resume: Go on from the newest checkpoint in `output`; begin if there is none.
        overwrite: Begin anew although `output` has something of earlier training.
        quiet: Show no progress.

    Returns:
        The figures; see `FinetuningResult`.

    Raises:
        FileNotFoundError: A file is missing.
        ArgumentError: A value that is not allowed, or examples that are not as they should be.
        ConfigError: The model is of another architecture.
        TokenizerError: It has no tokenizer.
        CheckpointError: Its weights are damaged.
        TrainingError: See `bertfast.training.loop.Trainer.train`.

    Example:
        >>> result = finetune_classifier("bert", "train.tsv", "dev.tsv", "reviews")  # doctest: +SKIP
        >>> result.metrics["accuracy"]  # doctest: +SKIP
        0.9243

    Source: Devlin et al. 2018, section 4.1 and appendix A.3.
    """
    course = Course(
        TrainingOptions(learning_rate=5e-5) if options is None else options,
        epochs,
        batch_size,
        metric_for_best_model,
        early_stopping_patience,
        init,
        resume,
        overwrite,
        quiet,
    )
    check_choice("pooling", pooling, (None, "cls", "mean", "max"))
    columns: Any = {
        "text_column": text_column,
        "text_pair_column": text_pair_column,
        "label_column": label_column,
    }
    examples, evaluated = (
        read_labelled_texts(path, problem_type=problem_type, **columns) for path in (train, eval)
    )
    labels = None if problem_type == "regression" else label_names(examples.labels)
    if labels is not None and len(labels) < 2:
        raise ArgumentError(
            f"{examples.name}: expected at least two labels, found {listed(labels) or 'none'}"
        )
    given = [_targets(some, labels, problem_type) for some in (examples, evaluated)]
    start = course.open(
        model,
        "sequence-classification",
        labels=["LABEL_0"] if labels is None else labels,
        problem_type=problem_type,
        **({} if pooling is None else {"classifier_pooling": pooling}),
    )
    length = start.length("max_seq_length", max_seq_length)

    def make(**shared: Any) -> ClassificationTask:
        return ClassificationTask(
            start, examples, evaluated, given, labels, length=length, problem_type=problem_type, **shared
        )

    return finetune(course, output, make)


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


def _targets(examples: LabelledTexts, labels: list[str] | None, problem_type: str) -> npt.NDArray[Any]:
    """What the model is to say: (N,) integers, or (N, K) of numbers."""
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
