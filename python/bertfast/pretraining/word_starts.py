"""Which tokens begin a word, by the signs that vocabularies have for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_CONTINUES = "##"
BEGINS = ("\u0120", "\u2581")
"""The signs of byte-level BPE and of SentencePiece."""


def word_start_table(
    vocab: Mapping[str, int], *, begins: str | None = None, continues: str | None = None
) -> npt.NDArray[np.bool_]:
    """Whether a token begins a word, for each id of a vocabulary.

    WordPiece marks tokens that continue a word (``##``); byte-level BPE (``\u0120``) and Unigram (``\u2581``)
    mark those that begin one. The sign that most tokens have is the vocabulary's. Without any sign every
    token is a word, as in a vocabulary of characters.

    Args:
        vocab: Tokens with their ids, such as ``tokenizer.get_vocab()``.
        begins: The sign of tokens that begin a word, where it is known.
        continues: The sign of tokens that continue one, where that is known.

    Returns:
        (V,) with V the highest id + 1. The first token of a text begins a word whatever it says here.

    Example:
        >>> word_start_table({"play": 0, "##ing": 1}).tolist()
        [True, False]
    """
    if begins is None and continues is None:
        counts = dict.fromkeys((_CONTINUES, *BEGINS), 0)
        for token in vocab:
            for sign in counts:
                counts[sign] += token.startswith(sign)
        sign = max(counts, key=counts.__getitem__)
        if counts[sign]:
            begins, continues = (None, sign) if sign == _CONTINUES else (sign, None)
    table = np.ones(max(vocab.values(), default=-1) + 1, dtype=np.bool_)
    for token, index in vocab.items():
        if begins is not None:
            table[index] = token.startswith(begins)
        elif continues is not None:
            # The bare prefix is a token of its own: the signs stood in a text.
            table[index] = not token.startswith(continues) or token == continues
    return table
