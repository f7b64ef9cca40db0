"""Arrivals, and threads that answer them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from bertfast.bench.open_loop import answer, poisson


def test_arrivals_are_a_poisson_process():
    arrivals = poisson(["a", "b", "c"], rate=50.0, seconds=200.0, seed=1)
    gaps = np.diff([0.0, *(t for t, _ in arrivals)])
    assert len(arrivals) == 10_000
    # Mean and deviation of an exponential law are equal; that of the mean of 10,000 is 1 %.
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.05)
    assert (gaps > 0).all()
    assert {text for _, text in arrivals} == {"a", "b", "c"}


def test_arrivals_are_reproducible_and_at_least_one():
    assert poisson(["a", "b"], 10, 1, seed=3) == poisson(["a", "b"], 10, 1, seed=3)
    assert poisson(["a", "b"], 10, 1, seed=3) != poisson(["a", "b"], 10, 1, seed=4)
    assert len(poisson(["a"], 0.1, 1, seed=0)) == 1


def test_every_arrival_is_answered_once_and_not_before_its_time():
    arrivals = [(i * 0.01, str(i)) for i in range(20)]
    called: dict[str, float] = {}
    start = time.perf_counter()
    latencies = answer(arrivals, 3, lambda text: called.setdefault(text, time.perf_counter() - start))
    assert called.keys() == {str(i) for i in range(20)}
    for (due, text), latency in zip(arrivals, latencies, strict=True):
        assert called[text] >= due
        assert latency > 0


def test_waiting_for_a_free_caller_is_part_of_the_latency():
    # Ten arrive at once, each takes 20 ms, two at a time: the last pair waits for four others.
    latencies = answer([(0.0, "x")] * 10, 2, lambda _: time.sleep(0.02))
    assert sorted(latencies)[-1] >= 0.1
    assert sorted(latencies)[0] < sorted(latencies)[-1] / 2


def test_callers_call_at_the_same_time():
    meeting = threading.Barrier(3, timeout=30)
    assert len(answer([(0.0, "x")] * 3, 3, lambda _: meeting.wait())) == 3


def test_a_failure_ends_it():
    calls = []

    def call(text: str) -> None:
        calls.append(text)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        answer([(0.0, str(i)) for i in range(1000)], 2, call)
    assert len(calls) <= 2
