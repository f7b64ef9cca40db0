"""From the scores of starts and ends to the best spans: the arithmetic of question answering.

Windows lie end to end, as everywhere: window w is tokens ``ends[w]:ends[w + 1]`` of each array. T is the
tokens of all windows, W their number. Memory is bounded: a span is looked for among the ``max_answer_len``
tokens from its start on, never in a square of all tokens with all others.

Source: what ``QuestionAnsweringPipeline`` of transformers 4.57 computes, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

# Scores that are looked at together, 8 bytes each; a single window may have more.
_SCORES = 1 << 19


class Spans(NamedTuple):
    """The best spans of some windows: by window, the best ones first."""

    window: Int64
    """(n,), number of the window."""
    first: Int64
    """(n,), number of the first token among all T."""
    last: Int64
    """(n,), number of the last token, which is part of the span."""
    score: Float64
    """(n,), probability of the start times that of the end."""


def probabilities(logits: npt.NDArray[Any], kept: Bool, ends: Int64) -> Float64:
    """The softmax within each window, over some of its tokens.

    Args:
        logits: (T,).
        kept: (T,), the tokens that take part.
        ends: (W + 1,), no window is empty.

    Returns:
        (T,), 0 where a token takes no part.

    Example:
        >>> probabilities(np.zeros(4), np.array([True, True, False, True]), np.array([0, 3, 4])).tolist()
        [0.5, 0.5, 0.0, 1.0]
    """
    lengths, starts = np.diff(ends), ends[:-1]
    values = np.where(kept, logits, -np.inf).astype(np.float64, copy=False)
    greatest = np.maximum.reduceat(values, starts)
    # Where nothing is kept, every power below is that of minus infinity.
    greatest[np.isneginf(greatest)] = 0
    powers: Float64 = np.exp(values - np.repeat(greatest, lengths))
    sums = np.add.reduceat(powers, starts)
    sums[sums == 0] = 1
    powers /= np.repeat(sums, lengths)
    return powers


def best_spans(
    start: Float64, end: Float64, context: Bool, ends: Int64, *, most: int, max_answer_len: int
) -> Spans:
    """The spans of each window with the greatest products of probabilities; of equal ones the first.

    Args:
        start: (T,), probability of each token to be a span's first.
        end: (T,), to be its last.
        context: (T,), the tokens that spans are made of; those of a window follow one another.
        ends: (W + 1,).
        most: Spans of a window at most.
        max_answer_len: Tokens of a span at most.

    Example:
        >>> one = np.array([0.5, 0.3, 0.2])
        >>> best_spans(one, one, np.array([True] * 3), np.array([0, 3]), most=2, max_answer_len=2)[1:3]
        (array([0, 0]), array([0, 1]))
    """
    rows = np.flatnonzero(context)
    window = np.searchsorted(ends, rows, side="right") - 1
    counts = np.bincount(window, minlength=len(ends) - 1)
    # Tokens of the context from each one on, itself included.
    left = np.repeat(np.cumsum(counts), counts) - np.arange(len(rows))
    width = min(max_answer_len, int(counts.max(initial=0)))
    if width == 0:
        nothing = np.zeros(0, np.int64)
        return Spans(nothing, nothing, nothing, np.zeros(0))
    # A row for each start; what is beyond the last token is beyond every window too.
    ends_from = np.lib.stride_tricks.sliding_window_view(np.append(end, np.zeros(width - 1)), width)
    found = []
    for a, b in _chunks(counts, width):
        scores = ends_from[rows[a:b]] * start[rows[a:b], None]
        scores[np.arange(width) >= left[a:b, None]] = -1
        row, length, score = _best(scores, window[a:b], most)
        found.append((window[a:b][row], rows[a:b][row], rows[a:b][row] + length, score))
    return Spans(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _chunks(counts: Int64, width: int) -> Iterator[tuple[int, int]]:
    """Rows of whole windows, of which there are ``counts``, in chunks of a bounded number of scores."""
    edges = np.append(0, np.cumsum(counts))
    w = 0
    while w < len(counts):
        stop = max(int(np.searchsorted(edges, edges[w] + _SCORES // width, side="right")) - 1, w + 1)
        if edges[w] < edges[stop]:
            yield int(edges[w]), int(edges[stop])
        w = stop


def _best(scores: Float64, window: Int64, most: int) -> tuple[Int64, Int64, Float64]:
    """Places and values of the greatest scores of each window, in falling order.

    Args:
        scores: (R, A), negative where there is no span.
        window: (R,), rising.
        most: For a window at most.

    Returns:
        Row, column and score, each (n,).
    """
    # A window has at least as many spans of this score as it has rows that reach it. So the `most`-th best
    # row is a bound, and only few rows are left to look through.
    best = scores.max(axis=1)
    order = np.lexsort((-best, window))
    found, starts, counts = np.unique(window, return_index=True, return_counts=True)
    bound = np.where(counts >= most, best[order][np.minimum(starts + most, starts + counts) - 1], 0)
    bound = bound[np.searchsorted(found, window)]
    left = np.flatnonzero(best >= bound)
    at, column = np.nonzero(scores[left] >= bound[left, None])
    row = left[at]
    score = scores[row, column]
    order = np.lexsort((column, row, -score, window[row]))
    row, column, score = row[order], column[order], score[order]
    _, starts, counts = np.unique(window[row], return_index=True, return_counts=True)
    first = np.arange(len(row)) - np.repeat(starts, counts) < most
    return row[first], column[first], score[first]


def word_edges(words: npt.NDArray[Any], sequences: npt.NDArray[Any], ends: Int64) -> tuple[Int64, Int64]:
    """The first and the last token of the word that each token is in, as far as its window has them.

    Args:
        words: (T,), number of the word in its text; negative where there is none.
        sequences: (T,), which text that is.
        ends: (W + 1,).

    Returns:
        Token numbers, (T,) each; a token without a word stands for itself.

    Example:
        >>> word_edges(np.array([-1, 0, 0, 1]), np.array([-1, 0, 0, 0]), np.array([0, 4]))
        (array([0, 1, 1, 3]), array([0, 2, 2, 3]))
    """
    count = len(words)
    begins = np.ones(count, np.bool_)
    begins[1:] = (words[1:] != words[:-1]) | (sequences[1:] != sequences[:-1]) | (words[1:] < 0)
    begins[ends[:-1]] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, count))
    return np.repeat(starts, lengths), np.repeat(starts + lengths - 1, lengths)


class Answers:
    """The answers to one question, collected over the windows of its context.

    Answers with the same text, whatever its case, are one: their scores add up (and may exceed 1), and the
    place is that of the first one.

    Example:
        >>> answers = Answers("One and one.")
        >>> answers.add([0, 8], [3, 11], [0.5, 0.25])
        >>> answers.best(1)
        [{'score': 0.75, 'start': 0, 'end': 3, 'answer': 'One'}]
    """

    def __init__(self, context: str) -> None:
        self._context = context
        self._found: dict[str, dict[str, Any]] = {}
        self._null = np.inf

    def add(self, starts: list[int], ends: list[int], scores: list[float]) -> None:
        """Spans of a window in falling order of their scores, by the characters where they start and end."""
        for start, end, score in zip(starts, ends, scores, strict=True):
            text = self._context[start:end]
            known = self._found.setdefault(
                text.lower(), {"score": 0.0, "start": start, "end": end, "answer": text}
            )
            known["score"] += score

    def add_null(self, score: float) -> None:
        """How probable it is by one window that there is no answer; the least of all windows counts."""
        self._null = min(self._null, score)

    @property
    def null(self) -> float:
        """How probable it is that there is no answer; infinite if nobody said."""
        return self._null

    def best(self, most: int) -> list[dict[str, Any]]:
        """The best answers in falling order, with no answer among them if `add_null` was called."""
        answers = list(self._found.values())
        if np.isfinite(self._null):
            answers.append({"score": self._null, "start": 0, "end": 0, "answer": ""})
        return sorted(answers, key=lambda answer: answer["score"], reverse=True)[:most]
