"""The model with a head for a task, of random weights: speed does not depend on what they are."""

from __future__ import annotations

import shutil
from pathlib import Path

from bertfast.bench import prepare
from bertfast.bench.engines import Setup

PACKAGES: tuple[str, ...] = ("torch", "transformers")
NEEDS: tuple[str, ...] = ()
CALIBRATED = False

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_SEED = 1


def path(setup: Setup) -> Path:
    """The result, a Hugging Face folder."""
    return prepare.folder(setup, "task_model")


def main(setup: Setup, out: Path) -> None:
    """Writes the folder."""
    import torch

    from bertfast.bench.task_engines.transformers import model_class

    assert setup.task is not None
    torch.manual_seed(_SEED)
    names = {}
    if setup.task.endswith("classification"):
        names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    model = model_class(setup.task).from_pretrained(str(setup.folder), dtype=torch.float32, **names)
    model.save_pretrained(out)
    for name in _TOKENIZER:
        if (setup.folder / name).is_file():
            shutil.copyfile(setup.folder / name, out / name)
