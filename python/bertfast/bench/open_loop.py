"""Queries that arrive when they arrive, whether or not the ones before are answered.

A closed loop (call, wait, call) never lets a queue form, so it hides what people wait for. Here each query
has a time of arrival, several threads take them in order, and its latency counts from its arrival, so that
waiting for a free caller is part of it.

Source: Schroeder, Wierman, Harchol-Balter, "Open versus closed: a cautionary tale", NSDI 2006.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

Arrival = tuple[float, str]
"""Seconds after the start, and the query."""


def poisson(queries: Sequence[str], rate: float, seconds: float, seed: int) -> list[Arrival]:
    """Arrivals of a Poisson process: exponential gaps of mean ``1 / rate``, queries drawn at random.

    There are ``round(rate * seconds)``, at least one, so that runs of all engines and rounds are of one size.
    """
    rng = np.random.default_rng(seed)
    count = max(1, round(rate * seconds))
    times = np.cumsum(rng.exponential(1 / rate, count))
    return [
        (float(t), queries[int(i)]) for t, i in zip(times, rng.integers(0, len(queries), count), strict=True)
    ]


def answer(arrivals: Sequence[Arrival], callers: int, call: Callable[[str], object]) -> list[float]:
    """Answers every arrival on ``callers`` threads that take them in order.

    Returns:
        Seconds from each arrival to the end of its call, in the order of the arrivals.

    Raises:
        Exception: the first that ``call`` raised; the threads stop at it.
    """
    latencies = [0.0] * len(arrivals)
    numbers = iter(range(len(arrivals)))
    lock = threading.Lock()
    failures: list[Exception] = []
    start = time.perf_counter()

    def caller() -> None:
        while not failures:
            with lock:
                i = next(numbers, None)
            if i is None:
                return
            due, text = arrivals[i]
            wait = start + due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            try:
                call(text)
            except Exception as error:
                failures.append(error)
                return
            latencies[i] = time.perf_counter() - (start + due)

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return latencies
