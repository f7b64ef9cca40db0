"""``bertfast pretrain`` from end to end."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from bertfast.training import log
from bertfast.training.options import TrainingOptions
from command_line import error_of, run_bertfast
from tiny_pretraining import write_config


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_bertfast("pretrain", *arguments)


@pytest.fixture
def asked(store, tmp_path) -> list[str | Path]:
    paths = ["--store", store, "--config", write_config(tmp_path / "config.json"), "-o", tmp_path / "out"]
    return [*paths, "--device", "cpu", "--num-threads", "1"]


def test_from_a_store_to_a_model(asked, eval_store, tmp_path):
    """Every option, two phases, and going on."""
    out = tmp_path / "out"
    arguments = [
        *asked,
        "--max-seq-length",
        "32",
        "48",
        "--steps",
        "4",
        "3",
        "--batch-tokens",
        "200",
        "--seed",
        "5",
    ]
    arguments += [
        "--preset",
        "bert",
        "--masked-lm-prob",
        "0.2",
        "--optimizer",
        "lamb",
        "--learning-rate",
        "1e-3",
    ]
    arguments += ["--warmup", "2", "--decay", "polynomial", "--power", "2", "--weight-decay", "0.1"]
    arguments += ["--max-grad-norm", "0.5", "--gradient-accumulation-steps", "2", "--dtype", "bfloat16"]
    arguments += [
        "--eval-store",
        eval_store,
        "--eval-samples",
        "20",
        "--eval-every",
        "3",
        "--save-every",
        "2",
    ]
    arguments += ["--keep", "3", "--log-every", "1", "--gradient-checkpointing"]
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if "matplotlib" not in line]
    assert [line.split(",")[0] for line in lines[:-1]] == ["step 3", "step 6", "step 7"]
    assert re.match(
        r"step 7, loss \d+\.\d{4}, learning rate .*; evaluation: loss .* nsp_accuracy \d", lines[-2]
    )
    assert re.fullmatch(rf"{re.escape(str(out))}: 7 steps in \d+\.\d s", lines[-1])
    assert [path.name for path in sorted(out.glob("checkpoint-*"))] == [
        f"checkpoint-{n:06}" for n in (4, 6, 7)
    ]
    rows = log.read(out)
    assert [row["max_seq_length"] for row in rows] == ["32"] * 4 + ["48"] * 3
    assert [row["step"] for row in rows if row["eval_mlm_accuracy"]] == ["3", "6", "7"]

    weights = (out / "model.safetensors").read_bytes()
    assert error_of(command(*arguments)).startswith(
        f"{out}: expected no training, found checkpoint-000007: go on"
    )
    shutil.rmtree(out / "checkpoint-000007")
    (out / "model.safetensors").unlink()
    done = command(*arguments, "--resume", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "model.safetensors").read_bytes() == weights
    done = command(*arguments, "--overwrite", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--steps", "2", "2", "--max-seq-length", "8", "16", "32", "--batch-size", "4"],
            "--max-seq-length: expected one value, or 2 as --steps has, got 3",
        ),
        (
            ["--steps", "2", "--batch-size", "4", "4"],
            "--batch-size: expected one value, or 1 as --steps has, got 2",
        ),
        (
            ["--steps", "2", "--batch-size", "4"],
            "max_position_embeddings: expected at least 128, for samples of 128",
        ),
        (
            ["--steps", "2", "--batch-size", "4", "--learning-rate", "0"],
            "learning_rate: expected a positive number",
        ),
        (
            ["--steps", "2", "--batch-size", "4", "--device", "tpu"],
            "device: expected 'auto', 'cpu' or 'cuda'",
        ),
        (
            ["--steps", "2", "--batch-size", "4", "--max-seq-length", "16", "--init-from", "absent"],
            "absent: no such",
        ),
        (["--steps", "2", "--batch-size", "4", "--store", "absent"], "absent"),
        (["--steps", "2", "--batch-size", "4", "--config", "absent"], "absent"),
    ],
)
def test_mistakes_are_one_line(asked, arguments, message):
    assert message in error_of(command(*asked, *arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "4"], "the following arguments are required: --steps"),
        (["--steps", "4"], "one of the arguments --batch-size --batch-tokens is required"),
        (
            ["--steps", "4", "--batch-size", "4", "--batch-tokens", "9"],
            "not allowed with argument --batch-size",
        ),
        (["--steps", "0", "--batch-size", "4"], "0: expected at least 1"),
        (["--steps", "4", "--batch-size", "4", "--decay", "cosine"], "invalid choice: 'cosine'"),
    ],
)
def test_arguments_that_argparse_refuses(asked, arguments, message):
    done = command(*asked, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_help_says_what_options_are_left_at():
    done = command("--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for field in fields(TrainingOptions):
        if field.name in ("betas", "eps"):
            continue
        name = f"--{field.name.replace('_', '-')}"
        described = text[text.rindex(name) :]
        # Fine-tuning has others.
        usual = 1e-4 if field.name == "learning_rate" else field.default
        if usual is False:
            assert name in text
        elif usual is None:
            assert "default: at the end only" in described[:120], name
        else:
            found = re.search(r"default: ([^\s,)]+)", described)
            assert found is not None, name
            assert type(usual)(found[1]) == usual, name


def test_ctrl_c(asked, tmp_path):
    arguments = [
        *asked,
        "--max-seq-length",
        "32",
        "--steps",
        "100000",
        "--batch-size",
        "8",
        "--log-every",
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "bertfast", "pretrain", *map(str, [*arguments, "--save-every", "10"])],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "out/checkpoint-000010").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "bertfast: interrupted"
    assert "Traceback" not in errors
    assert not list((tmp_path / "out").glob(".*"))
