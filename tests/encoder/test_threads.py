"""The engine beside other threads and processes: concurrent calls, fork, Ctrl-C, no GIL."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bertfast import Encoder

TEXTS = ["a text", "another, somewhat longer text", "x"]


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Encoder:
    return Encoder.from_pretrained(minilm)


def test_eight_threads_get_the_bits_of_one(encoder: Encoder, real_texts: list[str]) -> None:
    batches = [real_texts[i : i + 3 * i + 1] for i in range(12)]
    want = [encoder.encode(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for got, expected in zip(pool.map(encoder.encode, batches), want, strict=True):
                np.testing.assert_array_equal(got, expected)


def test_other_threads_run_during_a_call(encoder: Encoder, real_texts: list[str]) -> None:
    done = threading.Event()
    turns = 0

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    # One step of the engine: the interpreter gets no turn unless the call lets go of it.
    encoder.encode(real_texts[:256], batch_size=256, batch_tokens=1 << 20)
    done.set()
    counter.join()
    assert turns > 20


def _encode_in_child(encoder: Encoder, queue: "multiprocessing.Queue[bytes]") -> None:
    queue.put(encoder.encode(TEXTS).tobytes())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_in_a_forked_child(encoder: Encoder) -> None:
    want = encoder.encode(TEXTS).tobytes()
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[bytes] = context.Queue()
    child = context.Process(target=_encode_in_child, args=(encoder, queue))
    child.start()
    try:
        assert queue.get(timeout=60) == want
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert encoder.encode(TEXTS).tobytes() == want


def test_ctrl_c_ends_a_long_call(minilm: Path) -> None:
    # Six million tokens in one call of the engine take longer than the limit below; the signal comes at once.
    script = f"""
import os, signal, threading
from pathlib import Path
import numpy as np
from bertfast import _bertfast
folder = Path({str(minilm)!r})
engine = _bertfast.Encoder.load((folder / "config.json").read_text(), [folder / "model.safetensors"])
ids, cu = np.full(6_000_000, 1000, np.int32), np.arange(0, 6_000_001, 500)
out = np.empty((12_000, 384), np.float32)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    engine.pool(ids, cu, None, ["mean"], 0, False, out)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90)
    assert result.stdout.strip() == "interrupted", result.stderr


@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_bits_do_not_depend_on_the_number_of_threads(encoder: Encoder, count: int) -> None:
    np.testing.assert_array_equal(encoder.encode(TEXTS, num_threads=count), encoder.encode(TEXTS))


def test_thread_count_from_the_environment(minilm: Path) -> None:
    script = f"""
from bertfast import Encoder, info
encoder = Encoder.from_pretrained({str(minilm)!r})
print(info()["num_threads"], encoder.info()["num_threads"], encoder.encode("a").shape)
"""
    for name in ("BERTFAST_NUM_THREADS", "OMP_NUM_THREADS"):
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | {name: "3"}
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
        )
        assert result.stdout.split()[:2] == ["3", "3"], result.stderr
