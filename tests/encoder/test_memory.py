"""Memory that calls leave behind: none that grows."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bert_folder import make_bert_folder
from bertfast import _bertfast

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

HIDDEN = 32
MIB = 1 << 20


def anonymous_bytes() -> int:
    """Resident memory of this process that no file backs."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no line 'Anonymous:'")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> _bertfast.Encoder:
    folder = make_bert_folder(tmp_path_factory.mktemp("tiny"), max_position_embeddings=512)
    return _bertfast.Encoder.load((folder / "config.json").read_text(), [folder / "model.safetensors"])


def random_calls(engine: _bertfast.Encoder, count: int, seed: int, most: int, longest: int) -> None:
    """Calls with up to `most` sequences of up to `longest` tokens."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 97, most * longest, dtype=np.int32)
    out = np.empty((most, HIDDEN), np.float32)
    bounds = np.zeros(most + 1, np.int64)
    sizes = random.integers(1, most + 1, count)
    lengths = random.integers(1, longest + 1, (count, most))
    threads = random.integers(1, 5, count)
    np.cumsum(lengths, axis=1, out=lengths)
    for i in range(count):
        size = sizes[i]
        bounds[1 : size + 1] = lengths[i, :size]
        tokens = bounds[size]
        engine.pool(
            ids[:tokens], bounds[: size + 1], None, ["mean"], 0, True, out[:size], num_threads=int(threads[i])
        )


def test_flat_over_100_000_random_shapes(engine: _bertfast.Encoder) -> None:
    # Mostly short ones, or it would take minutes; the long ones are as long as the model allows.
    random_calls(engine, 300, seed=0, most=8, longest=512)
    random_calls(engine, 10_000, seed=1, most=4, longest=12)
    before = anonymous_bytes()
    random_calls(engine, 99_700, seed=2, most=4, longest=12)
    random_calls(engine, 300, seed=3, most=8, longest=512)
    assert anonymous_bytes() < before + 2 * MIB


def test_many_callers_leave_no_more_than_one(engine: _bertfast.Encoder) -> None:
    random_calls(engine, 60, seed=0, most=8, longest=512)
    before = anonymous_bytes()
    for _ in range(8):
        # New threads every time.
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda seed: random_calls(engine, 4, seed, most=8, longest=512), range(16)))
    # Stacks and malloc's arenas of 16 threads stay; the engine's memory for each of 128 would be 40 MiB.
    assert anonymous_bytes() < before + 16 * MIB


def test_memory_of_an_unusually_long_sequence_is_given_back(engine: _bertfast.Encoder) -> None:
    random_calls(engine, 60, seed=0, most=8, longest=512)
    before = anonymous_bytes()
    tokens = 12_000  # positions of one's own make it possible: 12,000 rows of 5 panels are 14 MB
    ids = np.ones(tokens, np.int32)
    result = engine.forward(ids, np.array([0, tokens]), None, ids, pooler_output=False)
    assert result["last_hidden_state"].shape == (tokens, HIDDEN)
    del result
    assert anonymous_bytes() < before + 2 * MIB
