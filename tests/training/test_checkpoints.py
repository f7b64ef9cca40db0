"""Checkpoints: whole or not there, as many as asked for, and only for training that goes with them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bertfast.errors import CheckpointError, TrainingError
from bertfast.models import AlbertConfig, AlbertForPreTraining, BertConfig, BertForMaskedLM
from bertfast.training import checkpoints, log
from bertfast.training.pretraining_task import Phase
from tiny_pretraining import TINY, assert_same, trainer, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def trained(store, one_thread, tmp_path_factory) -> Path:
    """Twelve steps with a checkpoint after the sixth and the last."""
    folder = tmp_path_factory.mktemp("trained") / "out"
    trainer(store, folder, save_every=6).train(12)
    return folder


def test_a_checkpoint_is_a_models_folder_and_more(trained):
    model = {"config.json", "model.safetensors", "vocab.txt"}
    assert set(names(trained)) >= model | {"checkpoint-000006", "checkpoint-000012", "log.csv"}
    for step in (6, 12):
        folder = trained / f"checkpoint-{step:06}"
        assert set(names(folder)) == model | {"optimizer.safetensors", "training_state.json"}
        assert json.loads((folder / "training_state.json").read_text())["step"] == step
        BertForMaskedLM.from_pretrained(folder)
    last = trained / "checkpoint-000012"
    assert (last / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    tensors = load_file(last / "optimizer.safetensors")
    kinds = {name.partition(".")[0] for name in tensors}
    assert kinds == {"step", "exp_avg", "exp_avg_sq"}
    # The matrix that the head shares with the embeddings is there once.
    assert "exp_avg.bert.embeddings.word_embeddings.weight" in tensors
    assert "exp_avg.cls.predictions.decoder.weight" not in tensors


def test_whoever_may_read_other_files_may_read_weights(trained, tmp_path):
    """Safetensors makes its files for the owner alone."""
    (tmp_path / "other").touch()
    for path in (trained / "checkpoint-000012").iterdir():
        assert path.stat().st_mode == (tmp_path / "other").stat().st_mode, path


@pytest.mark.parametrize(("keep", "left"), [(1, [12]), (2, [10, 12]), (9, [2, 4, 6, 8, 10, 12])])
def test_so_many_stay(store, tmp_path, keep, left):
    trainer(store, tmp_path, save_every=2, keep=keep).train(12)
    assert [checkpoints.step_of(path) for path in checkpoints.all_of(tmp_path)] == left


def test_the_newest_is_that_of_the_highest_number(tmp_path):
    assert checkpoints.latest(tmp_path / "absent") is None
    for name in (
        "checkpoint-999999",
        "checkpoint-1000000",
        "checkpoint-000050",
        "checkpoint-12",
        "checkpoint-x",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / checkpoints.STATE).touch()
    assert checkpoints.latest(tmp_path) == tmp_path / "checkpoint-1000000"
    assert checkpoints.name_of(1000000) == "checkpoint-1000000"


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_going_on_gives_the_same_bits(store, tmp_path, optimizer):
    phases = (Phase(32, 7, batch_size=6), Phase(48, 5, batch_tokens=200))
    options = {"phases": phases, "optimizer": optimizer, "gradient_accumulation_steps": 2, "save_every": 1}
    whole = trainer(store, tmp_path / "whole", keep=20, **options)
    whole.train(12)
    expected, rows = weights(whole.model), log.read(tmp_path / "whole")
    # From each of them, the last of a phase and the end among them.
    for step in range(1, 13):
        part = tmp_path / str(step)
        part.mkdir()
        name = checkpoints.name_of(step)
        shutil.copytree(tmp_path / "whole" / name, part / name)
        shutil.copy(tmp_path / "whole/log.csv", part)
        again = trainer(store, part, **options)
        again.train(12, resume=True)
        assert_same(weights(again.model), expected)
        found = log.read(part)
        for row in (*rows, *found):
            row.pop("tokens_per_second", None)
        assert found == rows
        newest = checkpoints.name_of(12)
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (part / newest / file).read_bytes() == (tmp_path / "whole" / newest / file).read_bytes()


def test_an_epoch_that_ends_at_a_checkpoint(store, tmp_path):
    samples = len(trainer(store, tmp_path).task._sampler.dataset)
    phases = (Phase(32, 5, batch_size=10_000), Phase(32, 3, batch_size=samples * 2 // 3))
    whole = trainer(store, tmp_path / "whole", phases=phases, log_every=1, save_every=1, keep=9)
    whole.train(8)
    # The second phase begins with samples that the first did not have.
    assert [row["epoch"] for row in log.read(tmp_path / "whole")] == ["0", "1", "2", "3", "4", "5", "5", "6"]
    for step in (4, 5, 6, 7):
        part = tmp_path / str(step)
        shutil.copytree(tmp_path / "whole" / checkpoints.name_of(step), part / checkpoints.name_of(step))
        again = trainer(store, part, phases=phases)
        again.train(8, resume=True)
        assert_same(weights(again.model), weights(whole.model))


def test_resume_begins_where_there_is_nothing(store, tmp_path):
    one = trainer(store, tmp_path / "one")
    one.train(12, resume=True)
    other = trainer(store, tmp_path / "other")
    other.train(12)
    assert_same(weights(one.model), weights(other.model))
    # All is done: only the model is written again.
    (tmp_path / "one/model.safetensors").unlink()
    again = trainer(store, tmp_path / "one")
    again.train(12, resume=True)
    assert_same(weights(again.model), weights(one.model))
    assert (tmp_path / "one/model.safetensors").exists()


def test_what_is_there_is_not_lost(store, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "out")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        TrainingError, match=r"out: expected no training, found checkpoint-000012: go on with it"
    ):
        trainer(store, folder).train(12)
    for checkpoint in checkpoints.all_of(folder):
        shutil.rmtree(checkpoint)
    with pytest.raises(TrainingError, match=r"out: expected no training, found model\.safetensors"):
        trainer(store, folder).train(12)
    # A model that was not trained here is not replaced even if it is asked for.
    (folder / "log.csv").unlink()
    (folder / "loss.png").unlink(missing_ok=True)
    for asked in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(TrainingError, match="expected a new folder or one of training, found config"):
            trainer(store, folder).train(12, **asked)
    for path in (folder / "model.safetensors", folder / "config.json"):
        assert path.read_bytes() == before[path]


def test_overwriting(store, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "out")
    (folder / "notes").write_text("mine")
    one = trainer(store, folder, learning_rate=1e-3)
    one.train(12, overwrite=True)
    assert [path.name for path in checkpoints.all_of(folder)] == ["checkpoint-000012"]
    assert (folder / "notes").read_text() == "mine"
    assert len(log.read(folder)) == 4
    fresh = trainer(store, tmp_path / "fresh", learning_rate=1e-3)
    fresh.train(12)
    assert_same(weights(one.model), weights(fresh.model))


def test_what_an_end_in_the_middle_leaves_is_cleared_away(store, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "out")
    (folder / ".checkpoint-0123abcd.tmp").mkdir()
    (folder / ".checkpoint-0123abcd.tmp/model.safetensors").write_bytes(b"half")
    shutil.move(folder / "checkpoint-000006", folder / ".checkpoint-4567abcd.old")
    trainer(store, folder).train(12, resume=True)
    assert not list(folder.glob(".checkpoint*"))
    assert checkpoints.latest(folder) == folder / "checkpoint-000012"


def test_two_at_once(store, tmp_path):
    opened = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(opened, fcntl.LOCK_EX)
    with pytest.raises(TrainingError, match="another process is training into it"):
        trainer(store, tmp_path).train(12)
    os.close(opened)
    trainer(store, tmp_path).train(12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, r"options\.learning_rate 0\.0001, got 0\.001$"),
        ({"seed": 1, "warmup": 5}, r"options\.seed 0, got 1; options\.warmup 0\.1, got 5$"),
        ({"optimizer": "lamb"}, r"options\.optimizer 'adamw', got 'lamb'$"),
        ({"dtype": "bfloat16"}, r"options\.dtype 'float32', got 'bfloat16'$"),
        ({"phases": (Phase(32, 12, batch_size=5),)}, r"task\.phases \[.*'batch_size': 6.*, got .*5"),
    ],
)
def test_other_training_does_not_go_on(store, trained, changes, message):
    with pytest.raises(TrainingError, match=rf"checkpoint-000012: expected training with {message}"):
        trainer(store, trained, **changes).train(12, resume=True)


def test_another_number_of_steps_or_another_store_does_not_go_on(store, eval_store, trained):
    with pytest.raises(TrainingError, match="expected training with total_steps 12, got 13"):
        trainer(store, trained).train(13, resume=True)
    with pytest.raises(TrainingError, match=r"expected training with task\.store '"):
        trainer(eval_store, trained).train(12, resume=True)


def test_what_does_not_matter_may_be_another_one(store, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "out")
    shutil.rmtree(folder / "checkpoint-000012")
    options = {"log_every": 1, "save_every": 4, "keep": 5, "gradient_accumulation_steps": 3}
    trainer(store, folder, gradient_checkpointing=True, **options).train(12, resume=True)
    assert [checkpoints.step_of(path) for path in checkpoints.all_of(folder)] == [6, 8, 12]
    assert [row["step"] for row in log.read(folder)] == ["3", "6", "7", "8", "9", "10", "11", "12"]


@pytest.mark.parametrize("kind", [AlbertForPreTraining, BertForMaskedLM])
def test_a_checkpoint_of_another_model(trained, kind):
    config = {AlbertForPreTraining: AlbertConfig, BertForMaskedLM: BertConfig}[kind]
    model = kind(config.from_dict(TINY | {"model_type": config.model_types[0]}))
    optimizer = torch.optim.AdamW(model.parameters())
    before = weights(model)
    with pytest.raises(
        TrainingError, match=rf"expected a model with architectures \['{kind.__name__}'\], got"
    ):
        checkpoints.load(trained / "checkpoint-000012", model, optimizer)
    assert_same(before, weights(model))


def test_a_checkpoint_of_another_size(store, trained, monkeypatch):
    monkeypatch.setitem(TINY, "hidden_size", 64)
    monkeypatch.setitem(TINY, "num_hidden_layers", 1)
    message = "expected a model with hidden_size 64, got 32; num_hidden_layers 1, got 2"
    with pytest.raises(TrainingError, match=message):
        trainer(store, trained).train(12, resume=True)


def damage(checkpoint: Path, name: str) -> str:
    """Makes a file other than it was, and says what is to be heard of it."""
    path = checkpoint / name
    if name == "training_state.json":
        path.write_text("{")
        return r"training_state\.json: not valid JSON"
    if name == "optimizer.safetensors":
        tensors = load_file(path)
        del tensors["exp_avg.bert.pooler.dense.bias"]
        tensors["exp_avg.bert.pooler.dense.weight"] = torch.zeros(3)
        save_file(tensors, path)
        return r"optimizer\.safetensors: exp_avg\.bert\.pooler\.dense\.weight \[3\] is not of this model"
    path.write_bytes(path.read_bytes()[:-5])
    return r"model\.safetensors: not a safetensors file"


@pytest.mark.parametrize("name", ["training_state.json", "optimizer.safetensors", "model.safetensors"])
def test_a_checkpoint_that_is_damaged(store, trained, tmp_path, name):
    folder = shutil.copytree(trained, tmp_path / "out")
    message = damage(folder / "checkpoint-000012", name)
    with pytest.raises(CheckpointError, match=message):
        trainer(store, folder).train(12, resume=True)
    (folder / "checkpoint-000012" / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        trainer(store, folder).train(12, resume=True)
    # The one before it is still good.
    shutil.rmtree(folder / "checkpoint-000012")
    trainer(store, folder).train(12, resume=True)
    assert (folder / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


@pytest.mark.parametrize("state", ["[]", "{}", '{"step": 12}', '{"step": 12, "settings": {}, "task": 3}'])
def test_a_state_that_is_damaged(store, trained, tmp_path, state):
    folder = shutil.copytree(trained, tmp_path / "out")
    (folder / "checkpoint-000012/training_state.json").write_text(state)
    with pytest.raises((CheckpointError, TrainingError), match="checkpoint-000012"):
        trainer(store, folder).train(12, resume=True)


def test_tensors_that_are_missing_or_strange(trained, tmp_path):
    folder = shutil.copytree(trained / "checkpoint-000012", tmp_path / "checkpoint-000012")
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.pooler.dense.bias"]
    tensors["strange"] = torch.zeros(2)
    tensors["cls.predictions.bias"] = torch.zeros(2)
    save_file(tensors, folder / "model.safetensors")
    from bertfast.models import BertForPreTraining

    model = BertForPreTraining(BertConfig.from_dict(TINY))
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(folder, model, torch.optim.AdamW(model.parameters()))
    for part in (
        "bert.pooler.dense.bias is missing",
        "cls.predictions.bias has shape [2], expected [20]",
        "strange is not of this model",
    ):
        assert part in str(caught.value)


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
from tiny_pretraining import trainer
torch.set_num_threads(1)
one = trainer(Path(sys.argv[2]), Path(sys.argv[3]), save_every=6)
save = one._save
def limited():
    if one.step == 12:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
    save()
one._save = limited
try:
    one.train(12)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("limit", [100, 20_000, 120_000])
def test_a_full_disk_leaves_the_checkpoint_before(store, trained, tmp_path, limit):
    """The weights have 100,000 bytes, the optimizer twice as many."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    out = tmp_path / "out"
    script = [sys.executable, "-c", FULL, str(Path(__file__).parents[1]), str(store), str(out), str(limit)]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"TrainingError {out}: checkpoint-000012 could not be saved: "), done
    assert "File too large" in done.stdout
    assert done.stdout.endswith("the last checkpoint is checkpoint-000006\n")
    assert len(done.stdout.splitlines()) == 1
    assert set(names(out)) - {"loss.png"} == {"checkpoint-000006", "log.csv"}
    whole = trained / "checkpoint-000006"
    for file in names(whole):
        if file != "training_state.json":
            assert (out / "checkpoint-000006" / file).read_bytes() == (whole / file).read_bytes()
    trainer(store, out, save_every=6).train(12, resume=True)
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_a_disk_that_is_full_for_the_log(store, trained, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write = log.Log.write

    def full(self, row):
        if row["step"] == 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(log.Log, "write", full)
        with pytest.raises(TrainingError) as raised:
            trainer(store, out, save_every=6).train(12)
    expected = "log.csv: could not be written: No space left on device; the last good checkpoint is "
    assert str(raised.value) == f"{out}/{expected}{out}/checkpoint-000006"
    trainer(store, out, save_every=6).train(12, resume=True)
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_a_folder_that_cannot_be_made(store, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        trainer(store, tmp_path / "file").train(12)
    assert (tmp_path / "file").read_text() == "mine"
