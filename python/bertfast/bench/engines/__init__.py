"""The engines that are measured, one small module each, all with the same face.

An engine module has

* ``prepare(setup) -> Engine``: import the library, open the model, and be ready. The time of this and of
  the first vector is the load time of the table, so nothing is imported at the top of an engine module.
* optionally ``build(setup)``: what is made once beforehand and not timed (see ``bertfast.bench.prepare``).
  It must not leave memory behind in the process, so it starts others.

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

from bertfast.bench.dtypes import BFLOAT16, DTYPES, FLOAT32, INT8, SHORT_NAMES
from bertfast.errors import ArgumentError

OURS = "bertfast"
REFERENCE = "transformers"
ENGINES = {
    OURS: DTYPES,
    REFERENCE: (FLOAT32, BFLOAT16),
    "sentence-transformers": (FLOAT32, BFLOAT16),
    "onnxruntime": (FLOAT32, INT8),
    "openvino": DTYPES,
    "ctranslate2": (FLOAT32, INT8),
    "torch-compile": (FLOAT32, BFLOAT16),
}
"""Every engine, and what it can compute in."""

OPTIONAL_ENGINES = ("torch-compile",)
"""Only by name: it compiles for minutes."""

DEFAULT_ENGINES = tuple(engine for engine in ENGINES if engine not in OPTIONAL_ENGINES)


@dataclass(frozen=True)
class Setup:
    """What an engine gets to know.

    Attributes:
        folder: the model, a Hugging Face folder.
        prepared: a folder for what is made of this model beforehand; engines share it, and later runs too.
        threads: how many threads a call computes with.
        dtype: what to compute in.
        calls: how many calls at a time the engine should be set up for; each has its own ``threads``.
        isa: the instruction set of our engine, None for the best.
        calibration: texts for quantization; none of them is measured.
        task: what `bertfast.bench.task_engines` are for.
    """

    folder: Path
    prepared: Path
    threads: int
    dtype: str = FLOAT32
    calls: int = 1
    isa: str | None = None
    calibration: tuple[str, ...] = ()
    task: str | None = None


@dataclass(frozen=True)
class Contender:
    """An engine in one dtype: a row of the tables."""

    engine: str
    dtype: str

    @property
    def name(self) -> str:
        """``openvino`` in float32, else ``openvino-int8``."""
        return self.engine if self.dtype == FLOAT32 else f"{self.engine}-{SHORT_NAMES[self.dtype]}"


def contenders(engines: Sequence[str], dtypes: Sequence[str]) -> list[Contender]:
    """The engines in each dtype that they know; a module of the user's is asked for every one.

    Raises:
        ArgumentError: an unknown engine, or none that knows any of the dtypes.
    """
    for engine in engines:
        module_name(engine)
    found = [
        Contender(engine, dtype)
        for dtype in dtypes
        for engine in engines
        if dtype in ENGINES.get(engine, DTYPES)
    ]
    if not found:
        raise ArgumentError(f"none of the engines {', '.join(engines)} computes in {', '.join(dtypes)}")
    return found


class Engine(Protocol):
    """A loaded model. Several threads may call it at the same time."""

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
    if engine not in ENGINES:
        raise ArgumentError(
            f"unknown engine {engine!r}: expected one of {', '.join(ENGINES)}, or the dotted name of a module"
        )
    return f"{__name__}.{engine.replace('-', '_')}"


def load_module(engine: str) -> EngineModule:
    """Imports the module of an engine."""
    return cast(EngineModule, importlib.import_module(module_name(engine)))
