"""Texts to tokens in Python: where a splitter, a segmenter or another tokenizer has to be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from bertfast._bertfast import StoreWriter, split_sentences
from bertfast.errors import ArgumentError
from bertfast.pretraining.inputs import Documents, is_blank
from bertfast.tokenizer import Ragged, Tokenizer

Splitter = Callable[[str], Sequence[str]]
"""A paragraph to its sentences."""

Segmenter = Callable[[str], Sequence[str]]
"""A sentence to its words, which put together are the sentence."""


def append_texts(
    writer: StoreWriter,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    documents: Documents,
    splitter: Splitter | None,
    segmenter: Segmenter | None,
) -> None:
    """What the writer's ``append_lines`` does, with callbacks.

    Args:
        writer: Where to.
        tokenizer: Of any kind.
        texts: Lines.
        documents: Whether each is one, a blank one ends one, or none does.
        splitter: None if every line of a text is a sentence.
        segmenter: None if the vocabulary says where words begin.

    Raises:
        ArgumentError: A segmenter's words are not the sentence.
    """
    sentences: list[str] = []
    ends: list[bool] = []

    def end_document() -> None:
        if ends:
            ends[-1] = True
        else:
            writer.end_document()

    for text in texts:
        if documents == "line" or (documents == "blank_line" and is_blank(text)):
            end_document()
        for paragraph in text.split("\n"):
            if not is_blank(paragraph):
                found = [paragraph] if splitter is None else splitter(paragraph)
                sentences.extend(found)
                ends.extend([False] * len(found))
    if documents == "line":
        end_document()
    ragged = tokenizer.encode_ragged(
        sentences, add_special_tokens=False, return_offsets_mapping=segmenter is not None
    )
    starts = None if segmenter is None else word_starts_of(sentences, ragged, segmenter)
    writer.append_arrays(ragged.input_ids, ragged.cu_seqlens, np.array(ends, np.bool_), starts)


def rust_splitter(paragraph: str) -> Sequence[str]:
    """The splitter that is built in."""
    return split_sentences(paragraph)


def word_starts_of(sentences: Sequence[str], ragged: Ragged, segmenter: Segmenter) -> npt.NDArray[np.bool_]:
    """(T,) which tokens are the first of a segmenter's word, by their positions.

    Args:
        sentences: B texts.
        ragged: Their tokens, with offsets.
        segmenter: Says where words are.

    Raises:
        ArgumentError: The words of a sentence, put together, are not the sentence.
    """
    assert ragged.offset_mapping is not None
    ends = ragged.cu_seqlens.tolist()
    starts = np.empty(len(ragged.input_ids), np.bool_)
    for number, sentence in enumerate(sentences):
        words = list(segmenter(sentence))
        if "".join(words) != sentence:
            raise ArgumentError(
                f"segmenter: expected words that put together are the text {sentence[:50]!r}, "
                f"got {words[:10]!r}"
            )
        bounds = np.array([0, *accumulate(map(len, words))])
        span = slice(ends[number], ends[number + 1])
        # The word that a token begins in: the first token of each begins it, whatever spaces are before.
        inside = np.searchsorted(bounds, ragged.offset_mapping[span, 0], side="right")
        starts[span] = np.diff(inside, prepend=-1) != 0
    return starts
