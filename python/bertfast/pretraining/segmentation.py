"""Texts to sentences and words by programs of Python, and by tokenizers that the core does not have.

What the core does by itself for WordPiece is done here one sentence after the other: the same documents and
sentences come of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bertfast._bertfast import StoreWriter
from bertfast.errors import ArgumentError
from bertfast.tokenizer import Tokenizer

Documents = Literal["blank_line", "line", "file"]
Splitter = Callable[[str], Iterable[str]]
Segmenter = Callable[[str], Iterable[str]]

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""Unicode's White_Space, which the core has: Python's own set has four control characters more."""

# Characters that are tokenized at once.
_BATCH = 1 << 20


@dataclass(frozen=True)
class Segmentation:
    """How texts become sentences with words.

    Attributes:
        documents: How lines make documents.
        split: Takes a paragraph and gives its sentences; None: a paragraph is a sentence.
        segmenter: Takes a sentence and gives its words: the first token in each begins it. None: the
            tokenizer's vocabulary says where words begin.
    """

    documents: Documents
    split: Splitter | None
    segmenter: Segmenter | None

    def append(
        self, writer: StoreWriter, tokenizer: Tokenizer, texts: Sequence[str], name: str, first_line: int
    ) -> None:
        """Tokenize texts and append them to a store.

        Args:
            writer: Of the store.
            tokenizer: Of the store.
            texts: Lines.
            name: Of their file, for messages.
            first_line: The number of the first of them.

        Raises:
            ArgumentError: Words that are not those of the text.
            TypeError: A callback gives something else than texts.
        """
        batch = _Batch(self, writer, tokenizer)
        for place, text in enumerate(texts):
            if self.documents == "line" or (self.documents == "blank_line" and _is_blank(text)):
                batch.end_document()
            where = f"{name}:{first_line + place}"
            for paragraph in text.split("\n"):
                if not _is_blank(paragraph):
                    for sentence in self._sentences(paragraph, where):
                        batch.add(sentence, where)
        if self.documents == "line":
            batch.end_document()
        batch.flush()

    def _sentences(self, paragraph: str, where: str) -> Iterator[str]:
        if self.split is None:
            yield paragraph
            return
        for sentence in _checked(self.split(paragraph), "split_sentences", "sentences", where):
            if not _is_blank(sentence):
                yield sentence


class _Batch:
    """Sentences that are tokenized together."""

    def __init__(self, how: Segmentation, writer: StoreWriter, tokenizer: Tokenizer) -> None:
        self._segmenter, self._writer, self._tokenizer = how.segmenter, writer, tokenizer
        self._clear()

    def _clear(self) -> None:
        self._sentences: list[str] = []
        self._ends: list[bool] = []
        self._words: list[npt.NDArray[np.int64]] = []
        self._characters = 0

    def add(self, sentence: str, where: str) -> None:
        """One more, of the document that is the last."""
        if self._segmenter is not None:
            words = _checked(self._segmenter(sentence), "segmenter", "words", where)
            self._words.append(_word_starts(sentence, words, where) + self._characters)
        self._sentences.append(sentence)
        self._ends.append(False)
        self._characters += len(sentence)
        if self._characters >= _BATCH:
            self.flush()

    def end_document(self) -> None:
        """The document that is the last ends here."""
        if self._ends:
            self._ends[-1] = True
        else:
            self._writer.end_document()

    def flush(self) -> None:
        """Hands over to the store what there is."""
        if not self._sentences:
            return
        by_word = self._segmenter is not None
        ragged = self._tokenizer.encode_ragged(
            self._sentences, add_special_tokens=False, return_offsets_mapping=by_word
        )
        starts = None
        if ragged.offset_mapping is not None:
            starts = _first_in_word(
                "".join(self._sentences),
                np.concatenate(self._words),
                np.cumsum([0, *map(len, self._sentences)]),
                ragged.offset_mapping,
                ragged.cu_seqlens,
            )
        self._writer.append_arrays(ragged.input_ids, ragged.cu_seqlens, np.array(self._ends), starts)
        self._clear()


def _is_blank(text: str) -> bool:
    return not text.strip(WHITE_SPACE)


def _checked(found: Iterable[str], name: str, what: str, where: str) -> list[str]:
    """The texts that a callback gives."""
    if isinstance(found, (str, bytes)) or not isinstance(found, Iterable):
        raise TypeError(f"{name}: expected a list of {what} for {where}, got {type(found).__name__}")
    texts = list(found)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected {what} of type str for {where}, got {type(text).__name__}")
    return texts


def _word_starts(sentence: str, words: Sequence[str], where: str) -> npt.NDArray[np.int64]:
    """Where the words begin. They are the sentence, whitespace between them may be missing."""
    if "".join(words) == sentence:
        return np.fromiter(itertools.accumulate(map(len, words[:-1]), initial=0), np.int64, len(words))
    starts, at = [], 0
    for word in words:
        while not sentence.startswith(word, at) and sentence[at : at + 1].isspace():
            at += 1
        if not sentence.startswith(word, at):
            raise _not_the_sentence(sentence, words, where)
        starts.append(at)
        at += len(word)
    if sentence[at:].strip():
        raise _not_the_sentence(sentence, words, where)
    return np.array(starts, np.int64)


def _not_the_sentence(sentence: str, words: Sequence[str], where: str) -> ArgumentError:
    def short(value: object) -> str:
        text = repr(value)
        return text if len(text) <= 200 else f"{text[:200]}..."

    return ArgumentError(
        f"{where}: segmenter: expected words that add up to {short(sentence)}, got {short(list(words))}"
    )


def _first_in_word(
    text: str,
    words: npt.NDArray[np.int64],
    sentences: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int32],
    cu_seqlens: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Which tokens are the first that begin in a word.

    A token begins at its first character that is no whitespace: those of byte-level BPE have the space before
    a word in them.

    Args:
        text: The sentences end to end.
        words: Where words begin in it.
        sentences: (B + 1,) where the sentences do.
        offsets: (T, 2) of the tokens, in their sentences.
        cu_seqlens: (B + 1,) of the tokens.

    Returns:
        (T,)
    """
    counts = np.diff(cu_seqlens)
    places = offsets[:, 0] + np.repeat(sentences[:-1], counts)
    places = np.minimum(_behind_space(text)[places], np.repeat(sentences[1:], counts))
    # A token of whitespace at the end of a sentence is a word alone.
    word = np.searchsorted(words, places, side="right")
    first = np.ones(len(word), np.bool_)
    first[1:] = word[1:] != word[:-1]
    return first


def _behind_space(text: str) -> npt.NDArray[np.int64]:
    """(N + 1,) where the first character is, from each on, that is no whitespace."""
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    is_space = np.isin(characters, [ord(space) for space in WHITE_SPACE])
    places = np.arange(len(text) + 1)
    places[:-1][is_space] = len(text)
    return np.minimum.accumulate(places[::-1])[::-1]
