"""Statistical checks that fail by chance less than once in ten million times each.

A run makes a few hundred of them, so that all together one fails by chance with a probability below 1e-4; and
as the code under test is deterministic, a check with a fixed seed that passed once passes always. Counts are
in units that are independent of each other, or less spread than such (drawn without replacement); what hangs
together is for `same_means`, which measures the spread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping

import numpy as np
import numpy.typing as npt
from scipy import stats

CHANCE = 1e-7
"""Probability that one check rejects what is true."""
SMALLEST = 40.0
"""Cells that expect fewer are pooled: the chi-square distribution must hold far out in its tail."""


def demand(probability: float, what: str) -> None:
    """Reject, if what is true would come out like this, or worse, with this probability."""
    __tracebackhide__ = True
    assert probability >= CHANCE, f"{what}: a chance of {probability:.1e}"


def share(successes: int, trials: int, expected: float) -> None:
    """Exact two-sided test of a binomial share."""
    __tracebackhide__ = True
    successes, trials = int(successes), int(trials)
    assert trials > 0, "no trials"
    tail = min(stats.binom.cdf(successes, trials, expected), stats.binom.sf(successes - 1, trials, expected))
    found = successes / trials
    demand(min(1.0, 2 * tail), f"share {found:.6f} of {trials} instead of {expected:.6f}")


def detectable(trials: int, expected: float) -> float:
    """The relative bias of a share that `share` finds in nine of ten cases."""
    distance = stats.norm.isf(CHANCE / 2) + stats.norm.isf(0.1)
    return float(distance * np.sqrt((1 - expected) / (expected * trials)))


def pooled(expected: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(C,) which cell each cell goes into, so that every one expects enough: the rarest share the last."""
    order = np.argsort(expected, kind="stable")
    rare = int((expected < SMALLEST).sum())
    if rare:
        rare = max(rare, int(np.searchsorted(np.cumsum(expected[order]), SMALLEST)) + 1)
    cells = np.empty(len(expected), np.int64)
    cells[order] = np.maximum(len(expected) - 1 - np.arange(len(expected)), 0)
    return np.minimum(cells, max(len(expected) - rare, 0))


def counts(observed: npt.ArrayLike, shares: npt.ArrayLike) -> None:
    """Chi-square test of counts (C,) against expected shares (C,). What is impossible must not occur."""
    __tracebackhide__ = True
    seen = np.asarray(observed, float).ravel()
    expected = np.asarray(shares, float).ravel()
    assert seen.shape == expected.shape
    assert abs(expected.sum() - 1) < 1e-9, f"shares add up to {expected.sum()}"
    possible = expected > 0
    assert not seen[~possible].any(), f"impossible: {np.flatnonzero(seen * ~possible)[:10]}"
    expected = expected[possible] * seen.sum()
    cells = pooled(expected)
    seen, expected = np.bincount(cells, seen[possible]), np.bincount(cells, expected)
    assert len(seen) > 1, "nothing to compare"
    value = float(((seen - expected) ** 2 / expected).sum())
    worst = np.argmax(np.abs(seen - expected) / np.sqrt(expected))
    demand(
        float(stats.chi2.sf(value, len(seen) - 1)),
        f"chi-square {value:.0f} of {len(seen)} cells; {seen[worst]:.0f} instead of {expected[worst]:.0f}",
    )


def outcomes(observed: Mapping[Hashable, int], shares: Mapping[Hashable, float]) -> None:
    """`counts` for outcomes of any kind."""
    __tracebackhide__ = True
    unknown = {key: observed[key] for key in observed.keys() - shares.keys()}
    assert not unknown, f"impossible: {list(unknown.items())[:10]}"
    keys = sorted(shares, key=repr)
    counts([observed.get(key, 0) for key in keys], [shares[key] for key in keys])


def uniform(values: npt.ArrayLike, size: int) -> None:
    """Chi-square test of integers against the uniform distribution on 0..size-1."""
    __tracebackhide__ = True
    integers = np.asarray(values).ravel()
    assert len(integers), "no values"
    outside = integers[(integers < 0) | (integers >= size)]
    assert not len(outside), f"{outside[:3]} of 0..{size - 1}"
    counts(np.bincount(integers, minlength=size), np.full(size, 1 / size))


def same_counts(first: npt.ArrayLike, second: npt.ArrayLike) -> None:
    """Chi-square test that two samples of counts (C,) have the same distribution."""
    __tracebackhide__ = True
    both = np.stack([np.asarray(first, float).ravel(), np.asarray(second, float).ravel()], axis=1)
    both = both[both.sum(axis=1) > 0]
    totals = both.sum(axis=0)
    assert totals.min() > 0, "an empty sample"
    # What the smaller sample expects in a cell decides whether it is pooled.
    cells = pooled(both.sum(axis=1) * totals.min() / totals.sum())
    both = np.stack([np.bincount(cells, column) for column in both.T], axis=1)
    assert len(both) > 1, "nothing to compare"
    expected = both.sum(axis=1, keepdims=True) * totals / totals.sum()
    value = float(((both - expected) ** 2 / expected).sum())
    worst = np.argmax(np.abs(both - expected).sum(axis=1) / np.sqrt(expected.sum(axis=1)))
    demand(
        float(stats.chi2.sf(value, len(both) - 1)),
        f"chi-square {value:.0f} of {len(both)} cells; {both[worst] / totals} of each",
    )


def same_outcomes(first: Mapping[Hashable, int], second: Mapping[Hashable, int]) -> None:
    """`same_counts` for outcomes of any kind."""
    __tracebackhide__ = True
    keys = sorted(first.keys() | second.keys(), key=repr)
    same_counts([first.get(key, 0) for key in keys], [second.get(key, 0) for key in keys])


def independent(first: npt.ArrayLike, second: npt.ArrayLike) -> None:
    """Chi-square test that two columns of small integers do not depend on each other."""
    __tracebackhide__ = True
    _, rows = np.unique(np.asarray(first).ravel(), return_inverse=True)
    _, columns = np.unique(np.asarray(second).ravel(), return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    assert min(table.shape) > 1, "nothing to compare"
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    assert expected.min() >= 5, f"cells that expect {expected.min():.1f}: too few values"
    value = float(((table - expected) ** 2 / expected).sum())
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    demand(float(stats.chi2.sf(value, freedom)), f"dependence: chi-square {value:.0f} of {freedom}")


def same_distribution(first: npt.ArrayLike, second: npt.ArrayLike) -> None:
    """Kolmogorov-Smirnov test of two samples of numbers; where values repeat it is milder than stated."""
    __tracebackhide__ = True
    result = stats.ks_2samp(np.asarray(first).ravel(), np.asarray(second).ravel(), method="asymp")
    demand(float(result.pvalue), f"distributions are {result.statistic:.4f} apart")


def follows(values: npt.ArrayLike, distribution: npt.ArrayLike) -> None:
    """Kolmogorov-Smirnov test of integers against the cumulated shares (C,) of 0, 1, ..."""
    __tracebackhide__ = True
    integers = np.asarray(values).ravel()
    cumulated = np.cumsum(np.bincount(integers, minlength=len(np.asarray(distribution)))) / len(integers)
    distance = float(np.abs(cumulated - np.asarray(distribution)).max())
    demand(float(stats.kstwo.sf(distance, len(integers))), f"distribution is {distance:.4f} off")


def same_means(first: npt.ArrayLike, second: npt.ArrayLike | None, expected: npt.ArrayLike = 0.0) -> None:
    """Hotelling's test that two samples of vectors have the same mean, or one the expected mean.

    Each sample is (strata, repeats, C) or (repeats, C): vectors that are independent, whatever their
    components have to do with each other; repeats of a stratum, such as one document in many epochs, have the
    same distribution.
    """
    __tracebackhide__ = True
    difference: npt.NDArray[np.float64] | float = 0.0
    covariance: npt.NDArray[np.float64] | float = 0.0
    for sign, sample in ((1, first), (-1, second)):
        if sample is None:
            difference = difference - np.asarray(expected, float)
            continue
        values = np.asarray(sample, float)
        values = values if values.ndim == 3 else values[None]
        strata, repeats, _ = values.shape
        means = values.mean(axis=1, keepdims=True)
        rest = (values - means).reshape(strata * repeats, -1)
        difference = difference + sign * means.mean(axis=(0, 1))
        covariance = covariance + rest.T @ rest / (strata**2 * repeats * (repeats - 1))
    variance = np.diag(covariance)
    still = variance <= 1e-12 * max(variance.max(), 1e-300)
    assert not (np.abs(difference[still]) > 1e-9).any(), f"means differ by {difference[still]}, always"
    assert not still.all(), "nothing varies"
    unit = np.sqrt(variance[~still])
    distances = difference[~still] / unit
    # Components that add up to a constant, as shares do, leave directions without spread.
    values, vectors = np.linalg.eigh(covariance[np.ix_(~still, ~still)] / np.outer(unit, unit))
    kept = values > 1e-8
    squares = (distances @ vectors[:, kept]) ** 2 / values[kept]
    demand(
        float(stats.chi2.sf(squares.sum(), kept.sum())),
        f"means {squares.sum():.0f} apart in {kept.sum()} directions; distances {np.round(distances, 1)}",
    )


def tally(values: npt.ArrayLike) -> Counter[int]:
    """How often each integer occurs."""
    keys, times = np.unique(np.asarray(values).ravel(), return_counts=True)
    return Counter(dict(zip(keys.tolist(), times.tolist(), strict=True)))
