"""Which documents of the inputs a shard has.

The inputs lie end to end and are cut into equal ranges of bytes. A shard has the documents that begin in its
range: so every document is in one shard, and the shards put together are the whole in its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from bertfast._bertfast import Lines
from bertfast.errors import ArgumentError
from bertfast.pretraining.inputs import InputFile, Part
from bertfast.pretraining.segmentation import WHITE_SPACE, Documents

_STEP = 1 << 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def parts_of(
    files: Sequence[InputFile], shard: tuple[int, int] | None, documents: Documents, field: str | None
) -> list[Part]:
    """What a shard has of each file; everything if `shard` is None.

    Text and JSON lines are cut between documents. Files that cannot be, because they are compressed, Parquet
    or one document, belong to the shard in whose range they begin.

    Args:
        files: All of them, also those that are another shard's.
        shard: ``(i, n)``, i from 0 on.
        documents: How lines make documents.
        field: Of JSON lines.

    Raises:
        OSError: A file cannot be read.
    """
    if shard is None:
        return [Part(index, file) for index, file in enumerate(files)]
    number, count = shard
    total = sum(file.size for file in files)
    low, high = total * number // count, total * (number + 1) // count
    parts, before = [], 0
    for index, file in enumerate(files):
        start, end = low - before, high - before
        before += file.size
        if file.format != "text" or documents == "file":
            if start <= 0 < end and file.size > 0:
                parts.append(Part(index, file))
        elif start < file.size and end > 0:
            bounds = [document_start(file, at, documents, field) for at in (start, end)]
            if bounds[0] < bounds[1]:
                parts.append(Part(index, file, *bounds))
    return parts


def document_start(file: InputFile, at: int, documents: Documents, field: str | None) -> int:
    """The first place from `at` on where a document may begin; the end of the file if there is none.

    That is the beginning of a line, and with ``"blank_line"`` of one that is behind a line without text.
    """
    if at <= 0:
        return 0
    if at >= file.size:
        return file.size
    with open(file.path, "rb") as stream:
        start = _line_start(stream, at - 1)
        stream.seek(start)
        for line in stream:
            first, start = start == 0, start + len(line)
            if start >= at and (documents == "line" or _is_blank(line, field, first)):
                return start
    return file.size


def _line_start(stream: BinaryIO, at: int) -> int:
    """Where the line begins that has byte `at`."""
    while at > 0:
        step = min(at, _STEP)
        stream.seek(at - step)
        found = stream.read(step).rfind(b"\n")
        if found >= 0:
            return at - step + found + 1
        at -= step
    return 0


def _is_blank(line: bytes, field: str | None, first: bool) -> bool:
    """Whether the compiled writer sees no text there. A line that is an error has some."""
    if first:
        line = line.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = line.decode() if field is None else Lines(line, field=field).to_list()[0]
    except (UnicodeDecodeError, ArgumentError):
        return False
    return not text.strip(WHITE_SPACE)
