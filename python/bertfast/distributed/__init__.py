"""Past one machine: the same work on a cluster, by Ray (extra ``[ray]``).

Scheduling, retries and the object store are Ray's. What is here makes the work fit: weights that the workers
of a node share, pieces of files that are written whole or not at all, errors that name the file and the row.
A result has the bits of a run on one machine, because a text has the same bits in any batch and order.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertfast.distributed.cluster import connect
    from bertfast.distributed.corpus import build_corpus
    from bertfast.distributed.dataset import encode_dataset, predict_dataset

__all__ = ["build_corpus", "connect", "encode_dataset", "predict_dataset"]

_MODULES = {
    "build_corpus": "bertfast.distributed.corpus",
    "connect": "bertfast.distributed.cluster",
    "encode_dataset": "bertfast.distributed.dataset",
    "predict_dataset": "bertfast.distributed.dataset",
}


def __getattr__(name: str) -> Any:
    # Ray is imported by whoever uses it, not by whoever looks what there is.
    if name not in _MODULES:
        raise AttributeError(f"module 'bertfast.distributed' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
