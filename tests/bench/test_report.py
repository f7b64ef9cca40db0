"""The arithmetic on measured times, and the tables."""

from __future__ import annotations

import json

import pytest

from bertfast.bench.plot import plot
from bertfast.bench.report import EngineReport, Report, WorkloadReport
from bertfast.bench.tables import markdown_table, milliseconds, text_table
from bertfast.bench.workloads import ModelShape
from bertfast.errors import ArgumentError

SHAPE = ModelShape(layers=6, hidden=384, intermediate=1536, heads=12, vocabulary=30522, positions=512)


def workload(**seconds: list[float]) -> WorkloadReport:
    return WorkloadReport("1x128", None, 128, 4_000_000_000, 3, {"float32": [200e9, 200e9, 100e9]}, seconds)


@pytest.fixture
def report() -> Report:
    return Report(
        model="toy",
        shape=SHAPE,
        machine={"cpu": "A CPU", "cores": 2, "isa": "avx512"},
        threads=2,
        rounds=3,
        date="2020-01-01T00:00:00+00:00",
        engines=[
            EngineReport("ours", version="1", load_seconds=0.1234, max_difference=2.5e-6),
            EngineReport("absent", failure="absent is not installed"),
            EngineReport("peer", version="2", peak_mib=1234.5, cosine_min=0.99999987),
        ],
        workloads=[
            workload(ours=[0.02, 0.04, 0.08], peer=[0.06, 0.08, 0.08]),
            WorkloadReport(
                "text", 2000, 92_000, 10**12, 3, {"float32": [200e9] * 3}, {"peer": [20.0, 21.0, 22.0]}
            ),
        ],
    )


def test_ratio_is_the_median_of_the_ratios_within_rounds():
    result = workload(ours=[1.0, 2.0, 10.0], peer=[3.0, 4.0, 10.0])
    # Per round 3, 2, 1; the ratio of the medians would be 4 / 2 as well, so move one round:
    assert result.ratio("ours", "peer") == 2.0
    result = workload(ours=[1.0, 2.0, 3.0], peer=[9.0, 2.0, 6.0])
    assert result.ratio("ours", "peer") == 2.0  # 9, 1, 2; the ratio of the medians is 3
    assert result.ratio("peer", "ours") == 0.5
    assert result.ratio("ours", "nobody") is None


def test_ratio_never_pairs_different_rounds():
    with pytest.raises(ValueError, match="zip"):
        workload(ours=[1.0, 2.0], peer=[1.0]).ratio("ours", "peer")


def test_share_is_taken_within_rounds():
    # 4 GFLOP: 200, 100, 50 GFLOP/s of a peak of 200, 200, 100.
    result = workload(ours=[0.02, 0.04, 0.08])
    assert result.share(EngineReport("ours")) == pytest.approx(0.5)
    assert result.share(EngineReport("nobody")) is None


def test_time_and_throughput_are_medians():
    result = workload(ours=[0.5, 0.1, 0.2])
    assert result.time("ours") == 0.2
    assert result.tokens_per_second("ours") == pytest.approx(640)
    assert result.time("nobody") is None


@pytest.mark.parametrize("markdown", [False, True])
def test_tables_show_every_figure_and_name_the_engine_that_failed(report: Report, markdown: bool):
    text = report.render(markdown)
    for figure in ("40.0", "80.0", "2.00x", "3,200", "50%", "0.12 s", "1,234 MiB", "2.5e-06", "0.9999999"):
        assert figure in text
    assert "2,000 texts" in text
    assert "21,000" in text
    assert "2,000 texts: 92,000 tokens, 46 on average" in text
    assert "95.2" in text  # 2,000 texts in 21 s
    assert "absent: not available: absent is not installed" in text
    assert "A CPU, 2 cores, avx512\npeak in GFLOP/s: float32 200\n" in text


def test_without_any_engine_there_is_still_a_reason(report: Report):
    report.workloads.clear()
    assert report.measured == []
    assert "absent: not available" in report.render()


def test_json_holds_raw_and_derived_figures(report: Report):
    data = json.loads(json.dumps(report.to_dict()))
    first = data["workloads"][0]
    assert first["seconds"]["ours"] == [0.02, 0.04, 0.08]
    assert first["derived"]["peer"]["speedup_of_ours"] == 2.0
    assert first["derived"]["ours"]["share_of_peak"] == pytest.approx(0.5)
    assert data["engines"][1]["failure"] == "absent is not installed"
    assert data["workloads"][1]["derived"]["ours"]["seconds"] is None


def test_plot_writes_a_picture(report: Report, tmp_path):
    path = tmp_path / "out.png"
    plot(report, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    report.workloads.clear()
    with pytest.raises(ArgumentError, match="nothing was measured"):
        plot(report, path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.00272, "2.72"), (0.009996, "10.0"), (0.0168, "16.8"), (0.1145, "114"), (5.747, "5,747")],
)
def test_milliseconds_have_three_digits(seconds, text):
    assert milliseconds(seconds) == text


def test_table_layouts():
    rows = [["ms", "1x16"], ["bertfast", "2.0"]]
    assert text_table(rows) == "ms        1x16\n--------------\nbertfast   2.0"
    assert markdown_table(rows) == "| ms | 1x16 |\n| --- | ---: |\n| bertfast | 2.0 |"


def test_each_dtype_has_its_own_tables_and_its_own_peak(report: Report):
    report.engines += [
        EngineReport("ours-int8", "int8", version="1"),
        EngineReport("peer-int8", "int8", version="2"),
    ]
    report.workloads[0].seconds |= {"ours-int8": [0.01] * 3, "peer-int8": [0.03] * 3}
    report.workloads[0].peak["int8"] = [800e9] * 3
    text = report.render()
    assert "peak in GFLOP/s: float32 200, int8 800" in text
    speeds = [block for block in text.split("\n\n") if block.startswith("Speed of")]
    assert [block.splitlines()[0] for block in speeds] == [
        "Speed of ours divided by that of",
        "Speed of ours-int8 divided by that of",
    ]
    assert "peer-int8" not in speeds[0]
    assert "3.00x" in speeds[1]
    share = next(block for block in text.split("\n\n") if block.startswith("Share of the int8 peak"))
    assert "50%" in share
    assert "100%" not in share
    derived = report.to_dict()["workloads"][0]["derived"]
    assert derived["peer-int8"]["speedup_of_ours-int8"] == pytest.approx(3)


def test_without_a_peak_there_is_no_share(report: Report):
    report.workloads[0].peak.clear()
    report.workloads[1].peak.clear()
    text = report.render()
    assert "Share" not in text
    assert "peak" not in text.replace("peak RSS", "")
