"""The operations one by one: what they are counted as, and what is shown of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertfast import _bertfast
from bertfast.bench import ops
from bertfast.bench.dtypes import DTYPES
from bertfast.bench.ops import MODELS, Op, OpReport, ops_of
from bertfast.bench.workloads import ModelShape
from bertfast.cli import main

TOY = ModelShape(layers=1, hidden=64, intermediate=256, heads=2, vocabulary=100, positions=64)


@pytest.mark.parametrize(
    ("op", "flop", "read_and_written"),
    [
        (Op("gemm", (2, 3, 5)), 60, 4 * (10 + 15 + 6)),
        (Op("gemm_gelu", (2, 3, 5)), 60, 4 * (10 + 15 + 6)),
        (Op("attention", (10, 4)), 1600, 4 * 4 * 40),
        (Op("softmax", (10, 4)), 0, 8 * 40),
        (Op("layer_norm", (10, 4)), 0, 8 * 40),
    ],
)
def test_work_is_counted(op: Op, flop: int, read_and_written: int):
    assert op.flop == flop
    assert op.bytes("float32") == read_and_written


def test_narrow_types_move_fewer_bytes():
    product = Op("gemm", (2, 3, 5))
    assert product.bytes("bfloat16") == 2 * (10 + 15) + 4 * 6
    assert product.bytes("int8") == 10 + 15 + 4 * 6
    assert Op("convert", (10, 4)).bytes("int8") == 5 * 40


def test_products_are_those_of_a_layer():
    products = [op.sizes for op in ops_of([MODELS["BERT-base"]], "float32") if op.kind.startswith("gemm")]
    flop = sum(2 * m * n * k for m, n, k in products if m == 128)
    # A layer without its attention, over 128 tokens.
    assert flop == 128 * (8 * 768**2 + 4 * 768 * 3072)


def test_share_is_of_its_own_limit():
    product = OpReport("gemm", "float32", flop=100, bytes=7, seconds=2.0, limit=200.0)
    assert (product.rate, product.share) == (50.0, 0.25)
    normalization = OpReport("layer_norm", "float32", flop=0, bytes=300, seconds=2.0, limit=300.0)
    assert (normalization.rate, normalization.share) == (150.0, 0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation_can_be_measured_where_it_runs(dtype: str):
    for isa in _bertfast.info()["isas"]:
        for op in ops_of([TOY], dtype):
            if dtype != "bfloat16" or isa.endswith("-bf16"):
                assert _bertfast.measure_op(op.kind, op.sizes, 0.0, dtype, isa) > 0
            else:
                with pytest.raises(ValueError, match=f"bfloat16 on {isa}"):
                    _bertfast.measure_op(op.kind, op.sizes, 0.0, dtype, isa)


@pytest.mark.parametrize(
    ("name", "sizes", "dtype"),
    [("gemm", [1, 2], "float32"), ("sort", [1], "float32"), ("gemm", [1, 2, 3], "x")],
)
def test_other_operations_are_errors(name: str, sizes: list[int], dtype: str):
    with pytest.raises(ValueError, match=name if dtype == "float32" else "x"):
        _bertfast.measure_op(name, sizes, 0.0, dtype)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(ops, "_SECONDS", 0.001)
    figures = tmp_path / "out.json"
    isas = _bertfast.info()["isas"]
    picture = tmp_path / "out.png"
    files = ["--json", str(figures), "--roofline", str(picture)]
    assert main(["bench", "--ops", "--random", "1x64", "--isa", isas[0], *files]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert f"{isas[0]}; reads in GB/s: cache" in shown
    assert "gemm_gelu 128 x 256 x 64" in shown
    data = json.loads(figures.read_text())
    assert data["models"] == ["random 1x64"]
    assert all(op["share"] > 0 and op["seconds"] > 0 for op in data["ops"])


def test_a_dtype_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(ops, "_SECONDS", 0.001)
    assert main(["bench", "--ops", "--random", "1x64", "--isa", "scalar", "--dtype", "bfloat16"]) == 1
    assert "- bfloat16: not available: " in capsys.readouterr().out
