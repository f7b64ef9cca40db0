"""``bertfast finetune``: from a model's folder and a file of examples to a folder for a task."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from bertfast.command_options import positive
from bertfast.training_arguments import add_training, training_options, training_processes

_DESCRIPTION = (
    "{} Each epoch ends with an evaluation; the output has the weights of the best one, a report (README.md) "
    "and the predictions for the evaluation file. It opens in transformers and here. "
    "`torchrun --nproc-per-node N -m bertfast finetune ...` trains one model with N processes."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the commands to the parser."""
    parser.set_defaults(run=lambda args: _usage(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, help, add, run in (
        ("classify", "labels of texts or pairs of texts, and numbers", _add_classify, _classify),
        ("tag", "tags of words: entities, parts of speech", _add_tag, _tag),
        ("qa", "answers to questions, as pieces of texts", _add_qa, _qa),
    ):
        one = commands.add_parser(name, help=help)
        add(one)
        add_training(one, learning_rate="3e-5" if name == "qa" else "5e-5", when="those of an epoch")
        one.add_argument("--json", action="store_true", help="print all figures as JSON")
        one.set_defaults(run=run)


def _usage(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return 2


def _add_common(parser: argparse.ArgumentParser, *, epochs: int, figures: str) -> None:
    add = parser.add_argument
    add(
        "--model",
        metavar="MODEL",
        required=True,
        help="folder of a BERT, RoBERTa or ALBERT, or a name on the hub",
    )
    add("--train", metavar="FILE", required=True, help="what is learned from")
    add("--eval", metavar="FILE", required=True, help="what is evaluated on")
    add("-o", "--output", metavar="DIR", required=True, help="the folder to make")
    add("--epochs", metavar="N", type=positive, default=epochs, help=f"default: {epochs}")
    add("--batch-size", metavar="N", type=positive, default=32, help="of all processes, default: 32")
    add("--metric-for-best-model", metavar="NAME", help=f"decides which epoch is the best: {figures}")
    add(
        "--early-stopping",
        metavar="N",
        type=positive,
        help="end after N evaluations without a better one",
    )
    add("--scratch", action="store_true", help="begin with random weights, to compare with")


def _add_classify(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION.format(
        "Files are TSV or CSV with the names of the columns in the first line, or JSON lines; plain, gzip or "
        "zstd."
    )
    _add_common(
        parser,
        epochs=3,
        figures="accuracy (default), macro_f1, mcc; of several labels micro_f1 (default), macro_f1, "
        "accuracy; of numbers pearson (default), spearman",
    )
    add = parser.add_argument
    add("--text-column", metavar="NAME", default="text", help="default: text")
    add("--text-pair-column", metavar="NAME", help="of the second text, if there is one")
    add("--label-column", metavar="NAME", default="label", help="default: label")
    add(
        "--problem-type",
        choices=("single_label_classification", "multi_label_classification", "regression"),
        default="single_label_classification",
        help="one label of each text (default), several (lists in JSON lines), or a number",
    )
    add("--max-seq-length", metavar="N", type=positive, help="tokens, default: what the model takes")
    add(
        "--pooling",
        choices=("cls", "mean", "max"),
        help="what the classifier reads: the first token, or all; default: as the model's config.json says",
    )


def _add_tag(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION.format(
        "Files have a word in each line, its tag in the last column, and blank lines between sentences; tags "
        "are IOB1, IOB2, IOBES, BMES, BILOU or plain ones; files are plain, gzip or zstd."
    )
    _add_common(
        parser,
        epochs=3,
        figures="f1 (default), strict_f1, macro_f1, accuracy; of plain tags accuracy (default), macro_f1",
    )
    add = parser.add_argument
    add("--max-seq-length", metavar="N", type=positive, help="tokens, default: what the model takes")
    add(
        "--stride",
        metavar="N",
        type=int,
        help="tokens that the windows of a long sentence share, default: a quarter",
    )


def _add_qa(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION.format(
        "Files are JSON in the format of SQuAD 1.1 or 2.0; plain, gzip or zstd."
    )
    _add_common(parser, epochs=2, figures="f1 (default), exact_match")
    add = parser.add_argument
    add("--max-seq-length", metavar="N", type=positive, help="tokens of a window, default: 384")
    add(
        "--stride",
        "--doc-stride",
        dest="doc_stride",
        metavar="N",
        type=int,
        help="tokens that neighbouring windows share, default: 128",
    )
    add(
        "--max-query-length",
        metavar="N",
        type=positive,
        default=64,
        help="tokens of the question that are used, default: 64",
    )
    add("--max-answer-length", metavar="N", type=positive, default=30, help="tokens, default: 30")
    add(
        "--n-best-size",
        metavar="N",
        type=positive,
        default=20,
        help="answers in the predictions, default: 20",
    )
    add(
        "--version-2-with-negative",
        action="store_true",
        default=None,
        help="there may be no answer, default: if the training file has such questions",
    )
    add(
        "--null-score-diff-threshold",
        metavar="X",
        type=float,
        default=0.0,
        help="no answer is given where it is more probable by exp(X), default: 0",
    )
    add("--answer-rule", choices=("squad", "cmrc"), help="what F1 is, default: as the answers look")


def _classify(args: argparse.Namespace) -> int:
    names = ("text_column", "text_pair_column", "label_column", "problem_type", "max_seq_length", "pooling")
    return _run(args, "finetune_classifier", {name: getattr(args, name) for name in names})


def _tag(args: argparse.Namespace) -> int:
    given = {"max_seq_length": args.max_seq_length, "stride": args.stride}
    return _run(args, "finetune_tagger", given)


def _qa(args: argparse.Namespace) -> int:
    names = (
        "max_seq_length",
        "doc_stride",
        "max_query_length",
        "max_answer_length",
        "n_best_size",
        "version_2_with_negative",
        "null_score_diff_threshold",
        "answer_rule",
    )
    given = {name: getattr(args, name) for name in names}
    return _run(args, "finetune_question_answering", given)


def _run(args: argparse.Namespace, name: str, own: dict[str, Any]) -> int:
    """Calls a function for fine-tuning, and prints what it returns."""
    from bertfast.training import finetuning
    from bertfast.training.distributed import processes

    options = training_options(args)
    with training_processes(args), processes(options.device) as ranks:
        result = getattr(finetuning, name)(
            args.model,
            args.train,
            args.eval,
            args.output,
            options=options,
            epochs=args.epochs,
            batch_size=args.batch_size,
            metric_for_best_model=args.metric_for_best_model,
            early_stopping_patience=args.early_stopping,
            init="scratch" if args.scratch else "pretrained",
            resume=args.resume,
            overwrite=args.overwrite,
            quiet=args.quiet,
            **own,
        )
        if ranks.is_first:
            found = json.dumps(result.as_dict(), ensure_ascii=False) if args.json else result
            print(found, flush=True)
    return 0
