"""Corpora: texts as tokens in a folder that is memory-mapped, whatever its size."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bertfast import _bertfast
from bertfast._bertfast import StoreWriter
from bertfast.arguments import check_choice, check_num_threads, is_int
from bertfast.errors import ArgumentError, CorpusError
from bertfast.pretraining.inputs import Documents, Piece, find_files, fingerprint, pieces_of
from bertfast.pretraining.segmentation import Segmenter, Splitter, append_texts, rust_splitter
from bertfast.pretraining.word_starts import word_start_table
from bertfast.progress import Progress, is_shown
from bertfast.tokenizer import Tokenizer

DOCUMENTS: tuple[Documents, ...] = ("blank_line", "line", "file")

_RUST_DOCUMENTS = {"blank_line": "blank", "line": "line", "file": "file"}
_MANIFEST = "manifest.json"
_JOURNAL = "journal.json"
_TOKENIZER = "tokenizer"
_MEGABYTE = 1_000_000


class HasVocabulary(Protocol):
    """A tokenizer."""

    def get_vocab(self) -> dict[str, int]:
        """Tokens with their ids."""


class Corpus:
    """A token store that is open: sentences of tokens, in documents.

    Attributes:
        folder: Where it is.
        manifest: What ``manifest.json`` says: counts, checksums, tokenizer, options.

    Args:
        folder: A store, as `build_corpus` makes it.

    Raises:
        FileNotFoundError: There is none.
        CorpusError: It is damaged, as far as a look at sizes tells; `verify` reads everything.

    Example:
        >>> corpus = Corpus("corpus/")
        >>> corpus.num_documents, corpus.tokenizer.decode(corpus.sentence(0))
        (1189, 'in the beginning god created the heaven and the earth.')
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._store = _bertfast.Store(self.folder)
        self.manifest: dict[str, Any] = json.loads(self._store.manifest)

    @property
    def num_documents(self) -> int:
        """How many documents there are."""
        return self._store.num_documents

    @property
    def num_sentences(self) -> int:
        """How many sentences."""
        return self._store.num_sentences

    @property
    def num_tokens(self) -> int:
        """How many tokens, special ones not among them."""
        return self._store.num_tokens

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that it was built with, from its own folder."""
        compat = self.manifest["options"].get("compat", "huggingface")
        return Tokenizer.from_pretrained(self.folder / _TOKENIZER, compat=compat)

    def sentence(self, index: int) -> npt.NDArray[np.int32]:
        """(S,) the tokens of a sentence of the corpus.

        Raises:
            IndexError: There is no such sentence.
        """
        return self._store.sentence(index)

    def word_starts(self, index: int) -> npt.NDArray[np.bool_]:
        """(S,) whether a word begins at each token of a sentence.

        Raises:
            IndexError: There is no such sentence.
        """
        return self._store.word_starts_of(index)

    def document(self, index: int) -> list[npt.NDArray[np.int32]]:
        """The sentences of a document, each (S,) tokens.

        Raises:
            IndexError: There is no such document.
        """
        return [self.sentence(sentence) for sentence in range(*self._store.document(index))]

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
        differing = sorted(
            (index, token) for token, index in {*theirs.items()} ^ {*ours.items()}
        )  # What only one of them has.
        index, token = differing[0] if differing else (len(ours), "")
        raise CorpusError(
            f"tokenizer: expected the vocabulary that {self.folder} was built with, {len(ours):,} tokens, "
            f"got another one with {len(theirs):,}: {token!r} with id {index} is in one of them only"
        )

    def verify(self, *, show_progress: bool | None = None) -> None:
        """Read everything, and compare it with the checksums.

        Raises:
            CorpusError: A file is damaged: the message names it, and what is wrong.
        """
        with _bytes_progress(show_progress) as progress:
            self._store.verify(progress)

    def __len__(self) -> int:
        return self.num_documents

    def __repr__(self) -> str:
        counts = f"{self.num_documents:,} documents, {self.num_sentences:,} sentences"
        return f"Corpus({str(self.folder)!r}: {counts}, {self.num_tokens:,} tokens)"


def build_corpus(
    inputs: Iterable[str | os.PathLike[str]],
    tokenizer: Tokenizer | str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    documents: Documents | None = None,
    split_sentences: bool | Splitter = False,
    field: str | None = None,
    segmenter: Segmenter | None = None,
    shard: tuple[int, int] = (0, 1),
    num_threads: int | None = None,
    overwrite: bool = False,
    show_progress: bool | None = None,
    checkpoint_seconds: float = 10.0,
) -> Corpus:
    """Tokenize texts into a store.

    Memory does not grow with the texts. A build that was interrupted, in whatever way, goes on from its last
    checkpoint when it is called again with the same arguments, and gives the same bytes.

    Args:
        inputs: Files and folders of files: text (UTF-8), JSON lines or Parquet, plain, gzip or zstd. Parquet
            and zstd need ``bertfast[corpus]``.
        tokenizer: A tokenizer that was opened from a folder, or that folder. The store gets a copy.
        store: The folder to make.
        documents: What a document is: ``"blank_line"``: lines up to one without text; ``"line"``: a line, or
            a record; ``"file"``. None: a record of JSON lines or Parquet, else lines up to a blank one. A
            file's end always ends a document.
        split_sentences: Whether lines are paragraphs that are to be cut into sentences: by the rules for
            English and Chinese that are built in, or by a function of a paragraph that returns its sentences.
            If not, every line is a sentence. Line breaks in a record are ends of lines.
        field: Inputs are JSON lines with the text in this field, or Parquet with this column (``"text"`` if
            left out).
        segmenter: A function of a sentence that returns its words, such as ``jieba.lcut``: a token begins a
            word if it is the first of one of these. None: the vocabulary says where words begin.
        shard: Which part of the texts, from 0 on, and of how many: `merge_corpora` puts them together. A part
            has the documents that begin in its share of all bytes; of compressed files and Parquet, whole
            files.
        num_threads: At most; None for all cores that may be used.
        overwrite: Delete what is there: a store, or one that was begun.
        show_progress: Whether there is a bar; None asks the logger.
        checkpoint_seconds: How much work at most is done again after an interruption.

    Returns:
        The corpus.

    Raises:
        FileNotFoundError: An input does not exist.
        FileExistsError: There is a finished store.
        CorpusError: The folder has something else in it, or was begun with other texts, options or another
            tokenizer: the message says what differs; or there is no sentence in all inputs.
        ArgumentError: A line that is not UTF-8 or no record with the field, or damaged data: the message
            names file and line, and the checkpoint stays; or another argument that is not as above.
        OSError: The disk is full: the checkpoint stays.

    Example:
        >>> corpus = build_corpus(["wiki/"], "bert-base-uncased/", "corpus/", split_sentences=True)
    """
    files = find_files(inputs)
    documents = _documents(documents, field, files)
    shard = _check_shard(shard)
    check_num_threads(num_threads)
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = Tokenizer.from_pretrained(tokenizer)
    folder = Path(store)
    if overwrite:
        _remove(folder)
    elif (folder / _MANIFEST).exists():
        raise FileExistsError(17, "a finished store: name another folder, or overwrite it", str(folder))
    options = {
        "compat": tokenizer.compat,
        "documents": documents,
        "segmenter": _name_of(segmenter),
        "split_sentences": _name_of(split_sentences),
    }
    inputs_sha256 = fingerprint(files)
    writer = _open(folder, tokenizer, options, shard, inputs_sha256)
    build = _Build(writer, tokenizer, documents, field, split_sentences, segmenter, num_threads)
    pieces = pieces_of(files, documents, shard)
    build.run(pieces, inputs_sha256, checkpoint_seconds, is_shown(show_progress))
    if writer.num_documents == 0 and shard[1] == 1:
        raise CorpusError(f"inputs: expected at least one sentence, got none in {len(files)} files")
    writer.finish()
    return Corpus(folder)


def merge_corpora(
    shards: Sequence[str | os.PathLike[str]],
    store: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    show_progress: bool | None = None,
) -> Corpus:
    """Put the shards of a corpus together: every file has the bytes that one build would have given.

    Args:
        shards: The stores of all parts, in order.
        store: The folder to make.
        overwrite: Delete what is there: a store, or one that was begun.
        show_progress: Whether there is a bar; None asks the logger.

    Raises:
        CorpusError: They are not all parts of one corpus, or one is damaged.
        FileExistsError: There is a finished store.
        OSError: A file cannot be read or written.
    """
    folder = Path(store)
    if overwrite:
        _remove(folder)
    elif (folder / _MANIFEST).exists():
        raise FileExistsError(17, "a finished store: name another folder, or overwrite it", str(folder))
    with _bytes_progress(show_progress) as progress:
        _bertfast.merge_stores(list(shards), folder, progress)
    corpus = Corpus(folder)
    if corpus.num_documents == 0:
        raise CorpusError(f"shards: expected at least one sentence, got none in {len(shards)} shards")
    return corpus


class _Build:
    """Appends the texts of pieces, from where the writer is."""

    def __init__(
        self,
        writer: StoreWriter,
        tokenizer: Tokenizer,
        documents: Documents,
        field: str | None,
        split_sentences: bool | Splitter,
        segmenter: Segmenter | None,
        num_threads: int | None,
    ) -> None:
        self._writer, self._tokenizer, self._num_threads = writer, tokenizer, num_threads
        self._documents: Documents = documents
        self._field = field
        self._splits = bool(split_sentences)
        self._splitter = (
            split_sentences if callable(split_sentences) else rust_splitter if split_sentences else None
        )
        self._segmenter = segmenter
        # Callbacks and tokenizers of other packages are asked from Python.
        self._in_rust = (
            isinstance(tokenizer.raw, _bertfast.Tokenizer)
            and segmenter is None
            and not callable(split_sentences)
        )

    def run(self, pieces: Sequence[Piece], inputs: str, checkpoint_seconds: float, shown: bool) -> None:
        """Appends all that is not there yet."""
        first, offset = self._resume(inputs)
        total = sum(piece.path.stat().st_size for piece in pieces)
        checked = time.monotonic()
        with Progress(total=total // _MEGABYTE, unit="megabyte", shown=shown) as progress:
            read = shown_before = 0
            for number, piece in enumerate(pieces):
                size = piece.path.stat().st_size
                if number >= first:
                    start = offset if number == first and offset is not None else piece.start
                    for block in piece.blocks(self._field, start):
                        self._append(block.lines)
                        if time.monotonic() - checked >= checkpoint_seconds:
                            self._checkpoint(inputs, number, block.offset)
                            checked = time.monotonic()
                        done = (read + block.done) // _MEGABYTE
                        progress.update(done - shown_before)
                        shown_before = done
                    self._writer.end_document()
                read += size

    def _append(self, lines: _bertfast.Lines) -> None:
        if self._in_rust:
            self._writer.append_lines(
                self._tokenizer.raw,  # type: ignore[arg-type]
                lines,
                documents=_RUST_DOCUMENTS[self._documents],
                split_sentences=self._splits,
                num_threads=self._num_threads,
            )
            return
        append_texts(
            self._writer,
            self._tokenizer,
            lines.to_list(),
            documents=self._documents,
            splitter=self._splitter,
            segmenter=self._segmenter,
        )

    def _checkpoint(self, inputs: str, piece: int, offset: int) -> None:
        self._writer.checkpoint(json.dumps({"inputs": inputs, "piece": piece, "offset": offset}))

    def _resume(self, inputs: str) -> tuple[int, int | None]:
        """The piece to go on with, and where in it."""
        if self._writer.position is None:
            # The first checkpoint: from now on the folder knows its inputs.
            self._writer.checkpoint(json.dumps({"inputs": inputs, "piece": 0, "offset": None}))
            return 0, None
        position: Mapping[str, Any] = json.loads(self._writer.position)
        if position["inputs"] != inputs:
            raise CorpusError(
                "inputs: expected the files that the build in this folder began with, got others, or files "
                "of other sizes"
            )
        return int(position["piece"]), position["offset"]


def _open(
    folder: Path, tokenizer: Tokenizer, options: Mapping[str, Any], shard: tuple[int, int], inputs: str
) -> StoreWriter:
    vocab = tokenizer.get_vocab()
    table = word_start_table(vocab)
    description: dict[str, Any] = {"tokenizer": _record(tokenizer, vocab, len(table)), "options": options}
    if shard[1] > 1:
        description.update(shard=list(shard), inputs=inputs)
    if not folder.exists() or not any(folder.iterdir()):
        tokenizer.save_pretrained(folder / _TOKENIZER)
    return StoreWriter(
        folder,
        token_bits=16 if len(table) <= 1 << 16 else 32,
        word_starts=table,
        description=json.dumps(description),
    )


def vocabulary_sha256(vocab: Mapping[str, int]) -> str:
    """SHA-256 over all tokens in the order of their ids, each behind its length in 32 bits.

    An id without a token counts as an empty one.
    """
    by_id = {index: token for token, index in vocab.items()}
    digest = hashlib.sha256()
    for index in range(max(by_id, default=-1) + 1):
        token = by_id.get(index, "").encode()
        digest.update(struct.pack("<I", len(token)) + token)
    return digest.hexdigest()


def _record(tokenizer: Tokenizer, vocab: Mapping[str, int], size: int) -> dict[str, Any]:
    """What a manifest says of a tokenizer."""
    names = ("cls_token_id", "sep_token_id", "mask_token_id", "pad_token_id", "unk_token_id")
    raw = tokenizer.raw
    return {
        "vocabulary_sha256": vocabulary_sha256(vocab),
        "vocab_size": size,
        **{name: getattr(tokenizer, name) for name in names},
        "special_token_ids": sorted(tokenizer.all_special_ids),
        "kind": "wordpiece" if isinstance(raw, _bertfast.Tokenizer) else raw.kind.lower(),
    }


def _documents(documents: Documents | None, field: str | None, files: Sequence[Path]) -> Documents:
    if documents is None:
        are_records = field is not None or all(path.suffix == ".parquet" for path in files)
        return "line" if are_records else "blank_line"
    return check_choice("documents", documents, DOCUMENTS)  # type: ignore[no-any-return]


def _check_shard(shard: Any) -> tuple[int, int]:
    try:
        index, count = shard
    except (TypeError, ValueError):
        raise ArgumentError(f"shard: expected a number and how many there are, got {shard!r}") from None
    if not is_int(index) or not is_int(count) or not 0 <= index < count:
        raise ArgumentError(f"shard: expected a number from 0 on below how many there are, got {shard!r}")
    return int(index), int(count)


def _name_of(function: bool | Callable[..., Any] | None) -> bool | str | None:
    """What a manifest calls a callback: a build goes on with the same one only."""
    if not callable(function):
        return function
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', None)}.{name}"


def _remove(folder: Path) -> None:
    """Deletes a store, or one that was begun; never anything else."""
    if not folder.exists():
        return
    if not (folder / _MANIFEST).exists() and not (folder / _JOURNAL).exists() and any(folder.iterdir()):
        raise CorpusError(f"{folder}: expected a store, or one that was begun, got a folder with other files")
    shutil.rmtree(folder)


@contextlib.contextmanager
def _bytes_progress(show_progress: bool | None) -> Iterator[Callable[[int, int], None]]:
    """A bar, for what tells how many bytes are done and how many there are."""
    with contextlib.ExitStack() as stack:
        bars: list[Progress] = []
        before = 0

        def show(done: int, total: int) -> None:
            nonlocal before
            if not bars:
                bar = Progress(total=total // _MEGABYTE, unit="megabyte", shown=is_shown(show_progress))
                bars.append(stack.enter_context(bar))
            bars[0].update(done // _MEGABYTE - before)
            before = done // _MEGABYTE

        yield show
