"""A roofline: what is computed per second over what is computed per byte that must be moved.

What lies under the slope of a bandwidth is limited by it, the rest by the peak of its dtype; the distance to
the lines is what is left to gain.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertfast.bench.ops import OpsReport
from bertfast.bench.report import Report
from bertfast.errors import ArgumentError

_MARKERS = "os^Dvp*Xh"


@dataclass(frozen=True)
class Point:
    """Something that was measured.

    Attributes:
        series: points of one series look alike.
        intensity: FLOP per byte.
        rate: FLOP/s.
        label: shown beside the point.
    """

    series: str
    intensity: float
    rate: float
    label: str = ""


def points_of_ops(report: OpsReport) -> list[Point]:
    """The operations that are made of multiply-adds."""
    return [
        Point(f"{op.name.split()[0]}, {op.dtype}", op.flop / op.bytes, op.rate)
        for op in report.ops
        if op.flop
    ]


def points_of_engines(report: Report) -> list[Point]:
    """Every workload of every engine, with the bytes of `ModelShape.bytes`."""
    points = []
    for engine in report.measured:
        first = report.measured_in(engine.dtype)[0] is engine
        for workload in report.workloads:
            time = workload.time(engine.name)
            if time is not None and workload.texts is None:
                intensity = workload.flop / report.shape.bytes(workload.tokens, engine.dtype)
                label = workload.name if first else ""
                points.append(Point(engine.name, intensity, workload.flop / time, label))
    return points


def draw(
    title: str,
    points: Sequence[Point],
    peaks: Mapping[str, float],
    bandwidths: Mapping[str, float],
    path: Path,
) -> None:
    """Writes the picture.

    Args:
        title: above it.
        points: what was measured.
        peaks: FLOP/s per dtype.
        bandwidths: bytes/s by where from.
        path: PNG, or what else matplotlib writes.

    Raises:
        ArgumentError: Nothing was measured.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    if not points:
        raise ArgumentError("nothing was measured, so there is nothing to draw")
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes: Any = figure.subplots()
    highest = max(peaks.values(), default=max(point.rate for point in points))
    # From where even the fastest memory is a limit.
    left = min([point.intensity for point in points] + [highest / rate for rate in bandwidths.values()]) / 3
    right = max(point.intensity for point in points) * 3
    for dtype, peak in peaks.items():
        axes.plot([left, right], [peak / 1e9] * 2, color="black", linewidth=0.8)
        axes.annotate(f"{dtype} peak", (right, peak / 1e9), ha="right", va="bottom", fontsize=8)
    for place, bandwidth in bandwidths.items():
        end = min(right, highest / bandwidth)
        axes.plot(
            [left, end],
            [left * bandwidth / 1e9, end * bandwidth / 1e9],
            color="gray",
            linestyle="--",
            linewidth=0.8,
        )
        axes.annotate(place, (left, left * bandwidth / 1e9), ha="left", va="bottom", fontsize=8, color="gray")
    for number, series in enumerate(dict.fromkeys(point.series for point in points)):
        mine = [point for point in points if point.series == series]
        x, y = [point.intensity for point in mine], [point.rate / 1e9 for point in mine]
        axes.scatter(x, y, s=24, marker=_MARKERS[number % len(_MARKERS)], label=series, zorder=3)
        for point in mine:
            axes.annotate(
                point.label,
                (point.intensity, point.rate / 1e9),
                fontsize=7,
                xytext=(3, 3),
                textcoords="offset points",
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set_xlabel("FLOP per byte")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(title)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
