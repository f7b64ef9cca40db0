"""`BatchSampler`: every sample once, the same batches for any number of ranks, and from where one stopped."""

from __future__ import annotations

import itertools
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertfast.errors import ArgumentError
from bertfast.pretraining import BatchSampler, Masking, PretrainingConfig, PretrainingDataset
from numbered_store import numbered, random_lengths, write_store

SETTINGS = [
    {"batch_size": 16},
    {"batch_size": 16, "drop_last": True},
    {"batch_size": 10, "shuffle": False},
    {"batch_size": 10, "sort_by_length": True, "window": 64},
    {"batch_size": 10, "sort_by_length": True, "window": 64, "drop_last": True},
    {"batch_size": 10, "sort_by_length": True, "shuffle": False},
    {"max_tokens": 800},
    {"max_tokens": 800, "shuffle": False, "window": 50},
    {"max_tokens": 800, "sort_by_length": True, "window": 100},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = numbered(random_lengths(200))
    return write_store(tmp_path_factory.mktemp("corpus") / "store", documents)


@pytest.fixture
def dataset(store: Path) -> PretrainingDataset:
    return PretrainingDataset(store, PretrainingConfig(max_seq_length=64, short_seq_prob=0.5), seed=1)


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_sample_once(dataset: PretrainingDataset, settings: dict[str, Any]):
    sampler = BatchSampler(dataset, **settings)
    batches = list(sampler)
    assert len(sampler) == len(batches) > 20
    indices = list(itertools.chain.from_iterable(batches))
    assert len(set(indices)) == len(indices)
    left_out = len(dataset) % settings["batch_size"] if settings.get("drop_last") else 0
    assert len(indices) == len(dataset) - left_out
    assert settings.get("drop_last") is None or left_out > 0
    if settings.get("drop_last"):
        assert {len(batch) for batch in batches} == {settings["batch_size"]}
    elif "batch_size" in settings:
        sizes = sorted(len(batch) for batch in batches)
        assert set(sizes[1:]) == {settings["batch_size"]}
    is_sorted = settings.get("sort_by_length", False)
    if settings.get("shuffle", True):
        assert indices != sorted(indices)
        if not is_sorted:
            assert indices == dataset.order(0, len(indices)).tolist()
    elif not is_sorted:
        assert indices == sorted(indices)
    assert all(type(index) is int for index in indices)
    assert list(sampler) == batches


def lengths_of(dataset: PretrainingDataset, **settings: Any) -> list[np.ndarray]:
    return [dataset.lengths(batch) for batch in BatchSampler(dataset, **settings)]


def test_batches_of_similar_lengths(dataset: PretrainingDataset):
    def padding(batches: list[np.ndarray]) -> float:
        """Share of the batches' tokens."""
        return 1 - sum(one.sum() for one in batches) / sum(one.size * one.max() for one in batches)

    alike = lengths_of(dataset, batch_size=10, sort_by_length=True)
    assert padding(alike) < 0.03 < padding(lengths_of(dataset, batch_size=10)) / 5
    # Batches are shuffled, not the longest last; within a window without shuffling they are sorted.
    longest = [one.max() for one in alike]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.4
    in_order = lengths_of(dataset, batch_size=10, sort_by_length=True, shuffle=False)
    assert (np.diff(np.concatenate(in_order)) >= 0).all()


@pytest.mark.parametrize("sort_by_length", [False, True])
def test_a_batch_has_as_many_tokens_as_fit(dataset: PretrainingDataset, sort_by_length: bool):
    batches = lengths_of(dataset, max_tokens=500, shuffle=False, sort_by_length=sort_by_length)
    assert all(one.size * one.max() <= 500 for one in batches)
    for one, following in itertools.pairwise(batches):
        longer = np.append(one, following[0])
        assert longer.size * longer.max() > 500


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_the_same_batches(dataset: PretrainingDataset, settings: dict[str, Any], world_size: int):
    whole = list(BatchSampler(dataset, **settings))
    ranks = [
        list(BatchSampler(dataset, **settings, rank=r, world_size=world_size)) for r in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {len(whole)}
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert all(parts)
        if len(batch) >= world_size:
            assert sorted(itertools.chain(*parts)) == sorted(batch)
            sizes = {len(part) for part in parts}
            assert max(sizes) - min(sizes) <= 1
        else:
            # Ranks without a sample repeat one.
            assert set(itertools.chain(*parts)) == set(batch)
            assert {len(part) for part in parts} == {1}


def test_a_last_batch_smaller_than_the_ranks(dataset: PretrainingDataset):
    size, rest = next((size, len(dataset) % size) for size in range(8, 60) if 1 < len(dataset) % size < 8)
    samplers = [BatchSampler(dataset, batch_size=size, rank=rank, world_size=8) for rank in range(8)]
    last = [list(sampler)[-1] for sampler in samplers]
    assert [len(part) for part in last] == [1] * 8
    assert last[rest:] == (last[:rest] * 8)[: 8 - rest]
    assert len(set(map(tuple, last))) == rest


@pytest.mark.parametrize("settings", SETTINGS)
def test_going_on_where_one_stopped(store: Path, settings: dict[str, Any]):
    def fresh(**changes: Any) -> BatchSampler:
        config = PretrainingConfig(max_seq_length=64, short_seq_prob=0.5)
        return BatchSampler(PretrainingDataset(store, config, seed=1), **{**settings, **changes})

    sampler = fresh()
    sampler.set_epoch(3)
    batches = list(sampler)
    for used in (0, 1, 7, len(batches) - 1, len(batches)):
        running = fresh()
        running.set_epoch(3)
        # A loader that asks in advance has taken more than was used.
        taken = list(itertools.islice(running, min(used + 3, len(batches))))
        assert taken == batches[: used + 3]
        state = json.loads(json.dumps(running.state_dict(batches=used)))
        again = fresh()
        again.load_state_dict(state)
        assert again.dataset.epoch == 3
        assert again.state_dict() == state
        again.set_epoch(3)  # as loops over epochs do
        assert list(again) == batches[used:]
        # The state that is reached does not depend on where one began.
        assert again.state_dict()["batches"] == len(batches)
        again.set_epoch(4)
        assert again.state_dict(batches=0)["batches"] == 0
        assert list(again) != batches
        # Another number of ranks may go on.
        ranks = [fresh(rank=rank, world_size=2) for rank in range(2)]
        for rank in ranks:
            rank.load_state_dict(state)
        for batch, *parts in zip(batches[used:], *ranks, strict=True):
            assert set(itertools.chain(*parts)) == set(batch)


def test_the_state_while_it_runs(dataset: PretrainingDataset):
    sampler = BatchSampler(dataset, batch_size=10, window=30)
    assert sampler.state_dict()["batches"] == 0
    batches = list(sampler)
    for number, _ in enumerate(sampler, 1):
        state = sampler.state_dict()
        assert state["batches"] == number
        again = BatchSampler(dataset, batch_size=10, window=30)
        again.load_state_dict(state)
        assert list(itertools.islice(again, 2)) == batches[number : number + 2]
        # Where that one began is the earliest that it knows.
        if number < len(batches):
            assert again.state_dict(number)["batches"] == number
            with pytest.raises(ArgumentError, match="batches: expected an integer"):
                again.state_dict(number + 3)
    late = BatchSampler(dataset, batch_size=10, window=30)
    late.load_state_dict({**state, "batches": 6, "window": 2, "batches_of_window": 0})
    list(itertools.islice(late, 2))
    with pytest.raises(ArgumentError, match="batches: expected an integer from 6 to 8, got 5"):
        late.state_dict(5)


def test_states_of_other_batches_are_refused(dataset: PretrainingDataset, store: Path):
    state = BatchSampler(dataset, batch_size=10).state_dict()
    for changes in ({"batch_size": 12}, {"shuffle": False}, {"sort_by_length": True}, {"drop_last": True}):
        other = BatchSampler(dataset, **{"batch_size": 10, **changes})
        with pytest.raises(ArgumentError, match=f"state: expected one with {next(iter(changes))}"):
            other.load_state_dict(state)
    config = dataset.config
    other = BatchSampler(PretrainingDataset(store, config, seed=2), batch_size=10)
    with pytest.raises(ArgumentError, match="seed 2, got 1"):
        other.load_state_dict(state)
    for wrong in ({}, None, 3, {**state, "settings": 1}, {**state, "epoch": -1}, {**state, "batches": "1"}):
        with pytest.raises(ArgumentError, match="state: expected"):
            BatchSampler(dataset, batch_size=10).load_state_dict(wrong)


def test_a_state_is_taken_whole_or_not_at_all(dataset: PretrainingDataset, store: Path, tmp_path: Path):
    config = dataset.config
    running = BatchSampler(dataset, batch_size=10)
    running.set_epoch(2)
    list(itertools.islice(running, 7))
    state = json.loads(json.dumps(running.state_dict()))
    rule = replace(config, masking=Masking(unit="span", count="ceil"))
    # A token is another one, all lengths are the same.
    documents = numbered(random_lengths(200))
    documents[5][0][0] = 59_999
    other = write_store(tmp_path / "store", documents)
    for made_with, message in [
        (
            PretrainingDataset(store, rule, seed=1),
            "config.masking.count 'ceil', got 'round', config.masking.unit 'span', got 'token'",
        ),
        (PretrainingDataset(store, replace(config, short_seq_prob=0.4), seed=1), "config.short_seq_prob 0.4"),
        (PretrainingDataset(other, config, seed=1), r"tokens_sha256 '\w{64}', got '\w{64}'$"),
        (PretrainingDataset(store, config, seed=2), "seed 2, got 1$"),
    ]:
        sampler = BatchSampler(made_with, batch_size=10)
        before = list(sampler)
        list(itertools.islice(sampler, 3))
        at = sampler.state_dict()
        with pytest.raises(ArgumentError, match=f"state: expected one with {message}"):
            sampler.load_state_dict(state)
        assert made_with.epoch == 0
        assert sampler.state_dict() == at
        assert list(sampler) == before
    # What only shows when the epoch is planned changes nothing either.
    sampler = BatchSampler(PretrainingDataset(store, config, seed=1), batch_size=10)
    wrong = {**state, "settings": {**state["settings"], "samples": 3}}
    with pytest.raises(ArgumentError, match="state: expected one with samples"):
        sampler.load_state_dict(wrong)
    assert (sampler.dataset.epoch, sampler.state_dict()["batches"]) == (0, 0)
    sampler.load_state_dict(state)
    assert (sampler.dataset.epoch, sampler.state_dict()["batches"]) == (2, 7)


def test_epochs_have_orders_of_their_own(dataset: PretrainingDataset):
    sampler = BatchSampler(dataset, batch_size=10, sort_by_length=True)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert dataset.epoch == 1
    assert {batch.epoch for batch in second} == {1}
    assert first[:5] != second[:5]
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_batches_carry_their_epoch_through_a_pickle(dataset: PretrainingDataset):
    batch = next(iter(BatchSampler(dataset, batch_size=10)))
    again = pickle.loads(pickle.dumps(batch))
    assert again == batch
    assert again.epoch == batch.epoch == 0
    arrays = dataset.batch(batch)
    dataset.set_epoch(1)
    assert np.array_equal(dataset.batch(again)["labels"], arrays["labels"])
    assert dataset.epoch == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "batch_size, max_tokens: expected one of them, got None and None"),
        ({"batch_size": 1, "max_tokens": 100}, "got 1 and 100"),
        ({"batch_size": 0}, "batch_size: expected a positive integer, got 0"),
        ({"batch_size": 2.0}, "batch_size: expected a positive integer, got 2.0"),
        (
            {"batch_size": 3, "world_size": 4},
            "batch_size: expected at least 4, room for a sample of every rank",
        ),
        ({"max_tokens": 63}, "max_tokens: expected at least 64"),
        ({"max_tokens": 127, "world_size": 2}, "max_tokens: expected at least 128"),
        ({"batch_size": 8, "world_size": 0}, "world_size: expected a positive integer, got 0"),
        ({"batch_size": 8, "world_size": 2, "rank": 2}, "rank: expected an integer from 0 to 1, got 2"),
        ({"batch_size": 8, "rank": -1}, "rank: expected an integer from 0 to 0, got -1"),
        ({"batch_size": 8, "window": 0}, "window: expected a positive integer, got 0"),
        ({"max_tokens": 100, "drop_last": True}, "drop_last: expected it with batch_size"),
        ({"batch_size": 8, "shuffle": "yes"}, "shuffle: expected one of False, True, got 'yes'"),
    ],
)
def test_what_is_not_allowed(dataset: PretrainingDataset, settings: dict[str, Any], message: str):
    with pytest.raises(ArgumentError, match=message):
        BatchSampler(dataset, **settings)
