"""A build of a token store: its arguments checked, and the work itself."""

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
from bertfast.pretraining.build_arguments import name_of, segmenter_of
from bertfast.pretraining.build_progress import BuildProgress
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
    remove_files,
)
from bertfast.pretraining.tokenizer_record import tokenizer_record, word_starts_of
from bertfast.text_files import shown_path
from bertfast.tokenizer import Tokenizer

T = TypeVar("T")

DOCUMENTS: tuple[Documents, ...] = ("blank_line", "line", "file")


@dataclass(frozen=True)
class BuildOptions:
    """How texts are made into a store: the arguments of `build_corpus` of these names, as they were given."""

    documents: Documents | None = None
    split_sentences: bool | Splitter = False
    field: str | None = None
    segmenter: Literal["jieba"] | Segmenter | None = None
    num_threads: int | None = None
    checkpoint_seconds: float = 10.0

    def check(self) -> None:
        """That they are what they should be.

        Raises:
            TypeError: One has a wrong type.
            ArgumentError: One has a value that is not allowed.
        """
        if self.field is not None and not isinstance(self.field, str):
            raise TypeError(f"field: expected str or None, got {type(self.field).__name__}")
        split = self.split_sentences
        if not isinstance(split, bool) and not callable(split):
            raise TypeError(f"split_sentences: expected a bool or a function, got {type(split).__name__}")
        check_num_threads(self.num_threads)
        if not isinstance(self.checkpoint_seconds, (int, float)):
            raise TypeError(
                f"checkpoint_seconds: expected a number, got {type(self.checkpoint_seconds).__name__}"
            )
        if self.documents is not None:
            check_choice("documents", self.documents, DOCUMENTS)

    def documents_of(self, files: Sequence[InputFile]) -> Documents:
        """What a document of these files is."""
        if self.documents is not None:
            return self.documents
        are_rows = self.field is not None or all(file.format == "parquet" for file in files)
        return "line" if are_rows else "blank_line"


def tokenizer_of(tokenizer: Tokenizer | PathLike) -> Tokenizer:
    """The tokenizer that is meant, which has files that a store can have copies of.

    Raises:
        TypeError: It is neither a tokenizer nor a path.
        ArgumentError: It was not opened from a folder.
        OSError: There is no such folder; and the other errors of `Tokenizer.from_pretrained`.
    """
    if not isinstance(tokenizer, Tokenizer):
        if not isinstance(tokenizer, (str, os.PathLike)):
            raise TypeError(
                f"tokenizer: expected a bertfast.Tokenizer or its folder, got {type(tokenizer).__name__}"
            )
        tokenizer = Tokenizer.from_pretrained(tokenizer)
    if not tokenizer.files:
        raise ArgumentError("tokenizer: expected one that was opened from a folder")
    return tokenizer


def files_for(inputs: PathLike | Sequence[PathLike], store: PathLike) -> list[InputFile]:
    """The files that a store is to be made from.

    Raises:
        OSError: One cannot be read.
        ArgumentError: There are none; the store is among them, or one of them in its folder.
        ImportError: A package that a format needs is missing.
    """
    paths = given_paths(inputs)
    files = find_inputs(paths)
    check_packages(files)
    check_outside(store, [*paths, *(file.path for file in files)])
    return files


@dataclass(frozen=True)
class BuildJob:
    """A build, or that of a shard."""

    files: Sequence[InputFile]
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
    """As the manifest has them."""

    @classmethod
    def of(
        cls,
        files: Sequence[InputFile],
        tokenizer: Tokenizer,
        folder: Path,
        options: BuildOptions,
        shard: tuple[int, int] | None = None,
    ) -> BuildJob:
        """What options that were checked mean for these files.

        Raises:
            ArgumentError: No such segmenter.
            ImportError: The package of the segmenter is missing.
        """
        split = options.split_sentences
        documents = options.documents_of(files)
        function, name = segmenter_of(options.segmenter)
        return cls(
            files=files,
            tokenizer=tokenizer,
            folder=folder,
            how=Segmentation(documents, split if callable(split) else None, function),
            split=split is True,
            field=options.field,
            shard=shard,
            num_threads=options.num_threads,
            checkpoint_seconds=options.checkpoint_seconds,
            options={
                "documents": documents,
                "split_sentences": split if isinstance(split, bool) else name_of(split),
                "segmenter": name,
                "field": options.field,
                "compat": tokenizer.compat,
            },
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
                raise CorpusError(f"inputs: expected text, found none in {some(self.files)}")
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


def some(files: Sequence[InputFile]) -> str:
    """What a message calls them."""
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
