"""Token stores that tests write from ids, without texts or a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast import _bertfast

PAD, UNK, CLS, SEP, MASK = range(5)
FIRST = 5
"""The first id that is not special."""

Documents = Sequence[Sequence[Sequence[int]]]


def write_store(folder: Path, documents: Documents, **settings: Any) -> Path:
    """A store of documents of sentences of ids; `settings` as for `write_arrays`."""
    sentences = [sentence for document in documents for sentence in document]
    ends = [place == len(document) - 1 for document in documents for place in range(len(document))]
    ids = np.concatenate([np.empty(0, np.int32), *(np.asarray(s, np.int32) for s in sentences)])
    return write_arrays(folder, ids, [len(sentence) for sentence in sentences], ends, **settings)


def write_arrays(
    folder: Path,
    ids: npt.ArrayLike,
    lengths: npt.ArrayLike,
    document_ends: npt.ArrayLike,
    *,
    vocab_size: int = 60_000,
    word_every: int = 1,
    **record: object,
) -> Path:
    """A store of sentences of these lengths; every so many-th id begins a word."""
    tokenizer = {
        "vocabulary_sha256": "0" * 64,
        "vocab_size": vocab_size,
        "cls_token_id": CLS,
        "sep_token_id": SEP,
        "mask_token_id": MASK,
        "pad_token_id": PAD,
        "unk_token_id": UNK,
        "special_token_ids": [PAD, UNK, CLS, SEP, MASK],
        "kind": "wordpiece",
        **record,
    }
    writer = _bertfast.StoreWriter(
        folder,
        token_bits=16 if vocab_size <= 2**16 else 32,
        word_starts=np.arange(vocab_size) % word_every == 0,
        description=json.dumps({"tokenizer": tokenizer, "options": {}}),
    )
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    writer.append_arrays(np.asarray(ids, np.int32), ends, np.asarray(document_ends, bool))
    writer.finish()
    return folder


def numbered(lengths: Sequence[Sequence[int]]) -> list[list[list[int]]]:
    """Documents of sentences of these lengths. Every token is another one: an id says where it is from."""
    documents, token = [], FIRST
    for document in lengths:
        sentences = []
        for length in document:
            sentences.append(list(range(token, token + length)))
            token += length
        documents.append(sentences)
    return documents


def random_lengths(documents: int, seed: int = 0, most: int = 20) -> list[list[int]]:
    """Documents of 1 to 8 sentences of 1 to `most` tokens; one in thirty is ten times as long."""
    rng = np.random.default_rng(seed)
    return [
        [int(rng.integers(1, most + 1)) * (10 if rng.random() < 1 / 30 else 1) for _ in range(n)]
        for n in rng.integers(1, 9, documents)
    ]
