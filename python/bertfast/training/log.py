"""What is written down of training: ``log.csv``, a picture of it, and how far it is on standard error."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertfast.file_progress import StatusLine, remaining

TABLE, PICTURE = "log.csv", "loss.png"
FILES = (TABLE, PICTURE)


class Log:
    """A table that grows by rows: ``log.csv``.

    Every row is on the way to the disk when `write` returns, so that the end of the process loses none. A
    column that is new is empty in the rows before.

    Args:
        folder: Where it is.
        step: Rows of later steps, and a last one that is not whole, are removed.

    Raises:
        OSError: It cannot be read or written.

    Example:
        >>> log = Log(folder, step=0)
        >>> log.write({"step": 10, "loss": 9.5})
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / TABLE
        """Where it is."""
        self._rows = [row for row in read(folder) if int(row["step"]) <= step]
        self._columns = list(self._rows[0]) if self._rows else []
        self._replace()

    @property
    def rows(self) -> list[dict[str, str]]:
        """All of them, as text; a cell may be empty."""
        return list(self._rows)

    def write(self, row: Mapping[str, float]) -> None:
        """Appends a row.

        Raises:
            OSError: The disk is full.
        """
        cells = {name: _text(value) for name, value in row.items()}
        new = [name for name in cells if name not in self._columns]
        self._rows.append({name: cells.get(name, "") for name in [*self._columns, *new]})
        if new:
            self._columns += new
            self._rows = [{name: row.get(name, "") for name in self._columns} for row in self._rows]
            self._replace()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_lines([self._rows[-1].values()]))

    def _replace(self) -> None:
        """Writes the whole table anew."""
        temporary = self.path.with_name(f".{TABLE}.tmp")
        header = [self._columns] if self._columns else []
        try:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.write(_lines([*header, *(row.values() for row in self._rows)]))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


def read(folder: Path) -> list[dict[str, str]]:
    """The whole rows of the ``log.csv`` of a folder; none if there is no such file."""
    try:
        text = (folder / TABLE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    # A last line without its end was being written when the process ended.
    lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    columns = lines[0] if lines else []
    if "step" not in columns:
        return []
    rows = (dict(zip(columns, line, strict=True)) for line in lines[1:] if len(line) == len(columns))
    return [row for row in rows if row["step"].isdecimal()]


def is_log(folder: Path) -> bool:
    """Whether a folder has a ``log.csv`` of training, which has no row yet if that has just begun."""
    try:
        with (folder / TABLE).open(encoding="utf-8", errors="replace") as file:
            header = file.readline()
    except FileNotFoundError:
        return False
    return not header or "step" in header.strip().split(",")


def _lines(rows: Any) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"


class Picture:
    """``loss.png``, drawn from the log. Training goes on without it, and says once why."""

    def __init__(self, folder: Path, quiet: bool) -> None:
        self._folder = folder
        self._quiet = quiet
        self._problem = ""

    def draw(self, rows: list[dict[str, str]]) -> None:
        """Draws the losses over the steps, and below them what was evaluated."""
        curves = _curves(rows)
        if not curves:
            return
        try:
            self._draw(curves)
        except ImportError:
            self._say("matplotlib is not installed")
        except OSError as error:
            self._say(error.strerror or str(error))

    def _say(self, problem: str) -> None:
        if not self._quiet and problem != self._problem:
            print(f"bertfast: no {PICTURE}: {problem}", file=sys.stderr)
        self._problem = problem

    def _draw(self, curves: dict[str, tuple[list[int], list[float]]]) -> None:
        from matplotlib.figure import Figure

        losses = {name: curve for name, curve in curves.items() if name.endswith("loss")}
        others = {name: curve for name, curve in curves.items() if name.startswith("eval_")}
        parts = [part for part in (losses, {n: c for n, c in others.items() if n not in losses}) if part]
        figure = Figure(figsize=(8, 4 * len(parts)), layout="constrained")
        panels: Any = figure.subplots(len(parts), squeeze=False)
        for axes, part in zip(panels[:, 0], parts, strict=True):
            for name, (steps, values) in part.items():
                axes.plot(steps, values, label=name, marker="o" if len(steps) < 20 else None)
            axes.set_xlabel("step")
            axes.legend()
            axes.grid(alpha=0.3)
        temporary = self._folder / f".{PICTURE}.tmp"
        try:
            figure.savefig(temporary, dpi=120, format="png")
            temporary.replace(self._folder / PICTURE)
        finally:
            temporary.unlink(missing_ok=True)


def _curves(rows: list[dict[str, str]]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of each column, of the rows that have one."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        for name, text in row.items():
            if text and math.isfinite(float(text)):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(int(row["step"]))
                values.append(float(text))
    return curves


class ProgressLine:
    """How far training is, on standard error."""

    def __init__(self, quiet: bool, first_step: int, total_steps: int) -> None:
        self._line = StatusLine(quiet)
        self._first, self._total = first_step, total_steps

    def show(self, step: int, row: Mapping[str, float]) -> None:
        """Shows the state after a step, if it is time for that; `row` as in the log."""
        if self._line.is_due():
            share = (step - self._first) / max(self._total - self._first, 1)
            left = remaining(self._line.elapsed, share)
            self._line.show(f"step {step:,} of {self._total:,}, {summary(row)}, {left} left")

    def say(self, line: str) -> None:
        """Says something that stays."""
        self._line.say(line)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._line.elapsed


def summary(row: Mapping[str, float]) -> str:
    """A row of the log in words."""
    parts = [f"loss {row['loss']:.4f}", f"learning rate {row['learning_rate']:.3g}"]
    parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    parts.append(f"text {row['padding_efficiency']:.0%} of a padded batch")
    return ", ".join(parts)
