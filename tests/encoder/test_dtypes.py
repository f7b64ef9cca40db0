"""`dtype` and `isa`: what is taken, what is refused, and how far the results are from float32."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertfast
from bert_folder import make_bert_folder
from bertfast import _bertfast
from bertfast.errors import ArgumentError
from bertfast.models import BertConfig, BertModel

ISAS: list[str] = bertfast.info()["isas"]
NATIVE = {isa: _bertfast.dtypes(isa) for isa in ISAS}
WITHOUT_BF16 = "scalar"
IDS = np.random.default_rng(0).integers(5, 90, (3, 11))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def opened(folder: Path, **arguments: Any) -> bertfast.Encoder:
    return bertfast.Encoder.from_pretrained(folder, **arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert_folder(tmp_path_factory.mktemp("dtypes"), hidden_size=64, intermediate_size=128)


def test_native_dtypes() -> None:
    for isa, native in NATIVE.items():
        assert native in (["float32", "int8"], ["float32", "bfloat16", "int8"])
        assert ("bfloat16" in native) == isa.endswith("bf16")
    assert _bertfast.dtypes() == NATIVE[bertfast.info()["isa"]]
    with pytest.raises(ArgumentError, match=r"^isa: expected one of scalar"):
        _bertfast.dtypes("sse2")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_single_dtype(folder: Path, isa: str, dtype: str) -> None:
    native = NATIVE[isa]
    if dtype not in native:
        message = f"^dtype: {dtype} does not run natively on {isa}; expected one of {', '.join(native)}$"
        with pytest.raises(ArgumentError, match=message):
            opened(folder, dtype=dtype, isa=isa)
        return
    encoder = opened(folder, dtype=dtype, isa=isa)
    info = encoder.info()
    assert info["isa"] == isa
    assert info["dtype"] == dtype
    assert info["layer_dtypes"] == [dtype, dtype]
    assert info["attention_dtype"] == ("float32" if dtype == "float32" else native[-2])
    assert [kernel.split("-")[1] for kernel in info["kernels"]] == list(
        dict.fromkeys([dtype, info["attention_dtype"]])
    )
    exact, got = opened(folder, isa=isa)(IDS), encoder(IDS)
    if dtype == "float32":
        assert np.array_equal(got.last_hidden_state, exact.last_hidden_state)
    else:
        assert got.last_hidden_state.dtype == np.float32
        least = cosines(got.last_hidden_state, exact.last_hidden_state).min()
        assert 0.99 < least < 1 - 1e-7  # close, and not the same


def test_the_first_of_a_list_that_runs(folder: Path) -> None:
    def taken(dtype: Any, isa: str = WITHOUT_BF16) -> str:
        return str(opened(folder, dtype=dtype, isa=isa).info()["dtype"])

    assert taken(["bfloat16", "float32"]) == "float32"
    assert taken(("bfloat16", "int8", "float32")) == "int8"
    assert taken(["float32", "bfloat16"]) == "float32"
    for isa, native in NATIVE.items():
        assert taken(["bfloat16", "int8"], isa) == ("bfloat16" if "bfloat16" in native else "int8")
    with pytest.raises(ArgumentError, match=r"^dtype: bfloat16 does not run natively on scalar"):
        taken(["bfloat16"])


def test_auto_of_a_plain_folder_is_float32(folder: Path) -> None:
    assert opened(folder).info()["dtype"] == opened(folder, dtype="auto").info()["dtype"] == "float32"


@pytest.mark.parametrize(
    "dtype", ["float16", "", [], ["float32", "fp8"], ["auto"], None, 8, ["auto", "int8"]]
)
def test_what_is_no_dtype(folder: Path, dtype: Any) -> None:
    known = "'auto', one of 'float32', 'bfloat16', 'int8', or several of these"
    with pytest.raises(ArgumentError) as error:
        opened(folder, dtype=dtype)
    assert str(error.value) == f"dtype: expected {known}, got {dtype!r}"


def test_the_torch_engine(folder: Path) -> None:
    def taken(dtype: Any) -> str:
        return str(opened(folder, dtype=dtype, backend="torch").info()["dtype"])

    assert taken("auto") == taken("float32") == taken(["float32", "bfloat16"]) == "float32"
    assert taken("float16") == "float16"
    with pytest.raises(ArgumentError, match=r"^dtype: expected 'auto', one of 'float32', .*, got 'int8'$"):
        taken("int8")
    with pytest.raises(ArgumentError, match=r"^isa: expected None with backend='torch', got 'scalar'$"):
        opened(folder, backend="torch", isa="scalar")


@pytest.mark.parametrize("dtype", ["int8", ["bfloat16", "int8"]])
def test_a_snapshot_of_a_module(dtype: Any) -> None:
    config = BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    info = BertModel(config).to_encoder(dtype=dtype, isa=WITHOUT_BF16).info()
    assert (info["dtype"], info["isa"]) == ("int8", WITHOUT_BF16)
    with pytest.raises(ArgumentError, match=r"^dtype: expected 'auto', one of"):
        BertModel(config).to_encoder(dtype="int4")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_bits_do_not_depend_on_the_batch(folder: Path, isa: str, dtype: str) -> None:
    if dtype not in NATIVE[isa]:
        pytest.skip(f"{isa} has no {dtype}")
    encoder = opened(folder, dtype=dtype, isa=isa)
    mask = np.ones_like(IDS)
    mask[1, 5:] = 0
    whole = encoder(IDS, mask).last_hidden_state
    for threads in (1, 2):
        for row, length in enumerate(mask.sum(1)):
            alone = encoder(IDS[row : row + 1, :length], num_threads=threads).last_hidden_state[0]
            assert np.array_equal(alone, whole[row, :length])


def test_accuracy_on_real_texts(minilm: Path, real_texts: list[str]) -> None:
    texts = real_texts[:150]
    exact = opened(minilm).encode(texts)
    if "bfloat16" in _bertfast.dtypes():
        assert cosines(opened(minilm, dtype="bfloat16").encode(texts), exact).min() >= 0.9999
    vectors: dict[str, np.ndarray] = {}
    for isa in ISAS:
        some = texts[:10] if isa == "scalar" else texts  # it takes minutes for all
        vectors[isa] = opened(minilm, dtype="int8", isa=isa).encode(some)
        found = cosines(vectors[isa], exact[: len(some)])
        assert found.mean() >= 0.9995, isa
        assert found.min() >= 0.998, isa
    for a, b in combinations(ISAS, 2):
        both = min(len(vectors[a]), len(vectors[b]))
        found = cosines(vectors[a][:both], vectors[b][:both])
        # Products are exact, but sums of floats between them depend on the width of the vectors, and a last
        # bit decides now and then how a value rounds to int8. Measured: mean 0.99993, min 0.99983; where one
        # of two has attention in bfloat16, 0.99984 and 0.99968.
        alike = ("bfloat16" in NATIVE[a]) == ("bfloat16" in NATIVE[b])
        assert found.mean() >= (0.9999 if alike else 0.9998), (a, b)
        assert found.min() >= (0.9997 if alike else 0.9995), (a, b)


def test_command_line(minilm: Path, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bertfast", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    facts = json.loads(run("info", minilm, "--dtype", "bfloat16,int8", "--isa", "scalar", "--json").stdout)
    assert (facts["model"]["dtype"], facts["model"]["isa"]) == ("int8", "scalar")
    (tmp_path / "texts.txt").write_text("A text.\n")
    encode = ["encode", minilm, tmp_path / "texts.txt", "-o", tmp_path / "out.npy"]
    assert run(*encode, "--dtype", "int8", "--isa", "scalar").returncode == 0
    expected = opened(minilm, dtype="int8", isa="scalar").encode(["A text."])
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)
    failed = run(*encode, "--dtype", "bfloat16", "--isa", "scalar")
    assert failed.returncode == 2
    assert "bfloat16 does not run natively on scalar; expected one of float32, int8" in failed.stderr
