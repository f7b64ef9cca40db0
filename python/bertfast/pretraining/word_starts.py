"""Which tokens begin a word, by the signs that vocabularies have for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_CONTINUES = "##"
_BEGINS = ("\u0120", "\u2581")


def word_start_table(vocab: Mapping[str, int]) -> npt.NDArray[np.bool_]:
    """Whether a token begins a word, for each id of a vocabulary.

    WordPiece marks tokens that continue a word (``##``); byte-level BPE (``\u0120``) and Unigram (``\u2581``)
    mark those that begin one. The sign that most tokens have is the vocabulary's. Without any sign every
    token is a word, as in a vocabulary of characters.

    Args:
        vocab: Tokens with their ids, such as ``tokenizer.get_vocab()``.

    Returns:
        (V,) with V the highest id + 1. The first token of a text begins a word whatever it says here.

    Example:
        >>> word_start_table({"play": 0, "##ing": 1}).tolist()
        [True, False]
    """
    counts = dict.fromkeys((_CONTINUES, *_BEGINS), 0)
    for token in vocab:
        for sign in counts:
            counts[sign] += token.startswith(sign)
    sign = max(counts, key=counts.__getitem__)
    table = np.ones(max(vocab.values(), default=-1) + 1, dtype=np.bool_)
    if counts[sign]:
        for token, index in vocab.items():
            # The bare prefix is a token of its own: two signs in a text.
            continues = sign == _CONTINUES and token.startswith(sign) and token != sign
            table[index] = not continues if sign == _CONTINUES else token.startswith(sign)
    return table
