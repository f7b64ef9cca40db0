"""How far a command is with a file, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from bertfast.text_files import TextFile

T = TypeVar("T")


class StatusLine:
    """What is said now and then on standard error.

    On a terminal one line that changes twice a second; in a log a line every ten seconds.

    Attributes:
        start: When it was made, by `time.monotonic`.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._interval = 0.5 if self._terminal else 10.0
        self.start = self._shown = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start, never 0."""
        return max(time.monotonic() - self.start, 1e-9)

    def is_due(self) -> bool:
        """Whether it is time to `show` something."""
        return not self._quiet and time.monotonic() - self._shown >= self._interval

    def show(self, line: str) -> None:
        """Shows how far it is."""
        self._shown = time.monotonic()
        print(
            f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr
        )
        sys.stderr.flush()

    def say(self, line: str) -> None:
        """Says something that stays, such as the summary."""
        if not self._quiet:
            clear = "\r\x1b[K" if self._terminal else ""
            print(f"{clear}{line}", file=sys.stderr)


class FileProgress:
    """How far the work on a file is: texts, rate and remaining time on standard error."""

    def __init__(self, file: TextFile, quiet: bool) -> None:
        self._file = file
        self._line = StatusLine(quiet)
        self._read = 0

    def count(self, texts: Iterable[T]) -> Iterator[T]:
        """Passes the texts on and counts them."""
        for text in texts:
            self._read += 1
            yield text

    def show(self, done: int) -> None:
        """Shows the state after ``done`` texts, if it is time for that."""
        if not self._line.is_due():
            return
        elapsed = self._line.elapsed
        line = f"{done:,} texts, {done / elapsed:,.0f} texts/s"
        if self._file.size:
            # The model reads ahead of what it has returned.
            fraction = self._file.position / self._file.size * done / max(self._read, 1)
            line += f", {fraction:.0%}, {remaining(elapsed, fraction)} left"
        self._line.show(line)

    def finish(self, done: int, output: str) -> None:
        """Shows the summary."""
        elapsed = self._line.elapsed
        self._line.say(f"{done:,} texts in {elapsed:.1f} s, {done / elapsed:,.0f} texts/s: {output}")


def remaining(elapsed: float, fraction: float) -> str:
    """The time that is left if so much took so many seconds."""
    return _duration(elapsed * (1 - fraction) / max(fraction, 1e-9))


def _duration(seconds: float) -> str:
    """``42 s``, ``3:05``, ``2:03:05``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
