"""``bertfast bench --tokenizer``: every engine on everything it can do, and what the tables say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertfast.bench import tokenizing
from bertfast.bench.tokenizing import IDS, OFFSETS, PAIRS, TokenizerReport, TokenizerSeries
from bertfast.cli import main


def test_every_engine_is_measured(
    minilm: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (data_dir / "chinese.txt").read_text(encoding="utf-8").splitlines()[:300]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    arguments = ["bench", str(minilm), "--tokenizer", "--texts", str(tmp_path / "texts.txt"), "--rounds", "2"]
    assert main([*arguments, "--json", str(tmp_path / "report.json")]) == 0
    out = capsys.readouterr().out
    assert "texts whose ids differ from those of tokenizers: 0" in out
    report = json.loads((tmp_path / "report.json").read_text())
    series = {entry["name"]: entry for entry in report["series"]}
    assert set(series) == {"bertfast", "nanotoken", "tokenizers"}
    for name, works in (("bertfast", (IDS, OFFSETS, PAIRS)), ("tokenizers", (IDS, OFFSETS, PAIRS))):
        assert series[name]["failure"] is None
        assert {work: len(series[name]["first"][work]) for work in works} == dict.fromkeys(works, 2)
        assert {work: len(series[name]["again"][work]) for work in works} == dict.fromkeys(works, 2)
    assert series["bertfast"]["texts"] == sum(bool(line.strip()) for line in lines)
    assert "tokenizers: one text of 20" in out


def test_speeds_are_medians_and_ratios_ours_over_theirs() -> None:
    ours = TokenizerSeries(
        "ours", "1", 20, 10.0, {IDS: [1.0, 4.0, 2.0], PAIRS: [5.0]}, {IDS: [1.0], PAIRS: [4.0]}
    )
    theirs = TokenizerSeries("theirs", "2", 10, 5.0, {IDS: [2.0]}, {IDS: [4.0]})
    missing = TokenizerSeries("gone", failure="No module named 'gone'")
    assert ours.speeds(IDS) == (5.0, 10.0)
    assert ours.speeds(PAIRS) == (4.0, 5.0)
    assert ours.speeds(OFFSETS) is None
    report = TokenizerReport("m", "f.txt", {"cpu": "c", "cores": 2}, 3, None, [ours, theirs, missing])
    text = report.render(markdown=True)
    assert "| ours | 5.0 / 10.0 | - | 4.0 / 5.0 | 1 |" in text
    assert "| theirs | 2.5 / 1.2 | - | - | 2 |" in text
    assert "| theirs | 2.00x / 8.00x | - | - |" in text
    assert "gone: not available: No module named 'gone'" in text
    assert "theirs: one text of 2" in text


def test_a_folder_that_a_peer_does_not_open(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--random", "1x64", "--tokenizer", "--num-texts", "20", "--rounds", "1"]) == 0
    assert "tokenizers: not available: " in capsys.readouterr().out


def test_a_missing_peer_is_a_remark(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Path) -> dict[str, tokenizing.Job]:
        raise ImportError("No module named 'nanotoken'")

    monkeypatch.setitem(tokenizing.ENGINES, "nanotoken", (missing, 1))
    report = tokenizing.measure(
        minilm, "m", ["a b"] * 40, "here", ["bertfast", "nanotoken"], 1, lambda _: None
    )
    assert [series.failure is None for series in report.series] == [True, False]
    assert report.differing == 0


def test_an_unknown_engine_is_named(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(minilm), "--tokenizer", "--engines", "bertfast,nosuch"]) == 2
    assert "expected some of bertfast, nanotoken, tokenizers, got 'nosuch'" in capsys.readouterr().err
