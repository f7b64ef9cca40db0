"""The figures of a run, the arithmetic on them, and the tables for terminal, README and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bertfast.bench.workloads import ModelShape

Row = Sequence[str]
_NONE = "-"


@dataclass
class EngineReport:
    """What is known of one engine.

    Attributes:
        name: the engine.
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
        peak: FLOP/s of the machine, one per round.
        seconds: per engine, one time per round; the i-th times of all engines are of the same round.
    """

    name: str
    texts: int | None
    tokens: int
    flop: int
    peak: list[float] = field(default_factory=list)
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

    def share(self, engine: str) -> float | None:
        """Share of the machine's peak, measured in the same rounds: FLOP over time over peak, median."""
        times = self.seconds.get(engine)
        if not times:
            return None
        return median(self.flop / time / peak for time, peak in zip(times, self.peak, strict=True))


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
        engines: in the order asked for; the first without failure is compared with the others.
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

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: the raw times of every round, and everything derived from them."""
        data = asdict(self)
        names = [engine.name for engine in self.measured]
        for workload, entry in zip(self.workloads, data["workloads"], strict=True):
            entry["derived"] = {
                name: {
                    "seconds": workload.time(name),
                    "tokens_per_second": workload.tokens_per_second(name),
                    "texts_per_second": workload.texts_per_second(name),
                    "share_of_peak": workload.share(name),
                    f"speedup_of_{names[0]}": workload.ratio(names[0], name),
                }
                for name in names
            }
        return data

    def render(self, markdown: bool = False) -> str:
        """The tables: times, speed-up, tokens/s, share of peak, and one line of facts per engine."""
        blocks = ["\n".join(self._title())]
        for caption, rows in self._tables():
            if len(rows) > 1:
                table = markdown_table(rows) if markdown else text_table(rows)
                blocks.append(f"**{caption}**\n\n{table}" if markdown else f"{caption}\n{table}")
        remarks = [f"{e.name} failed: {e.failure}" for e in self.engines if e.failure is not None]
        remarks += self.notes
        if remarks:
            blocks.append("\n".join(f"- {remark}" for remark in remarks))
        return "\n\n".join(blocks) + "\n"

    def _title(self) -> list[str]:
        shape, machine = self.shape, self.machine
        peaks = [peak for workload in self.workloads for peak in workload.peak]
        peak = f", FMA peak {median(peaks) / 1e9:.0f} GFLOP/s" if peaks else ""
        return [
            f"{self.model}: {shape.layers} layers x {shape.hidden}, {shape.heads} heads, float32, "
            f"{self.threads} thread{'s' if self.threads > 1 else ''}, {self.rounds} rounds",
            f"{machine['cpu']}, {machine['cores']} cores, {machine['isa']}{peak}",
            *(
                f"{self._head(w)}: {w.tokens:,} tokens, {w.tokens / w.texts:.0f} on average"
                for w in self.workloads
                if w.texts
            ),
        ]

    def _tables(self) -> list[tuple[str, list[Row]]]:
        engines = [engine.name for engine in self.measured]
        if not engines:
            return []
        first, peers = engines[0], engines[1:]
        heads = [self._head(workload) for workload in self.workloads]

        def table(title: str, names: Sequence[str], cell: Any) -> list[Row]:
            return [[title, *heads], *([name, *(cell(w, name) for w in self.workloads)] for name in names)]

        return [
            ("Time", table("ms", engines, lambda w, e: milliseconds(w.time(e)))),
            (
                f"Speed of {first} divided by that of",
                table("times", peers, lambda w, e: number(w.ratio(first, e), "{:.2f}x")),
            ),
            ("Throughput", self._throughput(engines)),
            (
                "Share of the FMA peak (matrix products and attention of valid tokens)",
                table("share", engines, lambda w, e: number(w.share(e), "{:.0%}")),
            ),
            ("Engines", self._facts()),
        ]

    def _throughput(self, engines: Sequence[str]) -> list[Row]:
        """Tokens/s of every workload, and texts/s of those that are texts."""
        texts = [workload for workload in self.workloads if workload.texts is not None]
        rows: list[Row] = [["tokens/s", *map(self._head, self.workloads), *("texts/s" for _ in texts)]]
        for name in engines:
            tokens = [number(w.tokens_per_second(name), "{:,.0f}") for w in self.workloads]
            rows.append([name, *tokens, *(number(w.texts_per_second(name), "{:,.1f}") for w in texts)])
        return rows

    def _head(self, workload: WorkloadReport) -> str:
        return workload.name if workload.texts is None else f"{workload.texts:,} texts"

    def _facts(self) -> list[Row]:
        rows: list[Row] = [
            ["", "load + first", "peak RSS", "anonymous", "max diff", "mean cosine", "min cosine", "version"]
        ]
        for e in self.measured:
            rows.append(
                [
                    e.name,
                    number(e.load_seconds, "{:.2f} s"),
                    number(e.peak_mib, "{:,.0f} MiB"),
                    number(e.anon_mib, "{:,.0f} MiB"),
                    number(e.max_difference, "{:.1e}"),
                    number(e.cosine_mean, "{:.7f}"),
                    number(e.cosine_min, "{:.7f}"),
                    e.version or _NONE,
                ]
            )
        return rows


def number(value: float | None, form: str) -> str:
    """A formatted number, a dash for None."""
    return _NONE if value is None else form.format(value)


def milliseconds(seconds: float | None) -> str:
    """Three significant digits or all before the point: ``2.72``, ``16.8``, ``5,747``."""
    if seconds is None:
        return _NONE
    value = seconds * 1e3
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def text_table(rows: Sequence[Row]) -> str:
    """Aligned columns for a terminal: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(rows: Sequence[Row]) -> str:
    """The same as a Markdown table."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])
