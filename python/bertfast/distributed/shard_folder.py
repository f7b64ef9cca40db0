"""The shards of a corpus on their way: a folder beside the store that every machine of the cluster sees.

A shard has its name there when all of it is there. Until then it is built under another name, by each attempt
under its own: one on a machine that only seemed to be dead is in nobody's way. Attempts give the same bytes,
so whichever is whole first is the shard.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bertfast import _bertfast
from bertfast.errors import ClusterError, CorpusError
from bertfast.pretraining.build_job import BuildJob, BuildOptions
from bertfast.pretraining.inputs import InputFile
from bertfast.pretraining.resume import begin, go_on
from bertfast.pretraining.sharding import parts_of
from bertfast.pretraining.store_files import INPUTS, TOKENIZER, PathLike
from bertfast.text_files import shown_path
from bertfast.tokenizer import Tokenizer
from bertfast.whole_file import WholeFile

JOB = "job.json"
_LOCK, _MERGING = "lock", "merging"
_FORMAT = "bertfast-corpus-shards"
_SHARD = re.compile(r"shard-\d+-of-\d+|\.shard-\d+-of-\d+\.[0-9a-f]+\.tmp")
ANEW = "(to begin anew: overwrite)"


@dataclass(frozen=True)
class ShardWork:
    """What a worker has to know to build shards; the machines that it goes to may be any.

    Attributes:
        folder: That of the shards, absolute.
        key: Of the folder: what has another one only has the same name.
        files: All inputs, as the machine saw them that asks for the corpus.
        tokenizer: It brings its files.
        options: How texts are made into a store.
        described: What the manifest says of them.
        num_shards: How many shards there are.
        version: Of bertfast.
    """

    folder: Path
    key: str
    files: Sequence[InputFile]
    tokenizer: Tokenizer
    options: BuildOptions
    described: Mapping[str, Any]
    num_shards: int
    version: str = _bertfast.__version__

    def check(self) -> None:
        """That everything is here that shards are built from.

        Raises:
            OSError: An input or the folder of the shards cannot be read here.
            ClusterError: One of them is another one here; bertfast has another version, or the options mean
                something else.
            ImportError: A package is missing here.
        """
        self._check_folder()
        self._job(self.folder, 0)
        for file in self.files:
            _check_file(file)

    def build(self, index: int) -> None:
        """Build a shard, if that is not done yet.

        Raises:
            OSError: A file or the folder of the shards cannot be read or written here.
            ClusterError: As `check` has it.
            ArgumentError: Something is wrong in an input.
            ImportError: A package is missing here.
        """
        self._check_folder()
        target = self.folder / shard_name(index, self.num_shards)
        if target.exists():
            return
        temporary = self.folder / f".{target.name}.{os.urandom(6).hex()}.tmp"
        job = self._job(temporary, index)
        for part in parts_of(job.files, job.shard, job.how.documents, job.field):
            _check_file(part.file)
        temporary.mkdir()
        try:
            job.run(shown=False)
            try:
                temporary.rename(target)
            except OSError:
                # Another attempt may have been first.
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _job(self, folder: Path, index: int) -> BuildJob:
        job = BuildJob.of(self.files, self.tokenizer, folder, self.options, (index, self.num_shards))
        for name, value in self.described.items():
            if job.options[name] != value:
                raise ClusterError(f"options.{name}: expected {value!r}, got {job.options[name]!r}")
        return job

    def _check_folder(self) -> None:
        """That it is the one that was meant: a path may be there on every machine without being shared."""
        if self.version != _bertfast.__version__:
            raise ClusterError(f"expected bertfast {self.version}, got {_bertfast.__version__}")
        try:
            key = json.loads((self.folder / JOB).read_bytes())["key"]
        except (ValueError, TypeError, KeyError):
            key = None
        if key != self.key:
            raise ClusterError(
                f"{shown_path(self.folder)}: expected a folder that all nodes share, got another"
            )


def _check_file(file: InputFile) -> None:
    with open(file.path, "rb") as opened:
        size = os.fstat(opened.fileno()).st_size
    if size != file.size:
        raise ClusterError(f"{file.name}: expected the same file everywhere, {file.size} bytes, got {size}")


def shard_name(index: int, count: int) -> str:
    """What the folder of a shard is called."""
    return f"shard-{index:05}-of-{count:05}"


class ShardFolder:
    """The folder, in the hands of the one process that asks for the corpus.

    Attributes:
        path: Where it is: the store's, with ``.shards`` behind it.
    """

    def __init__(self, store: PathLike) -> None:
        self.path = Path(f"{os.path.abspath(os.fspath(store))}.shards")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder if it is not there, and keeps other processes from building the same corpus.

        Raises:
            CorpusError: One is doing that.
            OSError: The folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            self._check_own()
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CorpusError(f"{shown_path(self.path)}: another process is building it") from None
            try:
                yield
            finally:
                if not self.is_begun:
                    self.remove()

    def _lock_file(self) -> BinaryIO:
        return (self.path / _LOCK).open("ab")

    @property
    def is_begun(self) -> bool:
        """Whether there is something to go on with."""
        return (self.path / JOB).exists()

    @property
    def is_merging(self) -> bool:
        """Whether all shards were there, so that a store that there is now was made of them."""
        return (self.path / _MERGING).exists()

    def begin(
        self, files: Sequence[InputFile], tokenizer: Tokenizer, options: Mapping[str, Any], num_shards: int
    ) -> str:
        """Write down what shards there will be.

        Returns:
            The key of the folder.
        """
        position = begin(self.path, files, tokenizer.files)
        key = os.urandom(16).hex()
        job = {
            "format": _FORMAT,
            "key": key,
            "num_shards": num_shards,
            "options": dict(options),
            "position": position.to_json(),
        }
        with WholeFile(str(self.path / JOB)) as file:
            file.file.write(json.dumps(job, ensure_ascii=False).encode())
            file.commit()
        return key

    def go_on(
        self,
        files: Sequence[InputFile],
        tokenizer: Tokenizer,
        options: Mapping[str, Any],
        num_shards: int | None,
    ) -> tuple[str, int]:
        """Make sure that what was begun is gone on with alike.

        Args:
            files: All inputs, as they are now.
            tokenizer: That is given now.
            options: As the manifest has them.
            num_shards: That are asked for; None for as many as there are.

        Returns:
            The key of the folder, and how many shards there are.

        Raises:
            CorpusError: It is not, and why; or the folder is damaged.
        """
        path = self.path / JOB
        try:
            job = json.loads(path.read_bytes())
            key, count, begun = str(job["key"]), int(job["num_shards"]), dict(job["options"])
            position = str(job["position"])
        except (ValueError, TypeError, KeyError) as error:
            raise CorpusError(f"{shown_path(path)}: damaged: {error} {ANEW}") from None
        for name, value in options.items():
            if begun.get(name) != value:
                raise CorpusError(
                    f"{shown_path(path)}: was begun with other arguments: options.{name}: expected "
                    f"{json.dumps(begun.get(name))}, got {json.dumps(value)} {ANEW}"
                )
        if num_shards not in (None, count):
            raise CorpusError(
                f"{shown_path(path)}: was begun with other arguments: num_shards: expected {count}, "
                f"got {num_shards} {ANEW}"
            )
        go_on(self.path, position, files, tokenizer.files)
        return key, count

    def finished(self, count: int) -> list[int]:
        """The numbers of the shards that are whole."""
        # The folder is listed, not asked for each: what a network file system remembers may be old.
        names = set(os.listdir(self.path))
        return [index for index in range(count) if shard_name(index, count) in names]

    def shards(self, count: int) -> list[Path]:
        """Where all shards are."""
        return [self.path / shard_name(index, count) for index in range(count)]

    def begin_merging(self) -> None:
        """Note that all shards are there, and no store yet."""
        (self.path / _MERGING).touch()

    def clear(self) -> None:
        """Remove what is there of shards, but for the folder itself."""
        # The job goes when the shards are gone: until then it says whose they are.
        for entry in list(self.path.iterdir()):
            if _SHARD.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True)
        (self.path / JOB).unlink(missing_ok=True)
        for name in (INPUTS, _MERGING):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / TOKENIZER, ignore_errors=True)

    def remove(self) -> None:
        """Remove all of it, as far as nobody writes there."""
        with contextlib.suppress(OSError):
            self.clear()
            for entry in list(self.path.iterdir()):
                # What `WholeFile` leaves that is killed.
                if entry.name == _LOCK or entry.name.startswith(f".{JOB}."):
                    entry.unlink()
            self.path.rmdir()

    def _check_own(self) -> None:
        """That there is nothing in the folder but what this class makes."""
        known = (JOB, INPUTS, TOKENIZER, _LOCK, _MERGING)
        for entry in sorted(self.path.iterdir()):
            ours = entry.name in known or entry.name.startswith(f".{JOB}.") or _SHARD.fullmatch(entry.name)
            if not ours:
                raise CorpusError(
                    f"{shown_path(self.path)}: expected shards of a corpus or nothing, found {entry.name}"
                )
