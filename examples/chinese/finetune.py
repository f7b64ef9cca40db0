"""The same model, pretrained and not, fine-tuned on a few labels: three tasks, three seeds each.

    python examples/chinese/finetune.py bert

What is done already is not done again. The best epoch is chosen on few examples too; what is shown is
measured on the test, in `bertfast.pipeline`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from common import OUTPUT, default_dtype, write_json
from families import FAMILIES
from tasks import TASKS, Task

from bertfast.training.options import TrainingOptions

INITS = ("scratch", "pretrained")


def record_path(folder: Path) -> Path:
    """Where the figures of a model are: beside its folder, and there only when all is done."""
    return folder.with_name(f"{folder.name}.json")


def record_of(folder: Path) -> dict[str, Any]:
    """The figures of a model."""
    found: dict[str, Any] = json.loads(record_path(folder).read_text(encoding="utf-8"))
    return found


def run(task: Task, base: Path, data: Path, folder: Path, *, init: str, **options: Any) -> dict[str, Any]:
    """Fine-tunes into a folder, unless that is done, and measures."""
    if record_path(folder).exists():
        return record_of(folder)
    train, validation, test = (data / name for name in task.files)
    result = task.train(
        base,
        train,
        validation,
        folder,
        options=TrainingOptions(learning_rate=task.learning_rate, **options),
        init=init,
        resume=True,
        **task.settings,
    )
    examples = task.read(test)
    found = task.decisions(folder, examples)
    figures = {
        "validation": result.metrics[task.metric],
        "test": task.score(found, [right for _, right in examples]),
        "epoch": result.best_epoch,
    }
    write_json(record_path(folder), figures)
    # Only now: without its record it would have to go on from them.
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return figures


def table(records: dict[tuple[str, str], list[float]]) -> str:
    """Means over the seeds, and the lowest and the highest, in Markdown."""
    lines = ["| | figure | from scratch | pretrained |", "| --- | --- | ---: | ---: |"]
    for name in dict.fromkeys(name for name, _ in records):
        cells = []
        for init in INITS:
            scores = records[name, init]
            cells.append(f"{mean(scores):.1%} ({min(scores):.1%} to {max(scores):.1%})")
        lines.append(f"| {name} | {TASKS[name].metric} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all, show the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="as for prepare.py (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="(all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(1 2 3)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default=default_dtype(), help="(%(default)s)"
    )
    parser.add_argument("--epochs", type=int, help="in place of those of each task")
    args = parser.parse_args(arguments)
    folder = args.output / args.family
    runs = folder / "finetuned"
    runs.mkdir(exist_ok=True)
    records: dict[tuple[str, str], list[float]] = {}
    # Seed by seed, so that there is something of everything early.
    for seed, name, init in product(args.seeds, args.tasks, INITS):
        task = TASKS[name]
        found = run(
            task if args.epochs is None else task.with_epochs(args.epochs),
            folder / task.base,
            args.output / "data",
            runs / f"{name}-{init}-{seed}",
            init=init,
            seed=seed,
            dtype=args.dtype,
        )
        print(
            f"{name}, {init}, seed {seed}: {task.metric} {found['test']:.1%} (epoch {found['epoch']:g})",
            flush=True,
        )
        records.setdefault((name, init), []).append(found["test"])
    write_json(
        folder / "finetuning.json", {f"{name}-{init}": scores for (name, init), scores in records.items()}
    )
    text = table(records)
    folder.joinpath("finetuning.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
