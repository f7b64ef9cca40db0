"""Checks of what `build_corpus` is asked for, and what the manifest calls it."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
from typing import Any

from bertfast.arguments import is_int
from bertfast.errors import ArgumentError
from bertfast.pretraining.segmentation import Segmenter

_MOST_SHARDS = 2**32 - 1


def segmenter_of(asked: Any) -> tuple[Segmenter | None, str | None]:
    """The function that is meant, and what the manifest calls it.

    Raises:
        ArgumentError: It is neither a function nor a name of one.
        ImportError: The package is missing.
    """
    if asked is None:
        return None, None
    if asked == "jieba":
        return _load_jieba()
    if not callable(asked):
        raise ArgumentError(f"segmenter: expected 'jieba' or a function, got {asked!r}")
    return asked, name_of(asked)


def check_shard(shard: Any) -> None:
    """That it is None or ``(i, n)``."""
    if shard is None:
        return
    if not isinstance(shard, (tuple, list)) or len(shard) != 2 or not all(map(is_int, shard)):
        raise ArgumentError(f"shard: expected (i, n), got {shard!r}")
    if not 0 <= shard[0] < shard[1] <= _MOST_SHARDS:
        raise ArgumentError(f"shard: expected (i, n) with 0 <= i < n, got ({shard[0]}, {shard[1]})")


def name_of(function: Callable[..., Any]) -> str:
    """What the manifest calls a function."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    # Methods of builtin types do not say where they are from.
    module = getattr(named, "__module__", None)
    return named.__qualname__ if module is None else f"{module}.{named.__qualname__}"


def _load_jieba() -> tuple[Segmenter, str]:
    try:
        with warnings.catch_warnings():
            # Of old syntax and old packages in it.
            warnings.simplefilter("ignore")
            import jieba
    except ImportError as error:
        raise ImportError("segmenter: 'jieba' needs the package: pip install 'bertfast[corpus]'") from error
    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    return jieba.lcut, f"jieba {jieba.__version__}"
