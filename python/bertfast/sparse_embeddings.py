"""`SparseEmbeddings`: vectors of which only the values that are not 0 are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.errors import ArgumentError, ShapeError
from bertfast.padding import is_tensor

__all__ = ["SparseEmbeddings"]

Float32Array = npt.NDArray[np.float32]

# Bytes of the dense blocks that products are made of.
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class SparseEmbeddings:
    """The vectors of n texts, or of one, in compressed sparse rows (CSR).

    Row i has ``values[indptr[i]:indptr[i + 1]]`` in the dimensions ``indices[indptr[i]:indptr[i + 1]]``,
    which rise, and 0 elsewhere.

    Example:
        >>> SparseEmbeddings.from_dense(np.array([[0, 2], [3, 0]], np.float32)).indices
        array([1, 0], dtype=int32)
    """

    indices: npt.NDArray[np.int32]
    """(nnz,): dimensions."""
    values: Float32Array
    """(nnz,)."""
    indptr: npt.NDArray[np.int64]
    """(n + 1,), (2,) for one text."""
    shape: tuple[int, ...]
    """(n, V); (V,) for one text that came alone."""

    @classmethod
    def from_dense(cls, dense: Any) -> SparseEmbeddings:
        """The values that are not 0 of an array or a tensor (n, V) or (V,), also a sparse one.

        Raises:
            ShapeError: Neither a matrix nor a vector.
        """
        if isinstance(dense, SparseEmbeddings):
            return dense
        if is_tensor(dense):
            dense = dense.detach().cpu().to_dense().float().numpy()
        elif hasattr(dense, "toarray"):
            dense = dense.toarray()
        array = np.asarray(dense)
        if array.ndim not in (1, 2):
            raise ShapeError(f"embeddings: expected shape (n, V) or (V,), got {array.shape}")
        rows = np.atleast_2d(array)
        row, column = np.nonzero(rows)
        return cls(
            column.astype(np.int32),
            rows[row, column].astype(np.float32, copy=False),
            np.searchsorted(row, np.arange(len(rows) + 1)).astype(np.int64, copy=False),
            array.shape,
        )

    @property
    def nnz(self) -> int:
        """How many values there are in all."""
        return len(self.values)

    def __len__(self) -> int:
        """How many vectors there are."""
        return len(self.indptr) - 1

    def __getitem__(self, index: int | slice) -> SparseEmbeddings:
        """One vector, or several that follow one another.

        Raises:
            IndexError: There is no such vector, or this is one already.
            ArgumentError: A slice with a step.
        """
        if len(self.shape) == 1:
            raise IndexError("too many indices: this is one vector")
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ArgumentError(f"index: expected a slice without a step, got {index!r}")
            stop = max(start, stop)
        else:
            start = index + len(self) if index < 0 else index
            if not 0 <= start < len(self):
                raise IndexError(f"index: expected {-len(self)} to {len(self) - 1}, got {index}")
            stop = start + 1
        first, last = self.indptr[start], self.indptr[stop]
        return SparseEmbeddings(
            self.indices[first:last],
            self.values[first:last],
            self.indptr[start : stop + 1] - first,
            (stop - start, self.shape[-1]) if isinstance(index, slice) else self.shape[1:],
        )

    def toarray(self) -> Float32Array:
        """All values, the zeros too: float32 of this shape."""
        dense = np.zeros((len(self), self.shape[-1]), np.float32)
        dense[self._rows(), self.indices] = self.values
        return dense.reshape(self.shape)

    def to_scipy(self) -> Any:
        """The same as ``scipy.sparse.csr_array`` (n, V), which shares the memory; one text gives (1, V)."""
        from scipy.sparse import csr_array  # type: ignore[import-untyped]

        return csr_array((self.values, self.indices, self.indptr), shape=(len(self), self.shape[-1]))

    def to_torch(self) -> Any:
        """The same as a sparse tensor of torch (COO) of this shape, as sentence-transformers returns it."""
        import torch

        columns = self.indices.astype(np.int64)
        places = columns[None] if len(self.shape) == 1 else np.stack([self._rows(), columns])
        return torch.sparse_coo_tensor(
            torch.from_numpy(places),
            torch.from_numpy(self.values),
            self.shape,
            is_coalesced=True,
            check_invariants=False,
        )

    def top(self, most: int) -> SparseEmbeddings:
        """Only the ``most`` greatest values of each vector; of equal ones, those of the first dimensions."""
        rows, lengths = self._rows(), np.diff(self.indptr)
        if not len(rows) or lengths.max() <= most:
            return self
        order = np.lexsort((self.indices, -self.values, rows))
        place = np.arange(len(rows)) - np.repeat(self.indptr[:-1], lengths)
        kept = np.sort(order[place < most])
        return SparseEmbeddings(
            self.indices[kept],
            self.values[kept],
            np.append(0, np.cumsum(np.minimum(lengths, most))).astype(np.int64, copy=False),
            self.shape,
        )

    def dot(self, other: SparseEmbeddings) -> Float32Array:
        """The products of all vectors with all of another collection, (n, m).

        Raises:
            ShapeError: The vectors have other dimensions.

        Example:
            >>> vectors = SparseEmbeddings.from_dense(np.eye(2))
            >>> vectors.dot(vectors).tolist()
            [[1.0, 0.0], [0.0, 1.0]]
        """
        if self.shape[-1] != other.shape[-1]:
            raise ShapeError(f"embeddings2: expected {self.shape[-1]} dimensions, got {other.shape[-1]}")
        # What only one side has is multiplied by 0: most dimensions, when queries meet documents.
        shared = np.intersect1d(self.indices, other.indices)
        result = np.zeros((len(self), len(other)), np.float32)
        if len(shared):
            most = max(_BLOCK_BYTES // (4 * len(shared)), 1)
            for start in range(0, len(self), most):
                left = self._some(start, start + most, shared)
                for first in range(0, len(other), most):
                    right = other._some(first, first + most, shared)
                    result[start : start + most, first : first + most] = left @ right.T
        return result

    def _some(self, start: int, stop: int, dimensions: npt.NDArray[np.int32]) -> Float32Array:
        """Some rows, as (rows, the given dimensions)."""
        stop = min(stop, len(self))
        first, last = self.indptr[start], self.indptr[stop]
        at = np.searchsorted(dimensions, self.indices[first:last])
        known = dimensions[np.minimum(at, len(dimensions) - 1)] == self.indices[first:last]
        dense = np.zeros((stop - start, len(dimensions)), np.float32)
        rows = np.repeat(np.arange(stop - start), np.diff(self.indptr[start : stop + 1]))
        dense[rows[known], at[known]] = self.values[first:last][known]
        return dense

    def norms(self) -> Float32Array:
        """The length of each vector, (n,)."""
        squares = np.bincount(self._rows(), np.square(self.values, dtype=np.float64), len(self))
        return np.sqrt(squares).astype(np.float32)

    def _rows(self) -> npt.NDArray[np.int64]:
        """The row of each value."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))


def concatenate(parts: list[SparseEmbeddings], dimension: int) -> SparseEmbeddings:
    """The rows of several collections, one after the other."""
    lengths = [np.diff(part.indptr) for part in parts]
    indptr = np.zeros(1 + sum(map(len, lengths)), np.int64)
    if parts:
        np.cumsum(np.concatenate(lengths), out=indptr[1:])
    return SparseEmbeddings(
        np.concatenate([np.zeros(0, np.int32), *(part.indices for part in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(part.values for part in parts)]),
        indptr,
        (len(indptr) - 1, dimension),
    )
