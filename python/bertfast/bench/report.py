"""The figures of a run, the arithmetic on them, and the tables for terminal, README and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bertfast.bench.dtypes import DTYPES, FLOAT32
from bertfast.bench.tables import NONE, Row, captioned, milliseconds, number, remarks
from bertfast.bench.workloads import ModelShape


@dataclass
class EngineReport:
    """What is known of one engine.

    Attributes:
        name: the engine, with the dtype unless that is float32.
        dtype: what it computes in.
        version: of its library.
        failure: why it could not be measured (or not to the end), None if all went well.
        load_seconds: from its first import to the first vector, files in the page cache.
        peak_mib: highest resident memory, file pages included.
        anon_mib: highest resident anonymous memory.
        max_difference: largest absolute difference of a hidden state from float32 transformers.
        cosine_min: smallest cosine of a text's vector with that of float32 transformers.
        cosine_mean: mean of these cosines.
    """

    name: str
    dtype: str = FLOAT32
    version: str | None = None
    failure: str | None = None
    load_seconds: float | None = None
    peak_mib: float | None = None
    anon_mib: float | None = None
    max_difference: float | None = None
    cosine_min: float | None = None
    cosine_mean: float | None = None


@dataclass
class WorkloadReport:
    """The times of one workload.

    Attributes:
        name: ``BxS`` or ``text``.
        texts: number of texts, None for a fixed shape.
        tokens: valid tokens.
        flop: of matrix products and attention over valid tokens.
        rounds: how many there were.
        peak: per dtype, FLOP/s of the machine, one per round; a dtype that it cannot compute in is left out.
        seconds: per engine, one time per round; the i-th times of all engines are of the same round.
    """

    name: str
    texts: int | None
    tokens: int
    flop: int
    rounds: int = 0
    peak: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def time(self, engine: str) -> float | None:
        """Median seconds of an engine."""
        times = self.seconds.get(engine)
        return median(times) if times else None

    def tokens_per_second(self, engine: str) -> float | None:
        """Valid tokens over the median time."""
        time = self.time(engine)
        return None if time is None else self.tokens / time

    def texts_per_second(self, engine: str) -> float | None:
        """Texts over the median time, None for a fixed shape."""
        time = self.time(engine)
        return None if time is None or self.texts is None else self.texts / time

    def ratio(self, engine: str, peer: str) -> float | None:
        """How many times as fast ``engine`` is as ``peer``: the median of the ratios within each round.

        Not the ratio of the medians: what slows a whole round down must cancel.
        """
        ours, theirs = self.seconds.get(engine), self.seconds.get(peer)
        if not ours or not theirs:
            return None
        return median(b / a for a, b in zip(ours, theirs, strict=True))

    def share(self, engine: EngineReport) -> float | None:
        """FLOP over time over the machine's peak in the engine's dtype, within rounds: their median."""
        times, peaks = self.seconds.get(engine.name), self.peak.get(engine.dtype)
        if not times or not peaks:
            return None
        return median(self.flop / time / peak for time, peak in zip(times, peaks, strict=True))


@dataclass
class Report:
    """Everything of one run.

    Attributes:
        model: its name.
        shape: its sizes.
        machine: CPU, cores, versions.
        threads: threads of every engine.
        rounds: rounds per workload.
        date: ISO 8601, UTC.
        engines: in the order asked for; the first measured one of a dtype is compared with the others of it.
        workloads: in the order of the tables.
        notes: what the reader should know besides.
    """

    model: str
    shape: ModelShape
    machine: dict[str, Any]
    threads: int
    rounds: int
    date: str
    engines: list[EngineReport] = field(default_factory=list)
    workloads: list[WorkloadReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def measured(self) -> list[EngineReport]:
        """The engines that have at least one time."""
        return [e for e in self.engines if any(w.seconds.get(e.name) for w in self.workloads)]

    def measured_in(self, dtype: str) -> list[EngineReport]:
        """Those that compute in ``dtype``."""
        return [engine for engine in self.measured if engine.dtype == dtype]

    def peak(self, dtype: str) -> float | None:
        """The machine's FLOP/s in a dtype, the median over all rounds."""
        peaks = [peak for workload in self.workloads for peak in workload.peak.get(dtype, ())]
        return median(peaks) if peaks else None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: the raw times of every round, and everything derived from them."""
        data = asdict(self)
        for workload, entry in zip(self.workloads, data["workloads"], strict=True):
            entry["derived"] = {}
            for engine in self.measured:
                first = self.measured_in(engine.dtype)[0].name
                entry["derived"][engine.name] = {
                    "seconds": workload.time(engine.name),
                    "tokens_per_second": workload.tokens_per_second(engine.name),
                    "texts_per_second": workload.texts_per_second(engine.name),
                    "share_of_peak": workload.share(engine),
                    f"speedup_of_{first}": workload.ratio(first, engine.name),
                }
        return data

    def render(self, markdown: bool = False) -> str:
        """Per dtype the tables: times, speed-up, tokens/s, share of peak, and a line of facts per engine."""
        blocks = ["\n".join(self._title())]
        for dtype in DTYPES:
            blocks += [
                captioned(title, rows, markdown) for title, rows in self._tables(dtype) if len(rows) > 1
            ]
        notes = [f"{e.name}: {self._verdict(e)}: {e.failure}" for e in self.engines if e.failure is not None]
        notes += self.notes
        if notes:
            blocks.append(remarks(notes))
        return "\n\n".join(blocks) + "\n"

    def _verdict(self, engine: EngineReport) -> str:
        return "failed" if engine.version is not None else "not available"

    def _title(self) -> list[str]:
        shape, machine = self.shape, self.machine
        peaks = [(dtype, self.peak(dtype)) for dtype in DTYPES]
        measured = [f"{dtype} {peak / 1e9:,.0f}" for dtype, peak in peaks if peak is not None]
        return [
            f"{self.model}: {shape.layers} layers x {shape.hidden}, {shape.heads} heads, "
            f"{self.threads} thread{'s' if self.threads > 1 else ''}, {self.rounds} rounds",
            f"{machine['cpu']}, {machine['cores']} cores, {machine['isa']}",
            *([f"peak in GFLOP/s: {', '.join(measured)}"] if measured else []),
            *(
                f"{self._head(w)}: {w.tokens:,} tokens, {w.tokens / w.texts:.0f} on average"
                for w in self.workloads
                if w.texts
            ),
        ]

    def _tables(self, dtype: str) -> list[tuple[str, list[Row]]]:
        engines = self.measured_in(dtype)
        if not engines:
            return []
        first, peers = engines[0], engines[1:]
        heads = [self._head(workload) for workload in self.workloads]

        def table(title: str, engines: Sequence[EngineReport], cell: Any) -> list[Row]:
            return [[title, *heads], *([e.name, *(cell(w, e) for w in self.workloads)] for e in engines)]

        return [
            (f"Time, {dtype}", table("ms", engines, lambda w, e: milliseconds(w.time(e.name)))),
            (
                f"Speed of {first.name} divided by that of",
                table("times", peers, lambda w, e: number(w.ratio(first.name, e.name), "{:.2f}x")),
            ),
            (f"Throughput, {dtype}", self._throughput(engines)),
            (
                f"Share of the {dtype} peak (matrix products and attention of valid tokens)",
                table("share", engines, lambda w, e: number(w.share(e), "{:.0%}"))
                if self.peak(dtype) is not None
                else [],
            ),
            (f"Engines, {dtype}: accuracy is against float32 transformers", self._facts(engines)),
        ]

    def _throughput(self, engines: Sequence[EngineReport]) -> list[Row]:
        """Tokens/s of every workload, and texts/s of those that are texts."""
        texts = [workload for workload in self.workloads if workload.texts is not None]
        rows: list[Row] = [["tokens/s", *map(self._head, self.workloads), *("texts/s" for _ in texts)]]
        for name in (engine.name for engine in engines):
            tokens = [number(w.tokens_per_second(name), "{:,.0f}") for w in self.workloads]
            rows.append([name, *tokens, *(number(w.texts_per_second(name), "{:,.1f}") for w in texts)])
        return rows

    def _head(self, workload: WorkloadReport) -> str:
        return workload.name if workload.texts is None else f"{workload.texts:,} texts"

    def _facts(self, engines: Sequence[EngineReport]) -> list[Row]:
        rows: list[Row] = [
            ["", "load + first", "peak RSS", "anonymous", "max diff", "mean cosine", "min cosine", "version"]
        ]
        for e in engines:
            rows.append(
                [
                    e.name,
                    number(e.load_seconds, "{:.2f} s"),
                    number(e.peak_mib, "{:,.0f} MiB"),
                    number(e.anon_mib, "{:,.0f} MiB"),
                    number(e.max_difference, "{:.1e}"),
                    number(e.cosine_mean, "{:.7f}"),
                    number(e.cosine_min, "{:.7f}"),
                    e.version or NONE,
                ]
            )
        return rows
