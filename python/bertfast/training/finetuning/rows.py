"""What a model is fine-tuned on: ragged sequences with labels, in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bertfast.models.losses import IGNORED
from bertfast.training.task import MicroBatch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """N sequences of T tokens, end to end, and what is known of tokens and of sequences.

    Attributes:
        cu_seqlens: (N + 1,) int64: where each sequence begins, and T.
        of_tokens: (T, ...) by name: ``input_ids``, ``token_type_ids`` if the model has them, and labels.
        of_rows: (N, ...) by name: labels of sequences.
    """

    cu_seqlens: npt.NDArray[np.int64]
    of_tokens: Mapping[str, Array]
    of_rows: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    def batch(self, numbers: npt.NDArray[np.int64], *, counted: bool = True) -> MicroBatch:
        """Some of the sequences, as a model takes them.

        Args:
            numbers: (B,) which ones.
            counted: If not, all labels (what is not called ``..._ids``) are those that do not count: -100, or
                not a number.

        Returns:
            Tensors by name, ``cu_seqlens`` (B + 1,) among them.
        """
        starts, lengths = self.cu_seqlens[numbers], np.diff(self.cu_seqlens)[numbers]
        ends = np.append(0, np.cumsum(lengths))
        places = np.repeat(starts - ends[:-1], lengths) + np.arange(ends[-1])
        found = {name: values[places] for name, values in self.of_tokens.items()}
        found |= {name: values[numbers] for name, values in self.of_rows.items()}
        if not counted:
            for name in found:
                if not name.endswith("_ids"):
                    empty = np.nan if found[name].dtype.kind == "f" else IGNORED
                    found[name] = np.full_like(found[name], empty)
        return {name: torch.from_numpy(values) for name, values in found.items()} | {
            "cu_seqlens": torch.from_numpy(ends)
        }

    def digest(self) -> str:
        """A checksum: training may go on only with the same sequences and labels."""
        found = hashlib.sha256(self.cu_seqlens.tobytes())
        for some in (self.of_tokens, self.of_rows):
            for name in sorted(some):
                found.update(name.encode() + np.ascontiguousarray(some[name]).tobytes())
        return found.hexdigest()
