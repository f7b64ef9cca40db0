"""The heads of `TorchEngine`: which class has one, which rows it reads, what becomes of its logits.

Letters: T tokens, B sequences, D hidden size, K labels of the head, R tokens that are asked for.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertfast.errors import ArgumentError, CheckpointError, ShapeError, TokenIdError
from bertfast.heads import HEADS
from bertfast.models.bert import BertModel
from bertfast.models.heads import classes_of
from bertfast.models.ragged import Step, steps
from bertfast.models.tasks import TaskModel, TokenClassification
from bertfast.models.weights import WeightFiles

LOGITS_PER_STEP = {"cpu": 2**24, "cuda": 2**26}
"""How many logits there are at once: a vocabulary's for each token of a batch would be too many."""


def class_for(base: type[BertModel], head: str) -> type[TaskModel]:
    """The class of a family with that head.

    Raises:
        ArgumentError: The family has none, or there is no such head.
    """
    if head not in HEADS:
        raise ArgumentError(f"head: expected one of {', '.join(HEADS)}, got {head!r}")
    classes = classes_of(base)
    if head not in classes:
        family = base.config_class.model_types[0]
        raise ArgumentError(
            f"head: expected one of {', '.join(classes)} for a model of type {family!r}, got {head!r}"
        )
    return classes[head]


def config_changes(model_class: type[TaskModel], files: WeightFiles) -> dict[str, Any]:
    """What the files know better than a configuration: how many labels there are, and what is tied.

    Raises:
        CheckpointError: They have no such head.
    """
    changes: dict[str, Any] = {"num_labels": 2, "tie_word_embeddings": True}
    if issubclass(model_class, TokenClassification):
        name = f"{model_class.output_layer}.weight"
        if name not in files.names:
            raise CheckpointError(f"this model has no head for {model_class.head}: {name} is missing")
        rows = files.shape(name)[:1]
        if rows in ([], [0]):
            raise CheckpointError(f"{name}: expected a row for each label, found none")
        changes["num_labels"] = rows[0]
    return changes


class Head:
    """A model with a head, of which the encoder has run already.

    Args:
        model: The model.
        device: Where it is.
    """

    def __init__(self, model: TaskModel, device: torch.device) -> None:
        self.model = model
        self.name = model.head
        fixed = {"multiple-choice": 1, "masked-lm": model.config.vocab_size}
        self.num_labels = fixed.get(str(model.head), model.config.num_labels)
        self._most = LOGITS_PER_STEP.get(device.type, LOGITS_PER_STEP["cuda"])

    def check_rows(self, rows: npt.NDArray[np.int64] | None, tokens: int) -> None:
        """Looks at the tokens that are asked for.

        Raises:
            ArgumentError: The head has no logits of tokens.
            TokenIdError: There is no such token.
            ShapeError: They do not rise.
        """
        if rows is None:
            return
        if not self.model.of_tokens:
            raise ArgumentError(f"rows: expected none, {self.name} has one row for each sequence")
        wrong = (rows < 0) | (rows >= tokens)
        if wrong.any():
            raise TokenIdError(f"rows: expected tokens in 0..{tokens}, got {rows[wrong.argmax()]}")
        falls = np.diff(rows) <= 0
        if falls.any():
            at = int(falls.argmax())
            raise ShapeError(
                f"rows: expected strictly increasing values, got {rows[at]}, {rows[at + 1]} at {at}"
            )

    def inputs(
        self, step: Step, output: Any, rows: npt.NDArray[np.int64] | None
    ) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
        """What the head reads of a step, a bounded number of rows at a time, and where their logits go.

        Args:
            step: The sequences.
            output: What the encoder returned for them.
            rows: (R,) the only tokens that are wanted, rising; all if None.

        Yields:
            (n,) places among all rows of logits, and (n, D).
        """
        if not self.model.of_tokens:
            sequences = np.arange(step.sequences.start, step.sequences.stop)
            yield sequences, self.model.read(output, None, step.boundaries)
            return
        places, x = np.arange(step.tokens.start, step.tokens.stop), output.last_hidden_state
        if rows is not None:
            at = np.searchsorted(rows, places)
            found = np.append(rows, -1)[at] == places
            places, x = at[found], x[torch.from_numpy(found).to(x.device)]
        count = max(1, self._most // self.num_labels)
        for start in range(0, len(places), count):
            yield places[start : start + count], x[start : start + count]

    def logits(self, x: Tensor) -> Tensor:
        """(n, D) to float32 (n, K)."""
        return self.model.score(x).float()

    def top(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(n, D) to the k greatest probabilities of each row in falling order, and their labels, (n, k)."""
        logits = self.logits(x)
        values, labels = logits.topk(k, dim=1)
        # Of equal ones the lower label is first, which `topk` does not promise.
        labels = labels.sort(dim=1).values
        order = logits.gather(1, labels).sort(dim=1, descending=True, stable=True).indices
        labels = labels.gather(1, order)
        tied = (logits >= values[:, -1:]).sum(dim=1) != k
        if tied.any():
            labels[tied] = logits[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
        return logits.softmax(dim=1).gather(1, labels), labels

    def sparse(
        self, step: Step, output: Any, strategy: str
    ) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
        """SPLADE: which sequences, and of log(1 + max(logit, 0)) the greatest or the sum, (n, K)."""
        count = max(1, self._most // self.num_labels)
        first = step.sequences.start
        for part in steps(step.boundaries.cu_seqlens.numpy(), count, step.boundaries.device):
            values = self.logits(output.last_hidden_state[part.tokens]).relu().log1p()
            lengths = part.boundaries.lengths.to(values.device)
            places = np.arange(first + part.sequences.start, first + part.sequences.stop)
            yield places, torch.segment_reduce(values, strategy, lengths=lengths, unsafe=True)
