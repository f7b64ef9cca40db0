"""The latency mode: from its options to its tables, and the arithmetic on what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertfast.bench.latency import LatencyReport, LatencySeries
from bertfast.cli import main

WORKING, DYING, MISSING, FAILING_LATE = (
    f"fake_engines.{name}" for name in ("working", "dying", "missing_library", "failing_late")
)


def series(name: str, threads: int, **rounds: list[list[float]]) -> LatencySeries:
    seconds = {float(rate.removeprefix("at")): values for rate, values in rounds.items()}
    return LatencySeries(name, "float32", threads, version="1", seconds=seconds)


@pytest.fixture
def report() -> LatencyReport:
    return LatencyReport(
        model="toy",
        machine={"cpu": "A CPU", "cores": 2, "isa": "avx512"},
        threads=2,
        callers=4,
        rates=[100.0, 300.0],
        rounds=3,
        round_seconds=2.0,
        queries=50,
        series=[
            series("ours", 1, at100=[[0.002], [0.002], [0.002]], at300=[[0.004], [0.004], [0.004]]),
            series("ours", 2, at100=[[0.001], [0.001], [0.001]], at300=[[0.009], [0.009], [0.009]]),
            series("peer", 1, at100=[[0.003], [0.005], [0.100]], at300=[[0.004], [0.008], [0.012]]),
            LatencySeries("absent", "float32", 1, failure="absent is not installed"),
            LatencySeries("absent", "float32", 2, failure="absent is not installed"),
        ],
    )


def test_each_engine_is_taken_in_its_better_setting_at_each_rate(report: LatencyReport):
    better = [report.better("ours", rate) for rate in report.rates]
    assert [s.threads_per_call for s in better if s is not None] == [2, 1]
    assert report.better("absent", 100.0) is None


def test_ratio_is_the_median_of_the_ratios_within_rounds(report: LatencyReport):
    assert report.ratio("ours", "peer", 100.0, 0.99) == pytest.approx(5)
    assert report.ratio("ours", "peer", 300.0, 0.5) == pytest.approx(2)
    assert report.ratio("ours", "absent", 300.0, 0.5) is None


def test_quantiles_are_over_all_rounds():
    s = series("ours", 1, at10=[[0.001, 0.002], [0.003, 0.004, 0.005]])
    assert s.quantile(10.0, 0.5) == pytest.approx(0.003)
    assert s.quantile(10.0, 1.0) == pytest.approx(0.005)
    assert s.quantile(20.0, 0.5) is None


def test_an_engine_that_does_not_keep_up_is_not_hidden():
    # 1 of 50 waits long: p50 does not know, p99 does.
    s = series("ours", 1, at10=[[0.001] * 49 + [1.0]])
    assert s.quantile(10.0, 0.5) == pytest.approx(0.001)
    assert s.quantile(10.0, 0.99) > 0.5


@pytest.mark.parametrize("markdown", [False, True])
def test_tables_show_every_setting(report: LatencyReport, markdown: bool):
    text = report.render(markdown)
    for figure in ("2.0 / 2.0", "1.0 / 1.0", "9.0 / 9.0", "5.00x / 5.00x", "2.00x / 2.00x"):
        assert figure in text
    assert "4 callers, 50 short queries, 3 rounds of 2 s" in text
    assert text.count("absent: not available: absent is not installed") == 1
    derived = json.loads(json.dumps(report.to_dict()))["series"][1]["derived"]
    assert derived["300"]["p99"] == pytest.approx(0.009)


def latency(tmp_path: Path, *options: str) -> list[str]:
    small = ["--quick", "--rounds", "2", "--seconds", "0.1", "--rate", "100", "50", "--threads", "2"]
    return ["bench", "--random", "1x64", "--latency", *small, "--prepared", str(tmp_path / "p"), *options]


def test_engines_in_both_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    figures = tmp_path / "out.json"
    engines = ["--engines", f"bertfast,{WORKING},{MISSING},{DYING},{FAILING_LATE}"]
    assert main(latency(tmp_path, *engines, "--json", str(figures))) == 0
    shown = capsys.readouterr().out
    assert f"{MISSING}: not available: no_such_library is not installed" in shown
    data = json.loads(figures.read_text())
    found = {(s["name"], s["threads_per_call"]): s for s in data["series"]}
    assert set(found) == {(e, n) for e in ("bertfast", WORKING, MISSING, DYING, FAILING_LATE) for n in (1, 2)}
    for name in ("bertfast", WORKING, DYING):  # That one dies of ids, and here are none.
        for threads in (1, 2):
            rounds = found[name, threads]["seconds"]
            assert [len(r) for r in rounds["100.0"]] == [10, 10]
            assert [len(r) for r in rounds["50.0"]] == [5, 5]
            assert all(latency > 0 for rate in rounds.values() for r in rate for latency in r)
    assert found[FAILING_LATE, 1]["failure"] == "MemoryError: worn out"
    assert "100.0" not in found[FAILING_LATE, 1]["seconds"]


def test_threads_per_call_and_callers_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--engines", WORKING, "--threads-per-call", "2", "--callers", "3"]
    assert main(latency(tmp_path, *options)) == 0
    shown = capsys.readouterr().out
    assert "2 threads, 3 callers" in shown
    rows = [line for line in shown.splitlines() if line.startswith(WORKING)]
    assert [row.split()[1] for row in rows] == ["2"]


def test_if_nothing_can_be_measured_the_status_is_1(tmp_path: Path):
    assert main(latency(tmp_path, "--engines", MISSING)) == 1
