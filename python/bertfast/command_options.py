"""Arguments that several commands take, and types of arguments."""

from __future__ import annotations

import argparse


def add_engine(parser: argparse.ArgumentParser) -> None:
    """What every command takes that runs a model."""
    add = parser.add_argument
    add(
        "--dtype",
        metavar="DTYPES",
        type=dtypes,
        default="auto",
        help="float32, bfloat16 or int8; of several with commas between them the first that this CPU runs "
        "natively; auto (default): as `bertfast quantize` saved the model, else float32",
    )
    add("--isa", metavar="LEVEL", help="instruction set level, one of `bertfast info` (default: the best)")
    add_num_threads(parser)


def add_num_threads(parser: argparse.ArgumentParser) -> None:
    """What every command takes that computes."""
    parser.add_argument(
        "--num-threads",
        metavar="N",
        type=positive,
        help="threads (default: physical cores that may be used)",
    )


def positive(text: str) -> int:
    """An argument type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: expected at least 1")
    return value


positive.__name__ = "integer"  # What argparse calls it in "invalid integer value: 'x'".


def dtypes(text: str) -> str | list[str]:
    """An argument type: a dtype, or several with commas between them."""
    names = text.split(",")
    return names if len(names) > 1 else text
