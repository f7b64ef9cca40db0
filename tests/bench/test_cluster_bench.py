"""``bertfast bench --ray``: every way has the bits of one process, and what the table says."""

import json
from pathlib import Path

import pytest

from bertfast.bench.cluster import ALONE, DATA_SET, FILES, ClusterReport, Way
from bertfast.cli import main


def test_every_way(minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", str(minilm), "--ray", "--quick", "--num-texts", "16", "--threads", "2"]
    assert main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    assert "not available" not in capsys.readouterr().out
    ways = json.loads((tmp_path / "out.json").read_text())["ways"]
    assert [(way["name"], way["workers"], way["threads"]) for way in ways] == [
        (ALONE, 1, 2),
        (FILES, 1, 1),
        (FILES, 2, 1),
        (FILES, 1, 2),
        (DATA_SET, 1, 2),
    ]
    assert all(len(way["few"]) == len(way["many"]) == 1 for way in ways)


def test_what_it_takes_to_begin_is_apart() -> None:
    ways = [
        Way(ALONE, 1, 2, few=[2.5, 5.0], many=[8.5, 17.0]),
        Way(FILES, 1, 2, few=[6.5, 9.0], many=[14.0, 24.0]),
        Way(DATA_SET, 1, 2, failure="no such thing"),
    ]
    table = ClusterReport("m", "t", {"cpu": "c", "cores": 2}, "float32", 100, 2, ways).render()
    rows = [line.split() for line in table.splitlines()]
    assert ["encode_iter", "1", "2", "0.8", "33", "1.00"] in rows
    assert ["bertfast", "encode", "--ray", "1", "2", "4.0", "27", "0.80"] in rows
    assert "no such thing" in table


def test_one_dtype_at_a_time(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(minilm), "--ray", "--dtype", "float32", "int8"]) == 2
    assert "--ray measures one --dtype at a time" in capsys.readouterr().err
