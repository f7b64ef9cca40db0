"""The files of a token store: what they are called, whose they are, and how they go away."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bertfast.errors import ArgumentError, CorpusError
from bertfast.text_files import shown_path

PathLike = str | os.PathLike[str]

MANIFEST, JOURNAL, INPUTS, TOKENIZER = "manifest.json", "journal.json", "inputs.json", "tokenizer"

_DATA = ("tokens.bin", "sentences.bin", "documents.bin", "word_starts.bin")
# What is about to take the place of the file itself.
_NEW = (f"{MANIFEST}.new", f"{JOURNAL}.new")
_FILES = (MANIFEST, JOURNAL, INPUTS, *_DATA, *_NEW)
_FORMATS = ("bertfast-corpus", "bertfast-corpus-journal")


def refuse_finished(folder: PathLike, overwrite: bool) -> None:
    """That no finished store is lost unless one says so."""
    if not overwrite and (Path(folder) / MANIFEST).exists():
        raise FileExistsError(
            errno.EEXIST, "is a finished corpus: name another folder, or overwrite it", str(folder)
        )


def check_outside(store: PathLike, inputs: Iterable[PathLike]) -> None:
    """That a store that is to be made is not among what it is made from, nor that in its folder.

    Raises:
        ArgumentError: It is.
    """
    output = Path(store).resolve()
    for path in map(Path, inputs):
        place = path.resolve()
        if output.is_relative_to(place):
            raise ArgumentError(f"store: expected a folder outside of the inputs, got {shown_path(store)}")
        if place.is_relative_to(output):
            raise ArgumentError(f"store: expected a folder without inputs, got {shown_path(path)} in it")


def remove_stores(*folders: PathLike) -> None:
    """Remove the stores, finished or not, that are there; the folders themselves stay.

    Raises:
        CorpusError: There is something else in a folder, and nothing is removed; or another process is
            writing it.
        OSError: One cannot be removed.
    """
    paths = [path for path in map(Path, folders) if path.exists()]
    for path in paths:
        check_own(path)
    for path in paths:
        _remove_store(path)


def _remove_store(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        tokens = path / _DATA[0]
        if tokens.exists():
            try:
                fcntl.flock(stack.enter_context(tokens.open("rb")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CorpusError(f"{shown_path(tokens)}: another process is writing it") from None
            # Again: somebody may have written until now.
            check_own(path)
        remove_files(path)


def remove_files(folder: Path) -> None:
    """Remove the files that a store has.

    Raises:
        OSError: One cannot be removed.
    """
    # Without its manifest a store is none. The last that goes says whose the rest is, should this be killed.
    for name in (MANIFEST, JOURNAL):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).rename(folder / f"{name}.new")
    for name in (INPUTS, *_DATA):
        (folder / name).unlink(missing_ok=True)
    if (folder / TOKENIZER).exists():
        shutil.rmtree(folder / TOKENIZER)
    for name in reversed(_NEW):
        (folder / name).unlink(missing_ok=True)


def check_own(folder: Path) -> None:
    """That there is nothing in a folder but the files of a store.

    Raises:
        CorpusError: There is.
    """
    found = [_read(folder / name) for name in (MANIFEST, f"{MANIFEST}.new", JOURNAL, f"{JOURNAL}.new")]
    described = [content for content in found if content is not None]
    # The manifest names the tokenizer's files; while there is none, those that are there are taken for it.
    names = next((content["files"] for content in found[:2] if content is not None), None)
    for entry in sorted(folder.iterdir()):
        if entry.name == TOKENIZER and described and entry.is_dir():
            for inside in sorted(entry.iterdir()):
                known = names is None or f"{TOKENIZER}/{inside.name}" in names
                if not known or not inside.is_file():
                    raise _foreign(folder, f"{TOKENIZER}/{inside.name}")
        # Of no use to anybody: what a process that was killed had not written yet.
        elif entry.name not in (_FILES if described else _NEW) and not _is_empty_lock(entry):
            raise _foreign(folder, entry.name)


def _foreign(folder: Path, name: str) -> CorpusError:
    return CorpusError(f"{shown_path(folder)}: expected a corpus or an empty folder, found {name}")


def _is_empty_lock(entry: Path) -> bool:
    return entry.name == _DATA[0] and entry.is_file() and entry.stat().st_size == 0


def _read(path: Path) -> dict[str, Any] | None:
    """A manifest or a journal; None if it is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    is_ours = isinstance(content, dict) and content.get("format") in _FORMATS
    return content if is_ours and isinstance(content.get("files"), dict) else None
