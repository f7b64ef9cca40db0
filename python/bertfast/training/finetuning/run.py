"""The course of fine-tuning, whatever the task: train, take the best weights, report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bertfast.arguments import check_choice, check_positive
from bertfast.models.tasks import TaskModel
from bertfast.training.checkpoints import check_source
from bertfast.training.distributed import Ranks, processes, wait_for_all
from bertfast.training.finetuning.report import FinetuningResult, write_report
from bertfast.training.finetuning.starting import Init, Start, open_start
from bertfast.training.finetuning.task import FinetuningTask
from bertfast.training.log import read as read_log
from bertfast.training.loop import Trainer
from bertfast.training.options import TrainingOptions

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Course:
    """What all functions for fine-tuning are asked for; they explain it."""

    options: TrainingOptions
    epochs: int
    batch_size: int
    metric_for_best_model: str | None
    early_stopping_patience: int | None
    init: Init
    resume: bool
    overwrite: bool
    quiet: bool

    def __post_init__(self) -> None:
        check_positive("epochs", self.epochs)
        check_positive("batch_size", self.batch_size)
        if self.early_stopping_patience is not None:
            check_positive("early_stopping_patience", self.early_stopping_patience)
        check_choice("init", self.init, ("pretrained", "scratch"))

    def open(self, model: PathLike, head: str, **changes: Any) -> Start:
        """The model to begin with; see `open_start`."""
        return open_start(model, head, init=self.init, seed=self.options.seed, **changes)


def finetune(
    course: Course, output: PathLike, make_task: Callable[..., FinetuningTask[Any]]
) -> FinetuningResult:
    """Trains, takes the weights that were best, and writes the report.

    Args:
        course: How.
        output: The folder to make.
        make_task: Makes the task, out of what all of them are made with.
    """
    options, folder = course.options, Path(output)
    with processes(options.device) as ranks:
        task = make_task(
            ranks=ranks,
            seed=options.seed,
            batch_size=course.batch_size,
            parts=options.gradient_accumulation_steps,
        )
        check_source(task.start.folder, folder)
        best_by = task.best_by(course.metric_for_best_model)
        best_step = _train(task, course, folder, best_by, ranks)
        wait_for_all()
        # What is reported is what everybody gets who opens the folder.
        saved = type(task.start.model).from_pretrained(folder, device=ranks.device)
        predictions = _predictions(saved, task)
        result = FinetuningResult(
            folder,
            task.metrics(predictions),
            best_by,
            best_step,
            best_step / task.steps_per_epoch,
            _history(folder),
        )
        if ranks.is_first:
            settings = options.settings()
            how = {"epochs": course.epochs, "batch_size": course.batch_size, "init": course.init, **settings}
            write_report(result, task.findings(predictions), task.start.name, how)
        wait_for_all()
    return result


def _train(task: FinetuningTask[Any], course: Course, folder: Path, best_by: str, ranks: Ranks) -> int:
    """Trains, and returns the step that the weights in the folder are of."""
    options, epoch = course.options, task.steps_per_epoch
    trainer = Trainer(
        task.start.model,
        replace(options, eval_every=options.eval_every or epoch, save_every=options.save_every or epoch),
        task,
        folder,
        ranks=ranks,
        tokenizer=task.start.tokenizer,
        quiet=course.quiet,
        best_by=best_by,
        patience=course.early_stopping_patience,
    )
    trainer.train(epoch * course.epochs, resume=course.resume, overwrite=course.overwrite)
    return int(trainer.best["step"])


def _predictions(model: TaskModel, task: FinetuningTask[Any]) -> list[Any]:
    with torch.no_grad():
        return task.predict(model)


def _history(folder: Path) -> list[dict[str, float]]:
    """What the log has of evaluations."""
    names = ("step", "epoch")
    return [
        {
            **{name: float(row[name]) for name in names},
            **{name[5:]: float(value) for name, value in row.items() if name.startswith("eval_")},
        }
        for row in read_log(folder)
        if any(value for name, value in row.items() if name.startswith("eval_"))
    ]
