"""How far a build is, and whether it may be gone on with: only with the inputs and the tokenizer that it had.

The journal of the writer keeps the place, and a checksum of the list of inputs. The list itself, which may be
long, is written once, to be able to say what differs; it goes away when the store is finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bertfast.errors import CorpusError
from bertfast.pretraining.inputs import InputFile
from bertfast.pretraining.store_files import INPUTS, JOURNAL, TOKENIZER
from bertfast.text_files import shown_path

_ANEW = "(to begin anew: overwrite)"


@dataclass(frozen=True)
class Position:
    """How far a build is.

    Attributes:
        inputs: SHA-256 of the list of inputs.
        index: Of the file that is being read.
        offset: Where in it what follows begins, as `Block` has it.
        line: How many lines are before that.
    """

    inputs: str
    index: int = 0
    offset: int = 0
    line: int = 0

    def to_json(self) -> str:
        """For the journal."""
        return json.dumps(asdict(self))


def begin(folder: Path, files: Sequence[InputFile], tokenizer_files: Mapping[str, bytes]) -> Position:
    """Write down what a store is built from.

    Args:
        folder: Of the store, which has its journal already.
        files: All inputs.
        tokenizer_files: By their names.

    Returns:
        The start.
    """
    content = _list(files)
    _write(folder / INPUTS, content)
    # Of a build that ended before its first checkpoint there may be files of another tokenizer.
    if (folder / TOKENIZER).exists():
        shutil.rmtree(folder / TOKENIZER)
    (folder / TOKENIZER).mkdir()
    for name, data in tokenizer_files.items():
        _write(folder / TOKENIZER / name, data)
    return Position(hashlib.sha256(content).hexdigest())


def go_on(
    folder: Path, position: str, files: Sequence[InputFile], tokenizer_files: Mapping[str, bytes]
) -> Position:
    """Make sure that what was begun is gone on with alike.

    Args:
        folder: Of the store.
        position: Of its journal.
        files: All inputs, as they are now.
        tokenizer_files: Of the tokenizer that is given now.

    Returns:
        Where it was.

    Raises:
        CorpusError: It is not, and why; or what was begun is damaged.
    """
    try:
        found = Position(**json.loads(position))
    except (TypeError, ValueError) as error:
        raise CorpusError(f"{shown_path(folder / JOURNAL)}: damaged: position: {error}") from error
    content = _list(files)
    if hashlib.sha256(content).hexdigest() != found.inputs:
        raise CorpusError(f"{shown_path(folder)}: was begun with {_difference(folder, files)} {_ANEW}")
    inside = folder / TOKENIZER
    names = {path.name for path in inside.iterdir()} if inside.is_dir() else set()
    for name in sorted(names | set(tokenizer_files)):
        path = inside / name
        if not path.is_file() or path.read_bytes() != tokenizer_files.get(name):
            raise CorpusError(
                f"{shown_path(path)}: was begun with another tokenizer: expected the same {name} {_ANEW}"
            )
    return found


def _list(files: Sequence[InputFile]) -> bytes:
    return json.dumps([_entry(file) for file in files]).encode()


def _entry(file: InputFile) -> list[Any]:
    return [file.path, file.size, file.modified]


def _difference(folder: Path, files: Sequence[InputFile]) -> str:
    """What is not as in the list that was written."""
    try:
        begun = json.loads((folder / INPUTS).read_bytes())
        if len(begun) != len(files):
            return f"{len(begun)} input files, now there are {len(files)}"
        for index, (before, file) in enumerate(zip(begun, files, strict=True)):
            path, size, modified = before
            name = f"inputs[{index}]"
            if path != file.path:
                return f"{name} {shown_path(path)}, now it is {shown_path(file.path)}"
            if size != file.size:
                return f"{size} bytes in {name}, {file.name}, now there are {file.size}"
            if modified != file.modified:
                return f"{name}, {file.name}, which has been changed since"
    except (OSError, TypeError, ValueError):
        # Without a list that can be read there is nothing more to say.
        pass
    return "other inputs"


def _write(path: Path, content: bytes) -> None:
    """Writes a file that is there before the next checkpoint is."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
