"""The losses of the heads, as ``transformers`` computes them.

Letters: B batch, S sequence length, K labels. A label of -100 does not count; where none counts, the loss is
not a number.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor

from bertfast.errors import ArgumentError, BertFastError, DtypeError, ShapeError
from bertfast.models.sequences import Boundaries

IGNORED = -100
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


def problem_type_of(labels: Tensor, num_labels: int) -> str:
    """What labels look like: numbers for one label, integers for one of several, else a number for each."""
    if num_labels == 1:
        return "regression"
    if labels.is_floating_point() or labels.dtype == torch.bool:
        return "multi_label_classification"
    return "single_label_classification"


def sequence_loss(logits: Tensor, labels: Tensor, problem_type: str) -> Tensor:
    """The loss of a sequence classifier.

    Args:
        logits: (B, K).
        labels: (B,) or (B, 1) integers from 0 to K - 1 for ``"single_label_classification"``; (B, K) numbers
            for the others, for K = 1 also (B,).
        problem_type: One of `PROBLEM_TYPES`.

    Raises:
        ShapeError: Another number of labels.
        ArgumentError: A label is outside 0 to K - 1.
        DtypeError: Not integers where classes are wanted.
    """
    if problem_type == "single_label_classification":
        return cross_entropy(logits, labels)
    shape = tuple(logits.shape)
    labels = labels.to(logits)
    if shape[1] == 1 and labels.numel() == shape[0]:
        labels = labels.reshape(shape)
    if labels.shape != shape:
        raise ShapeError(f"labels: expected shape {shape} for {problem_type}, got {tuple(labels.shape)}")
    if problem_type == "regression":
        return F.mse_loss(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    name: str = "labels",
    ignored: int = IGNORED,
    error: type[BertFastError] = ArgumentError,
) -> Tensor:
    """The mean of -log softmax over the labels that count.

    Args:
        logits: (..., K).
        labels: As many integers from 0 to K - 1, in any shape.
        name: What the caller knows them as.
        ignored: The label that does not count.
        error: For a label outside, which is looked for on the CPU only.

    Raises:
        ShapeError: Another number of labels.
        DtypeError: Not integers.
    """
    classes = logits.shape[-1]
    expected = tuple(logits.shape[:-1])
    if labels.numel() != logits.shape[:-1].numel():
        raise ShapeError(f"{name}: expected shape {expected}, got {tuple(labels.shape)}")
    if labels.is_floating_point():
        raise DtypeError(f"{name}: expected integers, got {labels.dtype}")
    labels = labels.to(device=logits.device, dtype=torch.long).reshape(-1)
    # Elsewhere a look at the values would have to wait for all that runs there.
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = ((labels < 0) | (labels >= classes)) & (labels != ignored)
        if wrong.any():
            at = int(wrong.int().argmax())
            raise error(f"{name}: expected {ignored} or 0 to {classes - 1}, got {int(labels[at])} at {at}")
    return F.cross_entropy(logits.reshape(-1, classes), labels, ignore_index=ignored)


def span_loss(
    start_logits: Tensor,
    end_logits: Tensor,
    start: Tensor,
    end: Tensor,
    boundaries: Boundaries | None = None,
) -> Tensor:
    """The mean of the losses of where an answer begins and where it ends.

    Args:
        start_logits: (B, S), or (T,) of a ragged batch.
        end_logits: As ``start_logits``.
        start: (B,) or (B, 1) integers: a column. One behind the last does not count, one before the first is
            the first.
        end: As ``start``.
        boundaries: Of a ragged batch.

    Raises:
        ShapeError: Another number of them.
        DtypeError: Not integers.
    """
    if boundaries is not None:
        ends = boundaries.lengths.to(start.device)
        start_logits, end_logits = (boundaries.padded(x, -torch.inf) for x in (start_logits, end_logits))
        start, end = (
            x.masked_fill(x >= ends.view(-1, *x.shape[1:]), boundaries.longest) if len(x) == len(ends) else x
            for x in (start, end)
        )
    length = start_logits.shape[1]
    pairs: Any = (("start_positions", start_logits, start), ("end_positions", end_logits, end))
    losses = [cross_entropy(x, y.clamp(0, length), name, ignored=length) for name, x, y in pairs]
    return (losses[0] + losses[1]) / 2
