"""Sentences that are split into words, in windows: which token stands for a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.tokenizer import Ragged, Tokenizer

Ints = npt.NDArray[np.int64]


class WordTokens(NamedTuple):
    """The token that stands for each word; words of which the tokenizer leaves nothing have none."""

    token: Ints
    """(M,) its number among all tokens of all windows."""
    sentence: Ints
    """(M,), rising."""
    word: Ints
    """(M,) the number of the word in its sentence."""


def word_windows(
    tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], *, length: int, stride: int, types: bool
) -> tuple[Ragged, WordTokens]:
    """Cuts sentences into windows, and finds the token of each word.

    It is the word's first one, in the window that shows most of the text on both sides of it: every word has
    one place, however many windows see it.

    Args:
        tokenizer: Makes tokens of words.
        sentences: The words of each.
        length: Tokens of a window at most, special ones included.
        stride: Tokens that neighbouring windows share.
        types: Whether ``token_type_ids`` are wanted.

    Raises:
        ArgumentError: The stride is too large.
    """
    ragged = tokenizer.encode_ragged(
        sentences,
        truncation=True,
        truncation_side="right",
        max_length=length,
        stride=stride,
        is_split_into_words=True,
        return_overflowing_tokens=True,
        return_word_ids=True,
        return_sequence_ids=True,
        return_token_type_ids=types,
    )
    assert ragged.word_ids is not None
    assert ragged.sequence_ids is not None
    assert ragged.overflow_to_sample is not None
    samples = ragged.overflow_to_sample
    kept = np.flatnonzero(ragged.sequence_ids >= 0)
    window = np.repeat(np.arange(len(samples)), np.diff(ragged.cu_seqlens))[kept]
    counts = np.bincount(window, minlength=len(samples))
    place = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Which window of its sentence each is, and where its tokens are in the sentence.
    first = np.searchsorted(samples, samples)
    nth = np.arange(len(samples)) - first
    step = length - tokenizer.num_special_tokens_to_add(pair=False) - stride
    in_sentence = place + nth[window] * step
    is_last = np.append(samples[1:] != samples[:-1], True)
    unlimited = len(kept)
    before = np.where(nth[window] == 0, unlimited, place)
    behind = np.where(is_last[window], unlimited, counts[window] - 1 - place)
    seen = np.minimum(before, behind)
    sentence, word = samples[window], ragged.word_ids[kept].astype(np.int64)
    # By word; of its tokens the first one's copies come first, of those the one with most around it.
    order = np.lexsort((window, -seen, in_sentence, word, sentence))
    own = np.ones(len(order), bool)
    own[1:] = (sentence[order][1:] != sentence[order][:-1]) | (word[order][1:] != word[order][:-1])
    chosen = order[own]
    return ragged, WordTokens(kept[chosen], sentence[chosen], word[chosen])
