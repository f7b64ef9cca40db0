"""What is asked of the nodes about a model; no cluster, the nodes answer as the test says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bertfast
from bertfast.distributed import model
from bertfast.distributed.cluster import Node
from bertfast.distributed.model import digest_of, find_model
from bertfast.errors import ArgumentError, ClusterError

NODES = [Node("1", "10.0.0.1", 4.0), Node("2", "10.0.0.2", 4.0)]
GOOD = model._Seen(bertfast.__version__, "aa", False, ["scalar", "avx2", "avx512"])


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[model._Seen]:
    """What the two nodes say."""
    said = [GOOD, GOOD]
    monkeypatch.setattr(model, "on_every_node", lambda *_: dict(zip(NODES, said, strict=True)))
    monkeypatch.delenv("BERTFAST_ISA", raising=False)
    return said


def test_the_best_level_that_all_nodes_have(
    answers: list[model._Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_model("m").isa == "avx512"
    answers[1] = GOOD._replace(isas=["scalar", "avx2", "avx2-vnni"])
    assert find_model("m").isa == "avx2"
    assert find_model("m", isa="scalar").isa == "scalar"
    monkeypatch.setenv("BERTFAST_ISA", "scalar")
    assert find_model("m").isa == "scalar"
    with pytest.raises(
        ArgumentError, match=r"^isa: expected one of scalar, avx2, avx2-vnni on 10\.0\.0\.2, got 'avx512'$"
    ):
        find_model("m", isa="avx512")


def test_nodes_that_differ(answers: list[model._Seen]) -> None:
    answers[1] = GOOD._replace(digest="bb")
    with pytest.raises(
        ClusterError, match=r"^m: expected the same files on every node, got others on 10\.0\.0\.2 "
    ):
        find_model("m")
    answers[1] = GOOD._replace(version="0.0.1")
    with pytest.raises(
        ClusterError, match=rf"^node 10\.0\.0\.2: expected bertfast {bertfast.__version__}, got 0\.0\.1$"
    ):
        find_model("m")


def test_the_dtype_is_decided_once(answers: list[model._Seen]) -> None:
    assert find_model("m").dtype == "float32"
    assert find_model("m", dtype=["bfloat16", "int8"], isa="avx2").dtype == "int8"
    with pytest.raises(ArgumentError, match=r"bfloat16 does not run natively on avx2"):
        find_model("m", dtype="bfloat16", isa="avx2")
    # A packed folder decides for itself.
    answers[:] = [GOOD._replace(packed=True)] * 2
    assert find_model("m").dtype == "auto"
    assert find_model("m", dtype=["bfloat16", "int8"], isa="avx2").dtype == ("bfloat16", "int8")


def test_the_digest_is_of_what_is_read(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    before = digest_of(folder)
    assert before == digest_of(tiny)
    (folder / "README.md").write_text("words")
    (folder / ".git").mkdir()
    (folder / ".git/config.json").write_text("x")
    assert digest_of(folder) == before
    for name in ("model.safetensors", "vocab.txt", "1_Pooling/config.json", "tokenizer_config.json"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data + b" ")
        assert digest_of(folder) != before, name
        (folder / name).write_bytes(data)
    (folder / "modules.json").unlink()
    assert digest_of(folder) != before


def test_a_copy_of_other_files_is_not_packed(tiny: Path, tmp_path: Path) -> None:
    other = model.Model(str(tiny), "0" * 64, "float32", "scalar", None, str(tmp_path / "cache"))
    with pytest.raises(ClusterError, match=f"^{tiny}: expected the files of the other nodes, got others$"):
        model.open_model(other, 1)
    assert [path.name[0] for path in (tmp_path / "cache").iterdir()] == ["."]


def test_a_packing_that_was_cut_short_is_done_again(tiny: Path, tmp_path: Path, monkeypatch: Any) -> None:
    found = model.Model(str(tiny), digest_of(tiny), "int8", "scalar", None, str(tmp_path))

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model._bertfast, "pack", fail)
    with pytest.raises(KeyboardInterrupt):
        model.open_model(found, 1)
    assert all(path.is_file() for path in tmp_path.iterdir())
    monkeypatch.undo()
    assert model.open_model(found, 1).info()["dtype"] == "int8"
    assert any(path.is_dir() for path in tmp_path.iterdir())


def test_a_worker_has_the_threads_that_it_was_given(tiny: Path) -> None:
    # As Ray starts a worker that reserves one CPU.
    code = f"""
import bertfast
from bertfast.distributed.model import Model, digest_of
from bertfast.distributed.work import VECTORS, Work
from pathlib import Path

path = {str(tiny)!r}
model = Model(path, digest_of(Path(path)), "float32", "scalar", None, {str(tiny.parent / "cache")!r})
Work(VECTORS, model, {{"text": "text"}}, "embedding").open(2)
print(bertfast._bertfast.info()["num_threads"])
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout == "2\n"
