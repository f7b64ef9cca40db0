"""What lies in the output folder of training: others' files are never touched, nothing is lost by a flag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertfast.errors import TrainingError
from bertfast.training import TrainingOptions, checkpoints


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def our_checkpoint(folder: Path, step: int) -> None:
    checkpoint = folder / checkpoints.name_of(step)
    checkpoint.mkdir(parents=True)
    (checkpoint / checkpoints.STATE).write_text("{}")


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "pytorch_model.bin",
        "model.safetensors.index.json",
        "config.json",
        "README.md",
        "tokenizer.json",
        "vocab.txt",
        "predictions.jsonl",
    ],
)
@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
def test_files_of_others_stay(tmp_path: Path, name: str, flags: dict[str, bool]) -> None:
    (tmp_path / name).write_text("mine")
    # Hugging Face's trainer names its checkpoints likewise.
    (tmp_path / "checkpoint-100000").mkdir()
    (tmp_path / "checkpoint-100000/model.safetensors").write_text("mine too")
    before = files_of(tmp_path)
    with pytest.raises(TrainingError, match=f"expected a new folder or one of training, found {name}"):
        checkpoints.prepare(tmp_path, **({"resume": False, "overwrite": False} | flags))
    assert files_of(tmp_path) == before


def test_a_table_of_others_stays(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("date,weight\n1,2\n")
    with pytest.raises(TrainingError, match=r"found log\.csv"):
        checkpoints.prepare(tmp_path, resume=False, overwrite=True)
    assert (tmp_path / "log.csv").read_text() == "date,weight\n1,2\n"


def test_overwriting_removes_what_is_ours_only(tmp_path: Path) -> None:
    our_checkpoint(tmp_path, 7)
    (tmp_path / "log.csv").write_text("step,loss\n7,1\n")
    # The next tokenizer may have a vocab.txt, which nobody would read beside another one's tokenizer.json.
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).write_text("ours")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "vocab.txt").mkdir()
    (tmp_path / "vocab.txt/notes.txt").write_text("mine")
    (tmp_path / "checkpoint-100000").mkdir()
    (tmp_path / "checkpoint-100000/pytorch_model.bin").write_text("mine")
    (tmp_path / "checkpoint-200000").write_text("mine, and a file")
    (tmp_path / ".checkpoint-notes").write_text("mine")
    (tmp_path / ".checkpoint-0123abcd.tmp").mkdir()
    checkpoints.prepare(tmp_path, resume=False, overwrite=True)
    assert sorted(files_of(tmp_path)) == [
        ".checkpoint-notes",
        "checkpoint-100000/pytorch_model.bin",
        "checkpoint-200000",
        "notes.txt",
        "vocab.txt/notes.txt",
    ]
    assert not (tmp_path / ".checkpoint-0123abcd.tmp").exists()


def test_a_finished_model_without_checkpoints_is_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n7,1\n")
    (tmp_path / "model.safetensors").write_text("ours")
    with pytest.raises(TrainingError, match="expected a checkpoint to go on from"):
        checkpoints.prepare(tmp_path, resume=True, overwrite=False)


def test_going_on_where_nothing_is_yet(tmp_path: Path) -> None:
    checkpoints.prepare(tmp_path / "new", resume=True, overwrite=False)
    (tmp_path / "log.csv").write_text("")
    checkpoints.prepare(tmp_path, resume=True, overwrite=False)


def test_a_model_to_begin_with_lies_elsewhere(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "checkpoint-000100", tmp_path / "x/.."):
        with pytest.raises(TrainingError, match="expected another folder"):
            checkpoints.check_source(source, tmp_path)
    checkpoints.check_source(tmp_path, tmp_path / "output")
    checkpoints.check_source("name-on-the-hub", tmp_path)


def test_an_error_inside_is_not_taken_for_a_lock(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), checkpoints.locked(tmp_path):
        raise BlockingIOError(11, "a full pipe")
    with (
        checkpoints.locked(tmp_path),
        pytest.raises(TrainingError, match="another process"),
        checkpoints.locked(tmp_path),
    ):
        pass


def test_numbers_of_numpy_are_numbers() -> None:
    import json

    settings = TrainingOptions(seed=np.int64(3), keep=np.int32(1)).settings()  # type: ignore[arg-type]
    assert json.loads(json.dumps(settings, default=int))["seed"] == 3
