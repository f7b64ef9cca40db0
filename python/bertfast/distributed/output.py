"""The folder that a run writes: one Parquet file a piece, whole or not at all, and what a resume goes by.

::

    _bertfast.json                   the manifest: what is computed, of which files
    news/2024.jsonl.00000.parquet    a piece of news/2024.jsonl, with a column more
    _finished/news/2024.jsonl.json   all pieces of it are there
    _skipped/news/2024.jsonl.00000.jsonl   rows that could not be computed, and why
    _temporary/                      what is being written; gone in the end

Names with an underscore are no data for whoever reads the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bertfast import __version__
from bertfast.arguments import differences
from bertfast.distributed.files import InputFile, Place, look_at
from bertfast.distributed.pieces import Piece
from bertfast.errors import ArgumentError

MANIFEST = "_bertfast.json"
NUMBERS = "bertfast"
"""The entry in the metadata of a piece's file that counts its rows."""

_TEMPORARY, _FINISHED, _SKIPPED = "_temporary", "_finished", "_skipped"

_CLEAN_TRIES = 20


@dataclass(frozen=True)
class Output:
    """A folder of results."""

    place: Place
    run: str
    """A name of this run, so that what another left half-written is never taken for its own."""

    @classmethod
    def of(cls, name: str) -> Output:
        """The folder of that name, which need not exist."""
        return cls(Place.of(name), os.urandom(8).hex())

    # ---------------------------------------------------------------------------------------- the driver's

    def prepare(self, *, resume: bool) -> dict[str, Any] | None:
        """The manifest of the run that is to go on, None if this one is new.

        Raises:
            ArgumentError: There is something already, and nothing is to be resumed; or there is no manifest.
        """
        from pyarrow import fs

        kind = self.place.info().type
        if kind == fs.FileType.File:
            raise ArgumentError(f"output: expected a folder, got the file {self.place.name}")
        if kind == fs.FileType.NotFound:
            return None
        inside = self.place.system.get_file_info(fs.FileSelector(self.place.path))
        # A run that is killed at once leaves no more than the folder for what it would have written.
        if all(info.base_name == _TEMPORARY for info in inside):
            return None
        if not resume:
            raise ArgumentError(
                f"output: expected a new or an empty folder, got {self.place.name}; --resume goes on with it"
            )
        manifest: dict[str, Any] | None = self._read(MANIFEST)
        if manifest is None:
            raise ArgumentError(f"output: expected {MANIFEST} in {self.place.name}, which is to be resumed")
        return manifest

    def begin(self) -> None:
        """Lets everybody write, until `clean`."""
        folder = self._temporary()
        folder.system.create_dir(folder.path, recursive=True)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replaces the manifest."""
        self._write_json(MANIFEST, manifest)

    def finished(self) -> dict[str, Any]:
        """The inputs whose pieces are all there, with their numbers."""
        names = list(self._listed(_FINISHED))
        entries = look_at(names, lambda name: self._read(f"{_FINISHED}/{name}"))
        existing = self.existing()
        found = {name.removesuffix(".json"): entry for name, entry in zip(names, entries, strict=True)}
        return {
            relative: entry
            for relative, entry in found.items()
            # Somebody may have deleted some.
            if all(_piece_name(relative, index) in existing for index in range(entry["pieces"]))
        }

    def mark_finished(self, file: InputFile, numbers: Mapping[str, Any]) -> None:
        """Says that all pieces of an input are there."""
        self._write_json(f"{_FINISHED}/{file.relative}.json", numbers)

    def existing(self) -> set[str]:
        """The pieces that are there."""
        return {name for name in self._listed("") if name.endswith(".parquet") and not name.startswith("_")}

    def clean(self) -> None:
        """Deletes what was not completed, of this run and of those before it.

        A worker that is still busy cannot complete it any more.
        """
        from pyarrow import fs

        place = self.place.inside(_TEMPORARY)
        for tries in range(_CLEAN_TRIES, 0, -1):
            if place.info().type != fs.FileType.Directory:
                return
            try:
                place.system.delete_dir(place.path)
            except OSError:
                # Such a worker may have begun a file since the folder was listed.
                if tries == 1:
                    raise

    def abandon(self) -> None:
        """Deletes the manifest of a run that came to nothing, so that another may take its place."""
        if set(self._listed("")) == {MANIFEST}:
            self.place.system.delete_file(self.place.inside(MANIFEST).path)

    def numbers_of(self, piece: Piece) -> dict[str, int]:
        """Rows of a piece that is there, those that were skipped, and texts that were cut off.

        Raises:
            ArgumentError: It is no output of a run.
        """
        import pyarrow.parquet as pq

        place = self.place.inside(name_of(piece))
        with place.system.open_input_file(place.path) as file:
            metadata = pq.ParquetFile(file).metadata.metadata or {}
        if NUMBERS.encode() not in metadata:
            raise ArgumentError(f"{place.name}: expected a piece of an output, got another file")
        numbers: dict[str, int] = json.loads(metadata[NUMBERS.encode()])
        return numbers

    # ---------------------------------------------------------------------------------------- the workers'

    def open_new(self) -> Place:
        """A name to write to, before `publish` puts it where it belongs."""
        # The folder is the driver's to create: a worker that outlives it leaves nothing behind.
        return self._temporary().inside(os.urandom(8).hex())

    def publish(self, temporary: Place, name: str) -> None:
        """Moves a file that is complete to its name, in place of any that is there."""
        from pyarrow import fs

        if isinstance(temporary.system, fs.LocalFileSystem):
            with open(temporary.path, "rb") as file:
                os.fsync(file.fileno())
        target = self.place.inside(name)
        target.system.create_dir(target.path.rpartition("/")[0], recursive=True)
        target.system.move(temporary.path, target.path)

    def write(self, name: str, data: bytes) -> None:
        """Writes a small file, whole or not at all."""
        temporary = self.open_new()
        with temporary.system.open_output_stream(temporary.path) as file:
            file.write(data)
        self.publish(temporary, name)

    # ----------------------------------------------------------------------------------------------- private

    def _temporary(self) -> Place:
        return self.place.inside(f"{_TEMPORARY}/{self.run}")

    def _write_json(self, name: str, value: Any) -> None:
        self.write(name, json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")

    def _bytes(self, name: str) -> bytes | None:
        place = self.place.inside(name)
        try:
            with place.system.open_input_file(place.path) as file:
                data: bytes = file.read()
        except FileNotFoundError:
            return None
        return data

    def _read(self, name: str) -> Any:
        data = self._bytes(name)
        try:
            return None if data is None else json.loads(data)
        except ValueError as error:
            raise ArgumentError(f"{self.place.inside(name).name}: expected JSON, got damaged data") from error

    def _listed(self, folder: str) -> Iterator[str]:
        from pyarrow import fs

        base = (self.place.inside(folder) if folder else self.place).path.rstrip("/")
        selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
        for entry in self.place.system.get_file_info(selector):
            if entry.type == fs.FileType.File:
                yield entry.path[len(base) :].lstrip("/")


def name_of(piece: Piece) -> str:
    """What the output of a piece is called: names sort as the pieces do."""
    return _piece_name(piece.file.relative, piece.index)


def _piece_name(relative: str, index: int) -> str:
    return f"{relative}.{index:05}.parquet"


def skipped_name(piece: Piece) -> str:
    """What the file with the rows of a piece that were skipped is called."""
    return f"{_SKIPPED}/{piece.file.relative}.{piece.index:05}.jsonl"


def skipped_file_name(file: InputFile) -> str:
    """The same for a file that cannot be read at all."""
    return f"{_SKIPPED}/{file.relative}.jsonl"


def skipped_line(file: InputFile, row: int | None, reason: str) -> bytes:
    """An entry of it."""
    return json.dumps({"file": file.name, "row": row, "reason": reason}, ensure_ascii=False).encode() + b"\n"


def manifest_of(identity: Mapping[str, Any], files: list[InputFile]) -> dict[str, Any]:
    """What a run is."""
    return {
        "bertfast": __version__,
        "run": json.loads(json.dumps(identity)),
        "inputs": {file.relative: {"size": file.size, "modified": file.modified} for file in files},
        "finished": False,
    }


def check_resumed(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Compares a run with the one that it is to go on with.

    Raises:
        ArgumentError: It was asked for something else, or of other files; new files are none.
    """
    for key in ("bertfast", "run"):
        for difference in differences({key: before.get(key)}, {key: now[key]}):
            what = difference.removeprefix("run.")
            raise ArgumentError(f"{name}: expected the run that began it, {what}")
    for relative, facts in before["inputs"].items():
        if relative not in now["inputs"]:
            raise ArgumentError(f"{name}: expected the input {relative} that it began with, got none")
        for difference in differences(facts, now["inputs"][relative]):
            raise ArgumentError(f"{relative}: changed since {name} was begun: expected {difference}")
