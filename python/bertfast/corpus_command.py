"""``bertfast corpus``: build, merge, look at and export the token stores that pretraining reads."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bertfast.command_options import add_num_threads, positive
from bertfast.errors import ArgumentError, ClusterError
from bertfast.ray_arguments import add_address, address_of

if TYPE_CHECKING:
    from bertfast.file_progress import StatusLine
    from bertfast.pretraining import Corpus, PretrainingConfig, PretrainingDataset

_PRESETS = ("bert", "albert", "roberta", "spanbert")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the commands to the parser."""
    parser.set_defaults(run=lambda args: _usage(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, help: str, add: Callable[[argparse.ArgumentParser], None], run: Any) -> None:
        one = commands.add_parser(name, help=help)
        add(one)
        one.set_defaults(run=run)

    command("build", "tokenize texts into a store", _add_build, _build)
    command("merge", "put the shards of a corpus together", _add_merge, _merge)
    command("split", "hold documents out of a corpus", _add_split, _split)
    command("info", "what is in a store", _add_info, _info)
    command("verify", "compare a store with its checksums", _add_verify, _verify)
    command("show", "samples as a person reads them", _add_show, _show)
    command(
        "export",
        "samples as Parquet or JSON lines, with the columns of Google's original",
        _add_export,
        _export,
    )


def _usage(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return 2


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes a store that is memory-mapped. Memory does not grow with the texts. An interrupted build "
        "goes on where it was when the command is given again."
    )
    add = parser.add_argument
    add(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="text, JSON lines or Parquet, plain, gzip or zstd; or folders",
    )
    add("--model", metavar="FOLDER", required=True, help="whose tokenizer it is for")
    _add_output(parser, "STORE", "the folder to make")
    add(
        "--documents",
        choices=("blank-line", "line", "file"),
        help="what a document is: lines up to a blank one (default), a line or record (default with --field "
        "and for Parquet), or a file",
    )
    add(
        "--split-sentences",
        action="store_true",
        help="cut lines into sentences, by rules for English and Chinese; else every line is a sentence",
    )
    add(
        "--field",
        metavar="NAME",
        help="inputs are JSON lines or Parquet with the text in NAME (default for Parquet: text)",
    )
    add(
        "--segmenter",
        choices=("jieba",),
        help="what says where Chinese words begin, for whole-word masks; needs bertfast[corpus]",
    )
    add(
        "--shard",
        metavar="I/N",
        type=_shard,
        help="only part I of N, from 0 on, to be put together with `bertfast corpus merge`",
    )
    add(
        "--compat",
        choices=("huggingface", "google"),
        default="huggingface",
        help="see the tokenizer's option",
    )
    add("--overwrite", action="store_true", help="delete the store, or what was begun of it, and begin anew")
    add_num_threads(parser)
    _add_quiet(parser)
    _add_cluster(parser)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "on a cluster",
        "Inputs and store must be on a file system that all nodes share. Shards are built in STORE.shards by "
        "tasks that have --num-threads CPUs (default here: 1), and merged.",
    )
    add_address(group)
    group.add_argument("--resume", action="store_true", help="go on with the shards that are whole")
    group.add_argument(
        "--num-shards",
        metavar="N",
        type=positive,
        help="default: as the cluster is; it changes nothing in the store",
    )


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.description = "Gives the bytes that one build would have given, in every file."
    parser.add_argument("shards", metavar="SHARD", nargs="+", help="the stores of all parts, in any order")
    _add_output(parser, "STORE", "the folder to make")
    parser.add_argument("--overwrite", action="store_true", help="delete what is there")
    _add_quiet(parser)


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Each document goes to one of two stores, equal ones to the same. Neither their order nor the other "
        "documents matter."
    )
    _add_store(parser)
    add = parser.add_argument
    add(
        "-o",
        "--output",
        metavar=("TRAIN", "HELD_OUT"),
        nargs=2,
        required=True,
        help="the folders to make",
    )
    add(
        "--held-out",
        metavar="P",
        type=float,
        default=0.01,
        help="probability of a document to be held out, default: 0.01",
    )
    add("--seed", metavar="N", type=int, default=0, help="default: 0")
    add("--overwrite", action="store_true", help="delete what is there")
    _add_quiet(parser)


def _add_info(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_quiet(parser)


def _add_show(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_samples(parser)
    add = parser.add_argument
    add("-n", "--samples", metavar="N", type=positive, default=5, help="how many, default: 5")
    add("--color", choices=("auto", "always", "never"), default="auto", help="default: auto, on a terminal")


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_output(parser, "FILE", "the file to write")
    parser.add_argument("--format", choices=("parquet", "jsonl"), help="default: as FILE ends, else parquet")
    _add_samples(parser)
    _add_quiet(parser)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a folder of `bertfast corpus build`")


def _add_output(parser: argparse.ArgumentParser, metavar: str, help: str) -> None:
    parser.add_argument("-o", "--output", metavar=metavar, required=True, help=help)


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")


def _add_samples(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the samples")
    add = group.add_argument
    add("--preset", choices=_PRESETS, default="bert", help="whose samples, default: bert")
    add("--seed", metavar="N", type=int, default=0, help="default: 0")
    add("--epoch", metavar="N", type=int, default=0, help="default: 0")
    add("--dupe-factor", metavar="N", type=positive, help="how often the corpus is gone through, default: 1")
    add("--max-seq-length", metavar="N", type=positive, help="in tokens, default: the preset's")
    add("--short-seq-prob", metavar="P", type=float, help="default: the preset's")
    add("--masked-lm-prob", metavar="P", type=float, help="default: 0.15")
    add(
        "--max-predictions-per-seq",
        metavar="N",
        type=positive,
        help="default: for BERT and ALBERT --max-seq-length times --masked-lm-prob, rounded up; else none",
    )
    add("--masking", choices=("token", "whole-word", "ngram", "span"), help="default: the preset's")


def _shard(text: str) -> tuple[int, int]:
    """An argument type: ``0/4``."""
    index, _, count = text.partition("/")
    if not index.isdecimal() or not count.isdecimal() or int(index) >= int(count):
        raise argparse.ArgumentTypeError(f"{text}: expected I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


def _build(args: argparse.Namespace) -> int:
    from bertfast.file_progress import StatusLine
    from bertfast.tokenizer import Tokenizer

    _check_cluster(args)
    line = StatusLine(args.quiet)
    options = {
        "tokenizer": Tokenizer.from_pretrained(args.model, compat=args.compat),
        "documents": None if args.documents is None else args.documents.replace("-", "_"),
        "split_sentences": args.split_sentences,
        "field": args.field,
        "segmenter": args.segmenter,
        "overwrite": args.overwrite,
        "show_progress": not args.quiet,
    }
    corpus = (_build_here if args.ray is None else _build_on_cluster)(args, line, options)
    line.say(f"{_counts(corpus)} in {line.elapsed:.1f} s")
    return 0


def _check_cluster(args: argparse.Namespace) -> None:
    if args.ray is None:
        for name, given in (("--resume", args.resume), ("--num-shards", args.num_shards)):
            if given:
                raise ArgumentError(f"{name}: expected it with --ray only")
    elif args.shard is not None:
        raise ArgumentError("--shard: expected it without --ray, which makes shards of its own")


def _build_here(args: argparse.Namespace, line: StatusLine, options: dict[str, Any]) -> Corpus:
    from pathlib import Path

    from bertfast.pretraining import build_corpus

    try:
        return build_corpus(
            args.inputs, store=args.output, shard=args.shard, num_threads=args.num_threads, **options
        )
    except KeyboardInterrupt:
        if Path(args.output, "journal.json").exists():
            line.say(f"{args.output} is not finished: the same command without --overwrite goes on")
        raise


def _build_on_cluster(args: argparse.Namespace, line: StatusLine, options: dict[str, Any]) -> Corpus:
    from bertfast.distributed import build_corpus
    from bertfast.distributed.shard_folder import ShardFolder

    try:
        return build_corpus(
            args.inputs,
            store=args.output,
            num_shards=args.num_shards,
            num_cpus=args.num_threads or 1,
            resume=args.resume,
            address=address_of(args),
            **options,
        )
    except (KeyboardInterrupt, ClusterError):
        if ShardFolder(args.output).is_begun:
            line.say(f"{args.output} is not finished: the same command with --resume goes on")
        raise


def _merge(args: argparse.Namespace) -> int:
    from bertfast.pretraining import merge_corpora

    shown = not args.quiet and sys.stderr.isatty()
    corpus = merge_corpora(args.shards, args.output, overwrite=args.overwrite, show_progress=shown)
    return _summary(corpus, args.quiet)


def _split(args: argparse.Namespace) -> int:
    from bertfast.pretraining import split_corpus

    corpora = split_corpus(
        args.store,
        *args.output,
        held_out=args.held_out,
        seed=args.seed,
        overwrite=args.overwrite,
        show_progress=not args.quiet and sys.stderr.isatty(),
    )
    for corpus in corpora:
        _summary(corpus, args.quiet)
    return 0


def _summary(corpus: Corpus, quiet: bool) -> int:
    if not quiet:
        print(_counts(corpus), file=sys.stderr)
    return 0


def _counts(corpus: Corpus) -> str:
    return (
        f"{corpus.folder}: {corpus.num_documents:,} documents, {corpus.num_sentences:,} sentences, "
        f"{corpus.num_tokens:,} tokens"
    )


def _info(args: argparse.Namespace) -> int:
    from bertfast.pretraining import Corpus

    corpus = Corpus(args.store)
    manifest = corpus.manifest
    if args.json:
        print(json.dumps(manifest, indent=2, ensure_ascii=False))
        return 0
    size = sum(file["bytes"] for file in manifest["files"].values())
    tokenizer = manifest["tokenizer"]
    print(_counts(corpus))
    if corpus.num_documents:
        print(
            f"  {corpus.num_tokens / corpus.num_sentences:,.1f} tokens a sentence, "
            f"{corpus.num_sentences / corpus.num_documents:,.1f} sentences a document"
        )
    print(f"  {size / 1e6:,.1f} MB, {manifest['token_bits']} bits a token")
    print(
        f"  tokenizer: {tokenizer['kind']}, {tokenizer['vocab_size']:,} ids, {tokenizer['vocabulary_sha256']}"
    )
    print("  options: " + ", ".join(f"{name} {value}" for name, value in manifest["options"].items()))
    if "shard" in manifest:
        print("  shard {} of {}".format(*manifest["shard"]))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from bertfast.pretraining import Corpus

    corpus = Corpus(args.store)
    corpus.verify(show_progress=not args.quiet and sys.stderr.isatty())
    if not args.quiet:
        print(f"{corpus.folder}: every file is as its checksum says", file=sys.stderr)
    return 0


def _show(args: argparse.Namespace) -> int:
    from bertfast.pretraining import Corpus
    from bertfast.pretraining.show import render

    dataset = _dataset(args)
    tokenizer = Corpus(args.store).tokenizer
    color = sys.stdout.isatty() if args.color == "auto" else args.color == "always"
    for number in dataset.order(0, min(args.samples, len(dataset))).tolist():
        print(f"sample {number:,} of {len(dataset):,}")
        print(render(dataset[number], tokenizer, color=color), end="\n\n")
    return 0


def _export(args: argparse.Namespace) -> int:
    from bertfast.pretraining import export_samples

    kind: Any = args.format or ("jsonl" if args.output.endswith(".jsonl") else "parquet")
    shown = not args.quiet and sys.stderr.isatty()
    count = export_samples(_dataset(args), args.output, format=kind, show_progress=shown)
    if not args.quiet:
        print(f"{count:,} samples: {args.output}", file=sys.stderr)
    return 0


def _dataset(args: argparse.Namespace) -> PretrainingDataset:
    from bertfast.pretraining import PretrainingDataset

    return PretrainingDataset(args.store, _config(args), seed=args.seed, epoch=args.epoch)


def _config(args: argparse.Namespace) -> PretrainingConfig:
    from bertfast.pretraining import PretrainingConfig

    changes = {
        "max_seq_length": args.max_seq_length,
        "short_seq_prob": args.short_seq_prob,
        "dupe_factor": args.dupe_factor,
        "masked_lm_prob": args.masked_lm_prob,
        "max_predictions_per_seq": args.max_predictions_per_seq,
        "unit": None if args.masking is None else args.masking.replace("-", "_"),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    return PretrainingConfig.preset(args.preset, **given)
