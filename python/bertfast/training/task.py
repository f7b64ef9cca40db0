"""What a model is trained to do, as the loop sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bertfast.models.sequences import Boundaries

MicroBatch = dict[str, Tensor]
"""Ragged sequences and their labels, by name: `cu_seqlens` and others."""

_INPUTS = ("input_ids", "token_type_ids", "masked_positions")


class Task(Protocol):
    """What a model is trained to do.

    What it draws at random must follow from its settings and its position, not from a generator of PyTorch's.
    """

    def batches(self) -> Iterator[Sequence[MicroBatch]]:
        """From where the task stands on, for each step what this process has of the batch: at least one part.

        There may be nothing in a part that counts; the tensors are on the CPU. When a batch has been handed
        out, `state_dict` says where the next one is.
        """

    def counts(self, micro_batches: Sequence[MicroBatch]) -> Mapping[str, int]:
        """What each loss of these parts is a mean of, by the loss's name: always the same names."""

    def losses(self, model: nn.Module, micro_batch: MicroBatch) -> Mapping[str, Tensor]:
        """The losses of a part by name, each a sum; what is minimized is the sum of their means.

        Args:
            model: The model, called as usual.
            micro_batch: A part, on the model's device but for ``cu_seqlens``.
        """

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Figures by name, the same in all processes; none if there is nothing to evaluate on.

        Args:
            model: The model in evaluation mode, without gradients.
        """

    def columns(self) -> Mapping[str, float]:
        """What else a row of the log has, such as the epoch."""

    def settings(self) -> Mapping[str, Any]:
        """What has to be the same for training to go on, as JSON has it: sizes of batches, data."""

    def state_dict(self) -> Mapping[str, Any]:
        """Where the task is in its data, as JSON has it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where another one was."""


def moved(micro_batch: MicroBatch, device: torch.device) -> MicroBatch:
    """A part on a device, but for ``cu_seqlens``, which is read on the CPU."""
    return {
        name: value if name == "cu_seqlens" else value.to(device, non_blocking=True)
        for name, value in micro_batch.items()
    }


def output_of(model: nn.Module, micro_batch: MicroBatch) -> Any:
    """What a model puts out for a part of a batch.

    Where the sequences are is found out here: a model that ``torch.compile`` has translated would have to
    leave its graph for that.
    """
    inputs = {name: micro_batch[name] for name in _INPUTS if name in micro_batch}
    return model(**inputs, cu_seqlens=Boundaries.of(micro_batch["cu_seqlens"], micro_batch["input_ids"]))
