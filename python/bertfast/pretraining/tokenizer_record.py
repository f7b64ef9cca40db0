"""What a token store says of its tokenizer: enough to tell vocabularies apart, and to make samples."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertfast.errors import TokenizerKindError
from bertfast.other_kinds import OtherTokenizer
from bertfast.pretraining.word_starts import BEGINS, word_start_table

if TYPE_CHECKING:
    from bertfast.tokenizer import Tokenizer

_BPE = ("byte-bpe", "bpe")


def tokenizer_record(tokenizer: Tokenizer) -> dict[str, Any]:
    """The entry ``tokenizer`` of a store's manifest.

    Returns:
        ``vocabulary_sha256``, ``vocab_size`` (ids are below it), the ids of the special tokens (None for
        those that there are not), ``special_token_ids`` and ``kind``: ``"wordpiece"``, ``"byte-bpe"``,
        ``"bpe"``, ``"unigram"`` or ``"wordlevel"``.

    Raises:
        TokenizerKindError: It has no sign that says which tokens begin a word.
    """
    vocab = tokenizer.get_vocab()
    named = ("cls", "sep", "mask", "pad", "unk")
    return {
        "vocabulary_sha256": vocabulary_sha256(vocab),
        "vocab_size": max(vocab.values(), default=-1) + 1,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in named},
        "special_token_ids": tokenizer.all_special_ids,
        "kind": _kind(tokenizer, vocab),
    }


def vocabulary_sha256(vocab: Mapping[str, int]) -> str:
    """SHA-256 over all tokens in the order of their ids.

    Each is its length in bytes (32 bits, little endian) and its UTF-8; an id without a token is the largest
    such number.

    Args:
        vocab: Tokens with their ids.
    """
    tokens: list[str | None] = [None] * (max(vocab.values(), default=-1) + 1)
    for token, index in vocab.items():
        tokens[index] = token
    digest = hashlib.sha256()
    for entry in tokens:
        data = b"" if entry is None else entry.encode("utf-8", "surrogatepass")
        digest.update(struct.pack("<I", 2**32 - 1 if entry is None else len(data)) + data)
    return digest.hexdigest()


def word_starts_of(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """(V,): which tokens begin a word, by the sign that the tokenizer's kind has for it.

    Raises:
        TokenizerKindError: It has none.
    """
    vocab = tokenizer.get_vocab()
    kind = _kind(tokenizer, vocab)
    prefix = _prefix(tokenizer) if kind == "wordpiece" else ""
    if prefix:
        return word_start_table(vocab, continues=prefix)
    if kind in ("wordpiece", "wordlevel"):
        return np.ones(max(vocab.values(), default=-1) + 1, np.bool_)
    return word_start_table(vocab, begins=BEGINS[0 if kind == "byte-bpe" else 1])


def _kind(tokenizer: Tokenizer, vocab: Mapping[str, int]) -> str:
    raw = tokenizer.raw
    model = raw.kind if isinstance(raw, OtherTokenizer) else "WordPiece"
    if model == "BPE":
        counts = [sum(token.startswith(sign) for token in vocab) for sign in BEGINS]
        if any(counts):
            return _BPE[int(counts[1] > counts[0])]
        model = "BPE without a sign for it"
    if model in ("WordPiece", "Unigram", "WordLevel"):
        return model.lower()
    raise TokenizerKindError(
        "tokenizer: expected one that says which tokens begin a word (WordPiece, byte-level BPE, BPE or "
        f"Unigram of SentencePiece, words), got {model}"
    )


def _prefix(tokenizer: Tokenizer) -> str:
    """What marks the tokens of WordPiece that continue a word."""
    raw = tokenizer.raw
    if isinstance(raw, OtherTokenizer):
        return raw.continuing_subword_prefix
    model = json.loads(tokenizer.files.get("tokenizer.json", b"{}")).get("model", {})
    prefix = model.get("continuing_subword_prefix")
    return "##" if prefix is None else str(prefix)
