"""The files that a run on a cluster reads: on any file system that pyarrow knows, of any size."""

from __future__ import annotations

import errno
import gzip
import io
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

from bertfast.errors import ArgumentError
from bertfast.text_files import DAMAGED, ZstdStream

T = TypeVar("T")

Format = Literal["text", "gzip", "zstd", "parquet"]

_AT_ONCE = 16
"""Files that are looked at at the same time: a remote file system answers slowly, but to many."""

_BLOCK = 1 << 20
_MAGIC: dict[bytes, Format] = {b"PAR1": "parquet", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}


@dataclass(frozen=True)
class Place:
    """A path on a file system."""

    system: Any
    """A ``pyarrow.fs.FileSystem``."""
    path: str
    name: str
    """As the user wrote it."""

    @classmethod
    def of(cls, name: str) -> Place:
        """What a path or a URI means.

        Raises:
            ArgumentError: A URI of no file system that pyarrow has.
        """
        import pyarrow as pa
        from pyarrow import fs

        if "://" not in name:
            return cls(fs.LocalFileSystem(), os.path.abspath(name), name)
        try:
            system, path = fs.FileSystem.from_uri(name)
        except (pa.ArrowException, ValueError) as error:
            raise ArgumentError(
                f"{name}: expected a path or a URI that pyarrow opens, got: {error}"
            ) from error
        return cls(system, path, name)

    def inside(self, relative: str) -> Place:
        """A path in this folder."""
        return Place(self.system, posixpath.join(self.path, relative), posixpath.join(self.name, relative))

    def info(self) -> Any:
        """The ``pyarrow.fs.FileInfo``."""
        return self.system.get_file_info(self.path)


@dataclass(frozen=True)
class InputFile:
    """A file of texts.

    Attributes:
        relative: Its path inside the folder that was given, else its name: what its output is called.
        modified: In nanoseconds, None where the file system does not tell.
    """

    place: Place
    relative: str
    size: int
    modified: int | None

    @property
    def name(self) -> str:
        """As messages call it."""
        return self.place.name


def find_files(names: Sequence[str]) -> list[InputFile]:
    """The files that are meant, folders replaced by all files in them, sorted.

    In these, files and folders whose names begin with a dot or an underscore are left out, as in other tools:
    what is not data is called so.

    Raises:
        OSError: There is no such file, a folder cannot be read, or it has a link to one that it lies in.
        ArgumentError: There is none in a folder, two would have one output, or one is given by such a name.
    """
    found: dict[str, InputFile] = {}
    for name in names:
        for file in _files_of(Place.of(name)):
            if file.relative in found:
                raise ArgumentError(
                    f"inputs: expected different names, got {found[file.relative].name} and {file.name}"
                )
            found[file.relative] = file
    return [found[relative] for relative in sorted(found)]


def _files_of(place: Place) -> Iterator[InputFile]:
    from pyarrow import fs

    info = place.info()
    if info.type == fs.FileType.File:
        name = posixpath.basename(place.path)
        if name[0] in "._":
            # Its pieces would be called so too, and whoever reads the output would leave them out.
            raise ArgumentError(
                f'inputs: expected files whose names begin with neither "." nor "_", got {place.name}'
            )
        yield _file(place, name, info)
        return
    if info.type != fs.FileType.Directory:
        raise FileNotFoundError(2, "No such file or directory", place.name)
    count, base = 0, place.path.rstrip("/")
    for entry in _listed(place.system, base):
        relative = entry.path[len(base) :].lstrip("/")
        if entry.type == fs.FileType.Directory or any(part[0] in "._" for part in relative.split("/")):
            continue
        count += 1
        yield _file(place.inside(relative), relative, entry)
    if not count:
        raise ArgumentError(f"inputs: expected files in {place.name}, found none")


def _listed(system: Any, base: str) -> Any:
    from pyarrow import fs

    if not isinstance(system, fs.LocalFileSystem):
        return system.get_file_info(fs.FileSelector(base, recursive=True))
    # pyarrow leaves out links that lead nowhere, and what was to be read would be missing unnoticed.
    paths = []
    for parent, folders, names in os.walk(base, onerror=raise_error, followlinks=True):
        for name in folders:
            _check_no_loop(parent, os.path.join(parent, name))
        paths += [os.path.join(parent, name) for name in names]
    return system.get_file_info(paths)


def raise_error(error: OSError) -> NoReturn:
    """For ``os.walk``, which leaves out what it cannot read if it is not told otherwise."""
    raise error


def _check_no_loop(parent: str, folder: str) -> None:
    """`OSError` for a link to a folder that it lies in: there is no end to what would be in it."""
    here, there = os.path.realpath(parent), os.path.realpath(folder)
    if os.path.commonpath([here, there]) == there:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), folder)


def _file(place: Place, relative: str, info: Any) -> InputFile:
    return InputFile(place, relative, info.size or 0, info.mtime_ns)


def look_at(files: Iterable[T], look: Callable[[T], Any]) -> list[Any]:
    """Calls a function on every file, several at the same time; the results are in order."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(look, files))


class WatchedFile(io.RawIOBase):
    """A file that knows whether it could not be read, or whoever reads it did not like what is in it.

    Of some file systems the errors look like those of damaged data.
    """

    def __init__(self, file: InputFile) -> None:
        self._raw = file.place.system.open_input_file(file.place.path)
        self.failed = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a byte."""
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        """Which byte comes next."""
        return int(self._raw.tell())

    def readinto(self, buffer: Any) -> int:
        """Some of it, 0 at the end."""
        try:
            return int(self._raw.readinto(buffer))
        except OSError:
            self.failed = True
            raise

    def close(self) -> None:
        """Closes it."""
        self._raw.close()
        super().close()


def format_of(file: InputFile) -> Format:
    """What a file is, by its first bytes.

    Raises:
        OSError: It cannot be read.
    """
    with file.place.system.open_input_file(file.place.path) as opened:
        magic = opened.read(4)
    return next((kind for start, kind in _MAGIC.items() if magic.startswith(start)), "text")


def read_lines(file: InputFile, kind: Format, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    r"""The lines that begin in a range of bytes, without their ends (``\n`` or ``\r\n``).

    Every line of a file begins in one of the ranges that it is cut into: none is lost, none comes twice.

    Args:
        file: The file.
        kind: As `format_of` returned it; a compressed file is read as a whole.
        start: Where the range begins.
        end: Where it ends, None for the end of the file.

    Raises:
        ArgumentError: Damaged gzip or zstd data.
        OSError: It cannot be read.
    """
    number = 0
    try:
        with file.place.system.open_input_file(file.place.path) as raw:
            for line in _lines(_opened(raw, kind, file.name), start, end):
                yield line.removesuffix(b"\r")
                number += 1
    except DAMAGED as error:
        raise ArgumentError(f"{file.name}: damaged {kind} data after line {number}: {error}") from error


def _opened(raw: Any, kind: Format, name: str) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=raw)
    return io.BufferedReader(ZstdStream(raw, name), _BLOCK) if kind == "zstd" else raw


def _lines(file: Any, start: int, end: int | None) -> Iterator[bytes]:
    # The byte before belongs to the line that begins at `start` only if it ends a line.
    at = start - 1 if start else 0
    if at:
        file.seek(at)
    rest, skipping = b"", start > 0
    while True:
        # What there is: of damaged data that which comes before the damage.
        block = file.read1(_BLOCK)
        lines = (rest + block).split(b"\n") if block else [rest]
        rest = lines.pop() if block else b""
        for line in lines:
            here, at = at, at + len(line) + 1
            if skipping:
                skipping = False
            elif end is not None and here >= end:
                return
            elif block or line:
                yield line
        if not block:
            return


def lines_before(file: InputFile, start: int) -> int:
    """How many lines begin before a place in a file that is not compressed."""
    count, left, last = 0, start, b"\n"
    with file.place.system.open_input_file(file.place.path) as opened:
        while left and (block := opened.read(min(left, _BLOCK))):
            count, left, last = count + block.count(b"\n"), left - len(block), block
    return count if last.endswith(b"\n") else count + 1
