"""What the benchmark runs: fixed shapes of token ids, ragged text, and how many FLOP each of them needs."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bertfast.bench.dtypes import BYTES
from bertfast.errors import ArgumentError
from bertfast.text_files import TextFile
from bertfast.tokenizer import Tokenizer

FIXED_SHAPES = ((1, 16), (1, 128), (1, 512), (32, 128), (8, 512))
"""(B, S) of the fixed workloads: a query, a paragraph, a full window, and two big batches."""

QUERY_TOKENS = (8, 20)
"""Shortest and longest query of the latency mode."""

SEED = 2019
Ids = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that decide how much it computes.

    Attributes:
        layers: L.
        hidden: D.
        intermediate: F.
        heads: number of attention heads.
        vocabulary: V.
        positions: longest text in tokens.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    positions: int

    @staticmethod
    def read(folder: Path) -> ModelShape:
        """Reads ``config.json`` of a model folder.

        Raises:
            OSError: no such file.
            ArgumentError: it is not the configuration of a BERT.
        """
        path = folder / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            return ModelShape(
                layers=int(config["num_hidden_layers"]),
                hidden=int(config["hidden_size"]),
                intermediate=int(config["intermediate_size"]),
                heads=int(config["num_attention_heads"]),
                vocabulary=int(config["vocab_size"]),
                positions=int(config["max_position_embeddings"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ArgumentError(f"{path}: not the configuration of a BERT: {error!r}") from error

    def flop(self, lengths: Iterable[int]) -> int:
        """FLOP of one forward over texts of these lengths (tokens), a multiply-add counted as two.

        Matrix products only, and of valid tokens only, so padding is time without work:
        per layer and token ``8 D^2`` (Q, K, V, output) and ``4 D F`` (feed-forward), per layer and text of
        ``s`` tokens ``4 s^2 D`` (QK^T and PV).
        """
        per_token = 8 * self.hidden**2 + 4 * self.hidden * self.intermediate
        return self.layers * sum(s * per_token + 4 * s * s * self.hidden for s in map(int, lengths))

    def bytes(self, tokens: int, dtype: str) -> int:
        """What a forward must move at least.

        All weights of the layers in ``dtype``, once, and two float32 rows per token, the embedding and the
        result.
        """
        weights = self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)
        return weights * BYTES[dtype] + 2 * 4 * tokens * self.hidden


@dataclass(frozen=True)
class IdsWorkload:
    """A rectangle of token ids without padding.

    Attributes:
        name: ``BxS``.
        input_ids: int64 (B, S).
        attention_mask: int64 (B, S).
    """

    name: str
    input_ids: Ids
    attention_mask: Ids

    @property
    def lengths(self) -> list[int]:
        """Valid tokens of each row."""
        return [int(n) for n in self.attention_mask.sum(axis=1)]


def random_ids(model: ModelShape, lengths: Sequence[int], seed: int = SEED) -> tuple[Ids, Ids]:
    """Random ids (B, S) and their mask, row ``i`` valid in its first ``lengths[i]`` columns.

    Ids 0 to 999 are avoided where the vocabulary allows it: special and unused tokens live there.
    """
    low = 1000 if model.vocabulary > 2000 else min(5, model.vocabulary - 1)
    size = (len(lengths), max(lengths))
    ids = np.random.default_rng(seed).integers(low, model.vocabulary, size=size, dtype=np.int64)
    mask = (np.arange(size[1])[None, :] < np.asarray(lengths)[:, None]).astype(np.int64)
    return ids * mask, mask


def fixed_workloads(model: ModelShape, shapes: Iterable[tuple[int, int]] = FIXED_SHAPES) -> list[IdsWorkload]:
    """The fixed shapes that fit into the model's positions."""
    return [
        IdsWorkload(f"{b}x{s}", *random_ids(model, [s] * b, SEED + b * s))
        for b, s in shapes
        if s <= model.positions
    ]


def sample_texts(
    path: str, count: int, field: str | None = None, without: Collection[str] = frozenset()
) -> list[str]:
    """A reproducible uniform sample of ``count`` non-empty texts, in the order of the file.

    Args:
        path: the file.
        count: how many; all if there are fewer.
        field: it is JSON lines, and this is the field with the text.
        without: texts to pass over.

    Source: reservoir sampling, Vitter 1985, algorithm R; one pass, so a file of any size will do.

    Raises:
        OSError: the file cannot be read.
        ArgumentError: it has no (other) text, or a line is broken.
    """
    rng = random.Random(SEED)
    with TextFile(path, field) as file:
        texts = ((number, text) for number, text in enumerate(file) if text.strip() and text not in without)
        reservoir = list(islice(texts, count))
        for seen, item in enumerate(texts, start=count + 1):
            slot = rng.randrange(seen)
            if slot < count:
                reservoir[slot] = item
    if not reservoir:
        raise ArgumentError(f"{path}: no {'other ' if without else ''}text in it")
    return [text for _, text in sorted(reservoir)]


def synthetic_texts(folder: Path, count: int, seed: int = SEED) -> list[str]:
    """Texts drawn from the model's own vocabulary, for machines without a text file at hand.

    Lengths follow a log-normal law with a median of 35 and a mean of 46 words, like dictionary entries.

    Raises:
        OSError: the folder has neither ``vocab.txt`` nor ``tokenizer.json``.
        ArgumentError: the vocabulary has no words.
    """
    words = sorted(word for word in _vocabulary(folder) if word.isalpha() and len(word) > 1)
    if not words:
        raise ArgumentError(
            f"{folder}: no words in the vocabulary to make texts of; name a file with --texts"
        )
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(35), 0.74, count), 2, 400).astype(int)
    return [" ".join(words[i] for i in rng.integers(0, len(words), n)) for n in lengths]


def short_queries(texts: Sequence[str], folder: Path) -> list[str]:
    """The beginnings of texts, 8 to 20 tokens long with the special ones, as search queries are.

    Raises:
        ArgumentError: no text is long enough.
    """
    low, high = QUERY_TOKENS
    tokenizer = Tokenizer.from_pretrained(folder)
    ragged = tokenizer.encode_ragged(texts, truncation=True, max_length=high, return_offsets_mapping=True)
    assert ragged.offset_mapping is not None
    rng = random.Random(SEED)
    queries = []
    for text, start, end in zip(texts, ragged.cu_seqlens, ragged.cu_seqlens[1:], strict=False):
        if end - start >= low:
            # [CLS] and [SEP] are at its ends.
            last = int(start) + rng.randint(low, int(end - start)) - 2
            queries.append(text[: ragged.offset_mapping[last][1]])
    if not queries:
        raise ArgumentError(f"no text has {low} tokens to make a query of")
    return queries


def rotated(items: Sequence[T], by: int) -> list[T]:
    """The items in rotated order, so that none always runs after the same other."""
    shift = by % len(items) if items else 0
    return [*items[shift:], *items[:shift]]


def _vocabulary(folder: Path) -> Iterable[str]:
    path = folder / "vocab.txt"
    if path.exists():
        return path.read_text(encoding="utf-8").split("\n")
    path = folder / "tokenizer.json"
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        # Unigram has pairs of a token and its score; others begin words with a sign of their own.
        tokens = [entry if isinstance(entry, str) else entry[0] for entry in vocabulary]
        return [token.removeprefix("▁").removeprefix("Ġ") for token in tokens]
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{path}: no vocabulary in it: {error!r}") from error
