"""Where sequences begin that lie one after the other, without padding.

Letters: B sequences, T tokens of all of them, S tokens of the longest.
"""

import itertools
from functools import cached_property

import torch
from torch import Tensor

from bertfast.errors import DtypeError, ShapeError


class Boundaries:
    """Where each sequence of a ragged batch begins and ends.

    Args:
        cu_seqlens: (B + 1,) integers: where each sequence starts, and T. Best on the CPU: nobody then waits
            for a GPU to know how long they are.
        tokens: T.
        device: Where the tokens are.
    """

    def __init__(self, cu_seqlens: Tensor, tokens: int, device: torch.device) -> None:
        # All at once and not when they are asked for: torch.compile does not look into cached properties.
        self.cu_seqlens = cu_seqlens.to(device="cpu", dtype=torch.int64)
        self.tokens = tokens
        self.device = device
        self.lengths = self.cu_seqlens.diff()
        """(B,) int64 on the CPU."""
        # What torch.compile translates may know it, but not find it out without coming out of its graph.
        self._longest = None if torch.compiler.is_compiling() else max(self.lengths.tolist(), default=0)
        lengths = self.lengths.to(device, non_blocking=True)
        self.sequence = torch.arange(len(lengths), device=device).repeat_interleave(
            lengths, output_size=tokens
        )
        """(T,) which sequence each token is of."""
        self.on_device = self.cu_seqlens.to(device=device, dtype=torch.int32, non_blocking=True)
        """``cu_seqlens`` where the tokens are, int32, as kernels take it."""
        self.first = self.cu_seqlens[:-1].to(device, non_blocking=True)
        """(B,) the first token of each sequence."""
        self.position = torch.arange(tokens, device=device) - self.first[self.sequence]
        """(T,) the place of each token in its sequence."""

    @classmethod
    def of(cls, cu_seqlens: "Tensor | Boundaries", rows: Tensor) -> "Boundaries":
        """Those of a batch; if they are that already, themselves.

        Args:
            cu_seqlens: See the class.
            rows: (T, ...), anything that has a row for each token.

        Raises:
            ShapeError: They do not rise strictly from 0 to T.
            DtypeError: They are not integers.
        """
        if isinstance(cu_seqlens, Boundaries):
            return cu_seqlens
        if cu_seqlens.is_floating_point():
            raise DtypeError(f"cu_seqlens: expected integers, got {cu_seqlens.dtype}")
        if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2:
            raise ShapeError(f"cu_seqlens: expected shape (B + 1,), got {tuple(cu_seqlens.shape)}")
        # What is compiled may not depend on values.
        if not torch.compiler.is_compiling():
            ends, tokens = cu_seqlens.cpu(), len(rows)
            if ends[0] != 0 or ends[-1] != tokens or (ends.diff() < 1).any():
                raise ShapeError(
                    f"cu_seqlens: expected to rise strictly from 0 to {tokens}, the number of tokens"
                )
        return cls(cu_seqlens, len(rows), rows.device)

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def longest(self) -> int:
        """S."""
        return int(self.lengths.max()) if self._longest is None else self._longest

    @cached_property
    def slices(self) -> list[slice]:
        """The tokens of each sequence."""
        ends = self.cu_seqlens.tolist()
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    @property
    def last(self) -> Tensor:
        """(B,) the last token of each sequence."""
        return self.cu_seqlens[1:].to(self.device, non_blocking=True) - 1

    def padded(self, values: Tensor, fill: float) -> Tensor:
        """(T, ...) to (B, S, ...), with ``fill`` behind the end of each sequence."""
        matrix = values.new_full((len(self), self.longest, *values.shape[1:]), fill)
        return matrix.index_put((self.sequence, self.position), values)
