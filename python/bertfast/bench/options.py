"""The options of ``bertfast bench``. Imports nothing: the command line reads this file at every start."""

from __future__ import annotations

import argparse

ROUNDS = 7
TEXTS = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``bertfast bench``."""
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="a Hugging Face folder, or the name of a model on the hub")
    add(
        "--random",
        metavar="LxD",
        help="a BERT of L layers and hidden size D with random weights, such as 12x768",
    )
    add(
        "--vocab",
        metavar="FILE",
        help="vocab.txt for --random, so that real text has its real length in tokens",
    )
    add(
        "--engines",
        metavar="A,B",
        help="which engines (default: all that are installed but torch-compile, see bertfast.bench.engines)",
    )
    add(
        "--texts",
        metavar="FILE",
        help="real text for the ragged workload, one per line (default: invented text)",
    )
    add("--field", metavar="NAME", help="FILE is JSON lines, and this is the field with the text")
    add("--num-texts", metavar="N", type=int, help=f"how many texts to sample (default {TEXTS})")
    add("--rounds", metavar="N", type=int, help=f"rounds per workload (default {ROUNDS})")
    add(
        "--threads",
        metavar="N",
        type=int,
        help="threads of every engine (default: all cores that may be used)",
    )
    add("--quick", action="store_true", help="few rounds, small shapes, 200 texts: to see that it works")
    add("--json", metavar="FILE", help="write all figures, raw times included")
    add("--plot", metavar="PNG", help="draw what each engine computes per second")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    add(
        "--startup",
        action="store_true",
        help="measure import time, first vector and memory of bertfast instead",
    )
    add("--verbose", action="store_true", help="show what the engines write to standard error")
