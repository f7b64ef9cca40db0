"""The command ``bertfast`` in a process of its own, and what a user's mistake looks like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol


class Done(Protocol):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run_bertfast(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs it."""
    return subprocess.run(
        [sys.executable, "-m", "bertfast", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        **options,
    )


def error_of(done: Done) -> str:
    """The message of a user's error: status 2, one line on standard error, nothing on standard output."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("bertfast: error: ")
    return lines[0].removeprefix("bertfast: error: ")
