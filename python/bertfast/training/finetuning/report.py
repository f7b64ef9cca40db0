"""What stays of fine-tuning beside the model: a model card, predictions, and a picture of what was mistaken.

All of it follows from the data, the options and the weights: no dates, no places of files.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.training.checkpoints import CARD, CONFUSION, PREDICTIONS
from bertfast.training.finetuning.metrics import Scores
from bertfast.whole_file import JsonLinesWriter, WholeFile

# With more labels the numbers could not be read.
_MOST_NUMBERS = 30
# What systems have for Chinese, Japanese and Korean letters, which matplotlib's own font has not.
_CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
)


@dataclass(frozen=True)
class Table:
    """Rows of cells under names of columns; a float is shown with four digits."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @classmethod
    def of_scores(cls, name: str, scores: Mapping[str, Scores]) -> Table:
        """Precision, recall and F1 of things of the same kind, such as labels, by what they are called."""
        rows = [[f"`{key}`", *row] for key, row in scores.items()]
        return cls([name, "precision", "recall", "F1", "number"], rows)

    def __str__(self) -> str:
        lines = [list(map(str, self.columns)), ["---"] * len(self.columns)]
        lines += [
            [f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in self.rows
        ]
        return "\n".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
        )


@dataclass(frozen=True)
class Findings:
    """What a task has to say of its data and of the predictions for its evaluation file.

    Attributes:
        task: As pipelines call it.
        data: What the files are there for, their names, and what is in them.
        settings: What was asked for of the task.
        notes: Sentences that explain the figures.
        usage: A line of Python that opens the model so that it gives these predictions.
        predictions: An object for each example.
        table: Figures of its parts.
        confusion: Names, and how often each (a row) was taken for each (a column).
        files: Further files, by name.
    """

    task: str
    data: Sequence[tuple[str, str, str]]
    settings: Mapping[str, Any]
    notes: Sequence[str]
    usage: str
    predictions: Iterable[Mapping[str, Any]]
    table: Table | None = None
    confusion: tuple[Sequence[str], npt.NDArray[np.int64]] | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FinetuningResult:
    """What came out of fine-tuning.

    Attributes:
        folder: The model's folder.
        metrics: Figures of the evaluation file with the weights that are in the folder, in float32.
        metric_for_best_model: Name of the figure that decided which weights these are.
        best_step: The step that they are of.
        best_epoch: The epoch, counted from 1 at the end of the first.
        history: All evaluations, in the dtype of training: ``step``, ``epoch`` and figures.
    """

    folder: Path
    metrics: dict[str, float]
    metric_for_best_model: str
    best_step: int
    best_epoch: float
    history: list[dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {**asdict(self), "folder": str(self.folder)}

    def __str__(self) -> str:
        found = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return f"{self.folder}: {found} (epoch {self.best_epoch:g})"


def write_report(result: FinetuningResult, findings: Findings, base: str, options: Mapping[str, Any]) -> None:
    """Writes the files of the report into the model's folder.

    Args:
        result: The figures.
        findings: What the task says.
        base: What the model was made from.
        options: How it was trained.

    Raises:
        OSError: The disk is full.
    """
    folder = result.folder
    has_picture = findings.confusion is not None and draw_confusion(folder / CONFUSION, *findings.confusion)
    texts = {**findings.files, CARD: _card(result, findings, base, options, has_picture)}
    for name, text in texts.items():
        with WholeFile(str(folder / name)) as file:
            file.file.write(text.encode())
            file.commit()
    with JsonLinesWriter(str(folder / PREDICTIONS)) as writer:
        for row in findings.predictions:
            writer.write(row)
        writer.commit()


def rounded(value: float) -> float:
    """A number as predictions are written: what differs beyond is rounding."""
    return float(f"{value:.6g}")


def _card(
    result: FinetuningResult, findings: Findings, base: str, options: Mapping[str, Any], has_picture: bool
) -> str:
    names = list(dict.fromkeys(name for row in result.history for name in row))
    history = Table(names, [[_cell(name, row.get(name)) for name in names] for row in result.history])
    metrics = Table(["figure", "value"], [[name, float(value)] for name, value in result.metrics.items()])
    settings = {**findings.settings, **options}
    folder = result.folder.resolve().name
    usage = f'```python\nimport bertfast\n\nmodel = bertfast.pipeline("{findings.task}", "{folder}"'
    parts = [
        f"---\npipeline_tag: {findings.task}\n---",
        f"# {base}, fine-tuned: {findings.task}",
        str(metrics),
        f"The weights are those after epoch {result.best_epoch:g} (step {result.best_step}), which had the "
        f"best {result.metric_for_best_model}. The figures are those of the evaluation file, in float32.",
        *findings.notes,
        f"{usage}{findings.usage})\n```",
        "## Data",
        str(
            Table(
                ["for", "file", "content"], [[role, f"`{name}`", what] for role, name, what in findings.data]
            )
        ),
        *([f"## By {findings.table.columns[0]}", str(findings.table)] if findings.table is not None else []),
        *([f"![What was taken for what]({CONFUSION})"] if has_picture else []),
        "## Evaluations",
        str(history),
        "## Settings",
        str(Table(["setting", "value"], [[name, _setting(value)] for name, value in settings.items()])),
    ]
    return "\n\n".join(parts) + "\n"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if name in ("step", "epoch") else f"{value:.4f}"


def _setting(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def draw_confusion(path: Path, names: Sequence[str], counts: npt.NDArray[np.int64]) -> bool:
    """Draws a confusion matrix; False if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.font_manager import get_font_names
    except ImportError:
        print(f"bertfast: no {path.name}: matplotlib is not installed", file=sys.stderr)
        path.unlink(missing_ok=True)
        return False
    size = min(3 + 0.5 * len(names), 20)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes: Any = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    # A dollar would begin a formula.
    shown = [name.replace("$", r"\$") for name in names]
    installed = set(get_font_names())
    fonts = ["DejaVu Sans", *(font for font in _CHINESE_FONTS if font in installed)]
    axes.set_xticks(range(len(names)), shown, rotation=90, fontfamily=fonts)
    axes.set_yticks(range(len(names)), shown, fontfamily=fonts)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    if len(names) <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=color)
    with WholeFile(str(path)) as file, warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        figure.savefig(file.file, dpi=120, format="png", metadata={"Software": None})
        file.commit()
    # There is one for each letter.
    missing = [one for one in found if str(one.message).startswith("Glyph")]
    if missing:
        print(
            f"bertfast: {path.name}: no font that is installed has all letters of the labels", file=sys.stderr
        )
    for one in found:
        if one not in missing:
            warnings.warn(one.message, one.category, stacklevel=2)
    return True
