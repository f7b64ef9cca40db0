"""A corpus as tokens: an open token store, and the parts of one put together."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bertfast import _bertfast
from bertfast.errors import CorpusError
from bertfast.pretraining.store_files import (
    JOURNAL,
    MANIFEST,
    TOKENIZER,
    PathLike,
    refuse_finished,
    remove_stores,
)
from bertfast.pretraining.tokenizer_record import tokenizer_record, vocabulary_sha256
from bertfast.progress import Progress, is_shown
from bertfast.text_files import shown_path
from bertfast.tokenizer import Tokenizer

_MEGABYTE = 1_000_000


class HasVocabulary(Protocol):
    """A tokenizer."""

    def get_vocab(self) -> dict[str, int]:
        """Tokens with their ids."""


class Corpus:
    """A finished token store, as `build_corpus` makes it: its files are mapped, not read.

    Attributes:
        folder: Where it is.
        manifest: What ``manifest.json`` says.

    Example:
        >>> corpus = Corpus.open("corpus/")
        >>> corpus.num_documents, corpus.tokenizer.decode(corpus.sentence(0))
        (1189, 'in the beginning god created the heaven and the earth.')
    """

    def __init__(self, folder: PathLike) -> None:
        """Open a store.

        Raises:
            FileNotFoundError: There is none.
            CorpusError: It is damaged or not finished.
        """
        self.folder = Path(folder)
        if not (self.folder / MANIFEST).exists() and (self.folder / JOURNAL).exists():
            raise CorpusError(
                f"{shown_path(folder)}: is not finished: building it with the same arguments goes on"
            )
        self._store = _bertfast.Store(self.folder)
        self.manifest: dict[str, Any] = json.loads(self._store.manifest)

    @classmethod
    def open(cls, folder: PathLike) -> Corpus:
        """Open a store: ``Corpus(folder)``, with its errors."""
        return cls(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return Corpus, (self.folder,)

    def __len__(self) -> int:
        return self.num_documents

    def __repr__(self) -> str:
        return (
            f"Corpus({str(self.folder)!r}, num_documents={self.num_documents}, "
            f"num_sentences={self.num_sentences}, num_tokens={self.num_tokens})"
        )

    @property
    def num_documents(self) -> int:
        """How many documents there are, none of them without sentences."""
        return self._store.num_documents

    @property
    def num_sentences(self) -> int:
        """How many sentences there are, none of them without tokens."""
        return self._store.num_sentences

    @property
    def num_tokens(self) -> int:
        """How many tokens there are, special ones not among them."""
        return self._store.num_tokens

    @property
    def shard(self) -> tuple[int, int] | None:
        """``(i, n)`` if it is a part of a corpus until it is merged."""
        shard = self.manifest.get("shard")
        return None if shard is None else (int(shard[0]), int(shard[1]))

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens, from the store's own copy of its files.

        Raises:
            TokenizerError: It cannot be opened here, see `Tokenizer.from_pretrained`.
        """
        compat = self.manifest["options"].get("compat", "huggingface")
        return Tokenizer.from_pretrained(self.folder / TOKENIZER, compat=compat)

    def document(self, index: int) -> list[npt.NDArray[np.int32]]:
        """The tokens of each sentence of a document, (S,) each.

        Raises:
            IndexError: There is no such document.
        """
        return [self.sentence(sentence) for sentence in self.sentences_of(index)]

    def documents(self) -> Iterator[list[npt.NDArray[np.int32]]]:
        """All documents, one after the other."""
        return map(self.document, range(self.num_documents))

    def sentence(self, index: int) -> npt.NDArray[np.int32]:
        """(S,) the tokens of a sentence of the corpus.

        Raises:
            IndexError: There is no such sentence.
        """
        return self._store.sentence(index)

    def word_starts(self, index: int) -> npt.NDArray[np.bool_]:
        """(S,) whether a word begins at each token of a sentence of the corpus.

        Raises:
            IndexError: There is no such sentence.
        """
        return self._store.word_starts_of(index)

    def sentences_of(self, document: int) -> range:
        """The numbers of a document's sentences.

        Raises:
            IndexError: There is no such document.
        """
        return range(*self._store.document(document))

    def check_vocabulary(self, tokenizer: HasVocabulary) -> None:
        """Make sure that a tokenizer gives its tokens the same ids.

        Args:
            tokenizer: Of bertfast or transformers, such as that of the model that is to be trained.

        Raises:
            CorpusError: It does not: the message names the first token that differs.
        """
        theirs, ours = tokenizer.get_vocab(), self.tokenizer.get_vocab()
        if vocabulary_sha256(theirs) == self.manifest["tokenizer"]["vocabulary_sha256"]:
            return
        # What only one of them has.
        differing = sorted((index, token) for token, index in {*theirs.items()} ^ {*ours.items()})
        index, token = differing[0] if differing else (len(ours), "")
        raise CorpusError(
            f"tokenizer: expected the vocabulary that {shown_path(self.folder)} was built with, "
            f"{len(ours):,} tokens, got another one with {len(theirs):,}: {token!r} with id {index} "
            "is in one of them only"
        )

    def verify(self, *, show_progress: bool | None = None) -> None:
        """Read everything and compare it with the manifest: checksums, offsets, ids, and the tokenizer.

        Args:
            show_progress: Whether to write to stderr how far it is; None asks the logger.

        Raises:
            CorpusError: Something is damaged; the message names the file, and the place if that is known.
            TokenizerError: The tokenizer cannot be opened here, see `tokenizer`.
            OSError: A file cannot be read.
        """
        with megabytes(show_progress) as progress:
            self._store.verify(progress)
        expected, found = self.manifest["tokenizer"], tokenizer_record(self.tokenizer)
        for name, value in expected.items():
            if found[name] != value:
                raise CorpusError(
                    f"{shown_path(self.folder / MANIFEST)}: damaged: tokenizer: {name}: expected "
                    f"{found[name]!r}, as the files of the tokenizer say, got {value!r}"
                )


def merge_corpora(
    shards: Sequence[PathLike],
    store: PathLike,
    *,
    overwrite: bool = False,
    show_progress: bool | None = None,
) -> Corpus:
    """Put all shards of a corpus together: every file gets the bytes that building it at once would give.

    Args:
        shards: Folders of all of them, in any order.
        store: The folder to make.
        overwrite: Replace the store, finished or not, that is there.
        show_progress: Whether to write to stderr how far it is; None asks the logger.

    Raises:
        CorpusError: They are not the shards of one corpus, or damaged, without any text, or there is
            something else in `store`.
        FileExistsError: There is a finished store.
        ArgumentError: There are none.
        TypeError: `shards` is a single path.
        OSError: A file cannot be read or written. What was written is removed then.

    Example:
        >>> merge_corpora(["shard0", "shard1"], "corpus").num_documents
        1189
    """
    if isinstance(shards, (str, bytes, os.PathLike)):
        raise TypeError(f"shards: expected a sequence of folders, got {type(shards).__name__}")
    refuse_finished(store, overwrite)
    opened = [Corpus(shard) for shard in shards]
    opened.sort(key=lambda corpus: corpus.shard or (0, 0))
    if opened and not any(corpus.num_documents for corpus in opened):
        raise CorpusError(f"{shown_path(opened[0].folder)}: expected text in one of the shards, found none")
    if overwrite:
        if any(corpus.folder.resolve() == Path(store).resolve() for corpus in opened):
            raise CorpusError(f"{shown_path(store)}: expected another folder than those of the shards")
        # What is there is lost only to shards that are complete; what else is wrong is for the core to say.
        if [corpus.shard for corpus in opened] == [(i, len(opened)) for i in range(len(opened))] != []:
            remove_stores(store)
    with megabytes(show_progress) as progress:
        _bertfast.merge_stores([corpus.folder for corpus in opened], store, progress)
    return Corpus(store)


@contextlib.contextmanager
def megabytes(show: bool | None) -> Iterator[Callable[[int, int], None]]:
    """A bar for what says how many bytes are done of how many."""
    with contextlib.ExitStack() as stack:
        bar: list[Progress] = []
        shown = 0

        def update(done: int, total: int) -> None:
            nonlocal shown
            if not bar:
                whole = -(-total // _MEGABYTE)
                bar.append(stack.enter_context(Progress(total=whole, unit="megabyte", shown=is_shown(show))))
            bar[0].update(-(-done // _MEGABYTE) - shown)
            shown = -(-done // _MEGABYTE)

        yield update
