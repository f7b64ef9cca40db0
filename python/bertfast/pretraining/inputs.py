"""The files that a corpus is made of: which, which part of each, and their texts in blocks."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bertfast._bertfast import Lines
from bertfast.errors import ArgumentError
from bertfast.text_files import TextFile, is_compressed

Documents = Literal["blank_line", "line", "file"]

_BLOCK = 16 << 20
_PARQUET = ".parquet"
_PARQUET_ROWS = 4096
_FIELD = "text"
# What the compiled side takes for the end of a document: no character but these.
_WHITE_SPACE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


def is_blank(text: str) -> bool:
    """Whether nothing in it is a text."""
    return not text.strip(_WHITE_SPACE)


class Block(NamedTuple):
    """Some lines, and where the next ones begin."""

    lines: Lines
    offset: int
    """Of text, in bytes; in Parquet of rows."""
    done: int
    """Bytes on disk that were read of this file."""


@dataclass(frozen=True)
class Piece:
    """A part of a file: whole documents.

    Attributes:
        path: The file.
        start: Where its first line begins, in bytes of text.
        end: Where the first line behind it begins; None if nothing is behind it.
    """

    path: Path
    start: int = 0
    end: int | None = None

    def blocks(self, field: str | None, start: int) -> Iterator[Block]:
        """The lines from `start` on, which is an `offset` of before or the piece's own start.

        Raises:
            ArgumentError: Damaged data, or a column that is missing or has nulls.
            ImportError: The package that reads such files is missing; the message names the extra.
            OSError: The file cannot be read.
        """
        if self.path.suffix == _PARQUET:
            yield from _parquet_blocks(self.path, field, start)
            return
        with TextFile(str(self.path), field) as file:
            for lines in file.blocks(_BLOCK, start, self.end):
                yield Block(lines, file.offset, file.position)


def find_files(inputs: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files as they are, and those in folders, at any depth, in the order of their paths; no hidden ones.

    Raises:
        FileNotFoundError: There is no such file.
        ArgumentError: There are none.
    """
    files: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.is_file())
            seen = (
                file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts)
            )
            files.extend(sorted(seen))
        elif path.exists():
            files.append(path)
        else:
            raise FileNotFoundError(2, os.strerror(2), str(path))
    if not files:
        raise ArgumentError("inputs: expected at least one file, got none")
    return files


def fingerprint(files: Sequence[Path]) -> str:
    """Of the names and sizes of files: tells whether a build goes on with those that it began with."""
    listed = [(path.name, path.stat().st_size) for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def pieces_of(files: Sequence[Path], documents: Documents, shard: tuple[int, int]) -> list[Piece]:
    """What of the files is in a shard: the documents that begin in its part of all bytes.

    Lines of text are cut between documents; compressed files, Parquet and files that are one document each
    belong whole to the shard that they begin in.

    Args:
        files: In their order.
        documents: What a document is.
        shard: Number from 0 on, and how many there are.
    """
    index, count = shard
    sizes = [path.stat().st_size for path in files]
    total = sum(sizes)
    first, last = total * index // count, total * (index + 1) // count
    pieces, base = [], 0
    for path, size in zip(files, sizes, strict=True):
        start, end = (min(max(bound - base, 0), size) for bound in (first, last))
        base += size
        whole = documents == "file" or path.suffix == _PARQUET or count == 1 or is_compressed(path)
        if whole:
            start, end = (0 if bound == 0 else size for bound in (start, end))
        else:
            start, end = (_document_start(path, bound, documents) for bound in (start, end))
        if start < end:
            pieces.append(Piece(path, start, None if end >= size else end))
    return pieces


def _document_start(path: Path, offset: int, documents: Documents) -> int:
    """Where the first document begins that does so at this byte or behind it; the size if there is none."""
    if offset == 0:
        return 0
    with path.open("rb") as file:
        file.seek(_line_start(file, offset - 1))
        # This line began before: it decides whether the next one begins a document.
        before = file.readline()
        while True:
            start = file.tell()
            line = file.readline()
            if not line:
                return start
            if documents == "line" or (_is_blank_line(before) and not _is_blank_line(line)):
                return start
            before = line


def _line_start(file: Any, offset: int) -> int:
    """Where the line begins that a byte is in."""
    end: int = offset
    while end > 0:
        start = max(end - (1 << 16), 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        end = start
    return 0


def _is_blank_line(line: bytes) -> bool:
    return is_blank(line.decode("utf-8", errors="replace"))


def _parquet_blocks(path: Path, field: str | None, start: int) -> Iterator[Block]:
    """The column `field` as lines: those of text whose rows have numbers from `start` on."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(f"{path}: Parquet needs pyarrow: pip install 'bertfast[corpus]'") from error
    column = _FIELD if field is None else field
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise ArgumentError(f"{path}: no column {column!r}, only {', '.join(map(repr, names))}")
            size, row, rows = path.stat().st_size, 0, max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(_PARQUET_ROWS, columns=[column]):
                if row >= start:
                    texts = _strings(path, column, row, batch.column(0).to_pylist())
                    lines = "\n".join(json.dumps({_FIELD: text}, ensure_ascii=False) for text in texts)
                    done = size * (row + len(batch)) // rows
                    block = Lines(lines.encode(), field=_FIELD, name=str(path), first_line=row + 1)
                    yield Block(block, row + len(batch), done)
                row += len(batch)
    except pa.ArrowException as error:
        raise ArgumentError(f"{path}: damaged Parquet: {error}") from error


def _strings(path: Path, column: str, first: int, values: list[Any]) -> list[str]:
    for number, value in enumerate(values, start=first + 1):
        if not isinstance(value, str):
            kind = "null" if value is None else type(value).__name__
            raise ArgumentError(f"{path}:{number}: column {column!r} must be a string, got {kind}")
    return values
