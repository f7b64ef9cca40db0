"""Reads the texts of a file: one per line or per JSON line, plain, gzip or zstd, from disk or standard input.

Memory stays bounded: a file is read line by line or in blocks of them, and row ``i`` of any result belongs to
line ``i`` of the file, so an empty line is an empty text, never skipped.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import json
import os
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from bertfast._bertfast import Lines
from bertfast.arguments import check_utf8
from bertfast.errors import ArgumentError
from bertfast.progress import Progress

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_READ = 1 << 20
_ZSTD_SLICE = 2048


class _ZstdDamageError(Exception):
    """Zstd data that is damaged or ends too early, whichever library says so."""


class ZstdStream(io.RawIOBase):
    """What a zstd file holds; the errors of its library as `_ZstdDamageError`."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise ImportError(
                f"{name}: zstd needs the package zstandard: pip install 'bertfast[corpus]'"
            ) from error
        self._raw, self._ended = raw, True
        self._data = memoryview(b"")
        # As much as any frame may ask for: large dumps are made with such windows.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._error = zstandard.ZstdError
        self._stream = self._decompressor.decompressobj()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Some of it, 0 at the end."""
        while not self._ready:
            data = self._stream.unused_data or self._some_data()
            if not data:
                if not self._ended:
                    raise _ZstdDamageError("it ends too early")
                return 0
            if self._stream.eof:
                self._stream = self._decompressor.decompressobj()  # Another frame.
            try:
                self._ready = memoryview(self._stream.decompress(data))
            except self._error as error:
                raise _ZstdDamageError(str(error)) from error
            self._ended = self._stream.eof
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _some_data(self) -> bytes:
        """A little, 0 bytes at the end: texts that repeat themselves take a ten-thousandth of their size."""
        if not self._data:
            self._data = memoryview(self._raw.read(_READ))
        some, self._data = self._data[:_ZSTD_SLICE], self._data[_ZSTD_SLICE:]
        return bytes(some)


_BYTE_ORDER_MARK = "\ufeff"
_MEGABYTE = 1_000_000
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, _ZstdDamageError)


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path for messages: it may have bytes that are no text."""
    return os.fsencode(path).decode("utf-8", "replace")


def _standard_input() -> io.BufferedReader:
    # None in a process that was started without one.
    stdin: Any = sys.stdin
    if stdin is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "<stdin>")
    return cast(io.BufferedReader, stdin.buffer)


def is_compressed(path: str | os.PathLike[str]) -> bool:
    """Whether a file is gzip or zstd, by its first bytes."""
    with open(path, "rb") as file:
        return file.read(4).startswith((_GZIP_MAGIC, _ZSTD_MAGIC))


class TextFile:
    r"""The texts of one file, to be iterated once.

    Args:
        path: a file name, or ``-`` for standard input. Gzip and zstd are recognised by the first bytes;
            zstd needs the package zstandard (``bertfast[corpus]``).
        field: None for one text per line (UTF-8, lines end at ``\n`` or ``\r\n``); otherwise every line is a
            JSON object and its string ``field`` is the text.

    Attributes:
        name: what messages call the file.
        size: bytes of the file on disk (compressed, if it is), None when that is unknown (a pipe).
        offset: bytes of text behind the last block of `blocks`.

    Raises:
        OSError: the file cannot be opened.
        ImportError: it is zstd, and the package is missing.
        ArgumentError: while iterating, a line is not UTF-8 or not such a JSON object; the message starts with
            ``name:line:``.

    Example:
        >>> with TextFile("reviews.jsonl.gz", field="text") as texts:
        ...     for text in texts:
        ...         print(len(text))
    """

    def __init__(self, path: str, field: str | None = None) -> None:
        self.name = "<stdin>" if path == "-" else shown_path(path)
        self._field = field
        self._raw = _standard_input() if path == "-" else open(path, "rb")  # noqa: SIM115
        status = os.fstat(self._raw.fileno())
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._lines: BinaryIO = self._raw
        self.offset = 0
        # `peek` tells gzip from text without consuming anything, even from a pipe.
        magic = self._raw.peek(4)[:4]
        if magic.startswith(_GZIP_MAGIC):
            self._lines, self._format = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)), "gzip"
        elif magic == _ZSTD_MAGIC:
            stream = ZstdStream(cast(BinaryIO, self._raw), self.name)
            self._lines, self._format = cast(BinaryIO, io.BufferedReader(stream, 1 << 20)), "zstd"

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
        for number, line in self._numbered_lines():
            text = self._text(line, number)
            yield (
                text if self._field is None else self._string(self._object(text, number), self._field, number)
            )

    def rows(self, fields: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Several strings of the JSON object on each line, in place of iterating; errors are the same.

        Args:
            fields: Their names.
        """
        for number, line in self._numbered_lines():
            entry = self._object(self._text(line, number), number)
            yield tuple(self._string(entry, field, number) for field in fields)

    def _numbered_lines(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        try:
            for number, line in enumerate(self._lines, start=1):
                yield number, line
        except DAMAGED as error:
            raise self._damage(number, error) from error

    def blocks(
        self, size: int, start: int = 0, end: int | None = None, line: int | None = None
    ) -> Iterator[Lines]:
        """The texts in blocks of about `size` bytes, from which the tokenizer takes them without a str.

        Args:
            size: In bytes.
            start: Where the first line begins, in bytes of text: an `offset` of before.
            end: Where a line begins that is not wanted any more; None is the end of the file.
            line: How many lines there are before `start`, if that is known: a file that is not compressed is
                not read up to there then.

        Raises:
            ArgumentError: Damaged gzip or zstd data; a bad line is one where the block is used.
        """
        number = 0
        try:
            number = self._skip(start) if line is None else self._go_to(start, line)
            while block := self._lines.read(size if end is None else min(size, end - self.offset)):
                if end is None or self.offset + len(block) < end:
                    block += self._lines.readline()
                first, self.offset = self.offset == 0, self.offset + len(block)
                if first:
                    block = block.removeprefix(codecs.BOM_UTF8)
                lines = Lines(block, field=self._field, name=self.name, first_line=number + 1)
                yield lines
                number += len(lines)
        except DAMAGED as error:
            raise self._damage(number, error) from error

    def _go_to(self, start: int, line: int) -> int:
        if self._lines is self._raw and self._raw.seekable():
            self.offset = self._raw.seek(start)
        else:
            self._skip(start)
        return line

    def _skip(self, start: int) -> int:
        """Reads what is before, and counts its lines."""
        number = 0
        while self.offset < start and (data := self._lines.read(min(start - self.offset, 1 << 20))):
            self.offset += len(data)
            number += data.count(b"\n")
        return number

    def _damage(self, number: int, error: Exception) -> ArgumentError:
        return ArgumentError(f"{self.name}: damaged {self._format} data after line {number}: {error}")

    def _text(self, line: bytes, number: int) -> str:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ArgumentError(
                f"{self.name}:{number}: not UTF-8: byte 0x{line[error.start]:02x} at position {error.start}"
            ) from None
        text = text.removesuffix("\n").removesuffix("\r")
        return text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text

    def _object(self, line: str, number: int) -> dict[str, object]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"{self.name}:{number}: not a JSON object: {error}") from None
        if not isinstance(value, dict):
            raise ArgumentError(f"{self.name}:{number}: expected a JSON object, got {type(value).__name__}")
        return value

    def _string(self, entry: dict[str, object], field: str, number: int) -> str:
        if field not in entry:
            raise ArgumentError(
                f"{self.name}:{number}: no field {field!r}, only {', '.join(map(repr, entry))}"
            )
        text = entry[field]
        if not isinstance(text, str):
            raise ArgumentError(
                f"{self.name}:{number}: field {field!r} must be a string, got {type(text).__name__}"
            )
        return check_utf8(f"{self.name}:{number}", text)


def read_blocks(paths: Sequence[str], field: str | None, size: int, *, shown: bool) -> Iterator[Lines]:
    """The blocks of files, one after the other, with a progress bar if one is to be shown.

    Raises:
        OSError: A file does not exist, at once; or cannot be opened, when it is its turn.
    """
    files = [os.stat(path) for path in paths if path != "-"]
    regular = len(files) == len(paths) and all(stat.S_ISREG(file.st_mode) for file in files)
    total = sum(file.st_size for file in files) if regular else None
    return _read_blocks(paths, field, size, total, shown)


def _read_blocks(
    paths: Sequence[str], field: str | None, size: int, total: int | None, shown: bool
) -> Iterator[Lines]:
    megabytes = None if total is None else total // _MEGABYTE
    with Progress(total=megabytes, unit="megabyte", shown=shown) as progress:
        read, done = 0, 0
        for path in paths:
            with TextFile(path, field) as file:
                position = 0
                for block in file.blocks(size):
                    yield block
                    if file.size is not None:
                        read, position = read + file.position - position, file.position
                        progress.update(read // _MEGABYTE - done)
                        done = read // _MEGABYTE
