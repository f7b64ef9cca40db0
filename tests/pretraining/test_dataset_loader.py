"""`PretrainingDataset` in PyTorch's ``DataLoader``: the same bytes with any number and kind of workers."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bertfast.pretraining import BatchSampler, PretrainingConfig, PretrainingDataset
from bertfast.pretraining.dataset import BatchIndices
from numbered_store import numbered, random_lengths, write_store

WORKERS = [(0, None), (2, "fork"), (2, "spawn")]
Batch = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = numbered(random_lengths(60))
    return write_store(tmp_path_factory.mktemp("corpus") / "store", documents, word_every=3)


@pytest.fixture
def dataset(store: Path) -> PretrainingDataset:
    return PretrainingDataset(store, PretrainingConfig(max_seq_length=64), seed=1, num_threads=1)


def assert_is_batch(batch: Batch, expected: dict[str, np.ndarray]) -> None:
    assert set(batch) == set(expected)
    for name, values in expected.items():
        assert batch[name].dtype == torch.int64
        assert np.array_equal(batch[name].numpy(), values)


@pytest.mark.parametrize(("workers", "context"), WORKERS)
def test_whole_batches_by_the_sampler(dataset: PretrainingDataset, workers: int, context: str | None):
    sampler = BatchSampler(dataset, batch_size=16)
    loader = DataLoader(
        dataset, batch_size=None, sampler=sampler, num_workers=workers, multiprocessing_context=context
    )
    assert len(loader) == len(sampler)
    batches = list(loader)
    expected = list(BatchSampler(dataset, batch_size=16))
    assert len(batches) == len(expected) > 5
    for batch, indices in zip(batches, expected, strict=True):
        assert_is_batch(batch, dataset.batch(indices))


@pytest.mark.parametrize(("workers", "context"), WORKERS)
def test_batches_that_the_loader_collates(dataset: PretrainingDataset, workers: int, context: str | None):
    loader = DataLoader(dataset, batch_size=16, num_workers=workers, multiprocessing_context=context)
    batches = list(loader)
    assert len(batches) == -(-len(dataset) // 16)
    for number, batch in enumerate(batches):
        indices = range(16 * number, min(16 * number + 16, len(dataset)))
        assert_is_batch(batch, dataset.batch(indices))


def test_a_batch_sampler_as_such(dataset: PretrainingDataset):
    sampler = BatchSampler(dataset, max_tokens=1000, sort_by_length=True)
    for batch, indices in zip(DataLoader(dataset, batch_sampler=sampler), sampler, strict=True):
        assert_is_batch(batch, dataset.batch(indices))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_that_stay_follow_the_epochs(dataset: PretrainingDataset, context: str):
    sampler = BatchSampler(dataset, batch_size=16)
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=2,
        multiprocessing_context=context,
        persistent_workers=True,
    )
    seen = []
    for epoch in (0, 1, 5):
        sampler.set_epoch(epoch)
        batches = list(loader)
        expected = [dataset.batch(indices) for indices in sampler]
        assert dataset.epoch == epoch
        for batch, arrays in zip(batches, expected, strict=True):
            assert_is_batch(batch, arrays)
        seen.append(batches[0]["labels"].numpy().tobytes())
    assert len(set(seen)) == 3


def test_one_sample_at_a_time(dataset: PretrainingDataset):
    samples = list(DataLoader(dataset, batch_size=None))
    assert len(samples) == len(dataset)
    for index in (0, 1, len(dataset) - 1):
        for name, values in dataset[index].items():
            assert np.array_equal(np.asarray(samples[index][name]), values)


def test_shuffled_by_the_loader(dataset: PretrainingDataset):
    # The order is PyTorch's; what a sample is does not depend on it.
    loader = DataLoader(dataset, batch_size=7, shuffle=True, generator=torch.Generator().manual_seed(1))
    rows = sorted(tuple(row[row != 0].tolist()) for batch in loader for row in batch["input_ids"])
    ids = dataset.batch(range(len(dataset)))["input_ids"]
    assert rows == sorted(tuple(row[row != 0].tolist()) for row in ids)


def test_batches_of_two_epochs_at_once(dataset: PretrainingDataset):
    expected = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        expected.append(dataset.batch([3, 5]))
    dataset.set_epoch(0)

    class Slow(BatchIndices):
        """While these are looked at another thread goes to another epoch."""

        def __len__(self) -> int:
            other = threading.Thread(target=dataset.batch, args=(BatchIndices([1], 1 - self.epoch),))
            other.start()
            other.join()
            return super().__len__()

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            return np.array([self[place] for place in range(len(self))])

    for epoch in (0, 1, 0):
        for padding in ("longest", None):
            arrays = dataset.batch(Slow([3, 5], epoch), padding=padding)
            assert dataset.epoch == 1 - epoch
            found = arrays["labels"]
            wanted = expected[epoch]["labels"]
            if padding is None:
                wanted = wanted[expected[epoch]["attention_mask"] == 1]
            assert np.array_equal(found, wanted)
