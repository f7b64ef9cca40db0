"""The engines that are measured, one small module each, all with the same face.

An engine module has

* ``prepare(setup) -> Engine``: import the library, open the model, and be ready. The time of this and of
  the first vector is the load time of the table, so nothing is imported at the top of an engine module.
* optionally ``build(setup)``: what is made once beforehand and not timed (the ONNX export). It must not
  leave memory behind in the process, so it starts one of its own.

Each runs in a process of its own (``bertfast.bench.worker``). ``--engines`` also takes the dotted name of
any other module with this face.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bertfast.errors import ArgumentError

OURS = "bertfast"
REFERENCE = "transformers"
DEFAULT_ENGINES = (OURS, REFERENCE, "sentence-transformers", "onnxruntime", "openvino")
OPTIONAL_ENGINES = ("torch-compile",)
"""Only by name: it compiles for minutes."""


@dataclass(frozen=True)
class Setup:
    """What an engine gets to know.

    Attributes:
        folder: the model, a Hugging Face folder.
        workdir: a folder for what an engine has to build; shared by the engines and gone after the run.
        threads: how many threads to compute with.
    """

    folder: Path
    workdir: Path
    threads: int


class Engine(Protocol):
    """A loaded model."""

    version: str
    """Version of the library."""

    def run_ids(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32] | None:
        """Last hidden state (B, S, D) of ids (B, S); None from an engine that only knows texts."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, D) as the model's folder defines them: tokenized, truncated, pooled, normalized."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text after truncation, special tokens included."""


class EngineModule(Protocol):
    """The face of an engine's module, see above."""

    def prepare(self, setup: Setup) -> Engine:
        """Loads the library and the model."""


def module_name(engine: str) -> str:
    """The module of an engine: a name of this package, or a dotted name as it is.

    Raises:
        ArgumentError: no such engine.
    """
    if "." in engine:
        return engine
    if engine not in DEFAULT_ENGINES + OPTIONAL_ENGINES:
        known = ", ".join(DEFAULT_ENGINES + OPTIONAL_ENGINES)
        raise ArgumentError(
            f"unknown engine {engine!r}: expected one of {known}, or the dotted name of a module"
        )
    return f"{__name__}.{engine.replace('-', '_')}"


def load_module(engine: str) -> EngineModule:
    """Imports the module of an engine."""
    return cast(EngineModule, importlib.import_module(module_name(engine)))
