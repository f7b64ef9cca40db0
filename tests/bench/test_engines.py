"""Every engine on the real model: all compute the same thing, or comparing their times means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertfast import _bertfast
from bertfast.bench import prepare
from bertfast.bench.dtypes import DTYPES
from bertfast.bench.engines import DEFAULT_ENGINES, Contender, Setup, contenders
from bertfast.bench.report import Report
from bertfast.bench.run import Plan, run

HAS_BF16 = "bfloat16" in _bertfast.dtypes()
# On a CPU that does not multiply bfloat16 these say so. PyTorch does it all the same, and takes minutes.
NEED_BF16 = {"bertfast-bf16", "openvino-bf16"}
SLOW_WITHOUT_BF16 = {"transformers-bf16", "sentence-transformers-bf16"}

ASKED = [
    contender
    for contender in contenders(DEFAULT_ENGINES, DTYPES)
    if HAS_BF16 or contender.name not in SLOW_WITHOUT_BF16
]
TEXTS = 70

# The reference is float32 itself; measured among the peers: 1 - 1e-13 in float32, 0.99996 in bfloat16, and in
# int8 0.978 from onnxruntime. Hidden states differ by 3.5e-6 in float32.
LEAST_COSINE = {"float32": 1 - 1e-6, "bfloat16": 0.9995, "int8": 0.95}


@pytest.fixture(scope="module")
def report(minilm: Path, real_texts: list[str]) -> Report:
    setup = Setup(
        folder=minilm,
        prepared=prepare.model_folder(prepare.default_cache(), minilm),  # Made once: it takes half a minute.
        threads=2,
        calibration=tuple(real_texts[100:120]),
    )
    texts = real_texts[:TEXTS]
    plan = Plan("minilm", ASKED, texts, [(1, 16)], rounds=1, slice_seconds=0.01, load_twice=False)
    return run(plan, setup, log=print)


@pytest.mark.parametrize("contender", ASKED, ids=lambda contender: contender.name)
def test_engine(report: Report, contender: Contender):
    engine = next(e for e in report.engines if e.name == contender.name)
    if contender.name in NEED_BF16 and not HAS_BF16:
        assert "bfloat16" in (engine.failure or "")
        return
    assert engine.failure is None
    assert engine.version
    assert engine.load_seconds > 0
    assert engine.peak_mib > engine.anon_mib > 0
    assert engine.cosine_min > LEAST_COSINE[contender.dtype]
    if contender.dtype != "float32":
        assert engine.cosine_min < 1 - 1e-6, "it computes in float32"
    query, text = report.workloads
    assert contender.name in text.seconds
    if contender.engine != "sentence-transformers":
        assert contender.name in query.seconds
        assert contender.dtype != "float32" or engine.max_difference < 2e-5


def test_all_count_the_same_tokens(report: Report):
    assert report.notes == []
    assert report.workloads[1].texts == TEXTS
    # Dictionary entries are 46 tokens on average, 256 at most.
    assert TEXTS * 20 < report.workloads[1].tokens < TEXTS * 100


def test_comparisons_stay_within_a_dtype(report: Report):
    text = report.render()
    assert ("Speed of bertfast-bf16" in text) == HAS_BF16
    for first, peers in (
        ("bertfast", {"transformers", "sentence-transformers", "onnxruntime", "openvino", "ctranslate2"}),
        ("bertfast-bf16", {"transformers-bf16", "sentence-transformers-bf16", "openvino-bf16"}),
        ("bertfast-int8", {"onnxruntime-int8", "openvino-int8", "ctranslate2-int8"}),
    ):
        if first in NEED_BF16 and not HAS_BF16:
            continue
        table = text.split(f"Speed of {first} divided by that of\n")[1].split("\n\n")[0]
        assert {row.split()[0] for row in table.splitlines()[2:]} == peers
