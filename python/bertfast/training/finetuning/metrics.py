"""How good labels and numbers are: accuracy, F1, correlations.

Letters: n examples, K labels. All figures are between 0 and 1, or -1 and 1 for correlations; what is divided
by nothing is 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Scores(NamedTuple):
    """How well something was found."""

    precision: float
    recall: float
    f1: float
    support: int
    """How often it is there."""

    @classmethod
    def of(cls, both: float, found: float, there: float) -> Scores:
        """From counts.

        Example:
            >>> Scores.of(1, 2, 4)
            Scores(precision=0.5, recall=0.25, f1=0.3333333333333333, support=4)
        """
        precision = both / found if found else 0.0
        recall = both / there if there else 0.0
        total = precision + recall
        return cls(precision, recall, 2 * precision * recall / total if total else 0.0, int(there))


def confusion_matrix(labels: Ints, predictions: Ints, count: int) -> Ints:
    """How often each label was taken for each.

    Args:
        labels: (n,) from 0 to K - 1.
        predictions: (n,) of the same.
        count: K.

    Returns:
        (K, K): a row for each label, a column for each prediction.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    return np.bincount(labels * count + predictions, minlength=count * count).reshape(count, count)


def label_scores(confusion: Ints) -> list[Scores]:
    """Precision, recall and F1 of each label, from a confusion matrix (K, K)."""
    found, there = confusion.sum(axis=0), confusion.sum(axis=1)
    counts = zip(np.diag(confusion).tolist(), found.tolist(), there.tolist(), strict=True)
    return [Scores.of(*row) for row in counts]


def accuracy(confusion: Ints) -> float:
    """Share of right predictions, from a confusion matrix (K, K)."""
    return float(np.trace(confusion) / max(confusion.sum(), 1))


def macro_f1(confusion: Ints) -> float:
    """The mean F1 of the labels that are there or were predicted.

    Source: ``f1_score(average="macro")`` of scikit-learn.
    """
    scores = label_scores(confusion)
    seen = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    return float(np.mean([one.f1 for one, kept in zip(scores, seen.tolist(), strict=True) if kept] or [0.0]))


def matthews_corrcoef(confusion: Ints) -> float:
    """Matthews' correlation coefficient, of any number of labels (as in CoLA).

    Source: Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006, equation 8.
    """
    # Squares of counts, in float64: they may be beyond int64.
    there, found = (confusion.sum(axis=axis).astype(np.float64) for axis in (1, 0))
    total = float(confusion.sum())
    covariance = float(np.trace(confusion)) * total - float(there @ found)
    spread = (total**2 - float(there @ there)) * (total**2 - float(found @ found))
    return covariance / float(np.sqrt(spread)) if spread > 0 else 0.0


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Pearson's correlation of two (n,); 0 where one of them does not vary."""
    a, b = (np.asarray(values, np.float64) for values in (x, y))
    # The sum of equal numbers is rounded, and their mean then is not quite their value.
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / lengths, -1, 1)) if lengths else 0.0


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman's correlation: Pearson's of the ranks; equal values have the mean of their ranks."""
    return pearson(_ranks(x), _ranks(y))


def classification_metrics(labels: Ints, predictions: Ints, count: int) -> dict[str, float]:
    """The figures of a classifier with one label for each example; `count` is K.

    Example:
        >>> classification_metrics(np.array([0, 1]), np.array([0, 1]), 2)
        {'accuracy': 1.0, 'macro_f1': 1.0, 'mcc': 1.0}
    """
    confusion = confusion_matrix(labels, predictions, count)
    return {
        "accuracy": accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "mcc": matthews_corrcoef(confusion),
    }


def multi_label_scores(labels: npt.NDArray[np.bool_], predictions: npt.NDArray[np.bool_]) -> list[Scores]:
    """Precision, recall and F1 of each label, from (n, K) each."""
    counts = ((labels & predictions).sum(axis=0), predictions.sum(axis=0), labels.sum(axis=0))
    return [Scores.of(*row) for row in zip(*(each.tolist() for each in counts), strict=True)]


def multi_label_metrics(
    labels: npt.NDArray[np.bool_], predictions: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """The figures of a classifier with several labels for each example, from (n, K) each.

    Returns:
        ``micro_f1`` over all decisions, ``macro_f1`` as the mean over the labels, and ``accuracy``: the share
        of examples of which every label is right.
    """
    both = Scores.of(int((labels & predictions).sum()), int(predictions.sum()), int(labels.sum()))
    each = [one.f1 for one in multi_label_scores(labels, predictions)]
    return {
        "micro_f1": both.f1,
        "macro_f1": float(np.mean(each)),
        "accuracy": float((labels == predictions).all(axis=1).mean()),
    }


def regression_metrics(values: Floats, predictions: Floats) -> dict[str, float]:
    """The figures of a regression, from (n,) each: two correlations and the mean squared error."""
    return {
        "pearson": pearson(values, predictions),
        "spearman": spearman(values, predictions),
        "mse": float(np.mean((values - predictions) ** 2)),
    }


def _ranks(values: Any) -> Floats:
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2.0)[places.reshape(-1)]
    return ranks
