"""How far a model in another dtype is from the same one in float32, and on which texts that is measured."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.encoder import Encoder
from bertfast.tokenizer import Tokenizer

Float64Array = npt.NDArray[np.float64]

MOST_TEXTS = 1000
"""Of more texts this many are taken, spread evenly."""
NEIGHBOURS = 10

_TEXTS_PER_STEP = 16
_MADE_TEXTS = 200


@dataclass(frozen=True)
class Cosine:
    """Between vectors of one model and of another."""

    mean: float
    min: float

    @classmethod
    def of(cls, cosines: Float64Array) -> Cosine:
        """Mean and least of some."""
        return cls(float(cosines.mean()), float(cosines.min()))

    def meets(self, targets: Cosine) -> bool:
        """Whether both are at least the targets; what is not a number is not."""
        return self.mean >= targets.mean and self.min >= targets.min

    def __str__(self) -> str:
        return f"mean {self.mean:.6f}, min {self.min:.6f}"


def cosines(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Float64Array:
    """Cosines (...) of the rows of two arrays (..., D); 1 for two rows of zeros, 0 for one."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both = (np.abs(a).max(-1) == 0) & (np.abs(b).max(-1) == 0)
    products: Float64Array = (a * b).sum(-1)
    return np.where(both, 1.0, products / np.where(lengths == 0, 1.0, lengths))


def layer_cosines(exact: Encoder, other: Encoder, texts: list[str]) -> list[Cosine]:
    """Of the hidden states of all tokens after each layer."""
    found: list[list[Float64Array]] = []
    for start in range(0, len(texts), _TEXTS_PER_STEP):
        ragged = exact.tokenizer.encode_ragged(
            texts[start : start + _TEXTS_PER_STEP], truncation=True, max_length=exact.max_seq_length
        )
        states = [
            encoder.engine.forward(
                ragged.input_ids,
                ragged.cu_seqlens,
                last_hidden_state=False,
                pooler_output=False,
                hidden_states=True,
            )["hidden_states"]
            for encoder in (exact, other)
        ]
        # The first are the embeddings, which no dtype changes.
        found.append([cosines(a, b) for a, b in islice(zip(*states, strict=True), 1, None)])
    return [Cosine.of(np.concatenate(layer)) for layer in zip(*found, strict=True)]


@dataclass(frozen=True)
class Flips:
    """Decisions of a head that came out another way."""

    head: str
    flipped: int
    of: int

    def __str__(self) -> str:
        return (
            f"{self.head}: {self.flipped:,} of {self.of:,} decisions ({self.flipped / max(self.of, 1):.3%})"
        )


def label_flips(exact: Encoder, other: Encoder, texts: list[str]) -> Flips | None:
    """How many decisions of the head differ.

    A decision is the likeliest label of a text, or of each of its tokens; each label of a text by itself
    where several may hold; where an answer begins and where it ends; or which token stands in the middle of
    a text, where that is masked.

    Returns:
        None without a head, and for a head that gives a number.
    """
    head, config = exact.head, exact.config
    labels = exact.info()["num_labels"]
    if head is None or (labels == 1 and config.get("problem_type") == "regression"):
        return None
    by_sign = labels == 1 or config.get("problem_type") == "multi_label_classification"
    flipped = count = 0
    for start in range(0, len(texts), _TEXTS_PER_STEP):
        ragged = exact.tokenizer.encode_ragged(
            texts[start : start + _TEXTS_PER_STEP], truncation=True, max_length=exact.max_seq_length
        )
        ids, ends = ragged.input_ids.copy(), ragged.cu_seqlens
        rows = None
        if head == "masked-lm":
            rows = (ends[:-1] + ends[1:]) // 2
            ids[rows] = exact.tokenizer.mask_token_id
        a, b = (
            encoder.engine.forward(
                ids, ends, last_hidden_state=False, pooler_output=False, logits=True, rows=rows
            )["logits"]
            for encoder in (exact, other)
        )
        if head == "question-answering":
            a, b = (np.stack([logits[i:j].argmax(0) for i, j in pairwise(ends)]) for logits in (a, b))
        elif by_sign:
            a, b = a > 0, b > 0
        else:
            a, b = a.argmax(1), b.argmax(1)
        flipped += int((a != b).sum())
        count += a.size
    return Flips(head, flipped, count)


def neighbour_overlap(exact: npt.NDArray[Any], other: npt.NDArray[Any], k: int = NEIGHBOURS) -> float | None:
    """Share of each vector's k nearest others, by cosine, that are the same among the other vectors.

    Args:
        exact: (n, D).
        other: (n, D), of the same texts.
        k: How many neighbours.

    Returns:
        The mean over all; None if there are not more than k others, all of which would always be neighbours.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(50, 8))
        >>> neighbour_overlap(vectors, vectors)
        1.0
    """
    if len(exact) <= k + 1:
        return None
    near, near_other = _nearest(exact, k), _nearest(other, k)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(near, near_other, strict=True)]))


def _nearest(vectors: npt.NDArray[Any], k: int) -> list[list[int]]:
    vectors = vectors.astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest: list[list[int]] = np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    return nearest


def spread_sample(texts: Iterable[str], most: int = MOST_TEXTS) -> tuple[list[str], int]:
    """At most so many of the texts, spread evenly over all, and how many there were; memory stays bounded.

    Example:
        >>> spread_sample(["a", "b", "c", "d", "e"], most=2)
        (['a', 'e'], 5)
    """
    kept: list[str] = []
    seen, stride = 0, 1
    for text in texts:
        if seen % stride == 0:
            kept.append(text)
        seen += 1
        if len(kept) > most:
            kept, stride = kept[::2], 2 * stride
    return kept, seen


def made_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts of 3 to 60 random entries of the vocabulary: always the same ones for a vocabulary."""
    special = {tokenizer.convert_ids_to_tokens(token_id) for token_id in tokenizer.all_special_ids}
    words = sorted(
        word
        for word in tokenizer.get_vocab()
        if word not in special and not word.startswith(("##", "[unused"))
    )
    chosen = random.Random(0)
    return [" ".join(chosen.choices(words, k=chosen.randint(3, 60))) for _ in range(_MADE_TEXTS) if words]
