"""What engines need beforehand: exported, converted and quantized models, kept between runs.

Each is a *step*, a module of this package, and its result is a folder of that name in ``Setup.prepared``. A
step has

* ``main(setup, out)``: writes its result into the folder ``out``;
* ``PACKAGES``: whose versions it depends on; another version makes it anew;
* ``NEEDS``: the steps whose results it reads;
* ``CALIBRATED``: whether it depends on ``setup.calibration``.

A step runs in a process of its own (``python -m bertfast.bench.prepare STEP``, the setup pickled on standard
input), because the memory of torch must not be counted as the memory of the engine that it serves.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, cast

from bertfast.bench.engines import Setup
from bertfast.checkpoint import find_weight_files
from bertfast.errors import BertFastError

_MADE_BY = "made_by.json"
_BLOCK = 1 << 22


class Step(Protocol):
    """The face of a step's module, see above."""

    PACKAGES: tuple[str, ...]
    NEEDS: tuple[str, ...]
    CALIBRATED: bool

    def main(self, setup: Setup, out: Path) -> None:
        """Writes the result."""


def default_cache() -> Path:
    """``bertfast/bench`` in the user's cache folder.

    Source: XDG Base Directory Specification.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "bertfast" / "bench"


def model_folder(cache: Path, model: Path) -> Path:
    """The folder in ``cache`` for what is made of this model: named by the content of its files.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=10)
    for path in (model / "config.json", *find_weight_files(model)):
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return cache / f"{model.name}-{digest.hexdigest()}"


def folder(setup: Setup, step: str) -> Path:
    """Where the result of a step is."""
    return setup.prepared / step


def load_step(step: str) -> Step:
    """Imports the module of a step."""
    return cast(Step, importlib.import_module(f"{__name__}.{step}"))


def ensure(setup: Setup, step: str) -> None:
    """Makes the result of a step unless it is there, made by the same versions with the same calibration.

    Raises:
        ModuleNotFoundError: a package that it depends on is not installed.
        BertFastError: it failed; the message is the reason.
    """
    module = load_step(step)
    made_by = {package: version(package) for package in module.PACKAGES}
    if module.CALIBRATED:
        made_by["calibration"] = hashlib.blake2b(repr(setup.calibration).encode(), digest_size=10).hexdigest()
    for needed in module.NEEDS:
        ensure(setup, needed)
        made_by |= json.loads((folder(setup, needed) / _MADE_BY).read_text(encoding="utf-8"))
    final = folder(setup, step)
    if (final / _MADE_BY).exists():
        if json.loads((final / _MADE_BY).read_text(encoding="utf-8")) == made_by:
            return
        shutil.rmtree(final)
    setup.prepared.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: what an interrupted run leaves behind has another name.
    with tempfile.TemporaryDirectory(prefix=f".{step}-", dir=setup.prepared) as temporary:
        out = Path(temporary) / step
        out.mkdir()
        _run(setup, step, out)
        (out / _MADE_BY).write_text(json.dumps(made_by, indent=2), encoding="utf-8")
        out.rename(final)


def _run(setup: Setup, step: str, out: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", __name__, step, str(out)],
        input=pickle.dumps(setup),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise BertFastError(f"{step}: {lines[-1] if lines else f'exit status {done.returncode}'}")
