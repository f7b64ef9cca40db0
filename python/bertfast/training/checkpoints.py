"""Checkpoints: folders that are there whole or not at all.

``checkpoint-000500/`` is a model's folder with two more files: ``optimizer.safetensors``, the optimizer's
tensors by ``exp_avg.<parameter>`` and so on, and ``training_state.json``. It is written under another name,
brought to the disk, and renamed; one that is too old is renamed before it is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from torch.optim import Optimizer

from bertfast.checkpoint import PACKED_FILE, find_weight_files, read_json
from bertfast.errors import CheckpointError, TrainingError
from bertfast.models.pretrained import PretrainedModel
from bertfast.models.weights import load_tensors, save_weights
from bertfast.tokenizer import TOKENIZER_FILES, Tokenizer
from bertfast.training.log import FILES as LOG_FILES
from bertfast.training.log import is_log

STATE, OPTIMIZER, WEIGHTS = "training_state.json", "optimizer.safetensors", "model.safetensors"
CARD, PREDICTIONS, ANSWERS = "README.md", "predictions.jsonl", "predictions.json"
CONFUSION = "confusion_matrix.png"
REPORT = (CARD, PREDICTIONS, ANSWERS, CONFUSION)
"""What fine-tuning says of a model, beside it."""

_NAME = re.compile(r"checkpoint-(\d{6,})")
_TEMPORARY = ".checkpoint-"
_LEFT = re.compile(r"\.checkpoint-[0-9a-f]{8}\.(tmp|old)")
# Keys of config.json that say nothing about the model.
_NOTES = ("dtype", "torch_dtype", "transformers_version", "_name_or_path")


def name_of(step: int) -> str:
    """``checkpoint-000500``."""
    return f"checkpoint-{step:06}"


def step_of(checkpoint: Path) -> int:
    """The steps that a checkpoint was made after."""
    found = _NAME.fullmatch(checkpoint.name)
    assert found is not None
    return int(found[1])


def all_of(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the oldest first; not those of other programs that name them so too."""
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    ours = (path for path in named if (path / STATE).is_file() or (path / OPTIMIZER).is_file())
    return sorted(ours, key=step_of)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, if it has one."""
    found = all_of(folder)
    return found[-1] if found else None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else trains into the folder until the end of the ``with`` block; it is made if it is not there.

    Raises:
        TrainingError: Somebody does.
        OSError: It cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"{folder}: another process is training into it") from None
        yield
    finally:
        os.close(opened)


def prepare(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Makes sure that nothing is lost in a folder, and clears away what an end in the middle has left.

    Args:
        folder: Where training is to write.
        resume: What is there is gone on with.
        overwrite: What earlier training left is removed.

    Raises:
        TrainingError: There is something of earlier training, or of others; nothing is removed then.
    """
    found, model = all_of(folder), folder / WEIGHTS
    others = _files_of_others(folder) if not found and not is_log(folder) else []
    if others:
        raise TrainingError(f"{folder}: expected a new folder or one of training, found {others[0]}")
    if resume and model.exists() and not found:
        raise TrainingError(
            f"{folder}: expected a checkpoint to go on from, found a model that was trained already"
        )
    if (found or model.exists()) and not resume and not overwrite:
        raise TrainingError(
            f"{folder}: expected no training, found {found[-1].name if found else model.name}: "
            "go on with it (resume), begin anew (overwrite), or name another folder"
        )
    if overwrite and not resume:
        # A tokenizer's files may have other names than those of the next one, which nobody would then see.
        for left in _matching(folder, (WEIGHTS, PACKED_FILE, *REPORT, *LOG_FILES, *TOKENIZER_FILES)):
            left.unlink()
        for checkpoint in reversed(found):
            _remove(checkpoint)
    for left in folder.glob(f"{_TEMPORARY}*"):
        if left.is_dir() and _LEFT.fullmatch(left.name):
            shutil.rmtree(left)


def check_source(source: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Makes sure that a model to begin with does not lie where training writes.

    Raises:
        TrainingError: It does.
    """
    begins, writes = Path(source).resolve(), Path(output).resolve()
    if begins == writes or writes in begins.parents:
        raise TrainingError(
            f"{output}: expected another folder than that of the model to begin with, {source}"
        )


def _files_of_others(folder: Path) -> list[str]:
    """What would be lost in a folder that is not one of training."""
    weights, tokenizer = ("*.safetensors", "*.bin", "*.index.json"), ("tokenizer*.json", *TOKENIZER_FILES)
    patterns = ("config.json", CARD, CONFUSION, *LOG_FILES, *weights, *tokenizer, "predictions.json*")
    return [path.name for path in _matching(folder, patterns)]


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of a folder with such names, in the order of the patterns."""
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return [path for path in found if not path.is_dir()]


def save(
    folder: Path,
    step: int,
    model: PretrainedModel,
    optimizer: Optimizer,
    state: dict[str, Any],
    *,
    tokenizer: Tokenizer | None,
    keep: int,
) -> Path:
    """Writes the checkpoint of a step, and removes those that are too old.

    Args:
        folder: Where checkpoints are.
        step: How many steps were done.
        model: Its weights.
        optimizer: Its tensors.
        state: What else is to be known, as JSON has it.
        tokenizer: Whose files go with it.
        keep: How many checkpoints stay, this one among them.

    Returns:
        The checkpoint.

    Raises:
        TrainingError: It cannot be written: nothing of it is left, and those before are as they were.
    """

    def write(temporary: Path) -> None:
        _write_model(temporary, model, tokenizer)
        save_weights(_tensors(model, optimizer), temporary / OPTIMIZER)
        (temporary / STATE).write_text(json.dumps({"step": step, **state}, indent=2), encoding="utf-8")

    def rename(temporary: Path) -> None:
        if target.exists():
            _remove(target)
        temporary.rename(target)

    target = folder / name_of(step)
    _written(folder, target.name, write, rename)
    for old in all_of(folder)[:-keep]:
        _remove(old)
    return target


def publish(folder: Path, model: PretrainedModel, tokenizer: Tokenizer | None) -> None:
    """Writes the model into the folder itself, in place of one that is there.

    Raises:
        TrainingError: It cannot be written. The folder is as it was.
    """

    def replace(temporary: Path) -> None:
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == WEIGHTS):
            path.replace(folder / path.name)
        temporary.rmdir()
        # The Encoder would take what an earlier model was packed into.
        (folder / PACKED_FILE).unlink(missing_ok=True)

    _written(folder, "the model", lambda temporary: _write_model(temporary, model, tokenizer), replace)


def load(checkpoint: Path, model: PretrainedModel, optimizer: Optimizer) -> dict[str, Any]:
    """Gives model and optimizer what a checkpoint has of them.

    Args:
        checkpoint: The folder.
        model: Its parameters get other values.
        optimizer: Of these parameters.

    Returns:
        The state that it was saved with, ``step`` included.

    Raises:
        TrainingError: It is of another model.
        CheckpointError: It is damaged.
        FileNotFoundError: Files are missing.
    """
    state = read_json(checkpoint / STATE, CheckpointError)
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{checkpoint / STATE}: damaged: expected an object with step")
    _check_model(checkpoint, model)
    _copy(load_tensors(find_weight_files(checkpoint)[0]), model._saved_weights(), checkpoint / WEIGHTS)
    _load_optimizer(checkpoint / OPTIMIZER, model, optimizer)
    return state


def _write_model(folder: Path, model: PretrainedModel, tokenizer: Tokenizer | None) -> None:
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _written(folder: Path, name: str, write: Callable[[Path], None], rename: Callable[[Path], None]) -> None:
    """Writes into a temporary folder, waits for the disk, and renames what is there."""
    temporary = folder / f"{_TEMPORARY}{os.urandom(4).hex()}.tmp"
    try:
        temporary.mkdir()
        write(temporary)
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        rename(temporary)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        newest = latest(folder)
        raise TrainingError(
            f"{folder}: {name} could not be saved: {getattr(error, 'strerror', None) or error}; "
            + (f"the last checkpoint is {newest.name}" if newest else "there is no checkpoint yet")
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _remove(checkpoint: Path) -> None:
    """Removes a checkpoint; half of one never has its name."""
    gone = checkpoint.with_name(f"{_TEMPORARY}{os.urandom(4).hex()}.old")
    checkpoint.rename(gone)
    shutil.rmtree(gone)


def _check_model(checkpoint: Path, model: PretrainedModel) -> None:
    """That a checkpoint is of a model like this one."""
    saved = read_json(checkpoint / "config.json", CheckpointError)
    own = json.loads(json.dumps({**model.config.to_dict(), "architectures": [type(model).__name__]}))
    differing = [
        f"{name} {own[name]!r}, got {saved[name]!r}"
        for name in sorted(own.keys() & saved.keys() - set(_NOTES))
        if own[name] != saved[name] and own[name] is not None and saved[name] is not None
    ]
    if differing:
        raise TrainingError(f"{checkpoint}: expected a model with " + "; ".join(differing))


def _copy(tensors: dict[str, Tensor], targets: dict[str, Tensor], file: Path) -> None:
    """Values into tensors of the same names and shapes."""
    problems = [f"{name} is missing" for name in targets.keys() - tensors.keys()]
    problems += [f"{name} is not of this model" for name in tensors.keys() - targets.keys()]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, expected {list(targets[name].shape)}"
        for name in targets.keys() & tensors.keys()
        if tensors[name].shape != targets[name].shape
    ]
    if problems:
        raise CheckpointError(f"{file}: " + "; ".join(sorted(problems)))
    for name, target in targets.items():
        target.detach().copy_(tensors[name])


def _names(model: PretrainedModel, optimizer: Optimizer) -> list[str]:
    """The optimizer's parameters, by name, in its order."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def _tensors(model: PretrainedModel, optimizer: Optimizer) -> dict[str, Tensor]:
    states = optimizer.state_dict()["state"]
    names = _names(model, optimizer)
    return {
        f"{kind}.{names[number]}": value for number, state in states.items() for kind, value in state.items()
    }


def _load_optimizer(file: Path, model: PretrainedModel, optimizer: Optimizer) -> None:
    numbers = {name: number for number, name in enumerate(_names(model, optimizer))}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(file).items():
        kind, _, name = key.partition(".")
        number = numbers.get(name)
        if number is None or (tensor.dim() and tensor.shape != parameters[number].shape):
            raise CheckpointError(f"{file}: {key} {list(tensor.shape)} is not of this model")
        states.setdefault(number, {})[kind] = tensor
    if states and len(states) != len(numbers):
        missing = next(name for name, number in numbers.items() if number not in states)
        raise CheckpointError(f"{file}: {missing} is missing")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
