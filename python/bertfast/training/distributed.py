"""Several processes that train one model, as ``torchrun`` starts them; one alone needs nothing of it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from bertfast.errors import ArgumentError

_FAILED = "bertfast/failed"


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this one is.

    Attributes:
        rank: From 0 on; rank 0 is the one that writes.
        world_size: How many there are.
        device: Where this one computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[Ranks]:
    """Joins the processes that ``torchrun`` started, if it did, until the end of the ``with`` block.

    Within another such block, or where ``torch.distributed`` is initialized already, it joins those, with the
    backends that they have; else tensors on the CPU go through gloo, those on a GPU through NCCL. The GPU is
    the current one in the block.

    Args:
        device: See `TrainingOptions`. With ``"auto"`` and ``"cuda"`` each process of a machine has a GPU of
            its own.

    Raises:
        ArgumentError: There is no such device.

    Example:
        >>> with processes("cpu") as ranks:
        ...     ranks.rank, ranks.world_size
        (0, 1)
    """
    found = _device(device)
    started = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    joins = started and not dist.is_initialized()
    with torch.cuda.device(found) if found.type == "cuda" else contextlib.nullcontext():
        if joins:
            dist.init_process_group("cpu:gloo,cuda:nccl" if found.type == "cuda" else "gloo")
        if dist.is_initialized():
            yield Ranks(dist.get_rank(), dist.get_world_size(), found)
        else:
            yield Ranks(0, 1, found)
        # Not after an error: to leave in order may mean to wait for the others, who wait too.
        if joins:
            dist.destroy_process_group()


def _device(name: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    local = int(os.environ.get("LOCAL_RANK", 0))
    of_all = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    # Some launchers show each process its own GPU alone.
    sees_its_own = count == 1 and "CUDA_VISIBLE_DEVICES" in os.environ
    own = "cuda:0" if sees_its_own else f"cuda:{local}"
    if name == "auto":
        name = own if count >= of_all or sees_its_own else "cpu"
        if count and name == "cpu" and local == 0:
            warnings.warn(f"device: training on the CPU: {of_all} processes, but GPUs: {count}", stacklevel=4)
    elif name == "cuda":
        name = own
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device: expected 'auto', 'cpu' or 'cuda', such as 'cuda:0', got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ArgumentError(f"device: expected one of the {count} GPUs that PyTorch finds, got {name!r}")
    return device


def all_sum(values: Mapping[str, float]) -> dict[str, float]:
    """Sums over all processes, by name: float64, so that whole numbers stay exact.

    Args:
        values: With the same names in every process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return dict(values)
    names = sorted(values)
    device = device_of(dist.get_backend_config())
    sums = torch.tensor([float(values[name]) for name in names], dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return dict(zip(names, sums.tolist(), strict=True))


def device_of(backends: str) -> str:
    """Where tensors have to be for processes to add them up: on the CPU if that will do.

    Args:
        backends: As ``torch.distributed.get_backend_config`` tells them, such as ``"cpu:gloo,cuda:nccl"``.
    """
    devices = [backend.partition(":")[0] for backend in backends.split(",")]
    return "cpu" if "cpu" in devices else devices[0]


def all_gather(values: Any) -> list[Any]:
    """What every process has, by rank.

    Args:
        values: Anything that can be pickled.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [values]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, values)
    return found


def wait_for_all() -> None:
    """Goes on when all processes are here."""
    all_sum({"here": 1})


def is_first_to_fail() -> bool:
    """Whether this process may say what went wrong: only the first that asks may.

    The others fail with it, for they wait for one that has gone.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return True
    store = dist.distributed_c10d._get_default_store()
    try:
        return int(store.add(_FAILED, 1)) == 1
    except RuntimeError:  # the store has gone with the process that kept it
        return False
