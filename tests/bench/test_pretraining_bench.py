"""``bertfast bench --pretraining``: every work by everyone, and what the table says."""

import json
from pathlib import Path

import pytest

from bertfast.bench import google_script
from bertfast.bench.pretraining import WORKS, PretrainingReport, WorkSeries
from bertfast.cli import main


def test_every_work_is_measured(
    minilm: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lines = (data_dir / "english.txt").read_text(encoding="utf-8").splitlines()[:2000]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    arguments = [
        "bench",
        str(minilm),
        "--pretraining",
        "--texts",
        str(tmp_path / "texts.txt"),
        "--rounds",
        "1",
    ]
    assert main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    assert "not available" not in out
    report = json.loads((tmp_path / "out.json").read_text())
    engines: dict[str, set[str]] = {}
    for series in report["series"]:
        engines.setdefault(series["work"], set()).add(series["engine"])
        assert len(series["rates"]) == 1
        assert series["rates"][0] > 1000
    assert tuple(engines) == WORKS
    assert all("bertfast" in of_work for of_work in engines.values())
    others = set().union(*engines.values())
    assert others == {
        "bertfast",
        "the rule in numpy",
        "transformers",
        "our tokenizer alone",
        "google-research/bert",
    }


def test_ratios_are_of_rounds_beside_each_other():
    series = [
        WorkSeries(WORKS[0], "bertfast", 1, [1e6, 4e6, 9e6]),
        WorkSeries(WORKS[0], "other", 1, [1e6, 2e6, 3e6]),
        WorkSeries(WORKS[0], "missing", 1, [], "no such package"),
    ]
    table = PretrainingReport("toy", "file", {"cpu": "c", "cores": 2}, 5, 3, series).render()
    assert "2.00x" in table
    assert "missing: not available: no such package" in table


def test_the_script_runs_as_published(tmp_path: Path, minilm: Path):
    (tmp_path / "texts.txt").write_text("a cat sat .\non a mat .\n\nthe dog ran .\naway it went .\n")
    found = google_script.instances([tmp_path / "texts.txt"], minilm / "vocab.txt", dupe_factor=3)
    assert len(found) >= 6
    for instance in found:
        assert instance.tokens[0] == "[CLS]"
        assert instance.tokens.count("[SEP]") == 2
        assert len(instance.masked_lm_positions) == max(1, round(len(instance.tokens) * 0.15))
