"""A file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from typing_extensions import Self


class WholeFile:
    """A file on its way to disk.

    What is written goes to a temporary file in the folder of ``path``; ``commit`` renames it to ``path``.
    Leaving the ``with`` block without ``commit`` leaves nothing behind, and whatever was at ``path`` before
    untouched. A link stays one, and so does a device or a pipe, into which ``commit`` copies.

    Attributes:
        file: what is written to.

    Args:
        path: the file to be. What is there already is replaced.

    Raises:
        OSError: the file cannot be created there.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if self._path.is_dir():
            raise IsADirectoryError(21, os.strerror(21), path)
        self._is_special = self._path.exists() and not self._path.is_file()
        if not self._is_special:
            # What /dev/stdout leads to may be a pipe, which has no path.
            self._path = self._path.resolve()
        folder = Path(tempfile.gettempdir()) if self._is_special else self._path.parent
        self._temporary = folder / f".{self._path.name}.{os.urandom(4).hex()}.tmp"
        try:
            self.file: BinaryIO = self._temporary.open("xb")
        except OSError as error:
            # The user knows the name of the output, not that of the temporary file.
            raise type(error)(error.errno, error.strerror, path) from None

    def commit(self) -> None:
        """Completes the file: it is at ``path`` from now on."""
        self.file.flush()
        if self._is_special:
            self.file.close()
            with self._temporary.open("rb") as source, self._path.open("wb") as target:
                shutil.copyfileobj(source, target)
            return
        os.fsync(self.file.fileno())
        self.file.close()
        self._temporary.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()


class JsonLinesWriter(WholeFile):
    """A file of JSON values, one per line; it appears whole or not at all.

    Attributes:
        lines: written so far.

    Example:
        >>> with JsonLinesWriter("labels.jsonl") as writer:
        ...     writer.write({"label": "good", "score": 0.9})
        ...     writer.commit()
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.lines = 0

    def write(self, value: Any) -> None:
        """Appends a line.

        Raises:
            OSError: the disk is full.
        """
        self.file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self.lines += 1
