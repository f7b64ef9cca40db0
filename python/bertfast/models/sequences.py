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
        self.cu_seqlens = cu_seqlens.to(device="cpu", dtype=torch.int64)
        self.tokens = tokens
        self.device = device

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
        own = cls(cu_seqlens, len(rows), rows.device)
        # What is compiled may not depend on values.
        if not torch.compiler.is_compiling():
            ends = own.cu_seqlens
            if ends[0] != 0 or ends[-1] != own.tokens or (own.lengths < 1).any():
                raise ShapeError(
                    f"cu_seqlens: expected to rise strictly from 0 to {own.tokens}, the number of tokens"
                )
        return own

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @cached_property
    def lengths(self) -> Tensor:
        """(B,) int64 on the CPU."""
        return self.cu_seqlens.diff()

    @cached_property
    def longest(self) -> int:
        """S."""
        return int(self.lengths.max())

    @cached_property
    def slices(self) -> list[slice]:
        """The tokens of each sequence."""
        ends = self.cu_seqlens.tolist()
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    @cached_property
    def on_device(self) -> Tensor:
        """``cu_seqlens`` where the tokens are, int32, as kernels take it."""
        return self.cu_seqlens.to(device=self.device, dtype=torch.int32, non_blocking=True)

    @cached_property
    def first(self) -> Tensor:
        """(B,) the first token of each sequence."""
        return self.cu_seqlens[:-1].to(self.device, non_blocking=True)

    @cached_property
    def last(self) -> Tensor:
        """(B,) the last token of each sequence."""
        return self.cu_seqlens[1:].to(self.device, non_blocking=True) - 1

    @cached_property
    def sequence(self) -> Tensor:
        """(T,) which sequence each token is of."""
        numbers = torch.arange(len(self)).repeat_interleave(self.lengths, output_size=self.tokens)
        return numbers.to(self.device, non_blocking=True)

    @cached_property
    def position(self) -> Tensor:
        """(T,) the place of each token in its sequence."""
        return torch.arange(self.tokens, device=self.device) - self.first[self.sequence]

    def padded(self, values: Tensor, fill: float) -> Tensor:
        """(T, ...) to (B, S, ...), with ``fill`` behind the end of each sequence."""
        matrix = values.new_full((len(self), self.longest, *values.shape[1:]), fill)
        return matrix.index_put((self.sequence, self.position), values)
