"""Ragged sequences in steps of bounded size."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertfast.models.sequences import Boundaries


@dataclass(frozen=True)
class Step:
    """Some sequences of a batch that follow each other."""

    sequences: slice
    tokens: slice
    boundaries: Boundaries

    def of(self, ids: npt.NDArray[np.int32] | None) -> Tensor | None:
        """The ids of its tokens, out of those of all, on the device."""
        return None if ids is None else torch.from_numpy(ids[self.tokens]).to(self.boundaries.device)


@dataclass(frozen=True)
class Batch:
    """Ragged sequences; sequence b is ``input_ids[cu_seqlens[b] : cu_seqlens[b + 1]]``."""

    input_ids: npt.NDArray[np.int32]
    token_type_ids: npt.NDArray[np.int32] | None
    position_ids: npt.NDArray[np.int32] | None
    cu_seqlens: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,)."""
        return np.diff(self.cu_seqlens)

    def steps(self, budget: int, device: torch.device) -> Iterator[Step]:
        """All sequences in steps of at most ``budget`` tokens, or of one sequence."""
        return steps(self.cu_seqlens, budget, device)


def steps(cu_seqlens: npt.NDArray[np.int64], budget: int, device: torch.device) -> Iterator[Step]:
    """Sequences (B,) that lie in (B + 1,) boundaries, in steps of at most ``budget`` tokens, or of one."""
    count, start = len(cu_seqlens) - 1, 0
    while start < count:
        end = int(np.searchsorted(cu_seqlens, cu_seqlens[start] + budget, side="right")) - 1
        end = min(max(end, start + 1), count)
        first, last = int(cu_seqlens[start]), int(cu_seqlens[end])
        boundaries = torch.from_numpy(cu_seqlens[start : end + 1] - first)
        yield Step(slice(start, end), slice(first, last), Boundaries(boundaries, last - first, device))
        start = end
