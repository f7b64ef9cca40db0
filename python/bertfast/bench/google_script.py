"""``create_pretraining_data.py`` of google-research/bert, as the package ``bert-tensorflow`` ships it.

It imports TensorFlow 1 for flags, logging and files; what it needs of these stands in here, so that its rules
run as they were published.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock


def _tensorflow() -> dict[str, ModuleType]:
    """Modules that are there while the script is imported: other libraries look whether TensorFlow is."""

    def nothing(*_: object, **__: object) -> None: ...

    def open_lines(path: str, mode: str) -> Any:
        return open(path, mode, encoding="utf-8", newline="\n")  # As TensorFlow's.

    flags = SimpleNamespace(
        FLAGS=SimpleNamespace(preserve_unused_tokens=False),
        DEFINE_string=nothing,
        DEFINE_bool=nothing,
        DEFINE_integer=nothing,
        DEFINE_float=nothing,
    )
    v1 = ModuleType("tensorflow.compat.v1")
    v1.__dict__.update(
        flags=flags, logging=SimpleNamespace(info=nothing), gfile=SimpleNamespace(GFile=open_lines)
    )
    compat = ModuleType("tensorflow.compat")
    compat.__dict__["v1"] = v1
    tensorflow = ModuleType("tensorflow")
    tensorflow.__dict__["compat"] = compat
    absl = ModuleType("absl")
    absl.__dict__["flags"] = flags
    return {
        "absl": absl,
        "tensorflow": tensorflow,
        "tensorflow.compat": compat,
        "tensorflow.compat.v1": v1,
    }


@cache
def _script() -> Any:
    with mock.patch.dict(sys.modules, _tensorflow()):
        return import_module("bert.create_pretraining_data")


def instances(
    files: Sequence[Path],
    vocab: Path,
    *,
    max_seq_length: int = 128,
    dupe_factor: int = 1,
    short_seq_prob: float = 0.1,
    masked_lm_prob: float = 0.15,
    max_predictions_per_seq: int = 20,
    do_lower_case: bool = True,
    seed: int = 12345,
) -> list[Any]:
    """The samples of text files, with the script's own defaults but for `dupe_factor`.

    Args:
        files: One sentence per line, a blank line between documents.
        vocab: ``vocab.txt``.
        max_seq_length: And the others: the flags of the script.
        dupe_factor: See there.
        short_seq_prob: See there.
        masked_lm_prob: See there.
        max_predictions_per_seq: See there.
        do_lower_case: See there.
        seed: Of Python's generator.

    Returns:
        Objects with ``tokens``, ``segment_ids``, ``is_random_next``, ``masked_lm_positions`` and
        ``masked_lm_labels``.

    Raises:
        ImportError: The package is not installed.
    """
    script = _script()
    tokenizer = script.tokenization.FullTokenizer(vocab_file=str(vocab), do_lower_case=do_lower_case)
    found: list[Any] = script.create_training_instances(
        list(map(str, files)),
        tokenizer,
        max_seq_length,
        dupe_factor,
        short_seq_prob,
        masked_lm_prob,
        max_predictions_per_seq,
        random.Random(seed),
    )
    return found
