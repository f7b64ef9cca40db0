"""The command ``bertfast bench``: from options to tables."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from bertfast import _bertfast
from bertfast.bench import (
    latency,
    machine,
    ops,
    prepare,
    random_model,
    roofline,
    run,
    startup,
    tasks,
    tokenizing,
)
from bertfast.bench.dtypes import DTYPES, INT8
from bertfast.bench.engines import DEFAULT_ENGINES, Contender, Setup, contenders
from bertfast.bench.latency import LatencyPlan
from bertfast.bench.options import (
    CALLERS,
    CLUSTER_ROUNDS,
    LATENCY_ROUNDS,
    LATENCY_SECONDS,
    PRETRAINING_ROUNDS,
    RATE,
    ROUNDS,
    TASK_ROUNDS,
    TASK_TEXTS,
    TEXTS,
    TOKENIZER_ROUNDS,
    TRAINING_ROUNDS,
)
from bertfast.bench.plot import check_picture, plot
from bertfast.bench.run import Plan
from bertfast.bench.task_engines import TASK_ENGINES, check_engines
from bertfast.bench.tasks import TaskPlan
from bertfast.bench.workloads import (
    FIXED_SHAPES,
    SEED,
    ModelShape,
    sample_texts,
    short_queries,
    synthetic_texts,
)
from bertfast.checkpoint import find_folder
from bertfast.errors import ArgumentError
from bertfast.text_files import TextFile

CALIBRATION_TEXTS = 300
_SLICE_SECONDS = 0.25
_QUICK_ROUNDS = 3
_QUICK_TEXTS = 200
_QUICK_SHAPES = ((1, 16), (1, 128), (8, 64))
_QUICK_LATENCY_SECONDS = 0.5
_QUICK_CALIBRATION = 20


class Report(Protocol):
    """What every mode ends with."""

    def render(self, markdown: bool = False) -> str:
        """The tables."""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""


def main(args: argparse.Namespace) -> int:
    """Runs ``bertfast bench`` and prints its tables.

    Returns:
        The exit status: 1 if no engine could be measured.

    Raises:
        ArgumentError: the options contradict each other or have impossible values.
        OSError: a file cannot be read or written.
    """
    _check(args)
    log = Progress()
    with tempfile.TemporaryDirectory(prefix="bertfast-bench-") as temporary:
        if args.model is None and args.random is None:
            return _measure_ops(args, ops.MODELS, log)
        if args.random is None:
            folder = find_folder(args.model, organisation="sentence-transformers")
        else:
            random_model.parse_size(args.random)
            folder = Path(temporary) / f"random-{args.random}"
            folder.mkdir()
            log(f"writing a random model {args.random}")
            random_model.write(folder, args.random, None if args.vocab is None else Path(args.vocab))
        name = f"random {args.random}" if args.random else "/".join(folder.parts[-2:])
        if args.ops:
            return _measure_ops(args, {name: ModelShape.read(folder)}, log)
        cache = prepare.default_cache() if args.prepared is None else Path(args.prepared)
        setup = Setup(
            folder=folder,
            prepared=prepare.model_folder(cache, folder),
            threads=machine.default_threads() if args.threads is None else args.threads,
            isa=args.isa,
        )
        if args.startup:
            return _finish(args, startup.measure(replace(setup, dtype=args.dtype[0]), name, log), log)
        if args.tokenizer:
            return _measure_tokenizers(args, setup.folder, name, log)
        if args.pretraining:
            return _measure_pretraining(args, setup, name, log)
        if args.training:
            return _measure_training(args, setup, name, log)
        if args.ray:
            return _measure_cluster(args, setup, name, log)
        if args.task:
            return _measure_tasks(args, setup, name, log)
        if args.latency:
            return _measure_latency(args, setup, name, log)
        return _compare(args, setup, name, log)


def _check(args: argparse.Namespace) -> None:
    """Tells mistakes before anything is measured."""
    if (args.model is None) == (args.random is None) and not (args.ops and args.model is None):
        raise ArgumentError("bench: name either a MODEL or --random LxD")
    if args.vocab is not None and args.random is None:
        raise ArgumentError("--vocab goes with --random only: a model has its own vocabulary")
    for option in ("threads", "num_texts", "rounds", "callers", "seconds"):
        _positive(option, getattr(args, option))
    for option in ("rate", "threads_per_call"):
        for value in getattr(args, option) or ():
            _positive(option, value)
    for option in ("json", "plot", "roofline"):
        path = getattr(args, option)
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ArgumentError(f"--{option} {path}: no such folder")
        if path is not None and option != "json":
            check_picture(option, path)
    isas = _bertfast.info()["isas"]
    if args.isa is not None and args.isa not in isas:
        raise ArgumentError(f"--isa {args.isa}: expected one of {', '.join(isas)} on this CPU")
    for mode in ("startup", "ray"):
        if getattr(args, mode) and len(args.dtype) > 1:
            raise ArgumentError(f"--{mode} measures one --dtype at a time")
    other_modes = args.latency or args.startup or args.tokenizer or args.task or args.pretraining
    other_modes = other_modes or args.training or args.ray
    if args.plot is not None and (args.ops or other_modes):
        raise ArgumentError("--plot draws the speed of engines; it goes with no other mode")
    if args.roofline is not None and other_modes:
        raise ArgumentError(
            "--roofline draws what is computed; it goes with no --latency, --startup, --task, --tokenizer, "
            "--pretraining, --ray or --training"
        )


def _positive(option: str, value: float | None) -> None:
    if value is not None and not value > 0:
        expected = "at least 1" if isinstance(value, int) else "more than 0"
        raise ArgumentError(f"--{option.replace('_', '-')} {value}: expected {expected}")


def _compare(args: argparse.Namespace, setup: Setup, name: str, log: Progress) -> int:
    asked = _contenders(args)
    texts = _texts(args, setup.folder)
    setup = _with_calibration(args, setup, asked, texts)
    plan = make_plan(args, asked, texts, name)
    started = time.monotonic()
    report = run.run(plan, setup, log)
    _finish(args, report, log, f"done in {time.monotonic() - started:.0f} s")
    if args.plot is not None:
        plot(report, Path(args.plot))
    if args.roofline is not None:
        peaks = {dtype: peak for dtype in DTYPES if (peak := report.peak(dtype)) is not None}
        bandwidths = machine.measure_bandwidths(setup.threads)
        points = roofline.points_of_engines(report)
        roofline.draw(f"{name}, {setup.threads} threads", points, peaks, bandwidths, Path(args.roofline))
    return 0 if report.measured else 1


def make_plan(args: argparse.Namespace, asked: Sequence[Contender], texts: Sequence[str], name: str) -> Plan:
    """What the options ask for."""
    return Plan(
        name=name,
        contenders=asked,
        texts=texts,
        shapes=_QUICK_SHAPES if args.quick else FIXED_SHAPES,
        rounds=args.rounds or (_QUICK_ROUNDS if args.quick else ROUNDS),
        slice_seconds=_SLICE_SECONDS / 5 if args.quick else _SLICE_SECONDS,
        load_twice=not args.quick,
        verbose=args.verbose,
    )


def _measure_latency(args: argparse.Namespace, setup: Setup, name: str, log: Progress) -> int:
    asked = _contenders(args)
    texts = _texts(args, setup.folder)
    setup = _with_calibration(args, setup, asked, texts)
    plan = LatencyPlan(
        name=name,
        contenders=asked,
        queries=short_queries(texts, setup.folder),
        rates=list(dict.fromkeys(args.rate or [RATE])),
        callers=args.callers or CALLERS,
        threads_per_call=list(dict.fromkeys(args.threads_per_call or [1, setup.threads])),
        rounds=args.rounds or (1 if args.quick else LATENCY_ROUNDS),
        seconds=args.seconds or (_QUICK_LATENCY_SECONDS if args.quick else LATENCY_SECONDS),
        verbose=args.verbose,
    )
    report = latency.run(plan, setup, log)
    _finish(args, report, log)
    return 0 if report.measured else 1


def _measure_tokenizers(args: argparse.Namespace, folder: Path, name: str, log: Progress) -> int:
    engines = list(dict.fromkeys((args.engines or ",".join(tokenizing.ENGINES)).split(",")))
    for engine in engines:
        if engine not in tokenizing.ENGINES:
            raise ArgumentError(
                f"--engines: expected some of {', '.join(tokenizing.ENGINES)}, got {engine!r}"
            )
    rounds = args.rounds or (1 if args.quick else TOKENIZER_ROUNDS)
    texts = _all_texts(args, folder)
    report = tokenizing.measure(folder, name, texts, args.texts or "invented text", engines, rounds, log)
    _finish(args, report, log)
    return 0 if any(series.failure is None for series in report.series) else 1


def _measure_pretraining(args: argparse.Namespace, setup: Setup, name: str, log: Progress) -> int:
    texts = _all_texts(args, setup.folder)
    rounds = args.rounds or (1 if args.quick else PRETRAINING_ROUNDS)
    # Only here: nothing else of the benchmark makes samples.
    from bertfast.bench import pretraining

    source = args.texts or "invented text"
    report = pretraining.measure(setup.folder, name, texts, source, setup.threads, rounds, log)
    _finish(args, report, log)
    return 0 if report.measured else 1


def _measure_training(args: argparse.Namespace, setup: Setup, name: str, log: Progress) -> int:
    texts = _texts(args, setup.folder)
    rounds = args.rounds or (1 if args.quick else TRAINING_ROUNDS)
    # Only here: it imports torch, which is an extra.
    from bertfast.bench import training

    unknown = [dtype for dtype in args.dtype if dtype not in training.DTYPES]
    if unknown:
        raise ArgumentError(
            f"--dtype: expected {' or '.join(training.DTYPES)} with --training, got {unknown[0]}"
        )
    source = args.texts or "invented text"
    report = training.measure(
        setup.folder, name, texts, source, args.dtype, args.device, setup.threads, rounds, log
    )
    _finish(args, report, log)
    return 0 if report.measured else 1


def _measure_cluster(args: argparse.Namespace, setup: Setup, name: str, log: Progress) -> int:
    texts = _texts(args, setup.folder)
    rounds = args.rounds or (1 if args.quick else CLUSTER_ROUNDS)
    # Only here: it imports Ray, which is an extra.
    from bertfast.bench import cluster

    source, dtype = args.texts or "invented text", args.dtype[0]
    report = cluster.measure(setup.folder, name, texts, source, dtype, setup.isa, setup.threads, rounds, log)
    _finish(args, report, log)
    return 0 if report.measured else 1


def _all_texts(args: argparse.Namespace, folder: Path) -> list[str]:
    """Every line of --texts, unless fewer are asked for."""
    if args.texts is None or args.num_texts is not None or args.quick:
        return _texts(args, folder)
    with TextFile(args.texts, args.field) as file:
        return [text for text in file if text.strip()]


def _measure_tasks(args: argparse.Namespace, setup: Setup, name: str, log: Progress) -> int:
    engines = list(dict.fromkeys((args.engines or ",".join(TASK_ENGINES)).split(",")))
    check_engines(engines)
    count = args.num_texts or (_QUICK_CALIBRATION if args.quick else TASK_TEXTS)
    texts = (
        synthetic_texts(setup.folder, count)
        if args.texts is None
        else sample_texts(args.texts, count, args.field)
    )
    plan = TaskPlan(
        name=name,
        tasks=list(dict.fromkeys(args.task)),
        engines=engines,
        dtypes=list(dict.fromkeys(args.dtype)),
        texts=texts,
        texts_from=args.texts or "invented text",
        rounds=args.rounds or (1 if args.quick else TASK_ROUNDS),
        verbose=args.verbose,
    )
    report = tasks.run(plan, setup, log)
    _finish(args, report, log)
    return 0 if report.measured else 1


def _measure_ops(args: argparse.Namespace, models: Mapping[str, ModelShape], log: Progress) -> int:
    report = ops.run(models, list(dict.fromkeys(args.dtype)), args.isa, log)
    _finish(args, report, log)
    if args.roofline is not None:
        title = f"The operations of {' and '.join(models)} on one core, {report.isa}"
        points = roofline.points_of_ops(report)
        roofline.draw(title, points, report.peaks, report.bandwidths, Path(args.roofline))
    return 0 if report.ops else 1


def _contenders(args: argparse.Namespace) -> list[Contender]:
    engines = DEFAULT_ENGINES if args.engines is None else tuple(dict.fromkeys(args.engines.split(",")))
    return contenders(engines, tuple(dict.fromkeys(args.dtype)))


def _texts(args: argparse.Namespace, folder: Path) -> list[str]:
    count = args.num_texts or (_QUICK_TEXTS if args.quick else TEXTS)
    return (
        synthetic_texts(folder, count) if args.texts is None else sample_texts(args.texts, count, args.field)
    )


def _with_calibration(
    args: argparse.Namespace, setup: Setup, asked: Sequence[Contender], texts: Sequence[str]
) -> Setup:
    """Texts to calibrate int8 with, of the same source, and none that is measured."""
    if not any(contender.dtype == INT8 for contender in asked):
        return setup
    count = _QUICK_CALIBRATION if args.quick else CALIBRATION_TEXTS
    if args.texts is None:
        calibration = synthetic_texts(setup.folder, count, SEED + 1)
    else:
        calibration = sample_texts(args.texts, count, args.field, without=frozenset(texts))
    return replace(setup, calibration=tuple(calibration))


def _finish(args: argparse.Namespace, report: Report, log: Progress, last: str = "done") -> int:
    log(last, last=True)
    print(report.render(markdown=args.markdown), end="")
    if args.json is not None:
        Path(args.json).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return 0


class Progress:
    """Tells on standard error what is going on: on a terminal in one line that changes."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def __call__(self, text: str, last: bool = False) -> None:
        """Shows ``text`` in place of the one before."""
        end = "\n" if last or not self._terminal else ""
        sys.stderr.write(f"\r\x1b[K{text}{end}" if self._terminal else f"{text}{end}")
        sys.stderr.flush()
