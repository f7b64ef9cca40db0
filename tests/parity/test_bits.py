"""A text has the same bits alone, in any batch, in any order and with any number of threads, on each ISA."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_folder import TINY, make_bert_folder
from bertfast import _bertfast

ISAS = _bertfast.info()["isas"]
# Levels of one base run its f32 kernels.
BASES = [isa for isa in ISAS if "-" not in isa]
THREADS = [1, 2, 3, (os.cpu_count() or 1) + 3]
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "head_size_26": {
        "hidden_size": 78,
        "num_attention_heads": 3,
        "intermediate_size": 131,
        "hidden_act": "gelu_new",
    },
    "minilm_like": {
        "hidden_size": 384,
        "num_attention_heads": 12,
        "intermediate_size": 768,
        "vocab_size": 1000,
        "max_position_embeddings": 150,
    },
}


class Texts:
    """Random sequences of many lengths, and what a model made of each."""

    def __init__(self, config: dict[str, Any], seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        longest = config["max_position_embeddings"]
        lengths = [1, 1, 2, 3, 5, 8, 13, 15, 16, 17, 31, 32, 33, 48, 63, 64, longest, longest - 1]
        self.ids = [random.integers(0, config["vocab_size"], n, dtype=np.int32) for n in lengths]
        self.types = [random.integers(0, config["type_vocab_size"], n, dtype=np.int32) for n in lengths]

    def run(self, engine: Any, order: list[int], num_threads: int | None) -> list[list[bytes]]:
        """The bytes of every output of each text in ``order``, run as one batch."""
        cu_seqlens = np.concatenate([[0], np.cumsum([len(self.ids[i]) for i in order])]).astype(np.int64)
        ids = np.concatenate([self.ids[i] for i in order])
        types = np.concatenate([self.types[i] for i in order])
        result = engine.forward(ids, cu_seqlens, types, hidden_states=True, num_threads=num_threads)
        hidden_size = result["last_hidden_state"].shape[1]
        pooled = np.empty((len(order), len(MODES) * hidden_size), np.float32)
        engine.pool(ids, cu_seqlens, types, MODES, 0, False, pooled, num_threads)
        outputs: list[list[bytes]] = []
        for row in range(len(order)):
            own = slice(cu_seqlens[row], cu_seqlens[row + 1])
            arrays = [values[own] for values in (result["last_hidden_state"], *result["hidden_states"])]
            arrays += [result["pooler_output"][row], pooled[row]]
            assert all(np.isfinite(array).all() for array in arrays)
            outputs.append([array.tobytes() for array in arrays])
        return outputs


@pytest.fixture(scope="module", params=SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Texts]:
    config = SHAPES[request.param]
    return make_bert_folder(tmp_path_factory.mktemp("bits"), **config), Texts(TINY | config)


@pytest.mark.parametrize("isa", BASES)
def test_bits(folder: tuple[Path, Texts], isa: str) -> None:
    path, texts = folder
    weights = [str(path / "model.safetensors")]
    engine = _bertfast.Encoder.load((path / "config.json").read_text(), weights, isa=isa)
    everything = list(range(len(texts.ids)))
    alone = [texts.run(engine, [text], num_threads=1)[0] for text in everything]
    random = np.random.default_rng(1)
    for num_threads in [*THREADS, None]:
        orders = [everything, everything[::-1], [int(i) for i in random.permutation(everything)]]
        orders += [[int(i) for i in random.choice(everything, size)] for size in (2, 5, 40)]
        for order in orders:
            for text, outputs in zip(order, texts.run(engine, order, num_threads), strict=True):
                assert outputs == alone[text], f"text {text} in {order} with {num_threads} threads"
        for text in everything[::4]:
            assert texts.run(engine, [text], num_threads) == [alone[text]]


def test_isas_differ_by_rounding_only(folder: tuple[Path, Texts]) -> None:
    path, texts = folder
    cu_seqlens = np.array([0, len(texts.ids[-1])])
    results = {
        isa: _bertfast.Encoder.load(
            (path / "config.json").read_text(), [str(path / "model.safetensors")], isa=isa
        ).forward(texts.ids[-1], cu_seqlens, texts.types[-1])["last_hidden_state"]
        for isa in ISAS
    }
    for isa, result in results.items():
        np.testing.assert_allclose(result, results["scalar"], rtol=0, atol=1e-4)
        base = results[isa.split("-")[0]]
        assert result.tobytes() == base.tobytes(), f"{isa} is not its base in f32"
