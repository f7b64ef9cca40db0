"""Instruction set levels by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bert_folder import make_bert_folder
from bertfast import _bertfast
from bertfast.errors import ArgumentError

ROOT = Path(__file__).resolve().parent.parent
ISAS: list[str] = _bertfast.info()["isas"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    path = make_bert_folder(tmp_path_factory.mktemp("isa"))
    return (path / "config.json").read_text(), [str(path / "model.safetensors")]


def test_levels_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ISAS[0] == "scalar"
    assert len(set(ISAS)) == len(ISAS)
    for name in ("", None):
        if name is None:
            monkeypatch.delenv("BERTFAST_ISA", raising=False)
        else:
            monkeypatch.setenv("BERTFAST_ISA", name)
        assert _bertfast.info()["isa"] == ISAS[-1]


@pytest.mark.parametrize("isa", ISAS)
def test_chosen_by_name(isa: str, files: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _bertfast.Encoder.load(*files, isa=isa).info()["isa"] == isa
    monkeypatch.setenv("BERTFAST_ISA", isa)
    assert _bertfast.info()["isa"] == isa
    assert _bertfast.Encoder.load(*files).info()["isa"] == isa
    assert _bertfast.Encoder.load(*files, isa="scalar").info()["isa"] == "scalar"


def test_a_name_that_is_none(files: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    known = ", ".join(ISAS)
    foreign = "avx512-bf16" if "neon" in ISAS else "neon-dotprod"
    with pytest.raises(ArgumentError, match=f'^isa: expected one of {known} on this CPU, got "AVX"$'):
        _bertfast.Encoder.load(*files, isa="AVX")
    with pytest.raises(
        ArgumentError, match=f"^isa: this CPU does not have {foreign}, expected one of {known}$"
    ):
        _bertfast.Encoder.load(*files, isa=foreign)
    for name, message in [("sse9", "expected one of"), (foreign, f"this CPU does not have {foreign}")]:
        monkeypatch.setenv("BERTFAST_ISA", name)
        with pytest.raises(ArgumentError, match=f"^BERTFAST_ISA: {message}"):
            _bertfast.info()


def test_every_level_is_documented() -> None:
    page = (ROOT / "docs/platforms.md").read_text()
    for isa in ISAS:
        assert f"\n| `{isa}` |" in page
