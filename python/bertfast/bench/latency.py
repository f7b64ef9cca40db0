"""``bertfast bench --latency``: how long short queries wait at one model that several threads call.

Every engine gets the same arrivals and the same queries in a round, tokenization included, in each of its
settings: one thread per call, so that calls run side by side, or all threads for one call after the other.
Which is better differs between engines and rates; both are shown, and compared are the better ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from bertfast.bench import machine
from bertfast.bench.dtypes import DTYPES
from bertfast.bench.engines import Contender, Setup
from bertfast.bench.open_loop import poisson
from bertfast.bench.tables import NONE, Row, captioned, number, remarks
from bertfast.bench.worker import EngineError, Worker
from bertfast.bench.workloads import SEED, rotated

_WARM_UP_SECONDS = 0.5


@dataclass(frozen=True)
class LatencyPlan:
    """What to run.

    Attributes:
        name: what to call the model.
        contenders: engines in a dtype each; the first measured one of a dtype is compared with its others.
        queries: what arrives.
        rates: arrivals a second; each is a measurement of its own.
        callers: threads that call the engine.
        threads_per_call: the settings.
        rounds: how often each engine is measured at each rate.
        seconds: of arrivals in a round.
        verbose: let the engines write to standard error.
    """

    name: str
    contenders: Sequence[Contender]
    queries: Sequence[str]
    rates: Sequence[float]
    callers: int
    threads_per_call: Sequence[int]
    rounds: int
    seconds: float
    verbose: bool = False


@dataclass
class LatencySeries:
    """One engine in one setting.

    Attributes:
        name: the engine, with the dtype unless that is float32.
        dtype: what it computes in.
        threads_per_call: threads of one call.
        version: of its library.
        failure: why it could not be measured (or not to the end).
        seconds: per rate and round, the latencies in the order of the arrivals.
    """

    name: str
    dtype: str
    threads_per_call: int
    version: str | None = None
    failure: str | None = None
    seconds: dict[float, list[list[float]]] = field(default_factory=dict)

    def quantile(self, rate: float, q: float) -> float | None:
        """Of all latencies at a rate, in seconds."""
        rounds = self.seconds.get(rate)
        return float(np.quantile(np.concatenate(rounds), q)) if rounds else None


@dataclass
class LatencyReport:
    """Everything of one run."""

    model: str
    machine: dict[str, Any]
    threads: int
    callers: int
    rates: list[float]
    rounds: int
    round_seconds: float
    queries: int
    series: list[LatencySeries] = field(default_factory=list)

    @property
    def measured(self) -> list[LatencySeries]:
        """Those that have figures."""
        return [series for series in self.series if series.seconds]

    def better(self, name: str, rate: float) -> LatencySeries | None:
        """The setting of an engine with the lower p99 at this rate."""
        settings = [series for series in self.measured if series.name == name and rate in series.seconds]
        return min(settings, key=lambda series: series.quantile(rate, 0.99) or 0.0, default=None)

    def ratio(self, name: str, peer: str, rate: float, q: float) -> float | None:
        """How many times as long ``peer`` takes as ``name``, better settings: median over the rounds."""
        ours, theirs = self.better(name, rate), self.better(peer, rate)
        if ours is None or theirs is None:
            return None
        pairs = zip(ours.seconds[rate], theirs.seconds[rate], strict=True)
        return median(float(np.quantile(b, q) / np.quantile(a, q)) for a, b in pairs)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: all latencies, and the quantiles."""
        data = asdict(self)
        for series, entry in zip(self.series, data["series"], strict=True):
            entry["derived"] = {
                f"{rate:g}": {f"p{q}": series.quantile(rate, q / 100) for q in (50, 90, 99)}
                for rate in self.rates
            }
        return data

    def render(self, markdown: bool = False) -> str:
        """Per dtype the quantiles, and the ratios to the first engine."""
        blocks = [
            f"{self.model}, {self.threads} threads, {self.callers} callers, {self.queries:,} short queries, "
            f"{self.rounds} rounds of {self.round_seconds:g} s\n"
            f"{self.machine['cpu']}, {self.machine['cores']} cores, {self.machine['isa']}"
        ]
        for dtype in DTYPES:
            measured = [series for series in self.measured if series.dtype == dtype]
            if measured:
                caption = f"Milliseconds from arrival to vector, {dtype}: p50 / p99"
                blocks.append(captioned(caption, self._quantiles(measured), markdown))
                names = list(dict.fromkeys(series.name for series in measured))
                if len(names) > 1:
                    caption = f"p50 / p99 divided by those of {names[0]}, each in its better setting"
                    blocks.append(captioned(caption, self._ratios(names), markdown))
        failed = [series for series in self.series if series.failure is not None]
        lines = dict.fromkeys(f"{s.name}: {_verdict(s)}: {s.failure}" for s in failed)
        if lines:
            blocks.append(remarks(list(lines)))
        return "\n\n".join(blocks) + "\n"

    def _quantiles(self, measured: Sequence[LatencySeries]) -> list[Row]:
        rows: list[Row] = [["", "threads per call", *(f"{rate:g}/s" for rate in self.rates), "version"]]
        for s in measured:
            cells = [
                f"{_ms(s.quantile(rate, 0.5))} / {_ms(s.quantile(rate, 0.99))}" if rate in s.seconds else NONE
                for rate in self.rates
            ]
            rows.append([s.name, str(s.threads_per_call), *cells, s.version or NONE])
        return rows

    def _ratios(self, names: Sequence[str]) -> list[Row]:
        rows: list[Row] = [["times", *(f"{rate:g}/s" for rate in self.rates)]]
        for name in names[1:]:
            cells = []
            for rate in self.rates:
                p50, p99 = (self.ratio(names[0], name, rate, q) for q in (0.5, 0.99))
                cells.append(f"{number(p50, '{:.2f}x')} / {number(p99, '{:.2f}x')}")
            rows.append([name, *cells])
        return rows


def run(plan: LatencyPlan, setup: Setup, log: Callable[[str], None]) -> LatencyReport:
    """Measures everything in the plan; an engine that could not be prepared is in it with the reason."""
    report = LatencyReport(
        model=plan.name,
        machine=machine.describe(setup.threads),
        threads=setup.threads,
        callers=plan.callers,
        rates=list(plan.rates),
        rounds=plan.rounds,
        round_seconds=plan.seconds,
        queries=len(plan.queries),
    )
    for dtype in dict.fromkeys(contender.dtype for contender in plan.contenders):
        # Compared is within a dtype: no more engines in memory at a time than that.
        with ExitStack() as stack:
            workers: list[tuple[LatencySeries, Worker]] = []
            for contender in plan.contenders:
                for threads in plan.threads_per_call:
                    if contender.dtype == dtype:
                        series = LatencySeries(contender.name, dtype, threads)
                        report.series.append(series)
                        worker = _load(contender, series, plan, setup, log, stack)
                        if worker is not None:
                            workers.append((series, worker))
            for rate in plan.rates:
                _measure(workers, plan, rate, log)
    return report


def _load(
    contender: Contender,
    series: LatencySeries,
    plan: LatencyPlan,
    setup: Setup,
    log: Callable[[str], None],
    stack: ExitStack,
) -> Worker | None:
    log(f"loading {series.name}, threads per call: {series.threads_per_call}")
    calls = max(1, setup.threads // series.threads_per_call)
    setup = replace(setup, dtype=contender.dtype, threads=series.threads_per_call, calls=calls)
    worker = stack.enter_context(Worker(contender.engine, setup, verbose=plan.verbose))
    try:
        worker.build()
        version, _ = worker.load()
        # Untimed: each caller's first call, and the shapes that graph engines specialise for.
        worker.latencies(poisson(plan.queries, plan.rates[0], _WARM_UP_SECONDS, SEED), plan.callers)
    except EngineError as error:
        series.failure = str(error)
        worker.close()
        return None
    series.version = version
    return worker


def _measure(
    workers: list[tuple[LatencySeries, Worker]], plan: LatencyPlan, rate: float, log: Callable[[str], None]
) -> None:
    for number_ in range(plan.rounds):
        log(f"{rate:g}/s: round {number_ + 1} of {plan.rounds}")
        arrivals = poisson(plan.queries, rate, plan.seconds, SEED + 1 + number_)
        for series, worker in rotated(list(workers), number_):
            try:
                latencies = worker.latencies(arrivals, plan.callers)
            except EngineError as error:
                series.failure = str(error)
                # Fewer rounds than the others have would pair up different arrivals.
                series.seconds.pop(rate, None)
                workers.remove((series, worker))
                worker.close()
            else:
                series.seconds.setdefault(rate, []).append(latencies)


def _verdict(series: LatencySeries) -> str:
    return "failed" if series.version is not None else "not available"


def _ms(seconds: float | None) -> str:
    return NONE if seconds is None else f"{seconds * 1e3:,.1f}"
