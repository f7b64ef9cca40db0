"""A corpus that many machines build: shards as tasks of Ray, and the store that they make together."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from bertfast.arguments import check_positive
from bertfast.distributed.cluster import (
    cause_of,
    connect,
    fitting,
    import_ray,
    nodes,
    on_every_node,
    renamed,
)
from bertfast.distributed.shard_folder import ANEW, ShardFolder, ShardWork
from bertfast.errors import ArgumentError, ClusterError, CorpusError
from bertfast.file_progress import StatusLine, remaining
from bertfast.pretraining.build_job import BuildJob, BuildOptions, files_for, some, tokenizer_of
from bertfast.pretraining.corpus import Corpus, merge_corpora
from bertfast.pretraining.inputs import InputFile, given_paths
from bertfast.pretraining.segmentation import Documents, Segmenter, Splitter
from bertfast.pretraining.store_files import (
    MANIFEST,
    PathLike,
    check_outside,
    check_own,
    refuse_finished,
    remove_stores,
)
from bertfast.pretraining.tokenizer_record import tokenizer_record, word_starts_of
from bertfast.progress import is_shown
from bertfast.text_files import shown_path
from bertfast.tokenizer import Tokenizer

_ROUNDS = 4
"""Shards for each that is built at the same time: the last ones then end at about the same time."""

_SMALLEST, _LARGEST = 8 << 20, 1 << 30
"""Bytes of a shard. Less is not worth a task; more is much to do again when a node dies."""


def build_corpus(
    inputs: PathLike | Sequence[PathLike],
    tokenizer: Tokenizer | PathLike,
    store: PathLike,
    *,
    documents: Documents | None = None,
    split_sentences: bool | Splitter = False,
    field: str | None = None,
    segmenter: Literal["jieba"] | Segmenter | None = None,
    num_shards: int | None = None,
    num_cpus: int = 1,
    max_retries: int = 3,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool | None = None,
    address: str | None = None,
) -> Corpus:
    """Tokenize texts once, on a cluster: the files of the store have the bytes of a build on one machine.

    The inputs and the folder of the store must be on a file system that all nodes share, under the same
    names; inputs may also be equal copies. The tokenizer is sent to the nodes. Shards are built as tasks of
    Ray in ``STORE.shards``, which goes away when they have been merged: there must be room for everything
    twice. A shard of a node that dies is built again on another one. When this process dies, or is
    interrupted, what is whole stays.

    Args:
        inputs: As of `bertfast.pretraining.build_corpus`. Files that are compressed, Parquet or one document
            are not divided: many of them, none of them large, are what a cluster can do at the same time.
        tokenizer: As there.
        store: As there.
        documents: As there.
        split_sentences: As there; a function is sent to the nodes.
        field: As there.
        segmenter: As there; a function is sent to the nodes.
        num_shards: How many; it changes nothing in the store. None: four for each that fits on the cluster
            now, but of 8 MiB to 1 GiB of input; or those of what is gone on with.
        num_cpus: CPUs that the task of a shard reserves, and threads that it computes with. One is the
            fastest for the cluster as a whole, unless there are few files that cannot be divided.
        max_retries: How often a shard is built again after its node or worker died; -1 for no limit.
        resume: Go on with the shards that are there, if the arguments and inputs are those they were begun
            with; without any, begin.
        overwrite: Begin anew, whatever store or shards are there; other files are an error.
        show_progress: Whether to write to stderr how far it is; None asks the logger.
        address: Of the cluster, as `connect` has it, unless Ray is connected already.

    Returns:
        The store, open.

    Raises:
        ClusterError: There is no cluster at the address; a node has another file or folder under a name,
            another bertfast or other options; a worker died too often. The message names the node or shard.
        FileNotFoundError: An input is missing here, or on a node: the message names both.
        CorpusError: There are shards, and `resume` is not asked for, or not with these arguments; another
            process is building them; and the others of `bertfast.pretraining.build_corpus`.
        ArgumentError: `resume` and `overwrite` are asked for; no node has so many CPUs; and the others of
            `bertfast.pretraining.build_corpus`, such as a line that is not UTF-8.
        FileExistsError: There is a finished store.
        TypeError: A function cannot be sent to other machines.
        ImportError: Ray is not installed, or another package here or on a node.
        OSError: A file cannot be read or written.

    Example:
        >>> corpus = build_corpus("/shared/texts", "/shared/bert", "/shared/corpus")  # doctest: +SKIP
        >>> corpus.num_documents  # doctest: +SKIP
        1189

    Source: `bertfast.pretraining.build_corpus` with its ``shard``, and `bertfast.pretraining.merge_corpora`.
    """
    ray = import_ray()
    if resume and overwrite:
        raise ArgumentError("resume: expected it without overwrite, which begins anew")
    check_positive("num_cpus", num_cpus)
    if num_shards is not None:
        check_positive("num_shards", num_shards)
    _check_retries(max_retries)
    # No checkpoints: what is not whole is not gone on with.
    options = BuildOptions(documents, split_sentences, field, segmenter, num_cpus, math.inf)
    options.check()
    tokenizer = tokenizer_of(tokenizer)
    # A tokenizer that will not do is found before the cluster is asked, or anything is lost.
    tokenizer_record(tokenizer)
    word_starts_of(tokenizer)
    paths = given_paths(inputs)
    files = files_for(paths, store)
    folder = ShardFolder(store)
    check_outside(folder.path, [*paths, *(file.path for file in files)])
    described = BuildJob.of(files, tokenizer, Path(store), options).options
    if not resume:
        refuse_finished(store, overwrite)
    line = StatusLine(not is_shown(show_progress))
    # Who is connected already stays so: then nobody else ends the tasks that are left.
    cancel = ray.is_initialized()
    with folder.locked(), connect(address, quiet=not is_shown(show_progress)):
        at_once = fitting(num_cpus, "num_cpus")
        if resume and folder.is_begun:
            key, count = folder.go_on(files, tokenizer, described, num_shards)
            if folder.is_merging and Path(store, MANIFEST).exists():
                # The end came behind the merge.
                folder.clear()
                return Corpus(store)
            refuse_finished(store, False)
            if not folder.is_merging:
                _check_empty(store)
        else:
            _make_room(store, folder, overwrite)
            count = num_shards or _number_of_shards(files, at_once)
            key = folder.begin(files, tokenizer, described, count)
        work = ShardWork(folder.path, key, files, tokenizer, options, described, count)
        try:
            sent = _send(work)
            if overwrite:
                # Not before everything that is needed has been found on every node.
                remove_stores(store)
            _build_shards(work, sent, folder, num_cpus, max_retries, line, cancel)
            _merge(files, folder, count, store, line)
        except BaseException:
            if not folder.finished(count):
                # Nothing to go on with: it would only be in the way of whoever corrects a mistake.
                folder.clear()
            raise
        folder.clear()
    return Corpus(store)


def _check_retries(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        raise ArgumentError(f"max_retries: expected an integer from -1 on, got {value!r}")


def _make_room(store: PathLike, folder: ShardFolder, overwrite: bool) -> None:
    if not overwrite:
        if folder.is_begun:
            raise CorpusError(
                f"{shown_path(folder.path)}: has shards of an unfinished corpus: resume it, or overwrite it"
            )
        refuse_finished(store, overwrite)
        _check_empty(store)
    elif os.path.lexists(store):
        check_own(Path(store))
    folder.clear()


def _check_empty(store: PathLike) -> None:
    # The merge would say that too, but only when everything is done.
    if os.path.lexists(store) and (names := sorted(os.listdir(store))):
        raise CorpusError(f"{shown_path(store)}: expected an empty folder, found {names[0]}")


def _number_of_shards(files: Sequence[InputFile], at_once: int) -> int:
    total = sum(file.size for file in files)
    size = min(max(total // (_ROUNDS * at_once), _SMALLEST), _LARGEST)
    return max(1, round(total / size))


def _send(work: ShardWork) -> Any:
    """What tasks get in its place, when every node has said that it can do the work."""
    ray = import_ray()
    try:
        sent = ray.put(work)
    except TypeError as error:
        reason = str(error).strip().splitlines()[0]
        raise TypeError(
            f"split_sentences, segmenter: expected what can be sent to nodes: {reason}"
        ) from error
    while True:
        asked = {node.id for node in nodes()}
        try:
            on_every_node(_check, sent)
        except ClusterError:
            # One that died meanwhile can say nothing, and need not.
            if asked <= {node.id for node in nodes()}:
                raise
        else:
            return sent


def _build_shards(
    work: ShardWork,
    sent: Any,
    folder: ShardFolder,
    num_cpus: int,
    max_retries: int,
    line: StatusLine,
    cancel: bool,
) -> None:
    ray = import_ray()
    done = folder.finished(work.num_shards)
    left = sorted({*range(work.num_shards)} - {*done})
    if done:
        line.say(f"going on: {len(done)} of {work.num_shards} shards are there")
    remote = ray.remote(_build).options(
        name="bertfast corpus build",
        num_cpus=num_cpus,
        max_retries=max_retries,
        scheduling_strategy="SPREAD",
    )
    tasks = {remote.remote(sent, index): index for index in left}
    try:
        while tasks:
            # Not for ever at once: somebody may want to see how far it is, or to stop it.
            ready, _ = ray.wait(list(tasks), timeout=0.5)
            for task in ready:
                index = tasks.pop(task)
                try:
                    ray.get(task)
                except ray.exceptions.RayError as error:
                    raise _shard_error(error, index, work.num_shards) from error
            if line.is_due():
                _show(line, work.num_shards, len(done), len(tasks))
    finally:
        # Not where the connection ends anyway, which ends them too: a task that ends while it is cancelled
        # can end this process (a race in Ray).
        if tasks and cancel:
            for task in tasks:
                ray.cancel(task)
            ray.wait(list(tasks), num_returns=len(tasks), timeout=10)


def _check(work: ShardWork) -> None:
    """On a node: that it can build shards."""
    work.check()


def _build(work: ShardWork, index: int) -> None:
    """On a node: builds a shard."""
    try:
        work.build(index)
    except (OSError, ImportError, ClusterError) as error:
        # What is wrong in an input is so everywhere; this may be the fault of the node.
        ray = import_ray()
        raise renamed(error, f"node {ray.util.get_node_ip_address()}") from None


def _shard_error(error: BaseException, index: int, count: int) -> BaseException:
    cause = cause_of(error)
    if isinstance(cause, ClusterError) and str(cause).startswith("Ray: "):
        return ClusterError(f"shard {index} of {count}: {cause}")
    return cause


def _show(line: StatusLine, count: int, before: int, left: int) -> None:
    done = count - left
    text = f"{done} of {count} shards, {done / count:.0%}"
    if done > before:
        text += f", {remaining(line.elapsed, (done - before) / (count - before))} left"
    line.show(text)


def _merge(
    files: Sequence[InputFile], folder: ShardFolder, count: int, store: PathLike, line: StatusLine
) -> None:
    missing = sorted({*range(count)} - {*folder.finished(count)})
    if missing:
        raise ClusterError(
            f"{shown_path(folder.path)}: expected shard {missing[0]}, which a node has built, found none: "
            "does every node see the same folder?"
        )
    shards = folder.shards(count)
    if not any(Corpus(shard).num_documents for shard in shards):
        # There is nothing to go on with.
        folder.clear()
        raise CorpusError(f"inputs: expected text, found none in {some(files)}")
    again = folder.is_merging
    folder.begin_merging()
    line.say(f"merging {count} shard{'s' if count > 1 else ''}")
    try:
        merge_corpora(shards, store, overwrite=again, show_progress=False)
    except CorpusError as error:
        raise CorpusError(f"{error} {ANEW}") from error
