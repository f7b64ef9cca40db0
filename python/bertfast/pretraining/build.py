"""Texts to a token store: what `bertfast corpus build` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bertfast.pretraining.build_arguments import check_shard
from bertfast.pretraining.build_job import BuildJob, BuildOptions, files_for, tokenizer_of
from bertfast.pretraining.corpus import Corpus
from bertfast.pretraining.segmentation import Documents, Segmenter, Splitter
from bertfast.pretraining.store_files import PathLike, refuse_finished, remove_stores
from bertfast.pretraining.tokenizer_record import tokenizer_record, word_starts_of
from bertfast.progress import is_shown
from bertfast.tokenizer import Tokenizer


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
    tokenizer = tokenizer_of(tokenizer)
    options = BuildOptions(
        documents, split_sentences, field, segmenter, num_threads, checkpoint_seconds=checkpoint_seconds
    )
    options.check()
    check_shard(shard)
    job = BuildJob.of(files_for(inputs, store), tokenizer, Path(store), options, shard)
    refuse_finished(store, overwrite)
    if overwrite:
        # A tokenizer that will not do is found before anything is lost.
        tokenizer_record(tokenizer)
        word_starts_of(tokenizer)
        remove_stores(store)
    job.run(is_shown(show_progress))
    return Corpus(store)
