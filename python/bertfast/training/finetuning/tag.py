"""Fine-tuning for tags of words: entities, parts of speech."""

from __future__ import annotations

from typing import Any

from bertfast.arguments import check_from_0
from bertfast.errors import ArgumentError
from bertfast.training.finetuning.conll import read_conll_files
from bertfast.training.finetuning.data import label_names, listed
from bertfast.training.finetuning.report import FinetuningResult
from bertfast.training.finetuning.run import Course, PathLike, finetune
from bertfast.training.finetuning.starting import Init
from bertfast.training.finetuning.tagging_task import TaggingTask, check_tags
from bertfast.training.options import TrainingOptions


def finetune_tagger(
    model: PathLike,
    train: PathLike,
    eval: PathLike,
    output: PathLike,
    *,
    options: TrainingOptions | None = None,
    epochs: int = 3,
    batch_size: int = 32,
    max_seq_length: int | None = None,
    stride: int | None = None,
    metric_for_best_model: str | None = None,
    early_stopping_patience: int | None = None,
    init: Init = "pretrained",
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
) -> FinetuningResult:
    """Trains a tagger of words on a file in CoNLL's columns.

    The tag of a word is learned and read at its first token. A sentence that is too long is cut into windows
    that overlap, and a word counts in the one that shows most of what is around it: none is lost, none counts
    twice. A word of which the tokenizer leaves nothing has the tag ``O`` (without entities: the most frequent
    one).

    Args:
        model: As in `finetune_classifier`; so are the others that are not explained here.
        train: Sentences to learn from; `read_conll` says how a file looks. Its tags are the labels of the
            model: in sorted order, or in that of a tagger that the folder has for the same ones.
        eval: Sentences to evaluate on; their tags have to be among them.
        output: See there.
        options: See there.
        epochs: See there.
        batch_size: Windows of a batch; most sentences are one.
        max_seq_length: Tokens of a window at most. None for what the model takes.
        stride: Tokens that neighbouring windows share. None for a quarter of a window.
        metric_for_best_model: ``"f1"`` of entities (what is taken if left out), ``"strict_f1"``,
            ``"macro_f1"`` or ``"accuracy"``; where tags are not of entities ``"accuracy"`` or ``"macro_f1"``.
        early_stopping_patience: See there.
        init: See there.
        resume: See there.
        overwrite: See there.
        quiet: See there.

    Returns:
        The figures: ``f1``, ``precision`` and ``recall`` of entities as seqeval counts them, ``strict_f1``,
        ``macro_f1`` over the types, and ``accuracy`` of words.

    Raises:
        ArgumentError: A value that is not allowed, or sentences that are not as they should be.
        FileNotFoundError: As in `finetune_classifier`; so are ``ConfigError``, ``TokenizerError``,
            ``CheckpointError`` and ``TrainingError``.

    Example:
        >>> finetune_tagger("bert", "eng.train", "eng.testa", "people").metrics["f1"]  # doctest: +SKIP
        0.9424

    Source: Devlin et al. 2018, section 5.3.
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
    sentences, evaluated = read_conll_files([train, eval])
    labels = label_names([tag for tags in sentences.tags for tag in tags])
    if len(labels) < 2:
        raise ArgumentError(f"{sentences.name}: expected at least two tags, found {listed(labels)}")
    check_tags(evaluated, labels)
    if evaluated.scheme not in (sentences.scheme, "none"):
        raise ArgumentError(
            f"{evaluated.name}: expected tags of {sentences.scheme.upper()} as in {sentences.name}, "
            f"found {evaluated.scheme.upper()}"
        )
    start = course.open(model, "token-classification", labels=labels)
    length = start.length("max_seq_length", max_seq_length)
    room = length - start.tokenizer.num_special_tokens_to_add(pair=False)
    shared_tokens = room // 4 if stride is None else check_from_0("stride", stride, room - 1)

    def make(**shared: Any) -> TaggingTask:
        return TaggingTask(
            start, sentences, evaluated, start.labels, length=length, stride=shared_tokens, **shared
        )

    return finetune(course, output, make)
