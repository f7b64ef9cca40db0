"""One corpus to two: what is trained on, and what is held out of it."""

from __future__ import annotations

from pathlib import Path

from bertfast.arguments import check_from_0
from bertfast.errors import ArgumentError
from bertfast.pretraining.corpus import Corpus, megabytes
from bertfast.pretraining.store_files import PathLike, check_outside, refuse_finished, remove_stores


def split_corpus(
    store: PathLike,
    train: PathLike,
    held_out_store: PathLike,
    *,
    held_out: float = 0.01,
    seed: int = 0,
    overwrite: bool = False,
    show_progress: bool | None = None,
) -> tuple[Corpus, Corpus]:
    """Share the documents of a corpus between two: one to train on, one to evaluate with.

    Where a document goes is drawn with the key (seed, its tokens). So equal documents are on one side, and
    the others do not matter: neither their order, nor what is added to the corpus later. Memory does not grow
    with the corpus. Both have its tokenizer and options, and say in ``options["splits"]`` what they are.

    Args:
        store: Folder of a whole corpus, which stays as it is.
        train: The folder to make for most of the documents.
        held_out_store: The folder to make for the others.
        held_out: Probability of a document to be held out, between 0 and 1.
        seed: From 0 to 2^64 - 1; another one to split one of the two again.
        overwrite: Replace the stores, finished or not, that are there.
        show_progress: Whether to write to stderr how far it is; None asks the logger.

    Returns:
        Both, open.

    Raises:
        FileNotFoundError: There is no such corpus.
        FileExistsError: There is a finished store.
        ArgumentError: A value that is not allowed; one side would have no documents; a folder lies in
            another.
        CorpusError: The corpus is damaged or a shard, or there is something else in a folder to make.
        TokenizerError: Its tokenizer cannot be opened here.
        OSError: A file cannot be read or written. What was written is removed then.

    Example:
        >>> train, held_out = split_corpus("corpus", "train", "held_out", held_out=0.01, seed=1)
        >>> train.num_documents, held_out.num_documents
        (1177, 12)
    """
    if isinstance(held_out, bool) or not isinstance(held_out, (int, float)) or not 0 < held_out < 1:
        raise ArgumentError(f"held_out: expected a share between 0 and 1, got {held_out!r}")
    seed = check_from_0("seed", seed, 2**64 - 1)
    for folder, others in ((train, (store, held_out_store)), (held_out_store, (store,))):
        check_outside(folder, others)
        refuse_finished(folder, overwrite)
    corpus = Corpus(store)
    corpus.verify(show_progress=show_progress)
    # What is there is lost only to a split that there can be.
    corpus._store.check_split(held_out, seed)
    if overwrite:
        remove_stores(train, held_out_store)
    with megabytes(show_progress) as progress:
        corpus._store.split(Path(train), Path(held_out_store), held_out, seed, progress)
    return Corpus(train), Corpus(held_out_store)
