"""``bertfast corpus``: token stores for pretraining, from texts to tokens and what is in them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from bertfast.command_options import add_num_threads

# What each command is called, what `bertfast corpus --help` says, its arguments, and what runs.
_Command = tuple[str, str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command to the parser."""
    parser.description = "Token stores: texts that are tokenized once, for pretraining to make samples from."
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary, add, run in _COMMANDS:
        command = commands.add_parser(name, help=summary)
        add(command)
        command.set_defaults(run=run)


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Tokenizes texts into STORE. Memory does not grow with them. What was interrupted, even by kill -9, "
        "goes on where it was if the same command is given again."
    )
    add = parser.add_argument
    add(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="files, and folders of them: text in UTF-8, JSON lines or Parquet, plain, gzip or zstd",
    )
    add(
        "--model",
        metavar="FOLDER",
        required=True,
        help="the folder with the tokenizer, of which the store gets a copy",
    )
    add("-o", "--output", metavar="STORE", required=True, help="the folder to make")
    add(
        "--documents",
        choices=("blank_line", "line", "file"),
        help="where documents end: at lines without text (default), with every line (default with --field), "
        "or with every file",
    )
    add(
        "--split-sentences",
        action="store_true",
        help="lines are paragraphs, to be split into sentences by rules for Chinese and English (default: "
        "every line is a sentence)",
    )
    add(
        "--field",
        metavar="NAME",
        help="every line is a JSON object, and the text is its field NAME; of Parquet the column NAME",
    )
    add(
        "--segmenter",
        choices=("jieba",),
        help="where Chinese words begin, for masking of whole words (default: as the vocabulary says)",
    )
    add(
        "--shard",
        metavar="I/N",
        type=_shard,
        help="only part I, from 0 on, of N, on a machine of its own, for `bertfast corpus merge`",
    )
    add("--compat", choices=("huggingface", "google"), default="huggingface", help="whose tokens they are")
    add_num_threads(parser)
    add("--overwrite", action="store_true", help="begin anew, whatever store is there, finished or not")
    add("--quiet", action="store_true", help="no progress and no summary")


def _build(args: argparse.Namespace) -> int:
    from pathlib import Path

    from bertfast import Tokenizer
    from bertfast.file_progress import StatusLine
    from bertfast.pretraining import build_corpus

    line = StatusLine(args.quiet)
    try:
        corpus = build_corpus(
            args.inputs,
            Tokenizer.from_pretrained(args.model, compat=args.compat),
            args.output,
            documents=args.documents,
            split_sentences=args.split_sentences,
            field=args.field,
            segmenter=args.segmenter,
            shard=args.shard,
            num_threads=args.num_threads,
            overwrite=args.overwrite,
            show_progress=not args.quiet,
        )
    except KeyboardInterrupt:
        if Path(args.output).exists():
            line.say(f"{args.output} is not finished: the same command goes on, without --overwrite")
        raise
    line.say(f"{_counts(corpus)} in {line.elapsed:.1f} s: {args.output}")
    return 0


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Puts the shards of a corpus together: the same bytes in every file as building it at once."
    )
    add = parser.add_argument
    add("shards", metavar="SHARD", nargs="+", help="all of them, in any order")
    add("-o", "--output", metavar="STORE", required=True, help="the folder to make")
    add("--overwrite", action="store_true", help="replace a store that is there")
    add("--quiet", action="store_true", help="no progress and no summary")


def _merge(args: argparse.Namespace) -> int:
    from bertfast.file_progress import StatusLine
    from bertfast.pretraining import merge_corpora

    line = StatusLine(args.quiet)
    corpus = merge_corpora(
        args.shards, args.output, overwrite=args.overwrite, show_progress=_has_bar(args.quiet)
    )
    line.say(f"{_counts(corpus)} in {line.elapsed:.1f} s: {args.output}")
    return 0


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.description = "Shows what is in a store, and how it was built."
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _info(args: argparse.Namespace) -> int:
    from bertfast.pretraining import Corpus
    from bertfast.readable import readable

    info = Corpus(args.store).info()
    if args.json:
        print(json.dumps(info, indent=2, ensure_ascii=False))
        return 0
    sections = {name: info.pop(name) for name in ("options", "tokenizer")}
    print(readable({"corpus": info, **sections}))
    return 0


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Reads all of a store and compares it with its checksums: names the file that is damaged."
    )
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")


def _verify(args: argparse.Namespace) -> int:
    from bertfast.file_progress import StatusLine
    from bertfast.pretraining import Corpus

    line = StatusLine(args.quiet)
    corpus = Corpus(args.store)
    corpus.verify(show_progress=_has_bar(args.quiet))
    line.say(f"{_counts(corpus)}: as they should be")
    return 0


def _counts(corpus: Any) -> str:
    counts = {name: getattr(corpus, f"num_{name}") for name in ("documents", "sentences", "tokens")}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _has_bar(quiet: bool) -> bool:
    return not quiet and sys.stderr.isatty()


def _shard(text: str) -> tuple[int, int]:
    """An argument type: ``i/n``."""
    index, sign, count = text.partition("/")
    if not sign or not index.isdecimal() or not count.isdecimal() or int(index) >= int(count):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with I from 0 to N - 1")
    return int(index), int(count)


_COMMANDS: list[_Command] = [
    ("build", "tokenize texts into a store", _add_build, _build),
    ("merge", "put the shards of a store together", _add_merge, _merge),
    ("info", "show what is in a store", _add_info, _info),
    ("verify", "look for damage in a store", _add_verify, _verify),
]
