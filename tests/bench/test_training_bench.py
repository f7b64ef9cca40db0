"""``bertfast bench --training``: every task by both, and what the table says."""

import json
from pathlib import Path

import pytest
import torch

from bertfast import _bertfast
from bertfast.bench.training import TASKS, StepSeries, TrainingReport
from bertfast.cli import main


def test_both_train_on_the_same(
    minilm: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Where the CPU does not multiply bfloat16, PyTorch takes minutes for it.
    dtypes = ["float32", "bfloat16"] if "bfloat16" in _bertfast.dtypes() else ["float32"]
    lines = (data_dir / "english.txt").read_text(encoding="utf-8").splitlines()[:400]
    (tmp_path / "texts.txt").write_text("\n".join(line[:60] for line in lines), encoding="utf-8")
    arguments = ["bench", str(minilm), "--training", "--texts", str(tmp_path / "texts.txt")]
    arguments += ["--num-texts", "32", "--rounds", "1", "--dtype", *dtypes]
    threads = torch.get_num_threads()
    assert main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    assert torch.get_num_threads() == threads
    assert "not available" not in capsys.readouterr().out
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["batches"] == 1
    assert 0.1 < report["share"] < 1
    by_task: dict[str, list[float]] = {}
    for series in report["series"]:
        assert len(series["seconds"]) == 1
        assert len(series["losses"]) == 2
        by_task.setdefault(series["task"], []).append(series["losses"][0])
    assert tuple(by_task) == tuple(TASKS)
    # Dropout differs, and so do new heads.
    assert all(len(losses) == 2 * len(dtypes) for losses in by_task.values())
    assert all(max(losses) < 1.3 * min(losses) for losses in by_task.values())


def test_ratios_are_of_the_same_batches() -> None:
    task = next(iter(TASKS))
    series = [
        StepSeries(task, "transformers", "float32", [2.0, 8.0, 30.0], [1.0] * 3),
        StepSeries(task, "bertfast", "float32", [1.0, 2.0, 6.0], [1.0] * 3),
        StepSeries(task, "transformers", "bfloat16", [1.0, 1.0, 1.0], [1.0] * 3),
        StepSeries(task, "bertfast", "bfloat16", [0.5, 0.4, 0.1], [1.0] * 3),
        StepSeries(task, "bertfast", "float16", failure="no such thing"),
    ]
    table = TrainingReport("m", "t", {"cpu": "c", "cores": 2}, "cpu", 3, 300, 0.5, 1, series).render()
    rows = [line.split() for line in table.splitlines() if " bertfast " in line]
    assert [row[row.index("bertfast") + 4 :][:2] for row in rows[:2]] == [
        ["4.00x", "4.00x"],
        ["20.00x", "2.50x"],
    ]
    assert "no such thing" in table


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dtype", "int8"], "--dtype: expected float32 or bfloat16"),
        (["--num-texts", "5"], "at least 32 texts"),
    ],
)
def test_what_cannot_be_measured(
    minilm: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(minilm), "--training", "--quick", *more]) == 2
    assert message in capsys.readouterr().err
