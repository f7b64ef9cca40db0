"""Ragged sequences as padded matrices, those of about equal length together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """Some sequences of a batch as one padded matrix (b, s)."""

    rows: npt.NDArray[np.int64]
    """(b,): which sequences."""
    tokens: npt.NDArray[np.int64]
    """Where in the ragged arrays their tokens are, one sequence after the other."""
    mask: Tensor
    """bool (b, s), false in the padding."""

    def padded(self, ids: npt.NDArray[np.int32] | None) -> Tensor | None:
        """Ragged ids (T,) to (b, s) on the device, 0 in the padding."""
        if ids is None:
            return None
        matrix = torch.zeros(self.mask.shape, dtype=torch.int64, device=self.mask.device)
        matrix[self.mask] = torch.from_numpy(ids[self.tokens]).to(matrix)
        return matrix


@dataclass(frozen=True)
class Batch:
    """Ragged sequences: ``lengths[b]`` tokens from ``starts[b]`` on."""

    input_ids: npt.NDArray[np.int32]
    token_type_ids: npt.NDArray[np.int32] | None
    position_ids: npt.NDArray[np.int32] | None
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def steps(self, budget: int, device: torch.device) -> Iterator[Step]:
        """All sequences, longest first, in steps of one or at most ``budget`` tokens, padding included."""
        order = np.argsort(-self.lengths, kind="stable")
        done = 0
        while done < len(order):
            longest = int(self.lengths[order[done]])
            rows = order[done : done + max(1, budget // longest)]
            done += len(rows)
            columns = np.arange(longest)[None]
            mask = columns < self.lengths[rows][:, None]
            yield Step(rows, (self.starts[rows][:, None] + columns)[mask], torch.from_numpy(mask).to(device))
