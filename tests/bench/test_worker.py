"""One process per engine: what goes over the pipe, and what is left of an engine that fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bertfast.bench.engines import Setup
from bertfast.bench.worker import EngineError, Worker
from bertfast.errors import ArgumentError

IDS = np.array([[7, 8, 9], [4, 0, 0]], dtype=np.int64)
MASK = np.array([[1, 1, 1], [1, 0, 0]], dtype=np.int64)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(folder=tmp_path, prepared=tmp_path, threads=1)


def state(pid: int) -> str:
    """The process's state letter, empty if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    return text.rpartition(")")[2].split()[0]


def eventually(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_requests_are_answered(setup: Setup):
    with Worker("fake_engines.working", setup) as worker:
        worker.build()
        assert (setup.prepared / "built").exists()
        version, seconds = worker.load()
        assert version == "1.0"
        assert seconds > 0
        hidden = worker.run_ids(IDS, MASK)
        assert hidden.dtype == np.float32
        assert hidden[:, :, 0].tolist() == [[7, 8, 9], [4, 0, 0]]
        assert worker.encode(["a", "bcd"]).tolist() == [[1, 1], [3, 1]]
        assert worker.count_tokens(["one two", ""]) == [4, 2]
        assert 0 < worker.time_ids(IDS, MASK, 0.0) < 10
        assert 0 < worker.time_ids(IDS, MASK, 0.01) < 10
        assert 0 < worker.time_encode(["a"]) < 10
        assert worker.peak_mib >= worker.anon_mib > 1


def test_a_worker_is_stopped_between_requests_and_gone_afterwards(setup: Setup):
    with Worker("fake_engines.working", setup) as worker:
        worker.load()
        assert eventually(lambda: state(worker.pid) == "T")
        worker.encode(["a"])
        assert eventually(lambda: state(worker.pid) == "T")
    assert state(worker.pid) == ""


def test_an_engine_for_texts_only_has_no_time_on_ids(setup: Setup):
    with Worker("fake_engines.texts_only", setup) as worker:
        worker.load()
        assert worker.run_ids(IDS, MASK) is None
        assert worker.time_ids(IDS, MASK, 0.1) is None


def test_a_missing_library_is_the_reason(setup: Setup):
    with Worker("fake_engines.missing_library", setup) as worker:
        worker.build()
        with pytest.raises(EngineError, match=r"^no_such_library is not installed$"):
            worker.load()


def test_an_error_is_one_line_and_the_worker_goes_on(setup: Setup):
    with Worker("fake_engines.failing", setup) as worker:
        worker.load()
        big = np.ones((8, 32), dtype=np.int64)
        with pytest.raises(EngineError, match=r"^MemoryError: 8x32 does not fit$"):
            worker.run_ids(big, big)
        assert worker.run_ids(IDS, MASK) is not None


def test_a_request_before_load_is_an_error(setup: Setup):
    with Worker("fake_engines.working", setup) as worker, pytest.raises(EngineError, match="not loaded"):
        worker.encode(["a"])


def test_a_death_is_named_by_its_signal(setup: Setup):
    with Worker("fake_engines.dying", setup) as worker:
        worker.load()
        with pytest.raises(EngineError, match="ended by SIGABRT"):
            worker.run_ids(IDS, MASK)


def test_an_engine_that_hangs_is_given_up(setup: Setup):
    with Worker("fake_engines.hanging", setup, timeout=0.3) as worker:
        with pytest.raises(EngineError, match=r"no answer within 0\.3 s"):
            worker.load()
        assert state(worker.pid) == ""


def test_a_module_that_does_not_exist_is_the_reason(setup: Setup):
    with (
        Worker("fake_engines.nowhere", setup) as worker,
        pytest.raises(EngineError, match=r"^fake_engines\.nowhere is not installed$"),
    ):
        worker.load()


def test_an_unknown_engine_is_an_error_that_lists_the_known():
    with pytest.raises(ArgumentError, match=r"unknown engine 'tensorflow'.*onnxruntime.*openvino"):
        Worker("tensorflow", Setup(Path(), Path(), 1))


def test_no_stopped_worker_outlives_the_benchmark(setup: Setup):
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from bertfast.bench.engines import Setup
from bertfast.bench.worker import Worker
worker = Worker("fake_engines.working", Setup(Path({str(setup.folder)!r}), Path({str(setup.prepared)!r}), 1))
worker.load()
print(worker.pid, flush=True)
os._exit(1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    # Gone, or a zombie that nobody reaps in a container without an init.
    assert eventually(lambda: state(pid) in ("", "Z"))
