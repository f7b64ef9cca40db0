"""A whole run with engines that need no library."""

from __future__ import annotations

import numpy as np
import pytest

from bertfast.bench import random_model, run
from bertfast.bench.engines import Contender, Setup
from bertfast.bench.workloads import rotated

WORKING, TEXTS_ONLY, MISSING, FAILING, DYING = (
    f"fake_engines.{name}" for name in ("working", "texts_only", "missing_library", "failing", "dying")
)


def in_float32(*engines: str) -> list[Contender]:
    return [Contender(engine, "float32") for engine in engines]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("model")
    random_model.write(folder, "1x64")
    return Setup(folder=folder, prepared=tmp_path_factory.mktemp("work"), threads=1)


@pytest.fixture(scope="module")
def report(setup: Setup):
    engines = in_float32(MISSING, WORKING, TEXTS_ONLY, FAILING, DYING)
    plan = run.Plan("toy", engines, ["one two", "three"], [(1, 16), (8, 32)], rounds=3, slice_seconds=0.001)
    patch = pytest.MonkeyPatch()
    patch.setattr(run, "REFERENCE", WORKING)
    try:
        return run.run(plan, setup, log=lambda _: None)
    finally:
        patch.undo()


def engine(report, name):
    return next(e for e in report.engines if e.name == name)


def test_every_engine_that_fails_is_named_with_its_reason(report):
    assert engine(report, MISSING).failure == "no_such_library is not installed"
    assert engine(report, FAILING).failure == "MemoryError: 8x32 does not fit"
    assert engine(report, DYING).failure == "the process was ended by SIGABRT"
    assert engine(report, WORKING).failure is None
    assert [e.name for e in report.measured] == [WORKING, TEXTS_ONLY, FAILING]
    text = report.render()
    assert f"{MISSING}: not available: no_such_library is not installed" in text
    assert f"{FAILING}: failed: MemoryError: 8x32 does not fit" in text


def test_the_others_are_measured_in_every_round(report):
    assert [w.name for w in report.workloads] == ["1x16", "8x32", "text"]
    query, batch, text = report.workloads
    assert {name: len(times) for name, times in query.seconds.items()} == {WORKING: 3, FAILING: 3}
    assert {name: len(times) for name, times in batch.seconds.items()} == {WORKING: 3}
    assert {name: len(times) for name, times in text.seconds.items()} == {WORKING: 3, TEXTS_ONLY: 3}
    assert (batch.tokens, text.tokens, text.texts) == (256, 7, 2)
    assert len(batch.peak["float32"]) == batch.rounds == 3


def test_outputs_are_compared_on_valid_tokens(report):
    assert engine(report, WORKING).max_difference == 0
    assert engine(report, WORKING).cosine_min == pytest.approx(1)
    assert engine(report, TEXTS_ONLY).max_difference is None
    assert engine(report, TEXTS_ONLY).cosine_mean == pytest.approx(1)


def test_engines_that_count_other_tokens_are_noted(report):
    assert any(TEXTS_ONLY in note and "2 of 2 texts" in note for note in report.notes)


def test_load_time_and_memory_are_reported(report):
    working = engine(report, WORKING)
    assert working.version == "1.0"
    assert working.load_seconds > 0
    assert working.peak_mib > working.anon_mib > 0


def test_a_reference_that_cannot_be_loaded_is_noted(setup: Setup, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "REFERENCE", MISSING)
    plan = run.Plan("toy", in_float32(WORKING), [], [(1, 16)], rounds=1, slice_seconds=0.001)
    report = run.run(plan, setup, log=lambda _: None)
    assert report.measured
    assert any("not compared" in note and "no_such_library" in note for note in report.notes)


def test_an_engine_that_fails_midway_leaves_no_half_row(setup: Setup, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "REFERENCE", WORKING)
    calls = []

    class Unreliable(run.Worker):
        def time_ids(self, *arguments):
            calls.append(self.engine)
            if self.engine == FAILING and calls.count(FAILING) == 3:
                raise run.EngineError("worn out")
            return super().time_ids(*arguments)

    monkeypatch.setattr(run, "Worker", Unreliable)
    plan = run.Plan("toy", in_float32(WORKING, FAILING), [], [(1, 16)], rounds=3, slice_seconds=0.001)
    report = run.run(plan, setup, log=lambda _: None)
    assert report.workloads[0].seconds.keys() == {WORKING}
    assert engine(report, FAILING).failure == "worn out"


def test_rounds_rotate():
    assert rotated(["a", "b", "c"], 0) == ["a", "b", "c"]
    assert rotated(["a", "b", "c"], 4) == ["b", "c", "a"]
    assert rotated([], 3) == []


def test_cosine_tells_one_from_almost_one():
    a = np.array([[1.0, 0.0], [3.0, 4.0]], dtype=np.float32)
    b = np.array([[1.0, 1e-4], [6.0, 8.0]], dtype=np.float32)
    cosines = run.cosine(a, b)
    assert 1 - cosines[0] == pytest.approx(5e-9, rel=1e-3)
    assert cosines[1] == pytest.approx(1, abs=1e-15)


def test_outputs_of_another_model_are_a_failure(setup: Setup, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "REFERENCE", WORKING)
    narrow = "fake_engines.narrow"
    plan = run.Plan(
        "toy", in_float32(WORKING, narrow), ["one", "two"], [(1, 16)], rounds=1, slice_seconds=0.001
    )
    report = run.run(plan, setup, log=lambda _: None)
    assert engine(report, narrow).failure == f"vectors: expected shape (2, 2) like {WORKING}, got (2, 1)"
    assert [e.name for e in report.measured] == [WORKING]
