"""A progress bar: tqdm's where it is installed, else one line of our own on stderr."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any


def is_shown(asked: bool | None) -> bool:
    """Whether a bar is: as asked, else if the logger ``bertfast`` is at level INFO or DEBUG."""
    if asked is None:
        return logging.getLogger("bertfast").getEffectiveLevel() in (logging.INFO, logging.DEBUG)
    return asked


class Progress:
    """Counts what is done, and shows it if asked to.

    Example:
        >>> with Progress(total=100, unit="text", shown=False) as progress:
        ...     progress.update(10)
    """

    def __init__(self, *, total: int | None, unit: str, shown: bool) -> None:
        """Start counting.

        Args:
            total: How many there are, if that is known.
            unit: What is counted, in the singular.
            shown: Whether anything is written.
        """
        self._total, self._unit, self._done = total, unit, 0
        self._start = self._written = time.monotonic()
        self._shown = shown
        self._tqdm: Any = None
        if shown:
            try:
                from tqdm.auto import tqdm  # type: ignore[import-untyped]
            except ImportError:
                return
            self._tqdm = tqdm(total=total, unit=unit)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tqdm is not None:
            self._tqdm.close()
        elif self._shown:
            self._write()
            sys.stderr.write("\n")

    def update(self, count: int) -> None:
        """``count`` more are done."""
        self._done += count
        if self._tqdm is not None:
            self._tqdm.update(count)
        elif self._shown and time.monotonic() - self._written > 0.2:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        seconds = max(self._written - self._start, 1e-9)
        rate = self._done / seconds
        line = f"{self._done} {self._unit}s"
        if self._total:
            line = f"{100 * self._done // self._total:3d}% {self._done}/{self._total} {self._unit}s"
        line += f", {rate:.1f} {self._unit}s/s, {_clock(seconds)}"
        if self._total and self._done:
            line += f", {_clock((self._total - self._done) / rate)} left"
        sys.stderr.write(f"\r{line:<70}")
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
