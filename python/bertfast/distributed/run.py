"""A run: files in, a folder of Parquet out, piece by piece on the workers of a cluster."""

from __future__ import annotations

import itertools
import pickle
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertfast.distributed.cluster import cause_of, connect, fitting, import_ray
from bertfast.distributed.dataset import default_cpus, pool
from bertfast.distributed.files import InputFile, Place, find_files, format_of, look_at, read_lines
from bertfast.distributed.json_columns import JsonColumns
from bertfast.distributed.model import find_model
from bertfast.distributed.output import (
    Output,
    check_resumed,
    manifest_of,
    name_of,
    skipped_file_name,
    skipped_line,
)
from bertfast.distributed.piece_worker import Done, Job, PieceWorker
from bertfast.distributed.pieces import Piece, Reading, pieces_of
from bertfast.distributed.work import Work
from bertfast.errors import ArgumentError, BertFastError

PIECE_SIZE = 16 << 20
"""Bytes of an input file that a worker takes at once: minutes of work, which is what a lost node costs."""

_SAMPLED_FILES, _SAMPLED_LINES = 32, 1000
"""What the columns of JSON lines are found by."""

_MOST_WARNINGS = 3
"""Of workers, that are passed on: all of them warn of the same things."""


@dataclass(frozen=True)
class Options:
    """What a run is asked for beside the work itself.

    Attributes:
        inputs: Files and folders, as paths or URIs.
        output: The folder to write.
        task: As in `Work`.
        columns: As in `Work`.
        output_column: The new column.
        options: Of the task.
        model: A folder that every node sees, or a name on the hub.
        dtype: As in `Encoder.from_pretrained`; so is ``isa``.
        isa: See there.
        head: See there.
        batch_tokens: As in `Encoder.encode`.
        json: Whether files that are no Parquet are JSON lines.
        carried: The columns to carry along, None for all; of JSON lines as ``name:type``.
        resume: Go on with what is in the output.
        skip: Leave out rows and files that cannot be computed.
        address: Of the cluster.
        piece_size: In bytes.
        num_threads: Of a worker, None for up to 4.
        workers: How many, None for as many as there is room for.
        quiet: No progress.
        cache: Where nodes keep packed weights.
    """

    inputs: Sequence[str]
    output: str
    task: str
    columns: dict[str, str]
    output_column: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    dtype: Any = "auto"
    isa: str | None = None
    head: str | None = None
    batch_tokens: int | None = None
    json: bool = False
    carried: tuple[str, ...] | None = None
    resume: bool = False
    skip: bool = False
    address: str | None = None
    piece_size: int = PIECE_SIZE
    num_threads: int | None = None
    workers: int | None = None
    quiet: bool = False
    cache: str | None = None


@dataclass
class Totals:
    """What a run did, together with those that it went on with."""

    files: int = 0
    rows: int = 0
    skipped: int = 0
    truncated: int = 0
    resumed: int = 0
    """Files that were finished before."""

    def add(self, numbers: dict[str, int]) -> None:
        """One file more."""
        self.files += 1
        self.rows += numbers["rows"]
        self.skipped += numbers["skipped"]
        self.truncated += numbers["truncated"]


def run(options: Options) -> Totals:
    """Runs it.

    Raises:
        BertFastError: What the user is to be told; about a row it begins with ``file:row``.
        OSError: A file cannot be read or written.
    """
    import_ray()
    output = Output.of(options.output)
    _check_apart(options.inputs, output)
    before = output.prepare(resume=options.resume)
    files = find_files(options.inputs)

    finished = output.finished() if before is not None else {}
    todo = [file for file in files if file.relative not in finished]
    reading = _reading(options, todo, before)
    # What is wrong with the files is said before anything starts.
    cut = look_at(todo, lambda file: _cut(file, reading, options))
    with connect(options.address, quiet=options.quiet):
        work = Work(
            options.task,
            find_model(
                options.model,
                dtype=options.dtype,
                isa=options.isa,
                head=options.head,
                cache=options.cache,
            ),
            options.columns,
            options.output_column,
            options.options,
            options.batch_tokens,
        )
        manifest = manifest_of(_identity(work, reading, options), files)
        if before is not None:
            check_resumed(before, manifest, options.output)
        totals = Totals(resumed=len(finished))
        for numbers in finished.values():
            totals.add(numbers)
        threads = default_cpus(spare=0) if options.num_threads is None else options.num_threads
        job = Job(work, reading, output, threads, options.skip)
        try:
            output.begin()
            output.write_manifest(manifest)
            _run(job, todo, cut, options, totals)
            output.write_manifest(manifest | {"finished": True})
        except BaseException:
            output.clean()
            if before is None:
                output.abandon()
            raise
        output.clean()
    return totals


def _check_apart(inputs: Sequence[str], output: Output) -> None:
    there = f"{output.place.path.rstrip('/')}/"
    for name in inputs:
        place = Place.of(name)
        here = f"{place.path.rstrip('/')}/"
        if place.system == output.place.system and (there.startswith(here) or here.startswith(there)):
            raise ArgumentError(
                f"output: expected a folder apart from the input {name}, got {output.place.name}"
            )


def _identity(work: Work, reading: Reading, options: Options) -> dict[str, Any]:
    columns = reading.json_columns
    return work.identity() | {
        "json": None if columns is None else {"types": list(columns.types.items()), "closed": columns.closed},
        "carried": None if options.carried is None else list(options.carried),
        "piece_size": options.piece_size,
    }


def _reading(options: Options, files: Sequence[InputFile], before: Any) -> Reading:
    inputs = tuple(options.columns.values())
    carried = options.carried
    if not options.json:
        return Reading(inputs, carried, None)
    names = None if carried is None else tuple(one.partition(":")[0] for one in carried)
    if carried is not None:
        columns = JsonColumns.given(carried, inputs)
    elif before is not None and before["run"].get("json"):
        # The files that are left may begin with others.
        columns = JsonColumns(dict(before["run"]["json"]["types"]), before["run"]["json"]["closed"])
    else:
        lines = look_at(files[:_SAMPLED_FILES], lambda file: _first_lines(file, options.skip))
        columns = JsonColumns.found(itertools.chain.from_iterable(lines), inputs)
        for name in inputs:
            if columns.types and name not in columns.types:
                found = ", ".join(map(repr, columns.types))
                raise ArgumentError(
                    f"{files[0].name}: expected a field {name!r} in the first lines, got {found}"
                )
    return Reading(inputs, names, columns)


def _first_lines(file: InputFile, skip: bool) -> list[bytes]:
    try:
        kind = format_of(file)
        if kind == "parquet":
            return []
        return list(itertools.islice(read_lines(file, kind), _SAMPLED_LINES))
    except (ArgumentError, OSError):
        if skip:
            return []
        raise


def _cut(file: InputFile, reading: Reading, options: Options) -> list[Piece] | str:
    """The pieces of a file, or why it is left out."""
    try:
        return pieces_of(file, reading, options.piece_size)
    except (ArgumentError, OSError) as error:
        if options.skip:
            return str(error)
        raise


def _run(
    job: Job, files: Sequence[InputFile], cut: Sequence[list[Piece] | str], options: Options, totals: Totals
) -> None:
    output = job.output
    existing = output.existing() if options.resume else set()
    left: dict[str, int] = {}
    numbers: dict[str, dict[str, int]] = {}
    todo: list[Piece] = []
    by_name = {file.relative: file for file in files}

    def finish(relative: str) -> None:
        output.mark_finished(by_name[relative], numbers[relative])
        totals.add(numbers[relative])

    for file, pieces in zip(files, cut, strict=True):
        if isinstance(pieces, str):
            output.write(skipped_file_name(file), skipped_line(file, None, pieces))
            numbers[file.relative] = {"pieces": 0, "rows": 0, "skipped": 1, "truncated": 0}
            finish(file.relative)
            continue
        numbers[file.relative] = {"pieces": len(pieces), "rows": 0, "skipped": 0, "truncated": 0}
        new = [piece for piece in pieces if name_of(piece) not in existing]
        for found in look_at([piece for piece in pieces if name_of(piece) in existing], output.numbers_of):
            _add(numbers[file.relative], found)
        todo += new
        left[file.relative] = len(new)
        if not new:
            finish(file.relative)
    told: set[str] = set()
    for done in _computed(job, todo, options):
        if done.error is not None:
            raise done.error
        for message in done.warnings:
            if len(told) < _MOST_WARNINGS and message not in told:
                told.add(message)
                warnings.warn(message, stacklevel=2)
        _add(numbers[done.relative], vars(done))
        left[done.relative] -= 1
        if not left[done.relative]:
            finish(done.relative)


def _add(numbers: dict[str, int], more: dict[str, Any]) -> None:
    for name in ("rows", "skipped", "truncated"):
        numbers[name] += more[name]


def _computed(job: Job, pieces: Sequence[Piece], options: Options) -> Iterator[Done]:
    """What becomes of every piece, as it comes."""
    if not pieces:
        return
    ray = import_ray()
    fit = fitting(job.num_threads, "num_threads")
    workers = fit if options.workers is None else options.workers
    ds = ray.data.from_items(
        [{"piece": pickle.dumps(piece)} for piece in pieces], override_num_blocks=len(pieces)
    ).map_batches(
        PieceWorker,
        fn_constructor_args=(job,),
        # A piece is minutes of work: one that waits for a busy worker would be missing elsewhere in the end.
        compute=pool(min(workers, len(pieces)), max_tasks_in_flight_per_actor=1),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=job.num_threads,
    )
    try:
        for table in ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=4):
            yield from map(pickle.loads, table["done"].to_pylist())
    except ray.exceptions.RayError as error:
        found = cause_of(error)
        raise found if isinstance(found, (BertFastError, OSError)) else BertFastError(str(found)) from error
