"""Fine-tuning for answers to questions, as pieces of texts."""

from __future__ import annotations

from typing import Any

from bertfast.arguments import check_choice, check_positive
from bertfast.errors import ArgumentError
from bertfast.training.finetuning import answer_metrics
from bertfast.training.finetuning.answer_task import QuestionAnsweringTask
from bertfast.training.finetuning.report import FinetuningResult
from bertfast.training.finetuning.run import Course, PathLike, finetune
from bertfast.training.finetuning.squad import read_squad
from bertfast.training.finetuning.starting import Init
from bertfast.training.options import TrainingOptions


def finetune_question_answering(
    model: PathLike,
    train: PathLike,
    eval: PathLike,
    output: PathLike,
    *,
    options: TrainingOptions | None = None,
    epochs: int = 2,
    batch_size: int = 32,
    max_seq_length: int | None = None,
    doc_stride: int | None = None,
    max_query_length: int = 64,
    n_best_size: int = 20,
    max_answer_length: int = 30,
    version_2_with_negative: bool | None = None,
    null_score_diff_threshold: float = 0.0,
    answer_rule: answer_metrics.Rule | None = None,
    metric_for_best_model: str | None = None,
    early_stopping_patience: int | None = None,
    init: Init = "pretrained",
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
) -> FinetuningResult:
    """Trains a model to find answers, on a file in SQuAD's format.

    A context that is too long is read in windows that overlap. In a window without the answer the model
    learns to point at the first token. Answers are chosen as `bertfast.pipeline` chooses them.

    Args:
        model: As in `finetune_classifier`; so are the others that are not explained here.
        train: Questions to learn from; `read_squad` says how a file looks.
        eval: Questions to evaluate on.
        output: See there. Also has ``predictions.json``, which SQuAD's scripts read.
        options: How to train, with a learning rate of 3e-5 unless it says one.
        epochs: See there.
        batch_size: Windows of a batch.
        max_seq_length: Tokens of a window at most, with the question in it. None for what the model takes, at
            most 384.
        doc_stride: Tokens that neighbouring windows share. None for half a window, at most 128.
        max_query_length: Tokens of the question that are used.
        n_best_size: How many answers ``predictions.jsonl`` has for each question.
        max_answer_length: Tokens of an answer at most.
        version_2_with_negative: Whether there may be no answer, as in SQuAD 2.0; None for whether `train` has
            such questions.
        null_score_diff_threshold: No answer is given where log(probability of none / that of the best) is
            greater.
        answer_rule: What exact match and F1 are: ``"squad"`` or, for Chinese, ``"cmrc"``; None for what the
            answers of `eval` look like.
        metric_for_best_model: ``"f1"``, which is taken if left out, or ``"exact_match"``.
        early_stopping_patience: See there.
        init: See there.
        resume: See there.
        overwrite: See there.
        quiet: See there.

    Returns:
        The figures: ``exact_match`` and ``f1``, between 0 and 1; with unanswerable questions also those of
        both kinds of questions, such as ``has_answer_f1``.

    Raises:
        ArgumentError: A value that is not allowed, or questions that are not as they should be.
        FileNotFoundError: As in `finetune_classifier`; so are ``ConfigError``, ``TokenizerError``,
            ``CheckpointError`` and ``TrainingError``.

    Example:
        >>> result = finetune_question_answering("bert", "train-v1.1.json", "dev-v1.1.json", "answers")
        ... # doctest: +SKIP
        >>> result.metrics["f1"]  # doctest: +SKIP
        0.8842

    Source: Devlin et al. 2018, sections 4.2 and 4.3; ``run_squad.py`` of google-research/bert for the
    options.
    """
    course = Course(
        (TrainingOptions() if options is None else options).with_learning_rate(3e-5),
        epochs,
        batch_size,
        metric_for_best_model,
        early_stopping_patience,
        init,
        resume,
        overwrite,
        quiet,
    )
    check_positive("n_best_size", n_best_size)
    check_choice("answer_rule", answer_rule, (None, "squad", "cmrc"))
    check_choice("version_2_with_negative", version_2_with_negative, (None, False, True))
    if isinstance(null_score_diff_threshold, bool) or not isinstance(null_score_diff_threshold, (int, float)):
        raise TypeError(
            f"null_score_diff_threshold: expected a number, got {type(null_score_diff_threshold).__name__}"
        )
    questions, evaluated = read_squad(train, with_starts=True), read_squad(eval)
    negatives = questions.has_negatives if version_2_with_negative is None else version_2_with_negative
    for some in (questions, evaluated) if not negatives else ():
        for number, item in enumerate(some.items):
            if not item.answers:
                raise ArgumentError(
                    f"{some.place(number)}: expected an answer, got none (version_2_with_negative allows it)"
                )
    start = course.open(model, "question-answering")
    length = start.length("max_seq_length", max_seq_length, 384)
    pipeline = {
        "top_k": n_best_size,
        "max_seq_len": length,
        "doc_stride": min(length // 2, 128) if doc_stride is None else doc_stride,
        "max_question_len": max_query_length,
        "max_answer_len": max_answer_length,
        "handle_impossible_answer": negatives,
    }

    def make(**shared: Any) -> QuestionAnsweringTask:
        return QuestionAnsweringTask(
            start,
            questions,
            evaluated,
            pipeline,
            threshold=float(null_score_diff_threshold),
            rule=answer_rule,
            **shared,
        )

    return finetune(course, output, make)
