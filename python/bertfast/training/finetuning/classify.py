"""Fine-tuning for labels of texts or of pairs of texts, and for numbers."""

from __future__ import annotations

from typing import Any, Literal

from bertfast.arguments import check_choice
from bertfast.errors import ArgumentError
from bertfast.training.finetuning.classification_task import ClassificationTask, targets_of
from bertfast.training.finetuning.data import (
    ProblemType,
    label_names,
    listed,
    read_labelled_texts,
)
from bertfast.training.finetuning.report import FinetuningResult
from bertfast.training.finetuning.run import Course, PathLike, finetune
from bertfast.training.finetuning.starting import Init
from bertfast.training.options import TrainingOptions

Pooling = Literal["cls", "mean", "max"]


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
        train: Examples to learn from; `read_labelled_texts` says how a file looks. Its labels are those of
            the model: in sorted order, or in that of a classifier that the folder has for the same ones.
        eval: Examples to evaluate on; its labels have to be among them.
        output: The folder to make.
        options: How to train, with a learning rate of 5e-5 unless it says one. Without ``eval_every`` and
            ``save_every`` each epoch ends with both.
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
        (TrainingOptions() if options is None else options).with_learning_rate(5e-5),
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
    start = course.open(
        model,
        "sequence-classification",
        labels=["LABEL_0"] if labels is None else labels,
        problem_type=problem_type,
        **({} if pooling is None else {"classifier_pooling": pooling}),
    )
    labels = None if labels is None else start.labels
    given = [targets_of(some, labels, problem_type) for some in (examples, evaluated)]
    length = start.length("max_seq_length", max_seq_length)

    def make(**shared: Any) -> ClassificationTask:
        return ClassificationTask(
            start, examples, evaluated, given, labels, length=length, problem_type=problem_type, **shared
        )

    return finetune(course, output, make)
