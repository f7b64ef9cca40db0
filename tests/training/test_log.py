"""The table of training, and its picture."""

from __future__ import annotations

import builtins
import errno
import os
from pathlib import Path

import pytest

from bertfast.training.log import Log, Picture, ProgressLine, read


def row(step: int, **values: float) -> dict[str, float]:
    return {"step": step, "loss": 1 / step, **values}


def test_rows(tmp_path: Path):
    table = Log(tmp_path, 0)
    assert read(tmp_path) == []
    table.write(row(1))
    table.write(row(2, eval_loss=2.5))
    table.write(row(3))
    assert (tmp_path / "log.csv").read_text() == "step,loss,eval_loss\n1,1,\n2,0.5,2.5\n3,0.333333333,\n"
    assert read(tmp_path) == table.rows
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


@pytest.mark.parametrize(
    "end", ["", "3,0.3", "3", "3,0.33333", "3,0.333333333,\n4,0", "x,1,\n", "3,1\n", "\n"]
)
def test_going_on_loses_no_row_and_has_none_twice(tmp_path: Path, end: str):
    """Whatever was being written when the process ended."""
    table = Log(tmp_path, 0)
    table.write(row(1, eval_loss=1.0))
    table.write(row(2))
    path = tmp_path / "log.csv"
    path.write_text(path.read_text() + end)
    again = Log(tmp_path, 2)
    again.write(row(3))
    assert [line["step"] for line in read(tmp_path)] == ["1", "2", "3"]
    assert path.read_text() == "step,loss,eval_loss\n1,1,1\n2,0.5,\n3,0.333333333,\n"


def test_a_full_disk_leaves_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = Log(tmp_path, 0)
    table.write(row(1))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        table.write(row(2, eval_loss=2.5))
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
    assert [line["step"] for line in read(tmp_path)] == ["1"]


def test_rows_of_steps_that_are_done_again_go(tmp_path: Path):
    table = Log(tmp_path, 0)
    for step in range(1, 8):
        table.write(row(step))
    assert [line["step"] for line in Log(tmp_path, 5).rows] == ["1", "2", "3", "4", "5"]
    assert len(read(tmp_path)) == 5
    Log(tmp_path, 0)
    assert read(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\n", b'"step\n', b"step,step\n1,2\n"])
def test_a_table_that_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "log.csv").write_bytes(content)
    table = Log(tmp_path, 9)
    table.write(row(10))
    assert read(tmp_path)[-1]["step"] == "10"


def test_the_picture(tmp_path: Path):
    pytest.importorskip("matplotlib")
    table = Log(tmp_path, 0)
    picture = Picture(tmp_path, quiet=True)
    picture.draw(table.rows)
    assert not (tmp_path / "loss.png").exists()
    for step in range(1, 30):
        table.write(row(step, **({"eval_loss": 1.5, "eval_accuracy": 0.5} if step % 10 == 0 else {})))
    picture.draw(table.rows)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))


def test_a_picture_that_cannot_be_written_is_said_once(tmp_path: Path, capsys):
    pytest.importorskip("matplotlib")
    picture = Picture(tmp_path / "absent", quiet=False)
    for _ in range(3):
        picture.draw([{"step": "1", "loss": "2.5"}, {"step": "2", "loss": "2.0"}])
    assert capsys.readouterr().err == "bertfast: no loss.png: No such file or directory\n"


def test_without_matplotlib_it_is_said_once(tmp_path: Path, monkeypatch, capsys):
    imported = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    table = Log(tmp_path, 0)
    table.write(row(1))
    picture = Picture(tmp_path, quiet=False)
    picture.draw(table.rows)
    picture.draw(table.rows)
    assert capsys.readouterr().err == "bertfast: no loss.png: matplotlib is not installed\n"
    assert not (tmp_path / "loss.png").exists()
    Picture(tmp_path, quiet=True).draw(table.rows)
    assert capsys.readouterr().err == ""


def test_the_line(capsys, monkeypatch):
    line = ProgressLine(False, 10, 1010)
    values = {"loss": 9.25, "learning_rate": 1e-4, "tokens_per_second": 12345.6, "padding_efficiency": 0.83}
    line.show(20, values)
    assert capsys.readouterr().err == ""
    now = line._line.start
    monkeypatch.setattr("bertfast.file_progress.time.monotonic", lambda: now + 20)
    line.show(20, values)
    assert capsys.readouterr().err == (
        "step 20 of 1,010, loss 9.2500, learning rate 0.0001, 12,346 tokens/s, "
        "text 83% of a padded batch, 33:00 left\n"
    )
    ProgressLine(True, 0, 10).say("nothing")
    assert capsys.readouterr().err == ""
