"""Draws a report: what each engine computes per second, against what the machine could."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertfast.bench.dtypes import DTYPES
from bertfast.bench.report import Report
from bertfast.errors import ArgumentError


def check_picture(option: str, path: str) -> None:
    """That a picture can be written, before what is to be in it is measured.

    Raises:
        ArgumentError: matplotlib is missing, or does not know the file's suffix.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ArgumentError(f"--{option} needs matplotlib, which is not installed") from error
    known = FigureCanvasBase.get_supported_filetypes()
    suffix = Path(path).suffix.removeprefix(".").lower()
    # Without a suffix it is PNG.
    if suffix and suffix not in known:
        raise ArgumentError(f"--{option} {path}: expected one of {', '.join(sorted(known))}, got {suffix}")


def plot(report: Report, path: Path) -> None:
    """Writes grouped bars of GFLOP/s over valid tokens; the lines are the machine's peaks in the same run.

    Raises:
        ArgumentError: Nothing was measured.
    """
    from matplotlib.figure import Figure

    engines = [engine.name for engine in report.measured]
    if not engines:
        raise ArgumentError("nothing was measured, so there is nothing to plot")
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes: Any = figure.subplots()
    width = 0.8 / len(engines)
    for row, name in enumerate(engines):
        times = [workload.time(name) for workload in report.workloads]
        bars = [
            0.0 if time is None else workload.flop / time / 1e9
            for workload, time in zip(report.workloads, times, strict=True)
        ]
        offsets = [i + (row - (len(engines) - 1) / 2) * width for i in range(len(bars))]
        axes.bar(offsets, bars, width, label=name)
    for dtype, style in zip(DTYPES, ("--", "-.", ":"), strict=True):
        peak = report.peak(dtype)
        if peak is not None:
            axes.axhline(peak / 1e9, color="black", linestyle=style, linewidth=1, label=f"{dtype} peak")
    labels = [w.name if w.texts is None else f"{w.texts:,} texts" for w in report.workloads]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylabel("GFLOP/s (valid tokens)")
    axes.set_title(f"{report.model}, {report.threads} threads\n{report.machine['cpu']}")
    axes.legend(ncols=2)
    figure.savefig(path, dpi=150)
