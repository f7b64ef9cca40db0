"""Points of a roofline lie where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertfast.bench.ops import OpReport, OpsReport
from bertfast.bench.report import EngineReport, Report, WorkloadReport
from bertfast.bench.roofline import Point, draw, points_of_engines, points_of_ops
from bertfast.bench.workloads import ModelShape
from bertfast.errors import ArgumentError

SHAPE = ModelShape(layers=2, hidden=64, intermediate=256, heads=2, vocabulary=100, positions=512)


def test_operations_without_multiply_adds_have_no_place():
    report = OpsReport(["toy"], {}, "avx2")
    report.ops = [
        OpReport("gemm 1 x 2 x 3", "int8", flop=600, bytes=30, seconds=2.0, limit=1.0),
        OpReport("gelu 1 x 2", "float32", flop=0, bytes=30, seconds=2.0, limit=1.0),
    ]
    assert points_of_ops(report) == [Point("gemm, int8", 20.0, 300.0)]


def test_workloads_read_every_weight_once():
    shapes = [WorkloadReport("1x16", None, 16, 10**6, seconds={"ours": [0.5], "ours-int8": [0.25]})]
    texts = WorkloadReport("text", 3, 16, 10**6, seconds={"ours": [0.5]})
    engines = [EngineReport("ours"), EngineReport("ours-int8", "int8"), EngineReport("absent")]
    report = Report("toy", SHAPE, {}, 1, 1, "", engines, [*shapes, texts])
    weights = 2 * (4 * 64 * 64 + 2 * 64 * 256)
    rows = 2 * 4 * 16 * 64
    assert points_of_engines(report) == [
        Point("ours", 10**6 / (4 * weights + rows), 2e6, "1x16"),
        Point("ours-int8", 10**6 / (weights + rows), 4e6, "1x16"),
    ]


def test_picture(tmp_path: Path):
    points = [Point("a", 1.0, 1e9, "here"), Point("b", 100.0, 1e11)]
    peaks, bandwidths = {"float32": 2e11}, {"memory": 2e10}
    path = tmp_path / "out.png"
    draw("toy", points, peaks, bandwidths, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ArgumentError, match="nothing was measured"):
        draw("toy", [], peaks, bandwidths, path)
