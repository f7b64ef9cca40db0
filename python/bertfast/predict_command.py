"""``bertfast predict``: a task for every line of a file."""

from __future__ import annotations

import argparse
import json
import re
import warnings
from typing import TYPE_CHECKING, Any

from bertfast.command_options import add_engine, positive
from bertfast.errors import ArgumentError, TruncationWarning
from bertfast.pipelines import ALIASES, TASKS, task_of
from bertfast.ray_arguments import add_cluster, check_one_machine, run_files, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertfast.text_files import TextFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command to the parser."""
    parser.description = (
        "Writes one JSON object per line of FILE, in its order: the result of the task, or, where that is a "
        'list, {"predictions": [...]}. The output appears whole or not at all. Memory does not grow with the '
        "file."
    )
    add = parser.add_argument
    add(
        "task", metavar="TASK", choices=sorted([*TASKS, *ALIASES]), help=", ".join(sorted([*TASKS, *ALIASES]))
    )
    add("model", metavar="MODEL", help="a Hugging Face folder, or the name of a model on the hub")
    add(
        "file",
        metavar="FILE",
        nargs="+",
        help="texts, one per line, UTF-8, plain, gzip or zstd; - reads standard input",
    )
    add("-o", "--output", metavar="OUT", required=True, help="the file of JSON lines to write")
    add(
        "--field",
        metavar="NAME",
        help="every line is a JSON object, and the text is its field NAME (question-answering: the question, "
        "default: question)",
    )
    add(
        "--pair-field",
        metavar="NAME",
        help="text-classification: the second text is the field NAME; question-answering: the text with the "
        "answer, default: context",
    )
    add("--top-k", metavar="N", type=_count, help="results per line; text-classification takes all, too")
    add("--function-to-apply", metavar="NAME", help="text-classification: sigmoid, softmax or none")
    add(
        "--aggregation-strategy",
        metavar="NAME",
        help="token-classification: none (default), simple, first, average or max",
    )
    add(
        "--stride",
        metavar="N",
        type=int,
        help="token-classification and question-answering: tokens that the windows of a long text share",
    )
    add(
        "--target",
        metavar="TOKEN",
        action="append",
        help="fill-mask: only this token, or these if given again",
    )
    add(
        "--truncation",
        action="store_true",
        help="cut off texts that are longer than the model takes, which are an error otherwise",
    )
    add(
        "--option",
        metavar="NAME=VALUE",
        type=_assignment,
        action="append",
        default=[],
        help="any other option of the task, its value in JSON or a plain word (max_answer_len=30)",
    )
    add_engine(parser)
    add(
        "--batch-tokens", metavar="N", type=positive, help="tokens per step (default: chosen by the pipeline)"
    )
    add("--quiet", action="store_true", help="no progress and no summary")
    add_cluster(parser)


def main(args: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        The exit status.

    Raises:
        BertFastError: What the user is to be told; about an input it begins with ``file:line``.
        OSError: A file cannot be read or written.
    """
    from bertfast.file_progress import FileProgress
    from bertfast.text_files import TextFile
    from bertfast.whole_file import JsonLinesWriter

    task = task_of(args.task)
    options = _options(task, args)
    if args.ray is not None:
        return _on_cluster(task, options, args)
    check_one_machine(args)
    # The cheap mistakes come to light before the model is loaded.
    with TextFile(args.file, args.field) as file, JsonLinesWriter(args.output) as writer:
        inputs = _inputs(task, file, args)
        from bertfast.pipelines import pipeline

        try:
            predict = pipeline(
                task, args.model, dtype=args.dtype, isa=args.isa, num_threads=args.num_threads, **options
            )
        except TypeError as error:
            raise _wrong_type(error, args) from error
        # The pipeline warns at the first text that it cuts off; here they are counted to the end.
        warnings.simplefilter("ignore", TruncationWarning)
        progress = FileProgress(file, args.quiet)
        try:
            for result in predict(
                progress.count(inputs), show_progress_bar=False, batch_tokens=args.batch_tokens
            ):
                writer.write({"predictions": result} if isinstance(result, list) else result)
                progress.show(writer.lines)
        except ArgumentError as error:
            raise ArgumentError(_for_a_file(str(error), file.name)) from error
        writer.commit()
    progress.finish(writer.lines, args.output)
    _warn_of_truncation(predict.truncated_texts)
    return 0


def _warn_of_truncation(texts: int) -> None:
    if texts:
        warnings.warn(
            f"{texts:,} texts are longer than the model takes and were cut off; --stride reads all of a text",
            stacklevel=1,
        )


def _wrong_type(error: TypeError, args: argparse.Namespace) -> Exception:
    # Of what came from the command line only --option can be of a wrong type.
    return ArgumentError(f"--option: {error}") if args.option else error


def _on_cluster(task: str, options: dict[str, Any], args: argparse.Namespace) -> int:
    from bertfast.distributed.dataset import input_columns
    from bertfast.file_progress import StatusLine

    line = StatusLine(args.quiet)
    if args.pair_field is not None and task not in ("text-classification", "question-answering"):
        raise ArgumentError(f"--pair-field: expected none for {task}, got {args.pair_field!r}")
    try:
        totals = run_files(
            args,
            task=task,
            columns=input_columns(task, args.field, args.pair_field),
            output_column="prediction",
            json=args.field is not None or args.pair_field is not None or task == "question-answering",
            head=TASKS[task].head,
            options=options,
        )
    except TypeError as error:
        raise _wrong_type(error, args) from error
    except ArgumentError as error:
        raise ArgumentError(_as_here(str(error))) from error
    line.say(summary(totals, args.output, line.elapsed))
    _warn_of_truncation(totals.truncated)
    return 0


def _options(task: str, args: argparse.Namespace) -> dict[str, Any]:
    """The options of the pipeline; only those that were given."""
    given: dict[str, Any] = {
        "top_k": args.top_k,
        "function_to_apply": args.function_to_apply,
        "aggregation_strategy": args.aggregation_strategy,
        "doc_stride" if task == "question-answering" else "stride": args.stride,
        "targets": args.target,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if args.top_k == "all":
        if task != "text-classification":
            raise ArgumentError(f"--top-k: expected a number for {task}, got 'all'")
        options["top_k"] = None
    if args.truncation:
        options |= {"tokenizer_kwargs": {"truncation": True}} if task == "fill-mask" else {"truncation": True}
    return options | dict(args.option)


def _inputs(task: str, file: TextFile, args: argparse.Namespace) -> Iterator[Any]:
    """What the pipeline is called with."""
    if task == "question-answering":
        fields = (args.field or "question", args.pair_field or "context")
        return ({"question": question, "context": context} for question, context in file.rows(fields))
    if args.pair_field is None:
        return iter(file)
    if task != "text-classification":
        raise ArgumentError(f"--pair-field: expected none for {task}, got {args.pair_field!r}")
    if args.field is None:
        raise ArgumentError("--pair-field: expected --field beside it")
    fields = (args.field, args.pair_field)
    return ({"text": text, "text_pair": pair} for text, pair in file.rows(fields))


def _for_a_file(message: str, name: str) -> str:
    """A message about ``inputs[3]`` as one about line 4 of the file."""
    message = _as_here(message)
    return re.sub(r"^inputs\[(\d+)\]", lambda found: f"{name}:{int(found[1]) + 1}", message)


def _as_here(message: str) -> str:
    """A message about options as they are here."""
    return re.sub(r"; \S*truncation\S* ?\S* cuts it off$", "; --truncation cuts it off", message)


def _count(text: str) -> int | str:
    """An argument type: a positive integer, or ``all``."""
    return text if text == "all" else positive(text)


_count.__name__ = "integer"  # What argparse calls it in "invalid integer value: 'x'".


def _assignment(text: str) -> tuple[str, Any]:
    """An argument type: a name and a value."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
