"""Runs the benchmark: starts the workers, interleaves their rounds, collects what they measured.

Everything that is compared is measured in turns, because a shared machine changes its speed by a seventh
from one minute to the next: a round is every engine once, in rotating order, and ratios are taken within a
round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from bertfast.bench import machine
from bertfast.bench.dtypes import FLOAT32
from bertfast.bench.engines import REFERENCE, Contender, Setup
from bertfast.bench.report import EngineReport, Report, WorkloadReport
from bertfast.bench.worker import EngineError, Worker
from bertfast.bench.workloads import IdsWorkload, ModelShape, fixed_workloads, random_ids, rotated

_CHECK_LENGTHS = (64, 57, 48, 33, 17, 16, 5, 3)
"""Tokens per row of the padded batch on which hidden states are compared."""

_PEAK_SECONDS = 0.15

Measure = Callable[[Worker, float], "float | None"]


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        name: what to call the model.
        contenders: engines in a dtype each; the first measured one of a dtype is compared with its others.
        texts: the ragged workload; empty to leave it out.
        shapes: (B, S) of the fixed workloads.
        rounds: how often each engine is measured on each workload.
        slice_seconds: how long an engine may repeat short calls within a round.
        load_twice: take the load time of a second start, with libraries and weights in the page cache.
        verbose: let the engines write to standard error.
    """

    name: str
    contenders: Sequence[Contender]
    texts: Sequence[str]
    shapes: Sequence[tuple[int, int]]
    rounds: int
    slice_seconds: float
    load_twice: bool = True
    verbose: bool = False


def run(plan: Plan, setup: Setup, log: Callable[[str], None]) -> Report:
    """Measures everything in the plan.

    Args:
        plan: what to run.
        setup: model, threads, work folder.
        log: is told what happens, one line at a time.

    Returns:
        The figures; an engine that could not be prepared is in it with the reason.
    """
    with ExitStack() as stack:
        return _Run(plan, setup, log, stack).report


class _Run:
    """One run of the benchmark: the workers that are still alive, and the report so far."""

    def __init__(self, plan: Plan, setup: Setup, log: Callable[[str], None], stack: ExitStack) -> None:
        self._plan = plan
        self._setup = setup
        self._log = log
        self._workers: dict[str, Worker] = {}
        self.report = Report(
            model=plan.name,
            shape=ModelShape.read(setup.folder),
            machine=machine.describe(setup.threads),
            threads=setup.threads,
            rounds=plan.rounds,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            engines=[EngineReport(contender.name, contender.dtype) for contender in plan.contenders],
        )
        for contender, engine in zip(plan.contenders, self.report.engines, strict=True):
            self._load(contender, engine, stack)
        self._check_agreement()
        for workload in fixed_workloads(self.report.shape, plan.shapes):
            self._run_ids(workload)
        if plan.texts:
            self._run_texts()
        for engine in self.report.engines:
            if engine.name in self._workers:
                # 0 where the system does not tell.
                engine.peak_mib = self._workers[engine.name].peak_mib or None
                engine.anon_mib = self._workers[engine.name].anon_mib or None

    def _load(self, contender: Contender, engine: EngineReport, stack: ExitStack) -> None:
        """Starts an engine and opens the model."""
        self._log(f"loading {engine.name}")
        with self._survive(engine.name):
            with self._worker(contender) as first:
                first.build()
                if self._plan.load_twice:
                    first.load()
            worker = stack.enter_context(self._worker(contender))
            engine.version, engine.load_seconds = worker.load()
            self._workers[engine.name] = worker

    def _worker(self, contender: Contender) -> Worker:
        setup = replace(self._setup, dtype=contender.dtype)
        return Worker(contender.engine, setup, verbose=self._plan.verbose)

    @contextmanager
    def _survive(self, name: str) -> Iterator[None]:
        """An engine that fails is closed and named with the reason; the others go on."""
        try:
            yield
        except EngineError as error:
            self._log(f"{name} failed: {error}")
            if name in self._workers:
                self._workers.pop(name).close()
            next(e for e in self.report.engines if e.name == name).failure = str(error)
            for workload in self.report.workloads:
                # Fewer rounds than the others have would pair up times of different rounds.
                if len(workload.seconds.get(name, ())) < workload.rounds:
                    workload.seconds.pop(name, None)

    def _check_agreement(self) -> None:
        """Compares hidden states and vectors of every engine with those of transformers in float32."""
        self._log("comparing the outputs")
        try:
            if REFERENCE in self._workers:
                reference = self._outputs(self._workers[REFERENCE])
            else:
                with self._worker(Contender(REFERENCE, FLOAT32)) as worker:
                    worker.load()
                    reference = self._outputs(worker)
        except EngineError as error:
            self.report.notes.append(f"The outputs were not compared: {REFERENCE}: {error}")
            return
        for engine in self.report.engines:
            with self._survive(engine.name):
                if engine.name in self._workers:
                    compare(engine, self._outputs(self._workers[engine.name]), reference)

    def _outputs(self, worker: Worker) -> Outputs:
        shape = self.report.shape
        ids, mask = random_ids(shape, [min(n, shape.positions) for n in _CHECK_LENGTHS])
        hidden = worker.run_ids(ids, mask)
        vectors = worker.encode(self._plan.texts) if self._plan.texts else None
        return Outputs(None if hidden is None else hidden[mask == 1], vectors)

    def _run_ids(self, workload: IdsWorkload) -> None:
        def measure(worker: Worker, seconds: float) -> float | None:
            return worker.time_ids(workload.input_ids, workload.attention_mask, seconds)

        lengths = workload.lengths
        # Untimed: graph engines specialise and arenas grow on the first call of a shape.
        names = []
        for name in list(self._workers):
            with self._survive(name):
                if measure(self._workers[name], 0.0) is not None:
                    names.append(name)
        self._rounds(
            WorkloadReport(workload.name, None, sum(lengths), self.report.shape.flop(lengths)), names, measure
        )

    def _run_texts(self) -> None:
        texts = self._plan.texts
        counts: dict[str, list[int]] = {}
        for name in list(self._workers):
            with self._survive(name):
                counts[name] = self._workers[name].count_tokens(texts)
        if not counts:
            return
        first, lengths = next(iter(counts.items()))
        for name, other in counts.items():
            differing = sum(a != b for a, b in zip(lengths, other, strict=True))
            if differing:
                self.report.notes.append(
                    f"{name} counts other tokens than {first} in {differing} of {len(texts)} texts."
                )
        # No warm-up: the check of the outputs was one.
        self._rounds(
            WorkloadReport("text", len(texts), sum(lengths), self.report.shape.flop(lengths)),
            list(counts),
            lambda worker, _: worker.time_encode(texts),
        )

    def _rounds(self, workload: WorkloadReport, names: Sequence[str], measure: Measure) -> None:
        self.report.workloads.append(workload)
        for number in range(self._plan.rounds):
            self._log(f"{workload.name}: round {number + 1} of {self._plan.rounds}")
            workload.rounds += 1
            for dtype in dict.fromkeys(contender.dtype for contender in self._plan.contenders):
                peak = machine.measure_peak(_PEAK_SECONDS, self._setup.threads, dtype)
                if peak is not None:
                    workload.peak.setdefault(dtype, []).append(peak)
            for name in rotated(names, number):
                with self._survive(name):
                    if name in self._workers:
                        seconds = measure(self._workers[name], self._plan.slice_seconds)
                        if seconds is not None:
                            workload.seconds.setdefault(name, []).append(seconds)


@dataclass(frozen=True)
class Outputs:
    """What an engine computes on the same input as the others.

    Attributes:
        hidden: hidden states (T, D) of the valid tokens of a padded batch; None from an engine for texts
        only. vectors: (n, D) of the texts; None without texts.
    """

    hidden: NDArray[np.float32] | None
    vectors: NDArray[np.float32] | None


def compare(engine: EngineReport, outputs: Outputs, reference: Outputs) -> None:
    """Writes the differences between two outputs into the engine's report.

    Raises:
        EngineError: the outputs have other shapes, so they are not those of the same model.
    """
    if outputs.hidden is not None and reference.hidden is not None:
        _check_shapes("hidden states", outputs.hidden, reference.hidden)
        engine.max_difference = float(np.abs(outputs.hidden - reference.hidden).max())
    if outputs.vectors is not None and reference.vectors is not None:
        _check_shapes("vectors", outputs.vectors, reference.vectors)
        cosines = cosine(outputs.vectors, reference.vectors)
        engine.cosine_min, engine.cosine_mean = float(cosines.min()), float(cosines.mean())


def _check_shapes(what: str, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    if ours.shape != theirs.shape:
        raise EngineError(f"{what}: expected shape {theirs.shape} like {REFERENCE}, got {ours.shape}")


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines (n,) of the rows of two (n, D), in float64: float32 cannot tell 1 - 1e-8 from 1."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray((x * y).sum(axis=1) / norms)
