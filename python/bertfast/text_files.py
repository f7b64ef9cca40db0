"""Reads the texts of a file: one per line or per JSON line, plain or gzip, from disk or standard input.

Memory stays bounded: a file is read line by line, and row ``i`` of any result belongs to line ``i`` of the
file, so an empty line is an empty text, never skipped.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import cast

from bertfast.errors import ArgumentError

_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = "\ufeff"


class TextFile:
    r"""The texts of one file, to be iterated once.

    Args:
        path: a file name, or ``-`` for standard input. A gzip file is recognised by its first bytes.
        field: None for one text per line (UTF-8, lines end at ``\n`` or ``\r\n``); otherwise every line
        is a JSON
            object and its string ``field`` is the text.

    Attributes:
        name: what messages call the file.
        size: bytes of the file on disk (compressed, for gzip), None when that is unknown (a pipe).

    Raises:
        OSError: the file cannot be opened.
        ArgumentError: while iterating, a line is not UTF-8 or not such a JSON object; the message starts with
            ``name:line:``.

    Example:
        >>> with TextFile("reviews.jsonl.gz", field="text") as texts:
        ...     for text in texts:
        ...         print(len(text))
    """

    def __init__(self, path: str, field: str | None = None) -> None:
        self.name = "<stdin>" if path == "-" else path
        self._field = field
        self._raw = cast(io.BufferedReader, sys.stdin.buffer) if path == "-" else open(path, "rb")  # noqa: SIM115
        status = os.fstat(self._raw.fileno())
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._lines: Iterable[bytes] = self._raw
        # `peek` tells gzip from text without consuming anything, even from a pipe.
        if self._raw.peek(2)[:2] == _GZIP_MAGIC:
            self._lines = gzip.GzipFile(fileobj=self._raw)

    @property
    def position(self) -> int:
        """Bytes of the file on disk that were read so far, to compare with ``size``."""
        return self._raw.tell()

    def close(self) -> None:
        """Closes the file."""
        self._raw.close()

    def __enter__(self) -> TextFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        number = 0
        try:
            for number, line in enumerate(self._lines, start=1):
                yield self._text(line, number)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ArgumentError(f"{self.name}: damaged gzip data after line {number}: {error}") from error

    def _text(self, line: bytes, number: int) -> str:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ArgumentError(
                f"{self.name}:{number}: not UTF-8: byte 0x{line[error.start]:02x} at position {error.start}"
            ) from None
        text = text.removesuffix("\n").removesuffix("\r")
        if number == 1:
            text = text.removeprefix(_BYTE_ORDER_MARK)
        return text if self._field is None else self._json_text(text, number)

    def _json_text(self, line: str, number: int) -> str:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"{self.name}:{number}: not a JSON object: {error}") from None
        if not isinstance(value, dict):
            raise ArgumentError(f"{self.name}:{number}: expected a JSON object, got {type(value).__name__}")
        if self._field not in value:
            raise ArgumentError(
                f"{self.name}:{number}: no field {self._field!r}, only {', '.join(map(repr, value))}"
            )
        text = value[self._field]
        if not isinstance(text, str):
            raise ArgumentError(
                f"{self.name}:{number}: field {self._field!r} must be a string, got {type(text).__name__}"
            )
        return text
