"""`bertfast bench` from its arguments to its files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertfast.bench import run, startup
from bertfast.bench.startup import StartupReport
from bertfast.cli import main

WORKING = "fake_engines.working"
MISSING = "fake_engines.missing_library"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setattr(run, "REFERENCE", WORKING)
    small = ["--quick", "--rounds", "1", "--num-texts", "3", "--threads", "1"]
    return ["bench", "--random", "1x64", *small, "--prepared", str(tmp_path / "prepared")]


def test_tables_json_and_plot(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    figures, picture, roofline = tmp_path / "out.json", tmp_path / "out.png", tmp_path / "roofline.png"
    files = ["--json", str(figures), "--plot", str(picture), "--roofline", str(roofline)]
    assert main([*quick, "--engines", f"{WORKING},{MISSING}", *files]) == 0
    shown = capsys.readouterr()
    assert "random 1x64: 1 layers x 64, 1 heads, 1 thread, 1 rounds" in shown.out
    assert f"{MISSING}: not available: no_such_library is not installed" in shown.out
    assert "No module named" not in shown.out + shown.err
    assert "1x16: round 1 of 1" in shown.err
    data = json.loads(figures.read_text())
    assert [w["name"] for w in data["workloads"]] == ["1x16", "1x128", "8x64", "text"]
    assert data["workloads"][3]["texts"] == 3
    assert data["workloads"][0]["derived"][WORKING]["seconds"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert roofline.read_bytes().startswith(b"\x89PNG")


def test_markdown(quick: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*quick, "--engines", WORKING, "--markdown"]) == 0
    assert f"| {WORKING} |" in capsys.readouterr().out


def test_texts_of_a_file(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, figures = tmp_path / "texts.jsonl", tmp_path / "out.json"
    path.write_text('{"body": "two words"}\n{"body": "one"}\n')
    options = ["--texts", str(path), "--field", "body", "--json", str(figures)]
    assert main([*quick, "--engines", WORKING, *options]) == 0
    text = json.loads(figures.read_text())["workloads"][3]
    assert (text["texts"], text["tokens"]) == (2, 7)
    assert "2 texts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--isa", "mmx"], r"--isa mmx: expected one of scalar, .* on this CPU"),
        (["--latency", "--callers", "0"], r"--callers 0: expected at least 1"),
        (["--latency", "--rate", "0"], r"--rate 0\.0: expected more than 0"),
        (["--latency", "--threads-per-call", "1", "-1"], r"--threads-per-call -1: expected at least 1"),
        (["--latency", "--plot", "a.png"], r"--plot draws the speed of engines"),
        (["--startup", "--roofline", "a.png"], r"--roofline draws what is computed"),
        (["--startup", "--dtype", "float32", "int8"], r"--startup measures one --dtype at a time"),
        (["--plot", "a.xyz"], r"--plot a\.xyz: expected one of .*png.*, got xyz"),
        (["--roofline", "absent/a.png"], r"--roofline absent/a\.png: no such folder"),
        (
            ["--engines", "onnxruntime", "--dtype", "bfloat16"],
            r"none of the engines onnxruntime .* in bfloat16",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["bench", "--random", "1x64", *options]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_an_engine_is_asked_for_each_dtype(quick: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*quick, "--engines", WORKING, "--dtype", "float32", "int8"]) == 0
    shown = capsys.readouterr().out
    assert "Time, float32" in shown
    assert "Time, int8" in shown
    assert f"\n{WORKING}-int8 " in shown


def test_an_instruction_set_can_be_chosen(quick: list[str], capsys: pytest.CaptureFixture[str]):
    environment = "fake_engines.environment"
    assert main([*quick, "--engines", environment, "--isa", "scalar"]) == 0
    assert "BERTFAST_ISA=scalar BERTFAST_NUM_THREADS=1" in capsys.readouterr().out


def test_if_nothing_can_be_measured_the_status_is_1(quick: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*quick, "--engines", MISSING]) == 1
    assert "no_such_library" in capsys.readouterr().out


def test_interruption_ends_every_worker(tmp_path: Path):
    arguments = ["bench", "--random", "1x64", "--engines", "fake_engines.hanging", "--quick"]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), TMPDIR=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "bertfast", *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + 60
        while not (found := children.read_text().split()) and time.monotonic() < end:
            time.sleep(0.05)
        assert found
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert process.stderr.read().endswith("bertfast: interrupted\n")
    finally:
        process.kill()
        process.communicate()
    # Interrupted while it started a worker, the benchmark does not know of it yet: that one ends by itself,
    # as soon as it has come so far as to find its pipe closed.
    end = time.monotonic() + 60
    while (alive := [pid for pid in found if is_running(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive
    assert os.listdir(tmp_path) == []


def is_running(pid: str) -> bool:
    """Whether a process exists and is no zombie, which some containers' first process never collects."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_startup_table():
    report = StartupReport("toy", 2, 0.0123, 0.1, 80.0, 50.0, "int8")
    assert report.anon_limit_mib == pytest.approx(105.0)
    for text in (report.render(), report.render(markdown=True)):
        assert all(
            figure in text for figure in ("int8", "0.012 s", "0.100 s", "80.0 MiB", "105.0 MiB", "50.0 MiB")
        )


def test_startup_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fake = StartupReport("toy", 2, 0.0123, 0.1, 80.0, 50.0)
    monkeypatch.setattr(startup, "measure", lambda setup, name, log: fake)
    path = tmp_path / "out.json"
    assert main(["bench", "--random", "1x64", "--startup", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["anon_limit_mib"] == pytest.approx(105.0)
    assert "fresh interpreters" in capsys.readouterr().out
