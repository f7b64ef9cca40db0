"""The options of ``bertfast bench``. Imports next to nothing: the command line reads it at every start."""

from __future__ import annotations

import argparse

from bertfast.bench.dtypes import DTYPES, FLOAT32
from bertfast.bench.task_engines import TASKS

ROUNDS = 7
TEXTS = 2000
LATENCY_ROUNDS = 3
TOKENIZER_ROUNDS = 3
PRETRAINING_ROUNDS = 5
TRAINING_ROUNDS = 5
CLUSTER_ROUNDS = 3
TASK_ROUNDS = 5
TASK_TEXTS = 500
LATENCY_SECONDS = 3.0
RATE = 200.0
CALLERS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``bertfast bench``."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a Hugging Face folder, or the name of a model on the hub"
    )
    _add_modes(parser)
    _add_model(parser.add_argument_group("the model"))
    _add_engines(parser.add_argument_group("the engines"))
    _add_work(parser.add_argument_group("the work"))
    _add_latency(parser.add_argument_group("with --latency"))
    _add_output(parser.add_argument_group("the output"))


def _add_modes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what to measure", "By default the speed of every engine on fixed shapes and on texts."
    )
    add = group.add_mutually_exclusive_group().add_argument
    add(
        "--latency",
        action="store_true",
        help="how long short queries wait that arrive at random times, at several threads calling one model",
    )
    add(
        "--ops",
        action="store_true",
        help="the operations of our engine on one core, each as a share of its own limit; needs no MODEL",
    )
    add("--startup", action="store_true", help="import time, first vector and memory of bertfast")
    add(
        "--tokenizer",
        action="store_true",
        help="text to tokens: bertfast, nanotoken and tokenizers, on all lines of --texts",
    )
    add(
        "--pretraining",
        action="store_true",
        help="pretraining data: masks, collators, samples and stores, beside numpy, transformers and "
        "Google's script",
    )
    add(
        "--training",
        action="store_true",
        help="steps of training, ragged beside transformers' padded ones; --dtype float32 bfloat16",
    )
    add(
        "--ray",
        action="store_true",
        help="files and data sets on a Ray cluster of this machine, beside one process",
    )
    add(
        "--task",
        nargs="+",
        choices=TASKS,
        help="whole pipelines beside those of transformers, on torch and on onnxruntime; a head that the "
        "model lacks has random weights",
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--random",
        metavar="LxD",
        help="a BERT of L layers and hidden size D with random weights, such as 12x768, instead of MODEL",
    )
    group.add_argument(
        "--vocab",
        metavar="FILE",
        help="vocab.txt for --random, so that real text has its real length in tokens",
    )


def _add_engines(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--engines", metavar="A,B", help="which (default: all but torch-compile, see bertfast.bench.engines)")
    add(
        "--dtype",
        nargs="+",
        choices=DTYPES,
        default=[FLOAT32],
        help="what they compute in (default: float32); each engine is measured in every dtype that it knows",
    )
    add("--threads", metavar="N", type=int, help="of every engine (default: all cores that may be used)")
    add("--device", metavar="NAME", default="cpu", help="for --training, such as cuda (default: cpu)")
    add("--isa", metavar="NAME", help="the instruction set of our engine (default: the best of this CPU)")
    add(
        "--prepared",
        metavar="DIR",
        help="where exported and quantized models are kept (default: in the user's cache)",
    )


def _add_work(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--texts", metavar="FILE", help="real text, one per line (default: invented text)")
    add("--field", metavar="NAME", help="FILE is JSON lines, and this is the field with the text")
    add("--num-texts", metavar="N", type=int, help=f"how many texts to sample (default: {TEXTS})")
    add(
        "--rounds",
        metavar="N",
        type=int,
        help=f"rounds per workload (default: {ROUNDS}, with --latency {LATENCY_ROUNDS})",
    )
    add("--quick", action="store_true", help="few rounds, small shapes, 200 texts: to see that it works")


def _add_latency(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--rate", metavar="R", nargs="+", type=float, help=f"arrivals a second (default: {RATE:g})")
    add("--callers", metavar="N", type=int, help=f"threads that call (default: {CALLERS})")
    add(
        "--threads-per-call",
        metavar="N",
        nargs="+",
        type=int,
        help="threads that one call computes with (default: 1, and as many as --threads)",
    )
    add("--seconds", metavar="S", type=float, help=f"of arrivals in a round (default: {LATENCY_SECONDS:g})")


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--json", metavar="FILE", help="write all figures, raw times included")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    add("--plot", metavar="PNG", help="draw what each engine computes per second")
    add("--roofline", metavar="PNG", help="draw what is computed per second over what is computed per byte")
    add("--verbose", action="store_true", help="show what the engines write to standard error")
