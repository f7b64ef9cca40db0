"""Pieces of files: what one worker reads and writes at a time, in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bertfast.distributed.files import Format, InputFile, WatchedFile, format_of, lines_before, read_lines
from bertfast.distributed.json_columns import JsonColumns
from bertfast.distributed.work import Input, check_text_type, texts_of
from bertfast.errors import ArgumentError

_MOST_ROWS = 8192
_MOST_BYTES = 4 << 20
"""Of the texts that a worker holds at once."""

_BUFFER = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Piece:
    """A part of a file.

    Attributes:
        index: Its number within the file.
        start: The first byte, or the first row group of Parquet.
        end: The byte or row group after the last one, None for the end of the file.
        first_row: How many rows are before it; of lines that is not known.
    """

    file: InputFile
    format: Format
    index: int
    start: int = 0
    end: int | None = None
    first_row: int = 0

    def row_number(self, row: int) -> int:
        """The number of a row within the file, counted from 1."""
        before = self.first_row
        if self.format == "text" and self.start:
            before = lines_before(self.file, self.start)
        return before + row + 1


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        inputs: The columns that an input is made of.
        carried: The columns that are carried along, None for all.
        json_columns: For JSON lines; None where a line is a text.
    """

    inputs: tuple[str, ...]
    carried: tuple[str, ...] | None
    json_columns: JsonColumns | None


class BadRow(NamedTuple):
    """A row that cannot be read."""

    row: int
    """Within the piece."""
    reason: str


class Chunk(NamedTuple):
    """Some rows of a piece."""

    table: Any
    """(n, c): the columns that are carried along."""
    inputs: list[Input]
    """(n,)."""
    rows: list[int]
    """(n,): where each is within the piece."""
    bad: list[BadRow]


def pieces_of(file: InputFile, reading: Reading, size: int) -> list[Piece]:
    """A file cut into pieces of about a size in bytes; one piece at least.

    Raises:
        ArgumentError: It is damaged, or lacks a column, or has one of another type than strings.
        OSError: It cannot be read.
    """
    kind = format_of(file)
    if kind == "parquet":
        return _row_groups(file, reading, size)
    if reading.json_columns is None:
        (text,) = reading.inputs
        for name in reading.carried or ():
            if name != text:
                raise ArgumentError(f"{file.name}: expected one column {name!r}, got {text!r}")
    if kind != "text":
        return [Piece(file, kind, 0)]
    starts = range(0, max(file.size, 1), size)
    return [Piece(file, kind, index, start, start + size) for index, start in enumerate(starts)]


def _row_groups(file: InputFile, reading: Reading, size: int) -> list[Piece]:
    with _parquet(file) as parquet:
        metadata, schema = parquet.metadata, parquet.schema_arrow
        for name in reading.inputs:
            _check_column(schema, name, file)
            check_text_type(schema.field(name).type, f"{file.name}: column {name!r}")
        for name in reading.carried or ():
            _check_column(schema, name, file)
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        sizes = [(group.total_byte_size, group.num_rows) for group in groups]
    found: list[Piece] = []
    start = first_row = row = bytes_ = 0
    for index, (one, rows) in enumerate(sizes):
        if bytes_ and bytes_ + one > size:
            found.append(Piece(file, "parquet", len(found), start, index, first_row))
            start, first_row, bytes_ = index, row, 0
        bytes_ += one
        row += rows
    return [*found, Piece(file, "parquet", len(found), start, len(sizes), first_row)]


@contextlib.contextmanager
def _parquet(file: InputFile, row_number: Callable[[], int] | None = None) -> Iterator[Any]:
    """The opened file; damage in it becomes an `ArgumentError`, with the number of a row if there is one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with WatchedFile(file) as opened:
        try:
            # Read bit by bit: a row group may be larger than the memory.
            with pq.ParquetFile(opened, buffer_size=_BUFFER, pre_buffer=False) as parquet:
                yield parquet
        except (pa.ArrowException, EOFError, OSError) as error:
            if opened.failed:
                raise
            place = file.name if row_number is None else f"{file.name}:{row_number()}"
            raise ArgumentError(f"{place}: damaged Parquet: {' '.join(str(error).split())}") from error


def _check_column(schema: Any, name: str, file: InputFile) -> None:
    if schema.get_field_index(name) < 0:
        found = ", ".join(map(repr, schema.names)) or "none"
        raise ArgumentError(f"{file.name}: expected one column {name!r}, got {found}")


def schema_of(piece: Piece, reading: Reading) -> Any:
    """The columns of a piece that are carried along, a ``pyarrow.Schema``."""
    import pyarrow as pa

    if piece.format == "parquet":
        with _parquet(piece.file) as parquet:
            schema = parquet.schema_arrow.remove_metadata()
        return schema if reading.carried is None else pa.schema([schema.field(n) for n in reading.carried])
    if reading.json_columns is not None:
        return reading.json_columns.schema
    (text,) = reading.inputs
    return pa.schema([(text, pa.string())] if reading.carried in (None, (text,)) else [])


def chunks_of(piece: Piece, reading: Reading) -> Iterator[Chunk]:
    """The rows of a piece.

    Raises:
        ArgumentError: The file is damaged.
        OSError: It cannot be read.
    """
    return _of_parquet(piece, reading) if piece.format == "parquet" else _of_lines(piece, reading)


def _of_lines(piece: Piece, reading: Reading) -> Iterator[Chunk]:
    lines: list[bytes] = []
    first = size = 0
    source = read_lines(piece.file, piece.format, piece.start, piece.end)
    while True:
        mistake: ArgumentError | None = None
        try:
            line = next(source, None)
        except ArgumentError as error:
            line, mistake = None, error  # What is before the damage is computed first.
        if line is not None:
            if not piece.start and not first and not lines:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            lines.append(line)
            size += len(line)
        if lines and (line is None or len(lines) == _MOST_ROWS or size >= _MOST_BYTES):
            yield _chunk(lines, first, piece, reading)
            first, lines, size = first + len(lines), [], 0
        if mistake is not None:
            raise mistake
        if line is None:
            return


def _chunk(lines: Sequence[bytes], first: int, piece: Piece, reading: Reading) -> Chunk:
    import pyarrow as pa

    columns = reading.json_columns
    inputs: list[Input] = []
    carried: list[Any] = []
    rows: list[int] = []
    bad: list[BadRow] = []
    for row, line in enumerate(lines, first):
        try:
            text = line.decode()
            texts, values = ((text,), ()) if columns is None else columns.parse(text, reading.inputs)
        except UnicodeDecodeError as error:
            bad.append(BadRow(row, f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start}"))
        except ArgumentError as error:
            bad.append(BadRow(row, str(error)))
        else:
            inputs.append(texts)
            carried.append(values)
            rows.append(row)
    schema = schema_of(piece, reading)
    if columns is None:
        arrays = [pa.array([text for (text,) in inputs], pa.string())] * len(schema)
    else:
        arrays = [pa.array([one[i] for one in carried], kind) for i, kind in enumerate(schema.types)]
    if not arrays:
        return Chunk(_no_columns(len(rows)), inputs, rows, bad)
    return Chunk(pa.table(arrays, schema=schema), inputs, rows, bad)


def _no_columns(rows: int) -> Any:
    import pyarrow as pa

    return pa.table({"": pa.nulls(rows)}).select([])


def _of_parquet(piece: Piece, reading: Reading) -> Iterator[Chunk]:
    import pyarrow as pa

    row = 0
    schema = schema_of(piece, reading)
    names = list(dict.fromkeys([*schema.names, *reading.inputs]))
    with _parquet(piece.file, lambda: piece.row_number(row)) as parquet:
        groups = list(range(piece.start, parquet.num_row_groups if piece.end is None else piece.end))
        facts = [parquet.metadata.row_group(group) for group in groups]
        widest = max((one.total_byte_size // max(one.num_rows, 1) for one in facts), default=0)
        most = max(min(_MOST_BYTES // max(widest, 1), _MOST_ROWS), 1)
        for batch in parquet.iter_batches(batch_size=most, row_groups=groups, columns=names):
            yield _of_table(pa.Table.from_batches([batch]), row, schema, reading, piece.file)
            row += len(batch)


def _of_table(table: Any, first: int, schema: Any, reading: Reading, file: InputFile) -> Chunk:
    columns = [_texts(table[name], name, file) for name in reading.inputs]
    inputs: list[Input] = []
    good: list[int] = []
    bad: list[BadRow] = []
    for row, texts in enumerate(zip(*columns, strict=True)):
        reason = next(
            (
                _complaint(name, text)
                for name, text in zip(reading.inputs, texts, strict=True)
                if not isinstance(text, str)
            ),
            None,
        )
        if reason is None:
            inputs.append(texts)
            good.append(row)
        else:
            bad.append(BadRow(first + row, reason))
    table = without(table, [row - first for row, _ in bad])
    if not schema.names:
        table = _no_columns(len(good))
    else:
        table = table.select(schema.names).replace_schema_metadata(None)
    return Chunk(table, inputs, [first + row for row in good], bad)


def without(table: Any, rows: Sequence[int]) -> Any:
    """A table without some rows, which are given in order."""
    import pyarrow as pa

    if not rows:
        return table
    # Not `take`, which lacks a few types of columns.
    starts, stops = [0, *(row + 1 for row in rows)], [*rows, len(table)]
    return pa.concat_tables([table.slice(a, b - a) for a, b in zip(starts, stops, strict=True)])


def _texts(column: Any, name: str, file: InputFile) -> list[Any]:
    """The texts of a column, None or bytes where there is none."""
    try:
        return texts_of(column, f"{file.name}: column {name!r}")
    except UnicodeDecodeError:
        return [_text(value) for value in column]


def _text(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return error.object


def _complaint(name: str, text: Any) -> str:
    got = "null" if text is None else "bytes that are not UTF-8"
    return f"column {name!r}: expected str, got {got}"
