"""The course that the tasks share: the best epoch, early ends, going on, the same results again."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import bertfast
from bertfast.errors import ConfigError, TokenizerError, TrainingError
from bertfast.training import checkpoints
from bertfast.training.distributed import Ranks
from bertfast.training.finetuning import (
    finetune_classifier,
    finetune_question_answering,
    finetune_tagger,
)
from bertfast.training.finetuning.classification_task import ClassificationTask
from bertfast.training.finetuning.rows import Rows
from bertfast.training.finetuning.task import FinetuningTask
from bertfast.training.loop import Trainer
from bertfast.training.options import TrainingOptions
from tiny_finetuning import FAST, make_model, write_moods, write_questions, write_tags

ROWS = 50


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("moods")
    return write_moods(folder / "train.tsv", ROWS), write_moods(folder / "dev.tsv", 30, seed=1)


def train(models: dict[str, Path], files: tuple[Path, Path], output: Path, **options: Any) -> Any:
    """With dropout, so that random numbers take part."""
    model = models["bert"].parent / "dropping"
    if not model.exists():
        make_model(model, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    return finetune_classifier(
        model, *files, output, **{"options": FAST, "batch_size": 16, "epochs": 3} | options
    )


def content(folder: Path) -> dict[str, bytes]:
    """What is the same when the same is done again."""
    names = ("model.safetensors", "config.json", "README.md", "predictions.jsonl", "confusion_matrix.png")
    return {name: (folder / name).read_bytes() for name in names}


def log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return [
            {name: v for name, v in row.items() if name != "tokens_per_second"}
            for row in csv.DictReader(file)
        ]


def test_the_same_again_by_seed(models, files, tmp_path):
    a, b = (train(models, files, tmp_path / name / "out") for name in "ab")
    assert content(a.folder) == content(b.folder)
    assert log(a.folder) == log(b.folder)
    other = train(models, files, tmp_path / "c/out", options=replace(FAST, seed=1))
    assert content(other.folder)["model.safetensors"] != content(a.folder)["model.safetensors"]


class StopError(Exception):
    pass


@pytest.mark.parametrize("stop", [2, 3])
def test_going_on_is_as_if_nothing_had_been(models, files, tmp_path, monkeypatch, stop):
    whole = train(models, files, tmp_path / "a/out", early_stopping_patience=2)
    evaluate, calls = FinetuningTask.evaluate, []

    def interrupted(self: Any, model: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == stop:
            raise StopError
        return evaluate(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(FinetuningTask, "evaluate", interrupted)
        with pytest.raises(StopError):
            train(models, files, tmp_path / "b/out", early_stopping_patience=2)
    with pytest.raises(TrainingError, match="go on with it"):
        train(models, files, tmp_path / "b/out")
    with pytest.raises(TrainingError, match="batch_size"):
        train(models, files, tmp_path / "b/out", batch_size=15, resume=True, epochs=3)
    resumed = train(models, files, tmp_path / "b/out", early_stopping_patience=2, resume=True)
    assert content(resumed.folder) == content(whole.folder)
    assert log(resumed.folder) == log(whole.folder)
    assert resumed.metrics == whole.metrics
    # When all is done, nothing is left to do, and the result is the same.
    again = train(models, files, tmp_path / "b/out", early_stopping_patience=2, resume=True)
    assert content(again.folder) == content(whole.folder)
    assert again.history == whole.history


def test_other_data_are_no_going_on(models, files, tmp_path):
    train(models, files, tmp_path / "out", epochs=1)
    other = write_moods(tmp_path / "dev.tsv", 30, seed=2)
    with pytest.raises(TrainingError, match=r"task\.eval"):
        train(models, (files[0], other), tmp_path / "out", epochs=1, resume=True)
    train(models, (files[0], other), tmp_path / "out", epochs=1, overwrite=True)


def test_what_began_elsewhere_is_no_going_on(models, files, tmp_path):
    train(models, files, tmp_path / "out", epochs=1)
    with pytest.raises(TrainingError, match=r"task\.init 'pretrained', got 'scratch'"):
        train(models, files, tmp_path / "out", epochs=1, resume=True, init="scratch")
    options: dict[str, Any] = {"options": FAST, "batch_size": 16, "epochs": 1, "resume": True}
    with pytest.raises(TrainingError, match=r"task\.pooling 'cls', got 'mean'"):
        train(models, files, tmp_path / "out", epochs=1, resume=True, pooling="mean")
    # What counts are the weights, not what their folder is called.
    other = shutil.copytree(models["bert"].parent / "dropping", tmp_path / "other")
    finetune_classifier(other, *files, tmp_path / "out", **options)
    weights = load_file(other / "model.safetensors")
    weights["embeddings.LayerNorm.bias"][0] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"task\.weights '\w{16}', got '\w{16}'"):
        finetune_classifier(other, *files, tmp_path / "out", **options)


def test_overwriting_leaves_nothing_of_the_report(models, files, tmp_path, monkeypatch):
    folder = train(models, files, tmp_path / "out", epochs=1).folder
    before = {path.name for path in folder.iterdir()}

    def interrupted(self: Any, model: Any) -> dict[str, float]:
        raise StopError

    monkeypatch.setattr(FinetuningTask, "evaluate", interrupted)
    with pytest.raises(StopError):
        train(models, files, folder, epochs=1, overwrite=True)
    assert {"README.md", "predictions.jsonl", "confusion_matrix.png"} <= before
    assert not {*checkpoints.REPORT, "model.safetensors"} & {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("function", "write", "name", "usual"),
    [
        (finetune_classifier, write_moods, "a.tsv", 5e-5),
        (finetune_tagger, write_tags, "a.conll", 5e-5),
        (finetune_question_answering, write_questions, "a.json", 3e-5),
    ],
)
def test_other_options_leave_the_learning_rate_as_it_is(models, tmp_path, function, write, name, usual):
    file = write(tmp_path / name, 20)
    function(models["bert"], file, file, tmp_path / "out", options=TrainingOptions(seed=1), epochs=1)
    state = json.loads((checkpoints.latest(tmp_path / "out") / checkpoints.STATE).read_text())
    assert state["settings"]["options"]["learning_rate"] == usual


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> list[dict[str, torch.Tensor]]:
    """Evaluations that say these figures; the weights at each."""
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(self: Any, model: Any) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"accuracy": values[len(seen) - 1], "macro_f1": -len(seen)}

    monkeypatch.setattr(ClassificationTask, "evaluate", evaluate)
    return seen


def same(folder: Path, weights: dict[str, torch.Tensor]) -> bool:
    model = bertfast.models.BertForSequenceClassification.from_pretrained(folder)
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_the_best_epoch_is_what_is_left(models, files, tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [0.1, 0.5, 0.5, 0.3])
    result = train(models, files, tmp_path / "out", epochs=4)
    assert (result.best_step, result.best_epoch) == (8, 2)
    assert [same(result.folder, weights) for weights in seen] == [False, True, False, False]
    assert [row["accuracy"] for row in result.history] == [0.1, 0.5, 0.5, 0.3]
    # The figures are those of these weights, and not of the last ones.
    find = bertfast.pipeline("text-classification", result.folder)
    rows = [json.loads(line) for line in (result.folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == [find(row["text"])[0]["label"] for row in rows]
    last = bertfast.pipeline("text-classification", result.folder / "checkpoint-000016")
    assert [row["prediction"] for row in rows] != [last(row["text"])[0]["label"] for row in rows]
    assert "epoch 2 (step 8), which had the best accuracy" in (result.folder / "README.md").read_text()


@pytest.mark.parametrize("writes", range(9))
def test_the_best_are_known_wherever_it_ends(models, files, tmp_path, monkeypatch, writes):
    """Between any two writes; it goes on with evaluations at other steps, none as good as that of step 8."""
    figures = {2: 0.3, 3: 0.2, 4: 0.5, 6: 0.4, 8: 0.7, 9: 0.45, 10: 0.6, 12: 0.45}
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def evaluate(self: Trainer) -> dict[str, float]:
        seen[self.step] = {name: value.clone() for name, value in self.model.state_dict().items()}
        return {"accuracy": figures[self.step], "macro_f1": 0.0}

    written, left = checkpoints._written, [writes]

    def dying(*arguments: Any) -> None:
        if not left[0]:
            raise StopError
        left[0] -= 1
        written(*arguments)

    monkeypatch.setattr(Trainer, "_evaluate", evaluate)
    options = replace(FAST, eval_every=2, save_every=5)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_written", dying)
        with pytest.raises(StopError):
            train(models, files, tmp_path / "out", options=options)
    options = replace(options, eval_every=3)
    result = train(models, files, tmp_path / "out", options=options, resume=True)
    rows = {row["step"]: row["accuracy"] for row in result.history}
    assert result.best_step == max(rows, key=lambda step: rows[step])
    assert same(result.folder, seen[result.best_step])


def test_the_figure_that_decides(models, files, tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [0.1, 0.5, 0.5])
    result = train(models, files, tmp_path / "out", metric_for_best_model="macro_f1")
    assert (result.metric_for_best_model, result.best_step) == ("macro_f1", 4)
    assert same(result.folder, seen[0])


def test_early_stopping(models, files, tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [0.1, 0.5, 0.4, 0.5, 0.9])
    result = train(models, files, tmp_path / "out", epochs=5, early_stopping_patience=2)
    assert len(seen) == 4
    assert result.best_epoch == 2
    assert (tmp_path / "out/checkpoint-000016").exists()
    # It had ended, and does not begin anew; there is a checkpoint of the end, if none was due.
    again = train(models, files, tmp_path / "out", epochs=5, early_stopping_patience=2, resume=True)
    assert len(seen) == 4
    assert again.best_epoch == 2
    seen.clear()
    rarely = replace(FAST, save_every=1000)
    train(models, files, tmp_path / "rarely", epochs=5, early_stopping_patience=2, options=rarely)
    assert (tmp_path / "rarely/checkpoint-000016").exists()


def test_evaluations_within_an_epoch(models, files, tmp_path):
    result = train(models, files, tmp_path / "out", epochs=1, options=replace(FAST, eval_every=2))
    assert [(row["step"], row["epoch"]) for row in result.history] == [(2, 0.5), (4, 1)]


def test_parts_of_a_batch_change_nothing(models, files, tmp_path):
    still = models["bert"]
    results = [
        finetune_classifier(
            still,
            *files,
            tmp_path / f"{parts}",
            options=replace(FAST, gradient_accumulation_steps=parts),
            batch_size=16,
            epochs=2,
        )
        for parts in (1, 3)
    ]
    first, second = (float(one.history[-1]["loss"]) for one in results)
    assert first == pytest.approx(second, rel=1e-3)


# --------------------------------------------------------------------------------------------------- batches


class Counting(FinetuningTask[int]):
    """Rows that say which one they are."""

    figures = ("accuracy",)

    def counts(self, micro_batches: Any) -> dict[str, int]:
        return {"loss": sum(int((part["labels"] >= 0).sum()) for part in micro_batches)}

    def losses(self, model: Any, micro_batch: Any) -> Any:
        raise NotImplementedError

    def predictions(self, encoder: Any, numbers: Any) -> list[int]:
        return list(numbers)

    def metrics(self, predictions: Any) -> dict[str, float]:
        return {}

    def findings(self, predictions: Any) -> Any:
        raise NotImplementedError


def counting(rank: int = 0, world_size: int = 1, parts: int = 1, seed: int = 0) -> Counting:
    numbers = np.arange(ROWS)
    rows = Rows(
        np.append(0, np.cumsum(numbers % 3 + 1)),
        {"input_ids": np.repeat(numbers, numbers % 3 + 1)},
        {"labels": numbers, "values": numbers.astype(np.float32)},
    )
    ranks = Ranks(rank, world_size, torch.device("cpu"))
    start: Any = None
    return Counting(start, rows, evaluated=5, digest="", ranks=ranks, seed=seed, batch_size=16, parts=parts)


def epoch(task: Counting, steps: int = 4) -> list[list[int]]:
    batches = task.batches()
    return [
        [int(number) for part in next(batches) for number in part["labels"] if number >= 0]
        for _ in range(steps)
    ]


def test_an_epoch_has_every_row_once():
    task = counting()
    first, second = epoch(task), epoch(task)
    assert [len(batch) for batch in first] == [16, 16, 16, 2]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(ROWS))
    assert first != second
    assert first != epoch(counting(seed=1))
    assert first != epoch(counting(seed=2**32))
    assert task.columns() == {"epoch": 2}


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("parts", [1, 4])
def test_processes_share_a_batch(world_size, parts):
    whole = epoch(counting())
    shares = [epoch(counting(rank, world_size, parts)) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        assert sorted(number for share in shares for number in share[step]) == sorted(batch)


def test_who_has_nothing_of_a_batch_takes_part_with_what_does_not_count():
    task = counting(rank=2, world_size=3)
    batches = task.batches()
    parts = [next(batches) for _ in range(4)][-1]
    assert len(parts) == 1
    assert parts[0]["labels"].tolist() == [-100]
    assert parts[0]["values"].isnan().all()
    assert task.counts(parts) == {"loss": 0}


def test_rows_of_a_batch_are_whole():
    part = counting().rows.batch(np.array([5, 0, 4]))
    assert part["input_ids"].tolist() == [5, 5, 5, 0, 4, 4]
    assert part["cu_seqlens"].tolist() == [0, 3, 4, 6]
    assert part["labels"].tolist() == [5, 0, 4]


def test_going_on_in_the_middle_of_an_epoch():
    task, other = counting(), counting()
    batches = task.batches()
    for _ in range(6):
        next(batches)
    other.load_state_dict(json.loads(json.dumps(task.state_dict())))
    rest = [[part["labels"].tolist() for part in next(batches)] for _ in range(5)]
    assert rest == [
        [part["labels"].tolist() for part in parts]
        for parts, _ in zip(other.batches(), range(5), strict=False)
    ]


# ------------------------------------------------------------------------------------------- where to begin


@pytest.mark.parametrize("function", [finetune_classifier, finetune_tagger, finetune_question_answering])
def test_models_that_cannot_be_trained(models, function, tmp_path):
    examples = {
        finetune_classifier: write_moods(tmp_path / "a.tsv", 9),
        finetune_tagger: write_tags(tmp_path / "a.conll", 9),
        finetune_question_answering: write_questions(tmp_path / "a.json", 9),
    }[function]

    def refused(kind: type[Exception], message: str) -> None:
        with pytest.raises(kind) as caught:
            function(folder, examples, examples, tmp_path / "out", options=FAST)
        assert str(caught.value) == message
        assert not (tmp_path / "out").exists()

    folder = make_model(tmp_path / "model")
    (folder / "vocab.txt").unlink()
    refused(TokenizerError, f"{folder}: expected tokenizer.json or vocab.txt, found neither")
    folder = make_model(tmp_path / "small", vocab_size=20)
    last = len((folder / "vocab.txt").read_text().split()) - 1
    refused(ConfigError, f"{folder}: vocab_size: expected more than {last}, the tokenizer's last id, got 20")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "distilbert"}))
    known = "bert, roberta, xlm-roberta, camembert, albert"
    refused(
        ConfigError,
        f"{folder / 'config.json'}: model_type: expected one of {known}, got 'distilbert'",
    )
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        function(folder, examples, examples, tmp_path / "out", options=FAST)
    (folder / "config.json").unlink()
    refused(
        FileNotFoundError,
        f"{folder / 'config.json'}: no such file; a model folder has config.json and weights",
    )


@pytest.mark.parametrize("head", ["MaskedLM", "PreTraining"])
def test_a_model_with_a_pretraining_head_will_do(files, head, tmp_path, recwarn):
    kind = getattr(bertfast.models, f"BertFor{head}")
    folder = make_model(tmp_path / "model")
    torch.manual_seed(1)
    kind(kind.config_class.from_pretrained(folder)).save_pretrained(folder)
    result = finetune_classifier(folder, *files, tmp_path / "out", options=FAST, epochs=1, batch_size=16)
    assert result.metrics["accuracy"] >= 0
    assert not [warning for warning in recwarn if "start values" in str(warning.message)]


@pytest.mark.parametrize("function", [finetune_classifier, finetune_tagger, finetune_question_answering])
def test_bfloat16_is_for_training(models, function, tmp_path):
    """What is reported is what the folder gives in float32, which another evaluation finds as well."""
    examples = {
        finetune_classifier: write_moods(tmp_path / "a.tsv", 40),
        finetune_tagger: write_tags(tmp_path / "a.conll", 40),
        finetune_question_answering: write_questions(tmp_path / "a.json", 40, impossible=0.3),
    }[function]
    own: dict[str, Any] = {"max_query_length": 4} if function is finetune_question_answering else {}
    options = replace(FAST, dtype="bfloat16", device="cpu")
    result = function(
        models["bert"], examples, examples, tmp_path / "a/out", options=options, epochs=2, batch_size=8, **own
    )
    still = replace(FAST, learning_rate=1e-12, device="cpu")
    again = function(result.folder, examples, examples, tmp_path / "b/out", options=still, epochs=1, **own)
    assert again.metrics == pytest.approx(result.metrics, rel=1e-5)
    lines = [(one.folder / "predictions.jsonl").read_text() for one in (result, again)]
    assert lines[0].count("\n") == lines[1].count("\n") == 40
