"""The losses are those of transformers, whatever is in a batch."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bertfast.training.distributed import Ranks
from bertfast.training.finetuning import finetune_classifier, finetune_question_answering, finetune_tagger
from bertfast.training.finetuning.run import Course
from tiny_finetuning import FAST, write_moods, write_questions, write_tags

CASES = {
    "classify": (finetune_classifier, "SequenceClassification", {}),
    "numbers": (finetune_classifier, "SequenceClassification", {"problem_type": "regression"}),
    "several": (
        finetune_classifier,
        "SequenceClassification",
        {"problem_type": "multi_label_classification"},
    ),
    "tag": (finetune_tagger, "TokenClassification", {}),
    "qa": (finetune_question_answering, "QuestionAnswering", {"max_query_length": 4}),
}


class GotItError(Exception):
    pass


def task_of(function: Any, *arguments: Any, **options: Any) -> Any:
    """The task that a function would train."""
    found: list[Any] = []

    def finetune(course: Course, output: Any, make_task: Any) -> None:
        ranks = Ranks(0, 1, torch.device("cpu"))
        found.append(make_task(ranks=ranks, seed=0, batch_size=8, parts=1))
        raise GotItError

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(function.__globals__, "finetune", finetune)
        with pytest.raises(GotItError):
            function(*arguments, options=FAST, **options)
    return found[0]


def write(name: str, folder: Path) -> Path:
    if name == "classify":
        return write_moods(folder / "a.tsv", 40)
    if name == "tag":
        return write_tags(folder / "a.conll", 40)
    if name == "qa":
        return write_questions(folder / "a.json", 40, impossible=0.3)
    labels = [[], ["x"], ["y", "x"]] if name == "several" else [1.5, -0.5, 3]
    rows = [{"text": f"word{n % 12} " * (n % 5 + 1), "label": labels[n % 3]} for n in range(40)]
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_transformers(models, name, family, tmp_path):
    function, kind, options = CASES[name]
    path = write(name, tmp_path)
    task = task_of(function, models[family], path, path, tmp_path / "out", **options)
    model = task.start.model
    model.save_pretrained(tmp_path / "model")
    theirs = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(tmp_path / "model").eval()
    batches = task.batches()
    for _ in range(2):
        (part,) = next(batches)
        ours = task.losses(model, part)["loss"] / task.counts([part])["loss"]
        ends = part["cu_seqlens"].tolist()
        sums = counts = 0.0
        for number, (start, end) in enumerate(itertools.pairwise(ends)):
            batch = {
                key: part[key][start:end][None].long()
                for key in ("input_ids", "token_type_ids")
                if key in part
            }
            if name == "tag":
                batch["labels"] = part["labels"][start:end][None]
                count = int((batch["labels"] >= 0).sum())
            else:
                labels = {key: part[key][number][None] for key in part if key not in ("cu_seqlens", *batch)}
                batch |= labels
                count = 1
            with torch.no_grad():
                loss = float(theirs(**batch).loss) if count else 0.0
            sums, counts = sums + loss * count, counts + count
        assert ours.item() == pytest.approx(sums / counts, rel=2e-5)


def test_labels_that_do_not_count_move_nothing(models, tmp_path):
    """What a process computes that has nothing of a batch: no loss, gradients of 0."""
    for name, (function, _, options) in CASES.items():
        (tmp_path / name).mkdir()
        path = write(name, tmp_path / name)
        task = task_of(function, models["bert"], path, path, tmp_path / "out", **options)
        part = task.rows.batch(np.array([0]), counted=False)
        assert task.counts([part]) == {"loss": 0}
        loss = task.losses(task.start.model.train(), part)["loss"]
        loss.backward()
        assert loss.item() == 0
        for key, parameter in task.start.model.named_parameters():
            assert parameter.grad is None or not parameter.grad.any(), (name, key)
