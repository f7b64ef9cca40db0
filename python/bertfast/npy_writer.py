"""Writes a ``.npy`` file row by row: its length need not be known, and it appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bertfast.errors import ShapeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HEADER_BYTES = 128
_MAGIC = b"\x93NUMPY\x01\x00"


class NpyWriter:
    """A float32 array (rows, dimensions) on its way to disk.

    Rows go to a temporary file in the folder of ``path``; ``commit`` completes it and renames it to
    ``path``. Leaving the ``with`` block without ``commit`` leaves nothing behind, and whatever was at
    ``path`` before untouched.

    Args:
        path: the file to be. What is there already is replaced.

    Attributes:
        rows: rows written so far.
        dimensions: numbers in a row, 0 until ``set_dimensions``.

    Raises:
        OSError: the file cannot be created there.

    Example:
        >>> with NpyWriter("vectors.npy") as writer:
        ...     writer.set_dimensions(384)
        ...     writer.write(np.zeros((10, 384), np.float32))
        ...     writer.commit()

    Source: the NPY format, version 1.0, ``numpy.lib.format``.
    """

    def __init__(self, path: str) -> None:
        self.rows = 0
        self.dimensions = 0
        self._path = Path(path)
        if self._path.is_dir():
            raise IsADirectoryError(21, os.strerror(21), path)
        self._temporary = self._path.with_name(f".{self._path.name}.{os.urandom(4).hex()}.tmp")
        try:
            self._file: BinaryIO = self._temporary.open("xb")
        except OSError as error:
            # The user knows the name of the output, not that of the temporary file.
            raise type(error)(error.errno, error.strerror, path) from None
        self._file.write(bytes(_HEADER_BYTES))

    def set_dimensions(self, dimensions: int) -> None:
        """Fixes the length of a row, even if none is ever written."""
        self.dimensions = dimensions

    def write(self, rows: NDArray[np.float32]) -> None:
        """Appends rows (b, dimensions).

        Raises:
            ShapeError: the rows have another length.
            OSError: the disk is full.
        """
        if rows.ndim != 2 or rows.shape[1] != self.dimensions:
            raise ShapeError(f"rows: expected shape (b, {self.dimensions}), got {rows.shape}")
        self._file.write(rows.astype("<f4", order="C", copy=False).data)
        self.rows += len(rows)

    def commit(self) -> None:
        """Completes the file: it is at ``path`` from now on."""
        self._file.seek(0)
        self._file.write(header(self.rows, self.dimensions))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()


def header(rows: int, dimensions: int) -> bytes:
    """The 128 bytes before the data of a float32 array (rows, dimensions)."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}"
    length = _HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + length.to_bytes(2, "little") + text.ljust(length - 1).encode("ascii") + b"\n"
