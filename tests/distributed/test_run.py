"""Files to a folder with the workers in this process, so that many ways to fail cost little; no cluster."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers

import bertfast
from bertfast.distributed import output, run
from bertfast.distributed.cluster import Node
from bertfast.distributed.model import Model, digest_of
from bertfast.distributed.piece_worker import PieceWorker
from bertfast.distributed.run import Options, Totals
from bertfast.errors import ArgumentError
from sentence_folder import TEXTS
from task_folder import make_task_folder

LINES = [f"{text} {index}" for index in range(10) for text in TEXTS]


@pytest.fixture
def here(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Totals]:
    """`run` of a folder ``in`` to a folder ``out``, in this process; ``after`` pieces it is killed."""
    left = [0]

    def computed(job: Any, pieces: Any, options: Options) -> Any:
        worker = PieceWorker(job)
        for piece in pieces:
            table = pa.table({"piece": pa.array([pickle.dumps(piece)], pa.binary())})
            (done,) = worker(table)["done"].to_pylist()
            yield pickle.loads(done)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

    found = Model(str(tiny), digest_of(tiny), "float32", "scalar", None, str(tmp_path / "cache"))
    monkeypatch.setattr(run, "connect", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(run, "find_model", lambda *_, **__: found)
    monkeypatch.setattr(run, "default_cpus", lambda **_: 1)
    monkeypatch.setattr(run, "_computed", computed)

    def call(*, after: int = 0, **options: Any) -> Totals:
        left[0] = after
        folder = str(tmp_path / "in")
        facts: dict[str, Any] = {"columns": {"text": "text"}, "task": "vectors", "output_column": "v"}
        return run.run(
            Options(inputs=[folder], output=str(tmp_path / "out"), model=str(tiny), **facts | options)
        )

    (tmp_path / "in").mkdir()
    return call


def write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def stats_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*.parquet")
    }


@pytest.mark.parametrize("after", [1, 2, 3, 5, 9])
def test_killed_anywhere_and_gone_on_with(
    here: Callable[..., Totals], tiny: Path, tmp_path: Path, after: int
) -> None:
    for number in range(3):
        write(tmp_path / f"in/{number}", LINES[number * 20 : number * 20 + 20])
    options: dict[str, Any] = {"piece_size": 150}
    with pytest.raises(KeyboardInterrupt):
        here(after=after, **options)
    out = tmp_path / "out"
    before = stats_of(out)
    assert len(before) == after
    assert not (out / "_temporary").exists()
    with pytest.raises(ArgumentError, match="output: expected a new or an empty folder"):
        here(**options)
    totals = here(resume=True, **options)
    assert before.items() <= stats_of(out).items()
    table = pq.read_table(out)
    assert table["text"].to_pylist() == LINES
    expected = bertfast.Encoder.from_pretrained(tiny, isa="scalar").encode(LINES)
    assert np.array_equal(np.array(table["v"].to_pylist(), np.float32), expected)
    truncated = 10  # one text of each round
    assert (totals.files, totals.rows, totals.skipped, totals.truncated) == (3, 60, 0, truncated)
    again = here(resume=True, **options)
    assert (again.files, again.rows, again.truncated, again.resumed) == (3, 60, truncated, 3)
    assert json.loads((out / "_bertfast.json").read_text())["finished"] is True


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_was_killed_at_once(here: Callable[..., Totals], tmp_path: Path, resume: bool) -> None:
    write(tmp_path / "in/a", LINES)
    (tmp_path / "out/_temporary/0123").mkdir(parents=True)
    assert here(resume=resume).rows == len(LINES)
    assert not (tmp_path / "out/_temporary").exists()


def test_a_task_counts_texts_that_are_cut_off(
    here: Callable[..., Totals], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_task_folder(tmp_path / "model", transformers.BertForTokenClassification, tiny)
    model = Model(str(folder), digest_of(folder), "float32", "scalar", "token-classification", str(tmp_path))
    monkeypatch.setattr(run, "find_model", lambda *_, **__: model)
    write(tmp_path / "in/a", ["a text", "long " * 60, "long " * 70])
    assert here(task="token-classification", head="token-classification").truncated == 2
    totals = here(task="token-classification", head="token-classification", resume=True)
    assert totals.truncated == 2


def test_what_was_deleted_is_made_again(here: Callable[..., Totals], tmp_path: Path) -> None:
    write(tmp_path / "in/a", LINES)
    here(piece_size=300)
    before = stats_of(tmp_path / "out")
    (tmp_path / "out/a.00002.parquet").unlink()
    totals = here(piece_size=300, resume=True)
    after = stats_of(tmp_path / "out")
    assert [name for name in after if after[name] != before[name]] == ["a.00002.parquet"]
    assert (totals.rows, totals.resumed) == (len(LINES), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"piece_size": 400}, "piece_size 300, got 400"),
        ({"output_column": "w"}, "output_column 'v', got 'w'"),
        ({"options": {"normalize_embeddings": True}}, "options.normalize_embeddings None, got True"),
        ({"carried": ()}, "carried None, got []"),
    ],
)
def test_other_arguments_are_no_resume(
    here: Callable[..., Totals], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write(tmp_path / "in/a", LINES)
    here(piece_size=300)
    with pytest.raises(ArgumentError) as found:
        here(**{"piece_size": 300, "resume": True} | change)
    assert str(found.value) == f"{tmp_path}/out: expected the run that began it, {message}"


def test_a_run_that_comes_to_nothing_leaves_nothing(here: Callable[..., Totals], tmp_path: Path) -> None:
    write(tmp_path / "in/a", LINES)
    with pytest.raises(ArgumentError, match="prompt_name: expected one of"):
        here(options={"prompt_name": "x"})
    assert [path.name for path in (tmp_path / "out").iterdir()] == []
    here()


def test_a_full_disk_is_said_and_gone_on_with(
    here: Callable[..., Totals], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in/a", LINES)
    publish = output.Output.publish

    def full(self: Any, temporary: Any, name: str) -> None:
        if name == "a.00002.parquet":
            raise OSError(28, "No space left on device", name)
        publish(self, temporary, name)

    monkeypatch.setattr(output.Output, "publish", full)
    with pytest.raises(OSError, match="No space left on device"):
        here(piece_size=300)
    assert sorted(stats_of(tmp_path / "out")) == ["a.00000.parquet", "a.00001.parquet"]
    assert not (tmp_path / "out/_temporary").exists()
    monkeypatch.undo()


def test_rows_that_cannot_be_read_keep_their_numbers(here: Callable[..., Totals], tmp_path: Path) -> None:
    bad = {3: '{"text": null}', 30: "[]", 31: "{", 59: '{"text": 1}'}
    write(tmp_path / "in/a", [bad.get(n, json.dumps({"text": text})) for n, text in enumerate(LINES)])
    with pytest.raises(ArgumentError, match=r"in/a:4: field 'text' must be a string, got NoneType$"):
        here(json=True, piece_size=200)
    totals = here(json=True, piece_size=200, skip=True)
    assert (totals.rows, totals.skipped) == (56, 4)
    found = [
        json.loads(line)["row"]
        for path in sorted((tmp_path / "out/_skipped").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert found == [n + 1 for n in bad]
    kept = [text for n, text in enumerate(LINES) if n not in bad]
    assert pq.read_table(tmp_path / "out")["text"].to_pylist() == kept


def test_workers_that_no_node_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from bertfast.distributed import cluster, dataset

    for module in (cluster, dataset):
        monkeypatch.setattr(module, "nodes", lambda: [Node("1", "a", 4.0), Node("2", "b", 7.0)])
    assert cluster.fitting(2, "num_cpus") == 5
    assert dataset.default_cpus(spare=1) == 3
    with pytest.raises(
        ArgumentError, match="num_cpus: expected at most 7, the CPUs of the largest node, got 8"
    ):
        cluster.fitting(8, "num_cpus")
