"""Every engine on the real model: all compute the same thing, or comparing their times means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertfast.bench.engines import DEFAULT_ENGINES, Setup
from bertfast.bench.report import Report
from bertfast.bench.run import Plan, run


@pytest.fixture(scope="module")
def report(minilm: Path, real_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Report:
    setup = Setup(folder=minilm, workdir=tmp_path_factory.mktemp("work"), threads=2)
    texts = real_texts[:70]
    plan = Plan("minilm", DEFAULT_ENGINES, texts, [(1, 16)], rounds=1, slice_seconds=0.01, load_twice=False)
    return run(plan, setup, log=print)


@pytest.mark.parametrize("name", DEFAULT_ENGINES)
def test_engine(report: Report, name: str):
    engine = next(e for e in report.engines if e.name == name)
    assert engine.failure is None
    assert engine.version
    assert engine.load_seconds > 0
    assert engine.peak_mib > engine.anon_mib > 0
    # The reference is float32 itself; measured among the peers: 3.5e-6 and 1 - 1e-13.
    assert engine.cosine_min > 1 - 1e-6
    query, text = report.workloads
    assert name in text.seconds
    if name != "sentence-transformers":
        assert engine.max_difference < 2e-5
        assert name in query.seconds


def test_all_count_the_same_tokens(report: Report):
    assert report.notes == []
    assert report.workloads[1].texts == 70
    # Dictionary entries are 46 tokens on average, 256 at most.
    assert 70 * 20 < report.workloads[1].tokens < 70 * 100
