"""What the commands that can run on a cluster take for that."""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING, Any

from bertfast.command_options import positive
from bertfast.errors import ArgumentError

if TYPE_CHECKING:
    from bertfast.distributed.run import Totals

DECIDE = ""
"""`--ray` without an address: Ray decides."""


def add_address(parser: argparse._ActionsContainer) -> None:
    """``--ray [ADDRESS]``."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const=DECIDE,
        help="on the Ray cluster at host:port, `auto` (the one of this machine) or `local` (a new one here); "
        "without ADDRESS: that of RAY_ADDRESS, else one on this machine, else a new one; needs bertfast[ray]",
    )


def address_of(args: argparse.Namespace) -> str | None:
    """The address for `bertfast.distributed.connect`.

    Raises:
        ArgumentError: It is the name of a file, which was to be an input.
    """
    address: str = args.ray
    if ":" not in address and os.path.exists(address) and address not in ("auto", "local"):
        raise ArgumentError(f"--ray: expected an address, got the file {address}: write --ray behind it")
    return address or None


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """``--ray``, and what goes with it where files become a folder of Parquet."""
    group = parser.add_argument_group(
        "on a cluster",
        "With --ray, FILE may be several files and folders of Parquet, JSON lines (--field) or text, also "
        "URIs such as s3://bucket/texts, and OUT is a folder of Parquet: the input's columns and one more.",
    )
    add_address(group)
    add = group.add_argument
    add("--resume", action="store_true", help="go on with an output; what is finished is left alone")
    add(
        "--on-error",
        choices=("raise", "skip"),
        help="what a row or file that cannot be computed does: end the run (default), or go to OUT/_skipped "
        "with the reason",
    )
    add(
        "--columns",
        metavar="NAMES",
        help="what to carry along, with commas between them; of JSON lines as NAME:TYPE, one of string, "
        "int64, double, bool and json (default: all columns)",
    )
    add("--output-column", metavar="NAME", help="the new column (default: embedding, or prediction)")
    add(
        "--piece-size",
        metavar="SIZE",
        type=size,
        help="of an input file that a worker takes at once, such as 64MB (default: 16MB)",
    )
    add(
        "--workers",
        metavar="N",
        type=positive,
        help="workers, each with --num-threads threads, 4 by default or fewer (default: as many as there is "
        "room for)",
    )
    add(
        "--cache-dir",
        metavar="DIR",
        help="where nodes keep packed weights (default: ~/.cache/bertfast/packed)",
    )


_DEFAULTS = {
    "resume": False,
    "on_error": None,
    "columns": None,
    "output_column": None,
    "piece_size": None,
    "workers": None,
    "cache_dir": None,
}


def check_one_machine(args: argparse.Namespace) -> None:
    """What goes with ``--ray`` only, and one file that is not the output, which takes the list's place.

    Raises:
        ArgumentError: Something else was given.
    """
    for name, default in _DEFAULTS.items():
        if getattr(args, name) != default:
            raise ArgumentError(f"--{name.replace('_', '-')}: expected --ray beside it")
    if len(args.file) > 1:
        raise ArgumentError(f"FILE: expected one without --ray, got {len(args.file)}")
    (args.file,) = args.file
    if all(map(os.path.isfile, (args.file, args.output))) and os.path.samefile(args.file, args.output):
        raise ArgumentError(f"output: expected another file than the input, got {args.output}")


def run_files(args: argparse.Namespace, **work: Any) -> Totals:
    """Files to a folder on a cluster.

    Args:
        args: Of a command that has `add_cluster` and `add_engine`.
        **work: Fields of `bertfast.distributed.run.Options` that are the command's.
    """
    from bertfast.distributed.run import Options, run

    optional = {"piece_size": args.piece_size, "output_column": args.output_column}
    return run(
        Options(
            inputs=args.file,
            output=args.output,
            model=args.model,
            dtype=args.dtype,
            isa=args.isa,
            batch_tokens=args.batch_tokens,
            carried=None if args.columns is None else tuple(filter(None, args.columns.split(","))),
            resume=args.resume,
            skip=args.on_error == "skip",
            address=address_of(args),
            num_threads=args.num_threads,
            workers=args.workers,
            quiet=args.quiet,
            cache=args.cache_dir,
            **(work | {name: value for name, value in optional.items() if value is not None}),
        )
    )


def summary(totals: Totals, output: str, seconds: float) -> str:
    """What is said in the end."""
    line = f"{totals.rows:,} texts of {totals.files:,} files in {seconds:.1f} s: {output}"
    if totals.resumed:
        line += f"; {totals.resumed:,} files were finished before"
    if totals.skipped:
        line += f"; {totals.skipped:,} skipped, see {output.rstrip('/')}/_skipped"
    return line


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(text: str) -> int:
    """An argument type: bytes, ``64KB``, ``16MB`` or ``1GB``."""
    found = re.fullmatch(r"(\d+)\s*([KMG]?)i?B?", text, re.IGNORECASE)
    if found is None or int(found[1]) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a size such as 16MB")
    return int(found[1]) * _UNITS[found[2].upper()]
