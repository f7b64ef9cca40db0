"""The files that a corpus is built from, and their texts in blocks."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bertfast._bertfast import Lines
from bertfast.errors import ArgumentError
from bertfast.pretraining.store_files import PathLike
from bertfast.text_files import TextFile, is_compressed, shown_path

BLOCK = 16 << 20
"""Bytes of text that are read at once."""

DEFAULT_COLUMN = "text"
"""Of Parquet, if none is named."""

_PARQUET_MAGIC = b"PAR1"
_MOST_ROWS = 1 << 16
_PIECE = 1 << 20

Format = Literal["text", "compressed", "parquet"]


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of texts.

    Attributes:
        path: Absolute.
        name: As messages call it.
        size: In bytes.
        modified: When it was changed the last time, in nanoseconds.
        format: By its first bytes, and for Parquet its last ones too.
    """

    path: str
    name: str
    size: int
    modified: int
    format: Format

    @classmethod
    def of(cls, path: PathLike) -> InputFile:
        """Looks at a file.

        Raises:
            OSError: It cannot be read.
            ArgumentError: It is no regular file.
        """
        # Asked before opening: opening a named pipe would wait for its writer.
        status = os.stat(path)
        name = shown_path(path)
        if not stat.S_ISREG(status.st_mode):
            raise ArgumentError(f"inputs: expected files and folders, got {name}, which is neither")
        return cls(
            os.path.abspath(os.fspath(path)),
            name,
            status.st_size,
            status.st_mtime_ns,
            _format(path, status.st_size),
        )


@dataclass(frozen=True)
class Part:
    """What is to be read of a file: the bytes from `start` to `end`, all if that is None."""

    index: int
    file: InputFile
    start: int = 0
    end: int | None = None

    @property
    def size(self) -> int:
        """In bytes of the file."""
        return (self.file.size if self.end is None else self.end) - self.start


class Block(NamedTuple):
    """Some lines of a part.

    Attributes:
        lines: Not looked at yet; their numbers count from the start of the part.
        name: Of the file.
        first_line: The number of the first line, from 1 on.
        offset: Where what follows begins: bytes of text, or rows of Parquet.
        line: How many lines of the part are before that.
        read: How many bytes of the part have been read.
    """

    lines: Lines
    name: str
    first_line: int
    offset: int
    line: int
    read: int


def given_paths(inputs: PathLike | Sequence[PathLike]) -> list[PathLike]:
    """The paths that were given, or the one."""
    return [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)


def find_inputs(inputs: PathLike | Sequence[PathLike]) -> list[InputFile]:
    """The files that are meant, folders replaced by all files in them, sorted.

    Not by those whose names begin with a dot or an underscore: the first are hidden, the second are notes of
    programs such as Spark.

    Raises:
        OSError: There is no such file.
        ArgumentError: There is no file at all, or something is neither a file nor a folder.
    """
    files = []
    for path in given_paths(inputs):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"inputs: expected paths, got {type(path).__name__}")
        found = list(_files_in(Path(path))) if os.path.isdir(path) else [path]
        if not found:
            raise ArgumentError(f"inputs: expected files in {shown_path(path)}, found none")
        files += [InputFile.of(one) for one in found]
    if not files:
        raise ArgumentError("inputs: expected at least one file, got none")
    return files


def _files_in(folder: Path) -> Iterator[Path]:
    # By name, whatever the order of the file system: a folder and a file beside it compare by theirs.
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir():
            yield from _files_in(entry)
        else:
            yield entry


def _format(path: PathLike, size: int) -> Format:
    if is_compressed(path):
        return "compressed"
    with open(path, "rb") as file:
        if size >= 2 * len(_PARQUET_MAGIC) and file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC:
            file.seek(-len(_PARQUET_MAGIC), os.SEEK_END)
            if file.read() == _PARQUET_MAGIC:
                return "parquet"
    return "text"


def check_packages(files: Sequence[InputFile]) -> None:
    """That the packages are there which the files' formats need.

    Raises:
        OSError: A file cannot be read.
        ImportError: One is missing.
    """
    for file in files:
        if file.format == "parquet":
            _import_pyarrow(file)
        elif file.format == "compressed":
            TextFile(file.path).close()


def blocks_of(part: Part, field: str | None, offset: int = 0, line: int = 0) -> Iterator[Block]:
    """The texts of a part: its lines, the string `field` of JSON lines, or that column of Parquet.

    Args:
        part: What to read.
        field: None for lines of text, and the column ``text``.
        offset: Where to begin, from a block before; 0 is the start of the part.
        line: From the same block.

    Raises:
        OSError: The file cannot be read.
        ImportError: A package that its format needs is missing.
        ArgumentError: It is damaged, has no such column, or has changed. A bad line is an error where the
            block is used.
    """
    if part.file.format == "parquet":
        return _rows(part.file, DEFAULT_COLUMN if field is None else field, offset)
    return _lines(part, field, max(offset, part.start), line)


def _lines(part: Part, field: str | None, offset: int, line: int) -> Iterator[Block]:
    with TextFile(part.file.path, field) as file:
        file.name = part.file.name
        end = part.file.size if part.file.format == "text" and part.end is None else part.end
        for lines in file.blocks(BLOCK, offset, end, line):
            first, line = line + 1, line + len(lines)
            read = (file.offset if part.file.format == "text" else file.position) - part.start
            yield Block(lines, part.file.name, first, file.offset, line, read)
        if end is not None and max(file.offset, offset) != end:
            raise ArgumentError(f"{part.file.name}: became shorter while it was read")


def _import_pyarrow(file: InputFile) -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(f"{file.name}: Parquet needs pyarrow: pip install 'bertfast[corpus]'") from error
    return pa, pq


def _rows(file: InputFile, field: str, first: int) -> Iterator[Block]:
    pa, pq = _import_pyarrow(file)
    try:
        # Read piece by piece: a row group may be larger than the memory.
        with pq.ParquetFile(file.path, buffer_size=_PIECE, pre_buffer=False) as parquet:
            yield from _column(parquet, file, _check_column(parquet.schema_arrow, file, field, pa), first)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArgumentError(f"{file.name}: damaged Parquet: {error}") from error


def _check_column(schema: Any, file: InputFile, field: str, pa: Any) -> str:
    if field not in schema.names:
        names = ", ".join(map(repr, schema.names))
        raise ArgumentError(f"{file.name}: no column {field!r}, only {names}")
    kind = schema.field(field).type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if str(values) not in ("string", "large_string", "string_view", "null"):
        raise ArgumentError(f"{file.name}: column {field!r}: expected strings, got {kind}")
    return field


def _column(parquet: Any, file: InputFile, field: str, first: int) -> Iterator[Block]:
    """The rows from `first` on."""
    metadata = parquet.metadata
    groups: list[int] = []
    row, end, size = first, 0, 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if group.num_rows and end + group.num_rows > first:
            row = row if groups else end
            groups.append(index)
            size = max(size, group.total_byte_size // group.num_rows)
        end += group.num_rows
    batches = parquet.iter_batches(
        batch_size=max(min(BLOCK // max(size, 1), _MOST_ROWS), 1), row_groups=groups, columns=[field]
    )
    for batch in batches if groups else ():
        before, row = max(row, first), row + len(batch)
        if before >= row:
            continue
        column = batch.column(0)[before - row :]
        data, name = _as_lines(_texts(column, file, before), field)
        lines = Lines(data, field=name, name=file.name, first_line=before + 1)
        yield Block(lines, file.name, before + 1, row, row, file.size * row // max(metadata.num_rows, 1))


def _as_lines(texts: list[str | None], field: str) -> tuple[bytes, str | None]:
    """Texts as lines; as JSON lines with that field where line breaks in them, or nulls, are to be kept."""
    if None not in texts:
        lines = "".join(f"{text}\n" for text in texts)
        if lines.count("\n") == len(texts) and "\r" not in lines:
            return lines.encode(), None
    objects = (json.dumps({field: text}, ensure_ascii=False) for text in texts)
    return "\n".join(objects).encode(), field


def _texts(column: Any, file: InputFile, row: int) -> list[str | None]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        for index, text in enumerate(column, row + 1):
            try:
                text.as_py()
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise ArgumentError(
                    f"{file.name}:{index}: not UTF-8: byte 0x{byte:02x} at position {error.start}"
                ) from None
        raise


def in_file(error: ArgumentError, part: Part) -> ArgumentError:
    """An error about a line of a part, as one about that line of the file."""
    found = re.match(rf"{re.escape(part.file.name)}:(\d+):", str(error))
    if found is None or part.start == 0:
        return error
    before, left = 0, part.start
    with open(part.file.path, "rb") as file:
        while left > 0 and (data := file.read(min(left, BLOCK))):
            before, left = before + data.count(b"\n"), left - len(data)
    return ArgumentError(f"{part.file.name}:{int(found[1]) + before}:{str(error)[found.end() :]}")
