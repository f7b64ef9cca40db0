"""Several processes give what one gives. They take seconds to start, so each test looks at much."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bertfast.errors import ArgumentError
from bertfast.training import log
from bertfast.training.distributed import (
    _device,
    all_sum,
    device_of,
    is_first_to_fail,
    processes,
    wait_for_all,
)
from bertfast.training.pretraining_task import Phase
from tiny_pretraining import STILL, gradients_of, run, start, trainer, write_config

GRADIENTS = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from bertfast.training.distributed import processes
from bertfast.training.pretraining_task import Phase
from tiny_pretraining import gradients_of, trainer

torch.set_num_threads(1)
store, output, size, parts, batches = json.loads(sys.argv[1])
with processes("cpu") as ranks:
    one = trainer(
        Path(store), Path(output), phases=(Phase(48, 9, batch_size=size),), ranks=ranks, dropout=False,
        max_grad_norm=0, gradient_accumulation_steps=parts,
    )
    gradients = gradients_of(one, batches)
    if ranks.is_first:
        save_file(gradients, output + "/gradients.safetensors")
"""


@pytest.mark.parametrize(("processes", "parts", "batches"), [(2, 3, 1), (3, 1, 3)])
def test_gradients_do_not_depend_on_the_processes(store, tmp_path, processes, parts, batches):
    """The third of three batches has fewer samples than there are processes."""
    samples = len(trainer(store, tmp_path, phases=(Phase(48, 1, 7),)).task._sampler.dataset)
    size = 7 if batches == 1 else (samples - 1) // 2
    program = tmp_path / "program.py"
    program.write_text(GRADIENTS)
    run([store, tmp_path, size, parts, batches], processes, program)
    found = load_file(tmp_path / "gradients.safetensors")
    phases = (Phase(48, 9, batch_size=size),)
    alone = gradients_of(trainer(store, tmp_path, phases=phases, dropout=False, max_grad_norm=0), batches)
    assert found.keys() == alone.keys()
    largest = max(float(value.abs().max()) for value in alone.values())
    for name, value in alone.items():
        # float32 sums of the same numbers in another order; wrong weights are off by percents.
        assert float((value - found[name]).abs().max()) <= 1e-6 * largest, name


def arguments(store: Path, eval_store: Path, folder: Path, **config: Any) -> dict[str, Any]:
    """Of a run with two phases, in which every step is in the log."""
    return {
        "store": store,
        "config": write_config(folder / "config.json", **config),
        "output": folder / "out",
        "phases": [
            {"max_seq_length": 32, "steps": 5, "batch_size": 9},
            {"max_seq_length": 48, "steps": 4, "batch_tokens": 400},
        ],
        "eval_store": eval_store,
        "eval_samples": 30,
        "options": {"device": "cpu", "learning_rate": 1e-3, "log_every": 1, "save_every": 3, "keep": 9},
    }


def test_two_processes_follow_the_curve_of_one(store, eval_store, tmp_path):
    """From the first step on, and from a checkpoint of the one."""
    asked = arguments(store, eval_store, tmp_path, **STILL)
    outputs = {1: tmp_path / "one", 2: tmp_path / "two"}
    found = {
        count: json.loads(run(asked | {"output": output}, count).splitlines()[-1])
        for count, output in outputs.items()
    }
    one, two = (log.read(output) for output in outputs.values())
    assert len(one) == len(two) == 9
    for first, second in zip(one, two, strict=True):
        for name in ("step", "epoch", "max_seq_length", "tokens", "learning_rate"):
            assert first[name] == second[name]
        for name in ("loss", "mlm_loss", "nsp_loss"):
            # Sums in float32 in another order; Adam makes as much of a small difference as of a large one.
            assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-4), first["step"]
    assert found[1] == pytest.approx(found[2], rel=1e-4)
    names = [sorted(path.name for path in output.iterdir()) for output in outputs.values()]
    assert names[0] == names[1]

    again = tmp_path / "again"
    shutil.copytree(outputs[1] / "checkpoint-000006", again / "checkpoint-000006")
    run(asked | {"output": again, "resume": True}, 2)
    for mine, other in zip(log.read(again), one[6:], strict=True):
        assert mine["step"] == other["step"]
        assert float(mine["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)


@pytest.mark.parametrize(("processes", "config"), [(2, {"tie_word_embeddings": False}), (3, {})])
def test_processes_go_on_with_the_same_bits(store, eval_store, tmp_path, processes, config):
    """With dropout, of each process its own; also where a parameter of the model is not read."""
    asked = arguments(store, eval_store, tmp_path, **config)
    output = Path(asked["output"])
    run(asked, processes)
    again = tmp_path / "again"
    again.mkdir()
    shutil.copytree(output / "checkpoint-000003", again / "checkpoint-000003")
    shutil.copy(output / "log.csv", again)
    run(asked | {"output": again, "resume": True}, processes)
    for name in ("model.safetensors", "checkpoint-000009/optimizer.safetensors"):
        assert (again / name).read_bytes() == (output / name).read_bytes()
    assert [row["loss"] for row in log.read(again)] == [row["loss"] for row in log.read(output)]


APART = """
import json, os, sys
from pathlib import Path
import torch
from bertfast.errors import TrainingError
from bertfast.training.distributed import processes
from tiny_pretraining import trainer

torch.set_num_threads(1)
store, output, said = json.loads(sys.argv[1])
with processes("cpu") as ranks:
    try:
        trainer(Path(store), Path(output) / str(ranks.rank), ranks=ranks).train(12, resume=True)
    except TrainingError as error:
        Path(said, str(ranks.rank)).write_text(str(error))
"""


def test_processes_that_see_other_checkpoints(store, tmp_path):
    """Their disks are not the same one."""
    trainer(store, tmp_path / "0", save_every=6).train(12)
    program = tmp_path / "program.py"
    program.write_text(APART)
    (tmp_path / "said").mkdir()
    run([store, tmp_path, tmp_path / "said"], 2, program)
    for rank in "01":
        assert (tmp_path / "said" / rank).read_text() == (
            f"{tmp_path / rank}: expected the same newest checkpoint in all processes, got "
            "checkpoint-000012 (rank 0), none (rank 1): they need one disk"
        )


FAILING = """
import json, os, sys
import torch
from bertfast import cli
from bertfast.errors import CorpusError
from bertfast.training.pretraining_task import PretrainingTask

torch.set_num_threads(1)
losses = PretrainingTask.losses
calls = 0
def fail(self, model, micro_batch):
    global calls
    calls += 1
    if calls == 3 and os.environ["RANK"] == "1":
        raise CorpusError("the store is damaged here")
    return losses(self, model, micro_batch)
PretrainingTask.losses = fail
sys.exit(cli.main(json.loads(sys.argv[1])))
"""


def test_an_error_of_one_process_ends_all_with_one_line(store, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(FAILING)
    config = write_config(tmp_path / "config.json")
    paths = ["--store", str(store), "--config", str(config), "--output", str(tmp_path / "out")]
    batches = ["--max-seq-length", "32", "--steps", "9", "--batch-size", "4", "--device", "cpu", "--quiet"]
    start_time = time.monotonic()
    process = start(["pretrain", *paths, *batches], 2, program)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert time.monotonic() - start_time < 60
    ours = [line for line in errors.splitlines() if "bertfast:" in line]
    assert ours == ["bertfast: error: the store is damaged here"], errors
    # What follows is torchrun's own; no process of ours has a traceback.
    assert "tiny_pretraining.py" not in errors
    assert 'program.py", line' not in errors


def test_a_mistake_is_told_once(store, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(FAILING)
    config = write_config(tmp_path / "config.json")
    paths = ["--store", str(store), "--config", str(config), "--output", str(tmp_path / "out")]
    batches = ["--max-seq-length", "128", "--steps", "9", "--batch-size", "4", "--device", "cpu"]
    process = start(["pretrain", *paths, *batches], 2, program)
    _, errors = process.communicate()
    ours = [line for line in errors.splitlines() if "bertfast:" in line]
    message = "max_position_embeddings: expected at least 128, for samples of 128 tokens, got 64"
    assert ours == [f"bertfast: error: {message}"], errors
    assert not (tmp_path / "out").exists()


def test_one_process_needs_nothing():
    with processes("cpu") as ranks:
        assert (ranks.rank, ranks.world_size, ranks.device, ranks.is_first) == (
            0,
            1,
            torch.device("cpu"),
            True,
        )
        assert not torch.distributed.is_initialized()
        assert all_sum({"b": 2, "a": 0.5}) == {"b": 2, "a": 0.5}
        wait_for_all()
        assert is_first_to_fail()


@pytest.mark.parametrize(
    ("backends", "device"),
    [
        ("cuda:nccl", "cuda"),
        ("cpu:gloo,cuda:nccl", "cpu"),
        ("cuda:nccl,cpu:gloo", "cpu"),
        ("cpu:gloo,cuda:gloo", "cpu"),
    ],
)
def test_sums_are_where_the_group_can_add(backends, device):
    """A program that has initialized NCCL alone has none on the CPU."""
    assert device_of(backends) == device


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device: expected 'auto', 'cpu' or 'cuda', such as 'cuda:0', got 'gpu'"),
        ("mps", "device: expected 'auto', 'cpu' or 'cuda', such as 'cuda:0', got 'mps'"),
        ("cuda:99", r"device: expected one of the \d+ GPUs that PyTorch finds, got 'cuda:99'"),
    ],
)
def test_devices_that_there_are_not(device, message):
    with pytest.raises(ArgumentError, match=message), processes(device):
        pass


@pytest.mark.parametrize(
    ("gpus", "visible", "local_rank", "world", "asked", "device"),
    [
        (0, None, 0, 1, "auto", "cpu"),
        (1, None, 0, 1, "auto", "cuda:0"),
        (4, None, 3, 4, "auto", "cuda:3"),
        (4, None, 3, 4, "cuda", "cuda:3"),
        (4, None, 3, 4, "cpu", "cpu"),
        (2, None, 1, 4, "auto", "cpu"),
        (2, "0,3", 1, 2, "auto", "cuda:1"),
        (1, "3", 3, 4, "auto", "cuda:0"),
        (1, "3", 3, 4, "cuda", "cuda:0"),
    ],
)
def test_the_gpu_of_a_process(gpus, visible, local_rank, world, asked, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _device(asked) == torch.device(device)


def test_too_few_gpus_are_not_left_out_in_silence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with (
        pytest.warns(UserWarning, match="training on the CPU: 2 processes, but GPUs: 1"),
        processes() as ranks,
    ):
        assert ranks.device == torch.device("cpu")
