"""The actor that reads pieces of files, computes, and writes a Parquet file for each."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bertfast.distributed.output import NUMBERS, Output, name_of, skipped_line, skipped_name
from bertfast.distributed.pieces import BadRow, Chunk, Piece, Reading, chunks_of, schema_of, without
from bertfast.distributed.work import Computer, Work
from bertfast.errors import ArgumentError, BertFastError, TruncationWarning

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Job:
    """What the workers of a run know."""

    work: Work
    reading: Reading
    output: Output
    num_threads: int
    skip: bool
    """Whether a row that cannot be computed is left out; else it ends the run."""


@dataclass(frozen=True)
class Done:
    """What became of a piece."""

    relative: str
    index: int
    rows: int = 0
    skipped: int = 0
    truncated: int = 0
    warnings: tuple[str, ...] = ()
    error: Exception | None = None


class PieceWorker:
    """An actor: pieces in, what became of them out. The results go to files, not through Ray."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._computer: Computer | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """A table with a column ``piece`` to one with a column ``done``, both pickled."""
        import pyarrow as pa

        done = [self._done(pickle.loads(one)) for one in table["piece"].to_pylist()]
        return pa.table({"done": pa.array([pickle.dumps(one) for one in done], pa.binary())})

    def _done(self, piece: Piece) -> Done:
        # A user's mistake comes back as it is: of an error that is raised here Ray keeps a text with a trace.
        try:
            with warnings.catch_warnings(record=True) as told:
                # Counted to the end instead, over all workers.
                warnings.simplefilter("ignore", TruncationWarning)
                done = self._run(piece)
            return replace(done, warnings=tuple(str(one.message) for one in told))
        except (BertFastError, OSError, ImportError, TypeError) as error:
            return Done(piece.file.relative, piece.index, error=_portable(error))

    def _run(self, piece: Piece) -> Done:
        job = self._job
        if self._computer is None:
            self._computer = job.work.open(job.num_threads)
        truncated = self._computer.truncated
        writer = _Writer(piece, job, self._computer)
        try:
            for chunk in chunks_of(piece, job.reading):
                writer.write(chunk)
        except ArgumentError as error:
            # Damage in the middle of a file; what is before it counts.
            if not job.skip:
                raise
            writer.skip_rest(str(error))
        return writer.commit(self._computer.truncated - truncated)


class _Writer:
    """The Parquet file of a piece."""

    def __init__(self, piece: Piece, job: Job, computer: Computer) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._piece, self._job, self._computer = piece, job, computer
        schema = schema_of(piece, job.reading)
        name = job.work.output_column
        if name in schema.names:
            raise ArgumentError(f"{piece.file.name}: column {name!r}: expected none of this name, got one")
        self._schema = schema.append(pa.field(name, computer.type))
        self._temporary = job.output.open_new()
        self._stream = self._temporary.system.open_output_stream(self._temporary.path)
        # Bits of vectors neither repeat nor shrink: looking for that would only take time.
        self._parquet = pq.ParquetWriter(
            self._stream,
            self._schema,
            use_dictionary=schema.names,
            write_statistics=schema.names,
            compression=dict.fromkeys(schema.names, "snappy") or "none",
        )
        self._rows = 0
        self._before: int | None = None
        self._skipped: list[bytes] = []

    def write(self, chunk: Chunk) -> None:
        """Computes some rows and appends them."""
        import pyarrow as pa

        if not self._job.skip:
            for bad in chunk.bad:
                self._skip(bad)
        column, errors = self._computer.compute_what_can_be(chunk.inputs, most=None if self._job.skip else 1)
        wrong = [BadRow(chunk.rows[error.index], error.reason) for error in errors]
        for bad in sorted([*chunk.bad, *wrong]):
            self._skip(bad)
        table = without(chunk.table, [error.index for error in errors])
        columns = [*table.columns, column]
        self._parquet.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows += len(column)

    def _skip(self, bad: BadRow) -> None:
        file = self._piece.file
        if self._before is None:
            self._before = self._piece.row_number(0)
        number = self._before + bad.row
        if not self._job.skip:
            raise ArgumentError(f"{file.name}:{number}: {bad.reason}")
        self._skipped.append(skipped_line(file, number, bad.reason))

    def skip_rest(self, reason: str) -> None:
        """Says why there are no more rows."""
        self._skipped.append(skipped_line(self._piece.file, None, reason))

    def commit(self, truncated: int) -> Done:
        """Completes the file.

        Args:
            truncated: How many texts were cut off.
        """
        file = self._piece.file
        done = Done(file.relative, self._piece.index, self._rows, len(self._skipped), truncated)
        numbers = {name: getattr(done, name) for name in ("rows", "skipped", "truncated")}
        # For a run that goes on after this one.
        self._parquet.add_key_value_metadata({NUMBERS: json.dumps(numbers)})
        self._parquet.close()
        self._stream.close()
        output = self._job.output
        if self._skipped:
            output.write(skipped_name(self._piece), b"".join(self._skipped))
        output.publish(self._temporary, name_of(self._piece))
        return done


def _portable(error: Exception) -> Exception:
    """The error, if it comes through pickling as it is."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return BertFastError(str(error))
    return error
