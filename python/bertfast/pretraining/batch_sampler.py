"""Which samples a batch has: shuffled, of similar lengths, cut by number or by tokens, shared among ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.arguments import check_choice, check_from_0, check_positive, differences
from bertfast.errors import ArgumentError
from bertfast.pretraining.dataset import BatchIndices, Plan, PretrainingDataset

Indices = npt.NDArray[np.int64]


class BatchSampler:
    """Goes through the samples of an epoch in batches of numbers.

    Samples are taken in windows of a random order that needs no memory. Batches are cut from a window before
    they are shared: whatever `world_size` is, the ranks together have the same batches in the same order, and
    every rank has as many. Rank r has the samples r, r + world_size, ... of a batch; if a batch, such as the
    last one or with `max_tokens` the last of a window, has fewer samples than there are ranks, those that
    would have none repeat one, and `BatchIndices.repeats` says so.

    Args:
        dataset: Where the samples are; `set_epoch` here goes to its epochs.
        batch_size: Samples of a batch, of all ranks together.
        max_tokens: Instead of that: most tokens of a batch, of all ranks together, with the padding to its
            longest sample.
        shuffle: Whether samples come in a random order, another one in every epoch.
        sort_by_length: Put samples of similar lengths into a batch: the samples of a window are sorted before
            they are cut into batches, and with `shuffle` the batches of the window shuffled.
        window: Samples of a window, rounded to a multiple of `batch_size`.
        rank: Which part of every batch this process has.
        world_size: How many parts there are.
        drop_last: Leave out what does not fill a batch of `batch_size` samples.

    Raises:
        ArgumentError: A value that is not allowed, or batches that do not have a sample for every rank.

    Example:
        >>> sampler = BatchSampler(dataset, max_tokens=1 << 15, sort_by_length=True)
        >>> for indices in sampler:
        ...     batch = dataset.batch(indices, padding=None)
    """

    def __init__(
        self,
        dataset: PretrainingDataset,
        *,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        shuffle: bool = True,
        sort_by_length: bool = False,
        window: int = 1 << 16,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        if (batch_size is None) == (max_tokens is None):
            raise ArgumentError(
                f"batch_size, max_tokens: expected one of them, got {batch_size!r} and {max_tokens!r}"
            )
        self.dataset = dataset
        self.world_size = check_positive("world_size", world_size)
        self.rank = check_from_0("rank", rank, world_size - 1)
        for name, value, least in (
            ("batch_size", batch_size, world_size),
            ("max_tokens", max_tokens, world_size * dataset.config.max_seq_length),
        ):
            if value is not None and check_positive(name, value) < least:
                raise ArgumentError(
                    f"{name}: expected at least {least}, room for a sample of every rank, got {value}"
                )
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.shuffle = check_choice("shuffle", shuffle, (False, True))
        self.sort_by_length = check_choice("sort_by_length", sort_by_length, (False, True))
        self.drop_last = check_choice("drop_last", drop_last, (False, True))
        if drop_last and batch_size is None:
            raise ArgumentError("drop_last: expected it with batch_size, got it with max_tokens")
        check_positive("window", window)
        self.window = window if batch_size is None else max(window // batch_size, 1) * batch_size
        # Where the next iteration begins: batches of the epoch before it, its window, batches in that.
        self._start = (0, 0, 0)
        self._position = self._start
        # For each window that was begun: batches of the epoch before it.
        self._before: dict[int, int] = {}
        self._count: tuple[int, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, to its beginning unless it is the one at hand.

        Raises:
            ArgumentError: There is no such epoch.
        """
        if epoch != self.dataset.epoch:
            self.dataset.set_epoch(epoch)
            self._start = self._position = (0, 0, 0)
            self._before = {}

    def __iter__(self) -> Iterator[BatchIndices]:
        epoch = self.dataset.epoch
        (number, first, skipped), self._start = self._start, (0, 0, 0)
        self._before = {first: number - skipped}
        for window in range(first, self._windows()):
            self._before[window] = number - skipped
            for place, batch in enumerate(self._batches(window)):
                if place < skipped:
                    continue
                number += 1
                self._position = (number, window, place + 1)
                yield BatchIndices(self._share(batch).tolist(), epoch, self.rank >= batch.size)
            skipped = 0

    def __len__(self) -> int:
        """How many batches the epoch has. With `max_tokens` all lengths are looked at, once per epoch."""
        samples = self._samples()
        if self.batch_size is not None:
            return -(-samples // self.batch_size)
        if self._count is None or self._count[0] != self.dataset.epoch:
            count = sum(len(self._batches(window)) for window in range(self._windows()))
            self._count = (self.dataset.epoch, count)
        return self._count[1]

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where one is in the epoch, in what JSON has; and what that is an epoch of.

        Args:
            batches: How many batches of the epoch were used; None for all that were handed out. A loader with
                workers asks for some in advance, so that only its user knows how many that is.

        Raises:
            ArgumentError: Fewer batches than this iteration began with, or more than it has handed out.
        """
        number, window, place = self._position
        if batches is not None:
            least = min(self._before.values(), default=0)
            if check_from_0("batches", batches, number) < least:
                raise ArgumentError(f"batches: expected an integer from {least} to {number}, got {batches}")
            window = max((w for w, before in self._before.items() if before <= batches), default=0)
            number, place = batches, batches - self._before.get(window, 0)
        position = {"batches": number, "window": window, "batches_of_window": place}
        return {"epoch": self.dataset.epoch, **position, "settings": self._settings()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on from there: with another `rank` and `world_size`, if you like.

        Raises:
            ArgumentError: The state is of other batches: of another corpus, configuration, seed or setting.
                Nothing has changed then.
            OSError: The epoch's plan cannot be written.
        """
        try:
            numbers = [state[name] for name in ("epoch", "batches", "window", "batches_of_window")]
            settings = dict(state["settings"])
        except (KeyError, TypeError, ValueError):
            raise ArgumentError(f"state: expected what state_dict() gives, got {state!r}") from None
        epoch, number, window, place = (check_from_0("state", value, 2**62) for value in numbers)
        # Planning takes its time, and is done for batches of the same corpus only.
        _compare(self._settings(), {**settings, "samples": len(self.dataset)})
        plan = self.dataset._plan_of(epoch)
        _compare(self._settings(plan), settings)
        self.dataset._plan = plan
        self._start = self._position = (number, window, place)
        self._before = {window: number - place}

    def _settings(self, plan: Plan | None = None) -> dict[str, Any]:
        """What decides which batches there are, in the epoch of a plan; None for the one at hand."""
        names = ("batch_size", "max_tokens", "shuffle", "sort_by_length", "window", "drop_last")
        samples = (self.dataset._plan if plan is None else plan).samples
        return {
            **{name: getattr(self, name) for name in names},
            "config": asdict(self.dataset.config),
            "seed": self.dataset.seed,
            "tokens_sha256": samples.tokens_sha256,
            "samples": len(samples),
        }

    def _samples(self) -> int:
        """How many samples of the epoch are in batches."""
        samples = len(self.dataset)
        if self.drop_last and self.batch_size is not None:
            samples -= samples % self.batch_size
        return samples

    def _windows(self) -> int:
        return -(-self._samples() // self.window)

    def _batches(self, window: int) -> list[Indices]:
        """The batches of a window, of all ranks together."""
        start = window * self.window
        count = min(self.window, self._samples() - start)
        indices = self.dataset.order(start, count) if self.shuffle else np.arange(start, start + count)
        lengths = np.empty(0, np.int64)
        if self.sort_by_length or self.max_tokens is not None:
            lengths = self.dataset.lengths(indices)
        if self.sort_by_length:
            by_length = np.argsort(lengths, kind="stable")
            indices, lengths = indices[by_length], lengths[by_length]
        if self.max_tokens is None:
            assert self.batch_size is not None
            cuts = list(range(self.batch_size, count, self.batch_size))
        else:
            cuts = _cut_by_tokens(lengths, self.max_tokens)
        batches = np.split(indices, cuts)
        if self.sort_by_length and self.shuffle:
            batches = [
                batches[number] for number in self.dataset._plan.samples.batch_order(window, len(batches))
            ]
        return batches

    def _share(self, batch: Indices) -> Indices:
        """What this rank has of it."""
        if self.rank >= batch.size:
            return batch[[self.rank % batch.size]]
        return batch[self.rank :: self.world_size]


def _compare(own: dict[str, Any], settings: dict[str, Any]) -> None:
    """That settings are these; `ArgumentError` with all that are not."""
    differ = ", ".join(differences(own, settings))
    if differ:
        raise ArgumentError(f"state: expected one with {differ}")


def _cut_by_tokens(lengths: Indices, max_tokens: int) -> list[int]:
    """Where batches end but for the last: as many samples as have room, padded to the longest of them."""
    cuts: list[int] = []
    start = 0
    while True:
        # No sample is shorter than the shortest, so no batch has more samples than this.
        most = max_tokens // int(lengths[start : start + max_tokens].min())
        longest = np.maximum.accumulate(lengths[start : start + most])
        fits = longest * np.arange(1, longest.size + 1) <= max_tokens
        start += int(np.count_nonzero(fits))
        if start >= lengths.size:
            return cuts
        cuts.append(start)
