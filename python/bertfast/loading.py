"""From a model's folder to the engine that runs it: the parts of ``Encoder.from_pretrained``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertfast import _bertfast, arguments
from bertfast.checkpoint import find_folder, find_packed_file, find_weight_files
from bertfast.errors import ArgumentError, BertFastError
from bertfast.steps import Engine
from bertfast.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch


def choose_backend(backend: str, device: str | int | torch.device | None, isa: str | None) -> tuple[str, str]:
    """The backend and the device that are meant.

    Raises:
        ArgumentError: There is no such backend, or it does not go with the device or the instruction set.
    """
    arguments.check_choice("backend", backend, ("auto", "rust", "torch"))
    where = device_name(device)
    if backend == "auto":
        backend = "rust" if where == "cpu" else "torch"
    if backend == "rust" and where != "cpu":
        raise ArgumentError(f"device: expected 'cpu' with backend='rust', got {where!r}")
    if backend == "torch" and isa is not None:
        raise ArgumentError(f"isa: expected None with backend='torch', got {isa!r}")
    return backend, where


def device_name(device: str | int | torch.device | None) -> str:
    """A device as PyTorch calls it: also of the numbers that transformers has for them, -1 for the CPU.

    Example:
        >>> [device_name(device) for device in (None, -1, 0, "cuda:1", "cpu:0")]
        ['cpu', 'cpu', 'cuda:0', 'cuda:1', 'cpu']
    """
    if isinstance(device, int) and not isinstance(device, bool):
        return f"cuda:{device}" if device >= 0 else "cpu"
    name = "cpu" if device is None else str(device)
    return "cpu" if name == "cpu:0" else name


def model_folder(name_or_path: str | os.PathLike[str], head: str | None, **hub: Any) -> Path:
    """The folder of a model.

    Args:
        name_or_path: A folder, or a name on the hub. Without a head, a name without an organisation is one of
            ``sentence-transformers``.
        head: What it is opened for.
        **hub: As `find_folder` takes it; so are the errors.
    """
    organisation = "sentence-transformers" if head is None else None
    return find_folder(name_or_path, organisation=organisation, **hub)


def open_engine(
    folder: Path,
    config: str,
    backend: str,
    device: str,
    *,
    dtype: str | Sequence[str],
    isa: str | None,
    num_threads: int | None,
    head: str | None,
) -> Engine:
    """The engine of a model.

    Args:
        folder: Where the weights are.
        config: The text of ``config.json``.
        backend: As `choose_backend` returned it.
        device: See there.
        dtype: See ``Encoder.from_pretrained``; so are the others.
        isa: See there.
        num_threads: See there.
        head: See there.
    """
    if backend == "rust":
        return _rust_engine(folder, config, dtype, isa, num_threads, head)
    return _torch_engine(folder, config, dtype, device, num_threads, head)


def _rust_engine(
    folder: Path,
    config: str,
    dtype: str | Sequence[str],
    isa: str | None,
    num_threads: int | None,
    head: str | None,
) -> Engine:
    wanted = arguments.check_dtypes(dtype)
    packed = find_packed_file(folder)
    if packed is not None:
        # Of several any will do, and what runs in place of bfloat16 is known; one alone is a demand.
        if len(wanted) == 1:
            arguments.first_native(wanted, isa)
        return _bertfast.Encoder.open_packed(
            config, packed, wanted, num_threads=num_threads, isa=isa, head=head
        )
    one = arguments.first_native(wanted, isa)
    weights = [str(path) for path in find_weight_files(folder)]
    return _bertfast.Encoder.load(config, weights, dtype=one, num_threads=num_threads, isa=isa, head=head)


def _torch_engine(
    folder: Path,
    config: str,
    dtype: str | Sequence[str],
    device: str,
    num_threads: int | None,
    head: str | None,
) -> Engine:
    """PyTorch's engine, which runs every dtype that it knows on every device."""
    try:
        from bertfast.models.backend import DTYPES, TorchEngine
    except ImportError as error:
        raise BertFastError(
            "backend='torch' (and every device but the CPU) needs PyTorch: pip install 'bertfast[torch]'"
        ) from error
    wanted = arguments.check_dtypes(dtype, known=tuple(DTYPES))
    weights = [str(path) for path in find_weight_files(folder)]
    return TorchEngine(config, weights, device, wanted[0] if wanted else "float32", num_threads, head)


def find_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder, if it has one."""
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return Tokenizer.from_pretrained(folder)
    return None
