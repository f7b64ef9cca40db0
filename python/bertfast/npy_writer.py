"""Writes a ``.npy`` file row by row: its length need not be known, and it appears whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertfast.errors import ShapeError
from bertfast.whole_file import WholeFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HEADER_BYTES = 128
_MAGIC = b"\x93NUMPY\x01\x00"


class NpyWriter(WholeFile):
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
        super().__init__(path)
        self.rows = 0
        self.dimensions = 0
        self.file.write(bytes(_HEADER_BYTES))

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
        self.file.write(rows.astype("<f4", order="C", copy=False).data)
        self.rows += len(rows)

    def commit(self) -> None:
        """Completes the file: it is at ``path`` from now on."""
        self.file.seek(0)
        self.file.write(header(self.rows, self.dimensions))
        super().commit()


def header(rows: int, dimensions: int) -> bytes:
    """The 128 bytes before the data of a float32 array (rows, dimensions)."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}"
    length = _HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + length.to_bytes(2, "little") + text.ljust(length - 1).encode("ascii") + b"\n"
