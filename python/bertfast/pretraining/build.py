"""Texts to a token store: what `bertfast corpus build` does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from bertfast import _bertfast
from bertfast.arguments import check_choice, check_num_threads
from bertfast.errors import ArgumentError, CorpusError
from bertfast.file_progress import StatusLine
from bertfast.pretraining.build_arguments import check_shard, name_of, segmenter_of
from bertfast.pretraining.build_progress import BuildProgress
from bertfast.pretraining.corpus import Corpus
from bertfast.pretraining.inputs import (
    Block,
    InputFile,
    Part,
    blocks_of,
    check_packages,
    find_inputs,
    given_paths,
    in_file,
)
from bertfast.pretraining.resume import Position, begin, go_on
from bertfast.pretraining.segmentation import Documents, Segmentation, Segmenter, Splitter
from bertfast.pretraining.sharding import parts_of
from bertfast.pretraining.store_files import (
    INPUTS,
    JOURNAL,
    MANIFEST,
    TOKENIZER,
    PathLike,
    check_outside,
    refuse_finished,
    remove_files,
    remove_stores,
)
from bertfast.pretraining.tokenizer_record import tokenizer_record, word_starts_of
from bertfast.progress import is_shown
from bertfast.text_files import shown_path
from bertfast.tokenizer import Tokenizer

T = TypeVar("T")

DOCUMENTS: tuple[Documents, ...] = ("blank_line", "line", "file")


def build_corpus(
    inputs: PathLike | Sequence[PathLike],
    tokenizer: Tokenizer | PathLike,
    store: PathLike,
    *,
    documents: Documents | None = None,
    split_sentences: bool | Splitter = False,
    field: str | None = None,
    segmenter: Literal["jieba"] | Segmenter | None = None,
    shard: tuple[int, int] | None = None,
    num_threads: int | None = None,
    overwrite: bool = False,
    show_progress: bool | None = None,
    checkpoint_seconds: float = 10.0,
) -> Corpus:
    r"""Tokenize texts once, into a folder that samples for pretraining are made from.

    Memory does not grow with the texts, but for a line (or a row group of Parquet) that is longer than some
    megabytes. What is in the files depends on the texts, their order, the tokenizer and the options alone.

    A build that was interrupted, even by ``kill -9``, goes on from its last checkpoint if it is started again
    with the same arguments, and gives the same bytes.

    Args:
        inputs: Files and folders, or one; of folders all files in them, sorted by name, but for hidden ones.
            Text is UTF-8, its lines end at ``\n`` or ``\r\n``. Gzip, zstd and Parquet are recognised by
            their first bytes.
        tokenizer: What makes tokens, or its folder. The store gets a copy of its files.
        store: The folder to make. A finished store that is there is an error.
        documents: ``"blank_line"``: a line without text ends a document, every other line is a sentence (as
            Google's script has it); ``"line"``: each line, JSON object or row is one, and line breaks in its
            text end sentences; ``"file"``: each file. None is ``"line"`` with `field` or if all files are
            Parquet, else ``"blank_line"``. A document ends with its file at the latest.
        split_sentences: Whether what would be a sentence is text to be split into sentences: True for rules
            for Chinese and English, or a function that takes a text and gives the sentences in it.
        field: Every line is a JSON object, and the text is its string `field`; of Parquet that column, None
            is the column ``text``.
        segmenter: Says where words begin, for masking of whole words: a function that takes a sentence and
            gives its words, or ``"jieba"`` for that package. Whitespace between words may be missing. The
            first token in a word begins it. None: the vocabulary says which tokens begin words.
        shard: ``(i, n)``, i from 0 on: only the documents that begin in the i-th of n equal ranges of the
            bytes of all files; `merge_corpora` puts the shards together. Files that are compressed, Parquet
            or one document go as a whole.
        num_threads: At most; None for all cores that may be used. It does not count for functions of Python
            and tokenizers of other kinds than BERT's.
        overwrite: Begin anew, whatever store is there, finished or not; other files are an error.
        show_progress: Whether to write to stderr how far it is; None asks the logger.
        checkpoint_seconds: How long the work is at most that an interruption costs.

    Returns:
        The store, open.

    Raises:
        OSError: A file cannot be read or written; a disk that is full leaves what can be gone on with.
        ArgumentError: A line is not UTF-8 or not such an object (the message begins with
            ``name:line:``); a file is damaged or has no such column; words that are not those of the text; an
            input lies in the store's folder, or that in an input; an argument that is not as above.
        FileExistsError: There is a finished store.
        CorpusError: There is no text; there is something else in the folder, or what was begun there had
            other inputs, options or another tokenizer: the message says what differs.
        TokenizerKindError: A tokenizer that does not say which tokens begin a word.
        ImportError: A package that a format or ``"jieba"`` needs is missing: ``bertfast[corpus]``.

    Example:
        >>> corpus = build_corpus(["bible.txt"], "all-MiniLM-L6-v2/", "corpus/")
        >>> corpus.num_documents
        1189

    Source: the format of texts is that of ``create_pretraining_data.py`` of google-research/bert.
    """
    if not isinstance(tokenizer, Tokenizer):
        if not isinstance(tokenizer, (str, os.PathLike)):
            raise TypeError(
                f"tokenizer: expected a bertfast.Tokenizer or its folder, got {type(tokenizer).__name__}"
            )
        tokenizer = Tokenizer.from_pretrained(tokenizer)
    job = _Job.of(
        inputs,
        tokenizer,
        Path(store),
        documents=documents,
        split=split_sentences,
        field=field,
        segmenter=segmenter,
        shard=shard,
        num_threads=num_threads,
        checkpoint_seconds=checkpoint_seconds,
    )
    refuse_finished(store, overwrite)
    if overwrite:
        # A tokenizer that will not do is found before anything is lost.
        tokenizer_record(tokenizer)
        word_starts_of(tokenizer)
        remove_stores(store)
    job.run(is_shown(show_progress))
    return Corpus(store)


@dataclass(frozen=True)
class _Job:
    """A build, its arguments checked."""

    files: list[InputFile]
    tokenizer: Tokenizer
    folder: Path
    how: Segmentation
    split: bool
    """Whether the core splits sentences."""
    field: str | None
    shard: tuple[int, int] | None
    num_threads: int | None
    checkpoint_seconds: float
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        inputs: PathLike | Sequence[PathLike],
        tokenizer: Tokenizer,
        folder: Path,
        *,
        documents: Documents | None,
        split: bool | Splitter,
        field: str | None,
        segmenter: str | Segmenter | None,
        shard: tuple[int, int] | None,
        num_threads: int | None,
        checkpoint_seconds: float,
    ) -> _Job:
        if field is not None and not isinstance(field, str):
            raise TypeError(f"field: expected str or None, got {type(field).__name__}")
        if not isinstance(split, bool) and not callable(split):
            raise TypeError(f"split_sentences: expected a bool or a function, got {type(split).__name__}")
        check_num_threads(num_threads)
        check_shard(shard)
        if not tokenizer.files:
            raise ArgumentError("tokenizer: expected one that was opened from a folder")
        paths = given_paths(inputs)
        files = find_inputs(paths)
        check_packages(files)
        if documents is None:
            are_rows = field is not None or all(file.format == "parquet" for file in files)
            documents = "line" if are_rows else "blank_line"
        check_choice("documents", documents, DOCUMENTS)
        check_outside(folder, [*paths, *(file.path for file in files)])
        function, name = segmenter_of(segmenter)
        options = {
            "documents": documents,
            "split_sentences": split if isinstance(split, bool) else name_of(split),
            "segmenter": name,
            "field": field,
            "compat": tokenizer.compat,
        }
        how = Segmentation(documents, split if callable(split) else None, function)
        return cls(
            files,
            tokenizer,
            folder,
            how,
            split is True,
            field,
            shard,
            num_threads,
            checkpoint_seconds,
            options,
        )

    def run(self, shown: bool) -> None:
        """Builds the store."""
        existed = self.folder.exists()
        writer = self._open()
        try:
            if writer.position is None:
                position = begin(self.folder, self.files, self.tokenizer.files)
            else:
                position = go_on(self.folder, writer.position, self.files, self.tokenizer.files)
            self._append(writer, position, StatusLine(not shown))
            if writer.num_sentences == 0 and self.shard is None:
                raise CorpusError(f"inputs: expected text, found none in {_some(self.files)}")
            (self.folder / INPUTS).unlink(missing_ok=True)
            writer.finish()
        except BaseException:
            if writer.position is None or writer.num_sentences == 0:
                # Nothing to go on with: it would only be in the way of whoever corrects a mistake.
                with contextlib.suppress(OSError):
                    remove_files(self.folder)
                    if not existed:
                        self.folder.rmdir()
            raise

    def _open(self) -> _bertfast.StoreWriter:
        record = tokenizer_record(self.tokenizer)
        if record["vocab_size"] == 0:
            raise ArgumentError("tokenizer: expected tokens, got an empty vocabulary")
        description: dict[str, Any] = {"tokenizer": record, "options": self.options}
        if self.shard is not None:
            sizes = [file.size for file in self.files]
            digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:16]
            inputs = f"{len(sizes)} files, {sum(sizes)} bytes ({digest})"
            description |= {"shard": list(self.shard), "inputs": inputs}
        self._check_folder()
        try:
            writer = _bertfast.StoreWriter(
                self.folder,
                token_bits=16 if record["vocab_size"] <= 1 << 16 else 32,
                word_starts=word_starts_of(self.tokenizer),
                description=json.dumps(description),
            )
        except CorpusError as error:
            if (self.folder / JOURNAL).exists():
                raise CorpusError(f"{error} (to begin anew: overwrite)") from None
            raise
        return writer

    def _check_folder(self) -> None:
        """The writer takes a folder with a tokenizer in it, but that may be somebody else's."""
        path = self.folder / TOKENIZER
        if path.exists() and not (self.folder / JOURNAL).exists() and not (self.folder / MANIFEST).exists():
            raise CorpusError(f"{shown_path(self.folder)}: expected an empty folder, found {TOKENIZER}")

    def _append(self, writer: _bertfast.StoreWriter, position: Position, line: StatusLine) -> None:
        parts = parts_of(self.files, self.shard, self.how.documents, self.field)
        parts = [part for part in parts if part.index >= position.index]
        progress = BuildProgress(parts, writer, line)
        saved = time.monotonic()
        with contextlib.closing(_ahead(self._blocks(parts, position))) as blocks:
            for part, block in blocks:
                if block is None:
                    writer.end_document()
                    progress.part_done(part)
                    continue
                try:
                    self._append_block(writer, block)
                except ArgumentError as error:
                    raise in_file(error, part) from error
                progress.show(block.read)
                if time.monotonic() - saved >= self.checkpoint_seconds:
                    now = Position(position.inputs, part.index, block.offset, block.line)
                    writer.checkpoint(now.to_json())
                    saved = time.monotonic()

    def _blocks(
        self, parts: list[Part], position: Position
    ) -> Generator[tuple[Part, Block | None], None, None]:
        """The blocks of all parts; None is the end of one."""
        for part in parts:
            begun = part.index == position.index
            at = (position.offset, position.line) if begun else (0, 0)
            for block in blocks_of(part, self.field, *at):
                yield part, block
            yield part, None

    def _append_block(self, writer: _bertfast.StoreWriter, block: Block) -> None:
        raw = self.tokenizer.raw
        if not isinstance(raw, _bertfast.Tokenizer) or self.how.split or self.how.segmenter:
            split = _bertfast.split_sentences if self.split else self.how.split
            how = Segmentation(self.how.documents, split, self.how.segmenter)
            how.append(writer, self.tokenizer, block.lines.to_list(), block.name, block.first_line)
            return
        writer.append_lines(
            raw,
            block.lines,
            documents=self.how.documents,
            split_sentences=self.split,
            num_threads=self.num_threads,
        )


def _ahead(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """The same, each made by another thread while the one before is worked on."""
    done = object()
    with contextlib.closing(items), ThreadPoolExecutor(1) as executor:
        following = executor.submit(next, items, done)
        while (item := following.result()) is not done:
            following = executor.submit(next, items, done)
            yield item  # type: ignore[misc]


def _some(files: Sequence[InputFile]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
