"""Fine-tuning as a task of the loop: epochs of shuffled batches, figures of an evaluation file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from bertfast.arguments import check_positive
from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError
from bertfast.training.distributed import Ranks, all_gather
from bertfast.training.finetuning.report import Findings
from bertfast.training.finetuning.rows import Rows
from bertfast.training.finetuning.starting import Start, encoder_of
from bertfast.training.task import MicroBatch

Prediction = TypeVar("Prediction")


class FinetuningTask(ABC, Generic[Prediction]):
    """What the tasks have in common; see `bertfast.training.task.Task`.

    An epoch is a shuffled order of all rows, cut into batches; the last one may be smaller. Rows of like
    lengths are not put together: nothing is padded, so there is nothing to gain.

    Args:
        start: The model and its tokenizer.
        rows: What is learned from.
        evaluated: How many examples are evaluated.
        digest: A checksum of them.
        ranks: Which part of a batch this process has.
        seed: Of the order.
        batch_size: Rows of a batch: of all processes, and of all parts that it is cut into.
        parts: In how many parts a batch goes through the model.

    Raises:
        ArgumentError: A value that is not allowed.
    """

    figures: tuple[str, ...]
    """Names of the figures by which the best weights can be found, the usual one first."""

    def __init__(
        self,
        start: Start,
        rows: Rows,
        *,
        evaluated: int,
        digest: str,
        ranks: Ranks,
        seed: int,
        batch_size: int,
        parts: int,
    ) -> None:
        check_positive("batch_size", batch_size)
        self.start, self.rows = start, rows
        self.evaluated = evaluated
        self._digest, self._ranks, self._seed = digest, ranks, seed
        self._batch_size, self._parts = batch_size, parts
        self._done = 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches that have every row once."""
        return -(-len(self.rows) // self._batch_size)

    # ----------------------------------------------------------------------------- what a subclass overrides

    @abstractmethod
    def counts(self, micro_batches: Sequence[MicroBatch]) -> dict[str, int]:
        """See `bertfast.training.task.Task.counts`."""

    @abstractmethod
    def losses(self, model: nn.Module, micro_batch: MicroBatch) -> dict[str, Tensor]:
        """See `bertfast.training.task.Task.losses`."""

    @abstractmethod
    def predictions(self, encoder: Encoder, numbers: Sequence[int]) -> list[Prediction]:
        """What a model says of some of the examples that are evaluated, one for each."""

    @abstractmethod
    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The figures of predictions of all examples."""

    @abstractmethod
    def findings(self, predictions: Sequence[Prediction]) -> Findings:
        """What the report says of these predictions."""

    # ----------------------------------------------------------------------------------------------- batches

    def batches(self) -> Iterator[list[MicroBatch]]:
        """See `bertfast.training.task.Task.batches`."""
        while True:
            epoch, step = divmod(self._done, self.steps_per_epoch)
            order = self._order(epoch)
            while step < self.steps_per_epoch:
                batch = order[step * self._batch_size : (step + 1) * self._batch_size]
                self._done += 1
                step += 1
                yield self._own(batch)

    def _order(self, epoch: int) -> Any:
        """A random order of the rows: a function of seed and epoch, the same with every version of numpy."""
        key = [self._seed & 0xFFFFFFFF, self._seed >> 32, epoch]
        return np.random.RandomState(key).permutation(len(self.rows))

    def _own(self, batch: Any) -> list[MicroBatch]:
        """The parts of a batch that this process has."""
        own = batch[self._ranks.rank :: self._ranks.world_size]
        if not len(own):
            # Every process takes part in every step, if only with something that does not count.
            return [self.rows.batch(batch[:1], counted=False)]
        return [self.rows.batch(part) for part in np.array_split(own, min(self._parts, len(own)))]

    # -------------------------------------------------------------------------------------------- evaluation

    def predict(self, model: nn.Module) -> list[Prediction]:
        """What a model in evaluation mode says of all examples, which the processes share."""
        numbers = range(self.evaluated)
        own = numbers[self._ranks.rank :: self._ranks.world_size]
        encoder = encoder_of(model, self.start.tokenizer)  # type: ignore[arg-type]
        found = all_gather(self.predictions(encoder, own) if own else [])
        ranks = len(found)
        return [found[number % ranks][number // ranks] for number in numbers]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See `bertfast.training.task.Task.evaluate`."""
        return self.metrics(self.predict(model))

    def best_by(self, name: str | None) -> str:
        """The figure that decides which weights are the best.

        Raises:
            ArgumentError: There is none of this name, or of it less is better.
        """
        if name is not None and name not in self.figures:
            raise ArgumentError(
                f"metric_for_best_model: expected one of {', '.join(self.figures)}, got {name!r}"
            )
        return self.figures[0] if name is None else name

    # --------------------------------------------------------------------------------------------- the state

    def columns(self) -> dict[str, float]:
        """See `bertfast.training.task.Task.columns`."""
        return {"epoch": self._done / self.steps_per_epoch}

    def settings(self) -> dict[str, Any]:
        """See `bertfast.training.task.Task.settings`."""
        return {
            "weights": self.start.weights(),
            "init": self.start.init,
            "batch_size": self._batch_size,
            "train": self.rows.digest(),
            "eval": self._digest,
        }

    def state_dict(self) -> dict[str, Any]:
        """See `bertfast.training.task.Task.state_dict`."""
        return {"steps": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `bertfast.training.task.Task.load_state_dict`."""
        self._done = int(state["steps"])
