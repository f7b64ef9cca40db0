"""The samples of a corpus as a dataset: any of them, in any order, from its number alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, overload

import numpy as np
import numpy.typing as npt

from bertfast import _bertfast
from bertfast.arguments import as_array, check_choice, check_from_0, check_num_threads, is_int
from bertfast.errors import DtypeError, ShapeError
from bertfast.pretraining.config import PretrainingConfig
from bertfast.pretraining.corpus import Corpus, HasVocabulary
from bertfast.pretraining.masking import MAX_EPOCH

Arrays = dict[str, npt.NDArray[Any]]
Indices = Sequence[int] | npt.NDArray[np.integer[Any]]


class HasFolder(Protocol):
    """A corpus that is open: its folder is opened again."""

    @property
    def folder(self) -> str | os.PathLike[str]:
        """Where it lies."""


class BatchIndices(list[int]):
    """The numbers of a batch's samples, with the epoch that they belong to.

    Attributes:
        epoch: That one.
        repeats: Whether another process has these samples too, because there are not enough for all of them:
            they then count there.

    A worker of a loader that outlives an epoch has a dataset of its own, which nobody tells of the next: so
    it is told with every batch.
    """

    epoch: int
    repeats: bool

    def __init__(self, indices: Sequence[int] = (), epoch: int = 0, repeats: bool = False) -> None:
        super().__init__(indices)
        self.epoch = epoch
        self.repeats = repeats

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchIndices, (list(self), self.epoch, self.repeats)


class Plan(NamedTuple):
    """An epoch, and where its samples are."""

    epoch: int
    samples: _bertfast.Samples


class PretrainingDataset:
    """Samples for pretraining: a map-style dataset, for PyTorch's ``DataLoader`` or without PyTorch.

    An epoch is planned when it begins: one pass over the sentences says where each sample is, 16 bytes a
    sample in a file without a name, which is mapped. From then on sample ``i`` is made from its number, with
    the random numbers of (seed, epoch, i): the same bytes in any batch, order, thread, worker or rank.

    With a ``DataLoader``, `BatchSampler` as its ``sampler`` is the fastest::

        DataLoader(dataset, batch_size=None, sampler=BatchSampler(dataset, batch_size=256), num_workers=2)

    Then the loader hands on whole batches, and the sampler tells workers which epoch it is. With
    ``batch_size=256, shuffle=True`` it works as well, and rows are padded to the longest of the batch; call
    `set_epoch` before each epoch, and leave ``persistent_workers`` off. Forked workers share the plan;
    spawned ones make it again.

    Args:
        store: Folder of a token store, or an open corpus.
        config: What samples are; BERT's if it is left out.
        seed: From 0 to 2^64 - 1.
        epoch: The first one, from 0 on: 2^28 of them, divided by ``dupe_factor``.
        tokenizer: Of the model that is to be trained, of bertfast or transformers: its vocabulary is compared
            with the store's. Samples are made with what the store knows.
        num_threads: For the plan and for large batches; None for all cores that may be used.
        plan_folder: Where the plan's file is; None for ``tempfile.gettempdir()``. In a folder in memory, such
            as many a ``/tmp``, the plan takes memory.

    Raises:
        FileNotFoundError: There is no such store or folder.
        OSError: The store cannot be read, or the plan not be written.
        CorpusError: The store is damaged, or was built with another vocabulary than the tokenizer's.
        ArgumentError: A value that is not allowed, a store without documents, one document where
            ``"nsp"`` needs another, or not enough text for a single sample.

    Example:
        >>> dataset = PretrainingDataset("corpus", PretrainingConfig.preset("bert"), seed=1)
        >>> dataset.set_epoch(3)
        >>> batch = dataset.batch(range(32))
        >>> batch["input_ids"].shape, batch["next_sentence_label"].shape
        ((32, 128), (32,))
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | HasFolder,
        config: PretrainingConfig | None = None,
        *,
        seed: int,
        epoch: int = 0,
        tokenizer: HasVocabulary | None = None,
        num_threads: int | None = None,
        plan_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if plan_folder is None:
            import tempfile

            plan_folder = tempfile.gettempdir()
        if config is not None and not isinstance(config, PretrainingConfig):
            raise TypeError(f"config: expected PretrainingConfig, got {type(config).__name__}")
        self.config = PretrainingConfig() if config is None else config
        self.folder = Path(store if isinstance(store, (str, os.PathLike)) else store.folder)
        if tokenizer is not None:
            Corpus(self.folder).check_vocabulary(tokenizer)
        self.seed = check_from_0("seed", seed, 2**64 - 1)
        self.num_threads = check_num_threads(num_threads)
        self.plan_folder = Path(plan_folder)
        epoch = check_from_0("epoch", epoch, MAX_EPOCH)
        samples = _bertfast.Samples(
            self.folder,
            self.config,
            seed=self.seed,
            epoch=epoch,
            plan_folder=self.plan_folder,
            num_threads=self.num_threads,
        )
        # Replaced at once: threads may ask for batches of several epochs.
        self._plan = Plan(epoch, samples)

    @property
    def epoch(self) -> int:
        """Which epoch it is."""
        return self._plan.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch: plans it, which may change how many samples there are.

        Raises:
            ArgumentError: There is no such epoch.
            OSError: The plan cannot be written.
            CorpusError: The store is damaged.
        """
        self._plan = self._plan_of(epoch)

    def _plan_of(self, epoch: int) -> Plan:
        """The plan of an epoch, to which it does not go; the one at hand if that is it."""
        epoch, plan = check_from_0("epoch", epoch, MAX_EPOCH), self._plan
        if epoch == plan.epoch:
            return plan
        samples = plan.samples.of_epoch(epoch, plan_folder=self.plan_folder, num_threads=self.num_threads)
        return Plan(epoch, samples)

    def __len__(self) -> int:
        """How many samples the epoch has."""
        return len(self._plan.samples)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: Indices) -> Arrays: ...
    def __getitem__(self, index: Any) -> Any:
        """A sample, or a padded batch of several.

        Args:
            index: A number, from the end if it is negative, or numbers as for `batch`.

        Returns:
            For one sample int64 arrays of (S,), S its own length: ``input_ids``, ``token_type_ids`` (pairs
            only), ``attention_mask``, ``labels``; and ``next_sentence_label`` (``"nsp"``) or
            ``sentence_order_label`` (``"sop"``), an int64. For several what `batch` returns.

        Raises:
            IndexError: There is no such sample.
        """
        if not is_int(index):
            return self.batch(index)
        index, samples = int(index), self._plan.samples
        own = index + len(samples) if -len(samples) <= index < 0 else index
        # One that does not fit into 64 bits is no index either.
        batch = samples.padded(np.array([own if abs(own) < 2**63 else -1]), max_length=False, num_threads=1)
        return {name: values[0] for name, values in batch.items()}

    def __getitems__(self, indices: Indices) -> list[dict[str, Any]]:
        """Samples as rows of one padded batch, for the collation of a ``DataLoader``."""
        batch = self.batch(indices)
        return [{name: values[row] for name, values in batch.items()} for row in range(len(indices))]

    def batch(self, indices: Indices, padding: Literal["longest", "max_length"] | None = "longest") -> Arrays:
        """A batch of samples.

        Args:
            indices: (B,) their numbers, none of them negative.
            padding: Pad rows to the longest of them or to ``max_seq_length``; None for a ragged batch.

        Returns:
            With padding int64 arrays of (B, S): ``input_ids``, ``token_type_ids`` (pairs only),
            ``attention_mask``, ``labels``. Labels are -100 where nothing is masked, padding included.
            Without padding samples end to end: ``input_ids``, ``token_type_ids`` (pairs only), ``labels``,
            all (T,) int32; ``cu_seqlens`` (B + 1,) int64, where each begins, and T; ``masked_positions``
            (M,) int64, the places in T that have a label. In both, for pairs, ``next_sentence_label`` (1:
            another document) or ``sentence_order_label`` (1: swapped), (B,) int64.

        Raises:
            IndexError: There is no such sample.
            DtypeError: Indices that are no integers.
            ShapeError: They are not one-dimensional.
            CorpusError: The store is damaged.
            OSError: Indices of another epoch, whose plan cannot be written.
        """
        check_choice("padding", padding, ("longest", "max_length", None))
        epoch = getattr(indices, "epoch", None)
        plan = self._plan
        if epoch is not None and epoch != plan.epoch:
            plan = self._plan = self._plan_of(epoch)
        numbers = _as_indices(indices)
        if padding is None:
            return plan.samples.ragged(numbers, num_threads=self.num_threads)
        return plan.samples.padded(numbers, max_length=padding == "max_length", num_threads=self.num_threads)

    def lengths(self, indices: Indices | None = None) -> npt.NDArray[np.int64]:
        """(B,) how many tokens samples have, of all if none are named, without making them.

        Raises:
            IndexError: There is no such sample.
        """
        samples = self._plan.samples
        return samples.lengths(np.arange(len(samples)) if indices is None else _as_indices(indices))

    def order(self, start: int = 0, count: int | None = None) -> npt.NDArray[np.int64]:
        """A part of the epoch's random order of all samples, in time and memory of that part alone.

        Args:
            start: Where it begins in the order.
            count: How many; None for all from there on.

        Returns:
            (count,) the numbers of samples.

        Raises:
            ArgumentError: There are not that many.
        """
        samples = self._plan.samples
        start = check_from_0("start", start, len(samples))
        most = len(samples) - start
        return samples.order(start, most if count is None else check_from_0("count", count, most))

    def __reduce__(self) -> tuple[Any, ...]:
        settings = (self.folder, self.config, self.seed, self.epoch, self.num_threads, self.plan_folder)
        return _restore, settings

    def __repr__(self) -> str:
        return (
            f"PretrainingDataset({str(self.folder)!r}, {self.config}, seed={self.seed}, "
            f"epoch={self.epoch}: {len(self)} samples)"
        )


def _restore(
    folder: Path,
    config: PretrainingConfig,
    seed: int,
    epoch: int,
    num_threads: int | None,
    plan_folder: Path,
) -> PretrainingDataset:
    return PretrainingDataset(
        folder, config, seed=seed, epoch=epoch, num_threads=num_threads, plan_folder=plan_folder
    )


def _as_indices(indices: Indices) -> npt.NDArray[np.int64]:
    numbers = as_array("indices", indices)
    if numbers.ndim != 1:
        raise ShapeError(f"indices: expected shape (B,), got {numbers.shape}")
    if numbers.dtype == np.int64 and numbers.flags.c_contiguous:
        return numbers
    if numbers.dtype.kind not in "iu" and numbers.size:
        raise DtypeError(f"indices: expected integers, got {numbers.dtype}")
    if numbers.dtype == np.uint64 and numbers.size and numbers.max() > np.iinfo(np.int64).max:
        raise IndexError(f"indices: expected numbers in 0..2**63, got {numbers.max()}")
    return np.ascontiguousarray(numbers, np.int64)
