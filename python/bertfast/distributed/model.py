"""The model that the workers of a cluster open: the same on every node, its weights shared on each."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from bertfast import _bertfast, arguments
from bertfast.checkpoint import (
    PACKED_FILE,
    UNWANTED_FILES,
    WANTED_FILES,
    find_packed_file,
    find_weight_files,
    read_config,
)
from bertfast.distributed.cluster import Node, on_every_node
from bertfast.distributed.files import raise_error
from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError, ClusterError
from bertfast.loading import model_folder
from bertfast.quantize import copy_folder
from bertfast.sentence import read_sentence_folder

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Model:
    """A model as every node finds it."""

    name: str
    """A folder that every node sees, or a name on the hub."""
    digest: str
    """SHA-256 of its files."""
    dtype: str | tuple[str, ...]
    isa: str
    head: str | None
    cache: str | None
    """Where a node keeps packed weights; None for its usual place."""

    def identity(self) -> dict[str, Any]:
        """What decides about the bits of a result."""
        return {"digest": self.digest, "dtype": self.dtype, "isa": self.isa, "head": self.head}


class _Seen(NamedTuple):
    """What a node says."""

    version: str
    digest: str
    packed: bool
    isas: list[str]


def find_model(
    name: str | os.PathLike[str],
    *,
    dtype: str | Sequence[str] = "auto",
    isa: str | None = None,
    head: str | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Model:
    """Looks at a model on every node of the cluster.

    Args:
        name: A folder that all nodes see under this name, or a name on the hub.
        dtype: As in `Encoder.from_pretrained`.
        isa: The instruction set level of all workers; None for that of ``BERTFAST_ISA``, else the best that
            all nodes have: the bits differ between levels.
        head: As in `Encoder.from_pretrained`.
        cache: Folder of the nodes for packed weights.

    Raises:
        FileNotFoundError: A node does not find it; the message names the node.
        ClusterError: Nodes have other files under this name, or another version of bertfast.
        ArgumentError: An argument has a value that is not allowed, or a node lacks the level.
    """
    wanted = arguments.check_dtypes(dtype)
    path = os.path.abspath(name) if os.path.isdir(name) else os.fspath(name)
    seen = on_every_node(_look, path, head)
    first_node, first = next(iter(seen.items()))
    for node, one in seen.items():
        if one.version != _bertfast.__version__:
            raise ClusterError(
                f"node {node.name}: expected bertfast {_bertfast.__version__}, got {one.version}"
            )
        if one.digest != first.digest:
            raise ClusterError(
                f"{path}: expected the same files on every node, got others on {node.name} than on "
                f"{first_node.name}"
            )
    level = _level(isa or os.environ.get("BERTFAST_ISA") or None, seen)
    if first.packed and len(wanted) != 1:
        chosen: str | tuple[str, ...] = wanted or "auto"
    else:
        chosen = arguments.first_native(wanted, level)
    return Model(path, first.digest, chosen, level, head, None if cache is None else os.fspath(cache))


def _level(isa: str | None, seen: dict[Node, _Seen]) -> str:
    for node, one in seen.items():
        if isa is not None and isa not in one.isas:
            raise ArgumentError(f"isa: expected one of {', '.join(one.isas)} on {node.name}, got {isa!r}")
    if isa is not None:
        return isa
    # Every node lists them from the least to the best.
    common = [
        level for level in next(iter(seen.values())).isas if all(level in s.isas for s in seen.values())
    ]
    return common[-1]


def _look(name: str, head: str | None) -> _Seen:
    folder = model_folder(name, head)
    transformer = _transformer(folder, head)
    packed = find_packed_file(transformer) is not None
    # What is missing is said before any work begins.
    read_config(transformer)
    if not packed:
        find_weight_files(transformer)
    return _Seen(_bertfast.__version__, digest_of(folder), packed, _bertfast.info()["isas"])


def digest_of(folder: Path) -> str:
    """SHA-256 of the names and contents of all files of a model that are ever read.

    Raises:
        OSError: One cannot be read.
    """
    whole = hashlib.sha256()
    for parent, folders, files in os.walk(folder, onerror=raise_error):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if any(fnmatch(relative, form) for form in WANTED_FILES) and not any(
                fnmatch(relative, form) for form in UNWANTED_FILES
            ):
                whole.update(f"{relative}\0{_sha256(path)}\0".encode())
    return whole.hexdigest()


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def open_model(model: Model, num_threads: int) -> Encoder:
    """The encoder of a worker: its weights are mapped from a packed folder that the node's workers share.

    A folder that is packed already is mapped as it is. Of any other a packed copy is made, once on a node.

    Args:
        model: As `find_model` returned it.
        num_threads: Of this worker.

    Raises:
        ClusterError: The node has other files than those that were looked at.
        Exception: As `Encoder.from_pretrained`.
    """
    folder = model_folder(model.name, model.head)
    if find_packed_file(_transformer(folder, model.head)) is None:
        try:
            folder = _packed(folder, model, num_threads)
        except OSError as error:
            warnings.warn(f"weights are not shared among workers, no room for them: {error}", stacklevel=2)
    return Encoder.from_pretrained(
        folder, dtype=model.dtype, isa=model.isa, num_threads=num_threads, head=model.head
    )


def _packed(folder: Path, model: Model, num_threads: int) -> Path:
    key = f"{model.digest[:32]}-{model.dtype}-{model.head or 'encoder'}-{_bertfast.__version__}"
    cache = _cache(model)
    target = cache / key
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f".{key}.lock"):
        if target.is_dir():
            return target
        if digest_of(folder) != model.digest:
            raise ClusterError(f"{folder}: expected the files of the other nodes, got others")
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{key}-") as temporary:
            work = Path(temporary) / "model"
            _pack(folder, work, model, num_threads)
            # Where locks do not work, another worker may have been faster: its folder is the same.
            with contextlib.suppress(FileExistsError):
                _rename(work, target)
    return target


def _rename(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError:
        if not target.is_dir():
            raise


def _pack(folder: Path, target: Path, model: Model, num_threads: int) -> None:
    transformer = _transformer(folder, model.head)
    copy_folder(folder, target, without_weights=transformer)
    opened = Encoder.from_pretrained(folder, dtype=model.dtype, num_threads=num_threads, isa=model.isa)
    layers = len(opened.info()["layer_dtypes"])
    del opened
    _bertfast.pack(
        read_config(transformer),
        [str(path) for path in find_weight_files(transformer)],
        [str(model.dtype)] * layers,
        target / transformer.relative_to(folder) / PACKED_FILE,
        num_threads,
        model.head,
    )


def _transformer(folder: Path, head: str | None) -> Path:
    return read_sentence_folder(folder, for_head=head is not None).transformer


def _cache(model: Model) -> Path:
    if model.cache is not None:
        return Path(model.cache)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "bertfast" / "packed"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Within it no other process of this node is."""
    with path.open("w") as file:
        with contextlib.suppress(OSError):  # Some network file systems have no locks.
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
