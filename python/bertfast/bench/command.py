"""The command ``bertfast bench``: from options to tables."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from bertfast.bench import machine, random_model, startup
from bertfast.bench.engines import DEFAULT_ENGINES, Setup, module_name
from bertfast.bench.options import ROUNDS, TEXTS
from bertfast.bench.plot import plot
from bertfast.bench.run import Plan, run
from bertfast.bench.workloads import FIXED_SHAPES, sample_texts, synthetic_texts
from bertfast.checkpoint import find_folder
from bertfast.errors import ArgumentError

_SLICE_SECONDS = 0.25
_QUICK_ROUNDS = 3
_QUICK_TEXTS = 200
_QUICK_SHAPES = ((1, 16), (1, 128), (8, 64))


def main(args: argparse.Namespace) -> int:
    """Runs ``bertfast bench`` and prints its tables.

    Returns:
        The exit status: 1 if no engine could be measured.

    Raises:
        ArgumentError: the options contradict each other or have impossible values.
        OSError: a file cannot be read or written.
    """
    if (args.model is None) == (args.random is None):
        raise ArgumentError("bench: name either a MODEL or --random LxD")
    if args.vocab is not None and args.random is None:
        raise ArgumentError("--vocab goes with --random only: a model has its own vocabulary")
    threads = machine.default_threads() if args.threads is None else _positive("--threads", args.threads)
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        # Told before the measurement, not after it.
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ArgumentError(f"{option} {path}: no such folder")
    log = Progress()
    with tempfile.TemporaryDirectory(prefix="bertfast-bench-") as temporary:
        work = Path(temporary)
        if args.random is None:
            folder = find_folder(args.model)
        else:
            random_model.parse_size(args.random)
            folder = work / "model"
            folder.mkdir()
            log(f"writing a random model {args.random}")
            random_model.write(folder, args.random, None if args.vocab is None else Path(args.vocab))
        setup = Setup(folder=folder, workdir=work, threads=threads)
        name = f"random {args.random}" if args.random else "/".join(folder.parts[-2:])
        return _measure_startup(args, setup, name, log) if args.startup else _compare(args, setup, name, log)


def _compare(args: argparse.Namespace, setup: Setup, name: str, log: Progress) -> int:
    plan = make_plan(args, setup, name)
    started = time.monotonic()
    report = run(plan, setup, log)
    log(f"done in {time.monotonic() - started:.0f} s", last=True)
    print(report.render(markdown=args.markdown), end="")
    if args.json is not None:
        Path(args.json).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    if args.plot is not None:
        plot(report, Path(args.plot))
    return 0 if report.measured else 1


def make_plan(args: argparse.Namespace, setup: Setup, name: str) -> Plan:
    """What the options ask for.

    Raises:
        ArgumentError: an unknown engine, or a number that is not positive.
        OSError: the file of texts cannot be read.
    """
    engines = DEFAULT_ENGINES if args.engines is None else tuple(dict.fromkeys(args.engines.split(",")))
    for engine in engines:
        module_name(engine)
    count = _QUICK_TEXTS if args.quick else TEXTS
    count = count if args.num_texts is None else _positive("--num-texts", args.num_texts)
    rounds = _QUICK_ROUNDS if args.quick else ROUNDS
    if args.texts is None:
        texts = synthetic_texts(setup.folder, count)
    else:
        texts = sample_texts(args.texts, count, args.field)
    return Plan(
        name=name,
        engines=engines,
        texts=texts,
        shapes=_QUICK_SHAPES if args.quick else FIXED_SHAPES,
        rounds=rounds if args.rounds is None else _positive("--rounds", args.rounds),
        slice_seconds=_SLICE_SECONDS / 5 if args.quick else _SLICE_SECONDS,
        load_twice=not args.quick,
        verbose=args.verbose,
    )


def _measure_startup(args: argparse.Namespace, setup: Setup, name: str, log: Progress) -> int:
    report = startup.measure(setup, name, log)
    log("done", last=True)
    print(report.render(markdown=args.markdown), end="")
    if args.json is not None:
        Path(args.json).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return 0


def _positive(option: str, value: int) -> int:
    if value < 1:
        raise ArgumentError(f"{option} {value}: expected at least 1")
    return value


class Progress:
    """Tells on standard error what is going on: on a terminal in one line that changes."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def __call__(self, text: str, last: bool = False) -> None:
        """Shows ``text`` in place of the one before."""
        end = "\n" if last or not self._terminal else ""
        sys.stderr.write(f"\r\x1b[K{text}{end}" if self._terminal else f"{text}{end}")
        sys.stderr.flush()
