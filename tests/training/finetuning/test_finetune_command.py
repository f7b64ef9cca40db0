"""``bertfast finetune`` from end to end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import bertfast
from bertfast.cli import main
from bertfast.training import log
from command_line import error_of
from tiny_finetuning import write_moods, write_questions, write_tags


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str | Path) -> Done:
    """Runs it in this process: others would take seconds to import PyTorch."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(["finetune", *map(str, arguments)])
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def process(*arguments: str | Path, start: tuple[str, ...] = ()) -> Done:
    """Runs it in another process."""
    done = subprocess.run(
        [sys.executable, *start, "-m", "bertfast", "finetune", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return Done(done.returncode, done.stdout, done.stderr)


COMMON = ("--learning-rate", "5e-3", "--batch-size", "16", "--num-threads", "1", "--device", "cpu")


def paths(models: dict[str, Path], train: Path, dev: Path, output: Path) -> list[str | Path]:
    return ["--model", models["bert"], "--train", train, "--eval", dev, "-o", output, *COMMON]


@pytest.fixture
def moods(models: dict[str, Path], tmp_path: Path) -> list[str | Path]:
    files = write_moods(tmp_path / "train.tsv", 100), write_moods(tmp_path / "dev.tsv", 30, seed=1)
    return paths(models, *files, tmp_path / "out")


def test_classify_and_going_on(moods, tmp_path):
    out = tmp_path / "out"
    done = command("classify", *moods, "--epochs", "2", "--seed", "3", "--pooling", "mean", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    assert re.fullmatch(rf"{re.escape(str(out))}: accuracy \d\.\d{{4}}, .* \(epoch [12]\)", lines[0])
    assert "evaluation: accuracy" in done.stderr
    config = json.loads((out / "config.json").read_text())
    assert config["classifier_pooling"] == "mean"
    assert [row["step"] for row in log.read(out)] == ["7", "10", "14"]

    again = command("classify", *moods, "--epochs", "2")
    assert error_of(again).endswith("go on with it (resume), begin anew (overwrite), or name another folder")
    arguments = [*moods, "--epochs", "2", "--seed", "3", "--pooling", "mean", "--warmup", "0"]
    resumed = command("classify", *arguments, "--resume", "--json", "--quiet")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    found = json.loads(resumed.stdout)
    assert found["folder"] == str(out)
    assert f"accuracy {found['metrics']['accuracy']:.4f}," in lines[0]
    assert [row["step"] for row in found["history"]] == [7, 14]
    assert command("classify", *arguments, "--overwrite", "--quiet").stdout == done.stdout


def test_tag(models, tmp_path):
    files = write_tags(tmp_path / "train.conll", 60), write_tags(tmp_path / "dev.conll", 20, seed=1)
    options = [
        "--epochs",
        "1",
        "--max-seq-length",
        "16",
        "--stride",
        "4",
        "--scratch",
        "--early-stopping",
        "1",
    ]
    done = command("tag", *paths(models, *files, tmp_path / "out"), *options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metric_for_best_model"] == "f1"
    card = (tmp_path / "out/README.md").read_text()
    for fact in ("| max_seq_length | `16` |", "| stride | `4` |", "| init | `scratch` |", "`0.005`"):
        assert fact in card


def test_qa(models, tmp_path):
    files = write_questions(tmp_path / "a.json", 60), write_questions(tmp_path / "b.json", 20, seed=1)
    options = ["--epochs", "1", "--max-seq-length", "24", "--stride", "6", "--max-query-length", "3"]
    options += ["--max-answer-length", "7", "--n-best-size", "5", "--version-2-with-negative"]
    options += ["--null-score-diff-threshold", "0.5", "--answer-rule", "squad"]
    done = command("qa", *paths(models, *files, tmp_path / "out"), *options)
    assert done.returncode == 0, done.stderr
    assert "exact_match" in done.stdout
    card = (tmp_path / "out/README.md").read_text()
    assert "top_k=5, max_seq_len=24, doc_stride=6, max_question_len=3, max_answer_len=7, handle_imp" in card
    assert "| null_score_diff_threshold | `0.5` |" in card


def test_two_processes_train_what_one_does(moods, tmp_path):
    """Of 33 examples in batches of 16 the last one is for one process alone."""
    write_moods(tmp_path / "train.tsv", 33)
    options = ["--epochs", "2", "--json", "--quiet"]
    alone = command("classify", *moods, *options)
    moods[moods.index(tmp_path / "out")] = tmp_path / "both"
    start = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    both = process("classify", *moods, *options, start=start)
    assert both.returncode == 0, both.stderr
    one, two = (json.loads(done.stdout) for done in (alone, both))
    assert two["metrics"]["loss"] == pytest.approx(one["metrics"]["loss"], rel=0.02)
    assert len(two["history"]) == 2
    texts = [
        [
            json.loads(line)["text"]
            for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()
        ]
        for name in ("out", "both")
    ]
    assert texts[0] == texts[1]
    assert bertfast.pipeline("text-classification", tmp_path / "both").encoder.labels == [
        "between",
        "down",
        "up",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rate", "0"], "learning_rate: expected a positive number, got 0.0"),
        (
            ["--metric-for-best-model", "f1"],
            "metric_for_best_model: expected one of accuracy, macro_f1, mcc, got 'f1'",
        ),
        (["--text-column", "words"], "TRAIN:1: no column 'words', found 'label', 'text'"),
        (["--eval", "/nowhere.tsv"], "/nowhere.tsv: No such file or directory"),
        (["--model", "./nowhere"], "./nowhere: no such folder (and not a name on the Hugging Face hub)"),
        (["--problem-type", "regression"], "TRAIN:2: field 'label': expected a number, got 'up'"),
        (["--warmup", "1000"], "warmup: expected at most 30 steps, all of them, got 1000"),
    ],
)
def test_mistakes_are_one_line(moods, tmp_path, arguments, message):
    (tmp_path / "train.tsv").write_text("label\ttext\n" + "up\tword1 good\ndown\tbad\nbetween\tso\n" * 50)
    done = command("classify", *moods, *arguments)
    assert error_of(done) == message.replace("TRAIN", str(tmp_path / "train.tsv"))


def test_help_says_what_there_is():
    done = command()
    assert done.returncode == 2
    for name in ("classify", "tag", "qa"):
        assert f"  {name} " in done.stderr
        page = command(name, "--help")
        assert page.returncode == 0
        rate = "3e-5" if name == "qa" else "5e-5"
        text = " ".join(page.stdout.split())
        assert f"the highest, default: {rate}" in text
        assert "steps, default: those of an epoch" in text
        for option in (
            "--model",
            "--train",
            "--eval",
            "--early-stopping",
            "--resume",
            "--gradient-checkpointing",
        ):
            assert option in text
