"""``bertfast encode --ray`` and ``bertfast predict --ray`` beside one process, on three nodes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import transformers

import bertfast
from bertfast import cli
from command_line import error_of, run_bertfast
from sentence_folder import TEXTS
from task_folder import make_task_folder

LINES = [f"{text} {index}" for index in range(20) for text in TEXTS]

# Real texts that are encoded while a node is killed; the default is what a test has time for.
REAL_TEXTS = int(os.environ.get("BERTFAST_CLUSTER_TEXTS", "240"))


@pytest.fixture
def bertfast_ray(
    three_nodes: Any, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command on the cluster; what it says on standard error, or the error if it ends with one."""

    def run(command: str, *arguments: str | Path, status: int = 0, output: Path = tmp_path / "out") -> str:
        capfd.readouterr()
        where = ["-o", output, "--ray", three_nodes.address, "--cache-dir", cache, "--quiet"]
        found = cli.main([command, *map(str, [*arguments, *where])])
        said = capfd.readouterr()
        # Ray's own log of the driver may stand between; ours is one line.
        ours = [line for line in said.err.splitlines() if line.startswith("bertfast: ")]
        assert found == status, said.err
        if status:
            assert len(ours) == 1, said.err
            assert "Traceback" not in said.err
            return ours[0].removeprefix("bertfast: error: ")
        return "\n".join(ours)

    return run


def read(folder: Path) -> Any:
    """The whole output, in the order of the names, as any reader of Parquet sees it."""
    return pq.read_table(folder)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def vectors_of(table: Any) -> np.ndarray:
    return np.array(table["embedding"].to_pylist(), np.float32).reshape(len(table), -1)


def write_lines(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def test_a_folder_of_texts(bertfast_ray: Callable[..., str], tiny: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.txt", LINES)
    (tmp_path / "in/b").mkdir()
    (tmp_path / "in/b/c.txt.gz").write_bytes(gzip.compress("\n".join(LINES[:30]).encode()))
    (tmp_path / "in/empty").touch()
    said = bertfast_ray("encode", tiny, tmp_path / "in", "--piece-size", "300", "--normalize")
    assert said == "bertfast: warning: 25 texts are longer than the model takes and were cut off"
    names = files_in(tmp_path / "out")
    assert {"a.txt.00000.parquet", "b/c.txt.gz.00000.parquet", "empty.00000.parquet"} < names
    assert sum(name.startswith("a.txt.") for name in names) > 5
    assert {name for name in names if name.startswith("_") and "_finished" not in name} == {"_bertfast.json"}
    assert json.loads((tmp_path / "out/_bertfast.json").read_text())["finished"] is True
    table = read(tmp_path / "out")
    assert table["text"].to_pylist() == LINES + LINES[:30]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    expected = bertfast.Encoder.from_pretrained(tiny).encode(LINES + LINES[:30], normalize_embeddings=True)
    assert np.array_equal(vectors_of(table), expected)


def test_json_lines_and_parquet_carry_their_columns(
    bertfast_ray: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    entries = [{"id": n, "body": text, "tags": [n], "score": n / 2} for n, text in enumerate(LINES)]
    write_lines(tmp_path / "in.jsonl", [json.dumps(entry) for entry in entries])
    pq.write_table(pa.Table.from_pylist(entries), tmp_path / "in.parquet", row_group_size=20)
    expected = bertfast.Encoder.from_pretrained(tiny).encode(LINES)
    found = {}
    for kind in ("jsonl", "parquet"):
        out = tmp_path / f"out-{kind}"
        arguments = [tiny, tmp_path / f"in.{kind}", "--field", "body", "--piece-size", "1KB"]
        bertfast_ray("encode", *arguments, output=out)
        found[kind] = read(out)
        assert len(files_in(out)) > 5
        assert np.array_equal(vectors_of(found[kind]), expected)
        assert found[kind]["id"].to_pylist() == list(range(len(LINES)))
        assert found[kind].column_names == ["id", "body", "tags", "score", "embedding"]
    assert found["parquet"]["tags"].to_pylist() == [[n] for n in range(len(LINES))]
    assert found["jsonl"]["tags"].to_pylist() == [f"[{n}]" for n in range(len(LINES))]
    assert found["jsonl"]["score"].to_pylist() == [n / 2 for n in range(len(LINES))]
    options = ["--field", "body", "--columns", "id:int64", "--output-column", "v"]
    bertfast_ray("encode", tiny, tmp_path / "in.jsonl", *options, output=tmp_path / "few")
    assert read(tmp_path / "few").column_names == ["id", "v"]
    options = ["--field", "body", "--columns", ""]
    bertfast_ray("encode", tiny, tmp_path / "in.parquet", *options, output=tmp_path / "none")
    assert read(tmp_path / "none").column_names == ["embedding"]
    # Its own output is input again, and a URI is as good as a path.
    options = ["--field", "body", "--output-column", "again"]
    bertfast_ray("encode", tiny, f"file://{tmp_path}/out-parquet", *options, output=tmp_path / "twice")
    table = read(tmp_path / "twice")
    assert table["again"].to_pylist() == table["embedding"].to_pylist()
    assert table.drop(["again"]).equals(found["parquet"])


def test_real_weights_and_texts(
    bertfast_ray: Callable[..., str], minilm: Path, tmp_path: Path, real_texts: list[str]
) -> None:
    texts = real_texts[:100]
    write_lines(tmp_path / "in.txt", texts)
    bertfast_ray("encode", minilm, tmp_path / "in.txt", "--piece-size", "6KB", "--dtype", "int8")
    table = read(tmp_path / "out")
    assert table["text"].to_pylist() == texts
    expected = bertfast.Encoder.from_pretrained(minilm, dtype="int8").encode(texts)
    assert np.array_equal(vectors_of(table), expected)


def test_predictions(bertfast_ray: Callable[..., str], minilm: Path, tmp_path: Path) -> None:
    folder = make_task_folder(tmp_path / "model", transformers.BertForSequenceClassification, minilm)
    texts = ["It rains.", "Ada was born", "", "x y z"] * 5
    write_lines(tmp_path / "in.txt", texts)
    arguments = ["sentiment-analysis", folder, tmp_path / "in.txt", "--piece-size", "50", "--top-k", "all"]
    bertfast_ray("predict", *arguments)
    table = read(tmp_path / "out")
    assert table.column_names == ["text", "prediction"]
    expected = bertfast.pipeline("text-classification", folder)(texts, top_k=None)
    assert table["prediction"].to_pylist() == expected
    entries = [{"a": one, "b": other} for one, other in zip(texts, texts[::-1], strict=True)]
    write_lines(tmp_path / "in.jsonl", [json.dumps(entry) for entry in entries])
    arguments = ["text-classification", folder, tmp_path / "in.jsonl", "--field", "a", "--pair-field", "b"]
    bertfast_ray("predict", *arguments, output=tmp_path / "pairs")
    pairs = [{"text": entry["a"], "text_pair": entry["b"]} for entry in entries]
    assert read(tmp_path / "pairs")["prediction"].to_pylist() == bertfast.pipeline(
        "text-classification", folder
    )(pairs)


def test_a_node_is_killed_in_the_middle(
    three_nodes: Any,
    bertfast_ray: Callable[..., str],
    minilm: Path,
    tmp_path: Path,
    english_texts: list[str],
) -> None:
    texts = english_texts[:: len(english_texts) // REAL_TEXTS][:REAL_TEXTS]
    assert len(texts) == REAL_TEXTS
    quarter = REAL_TEXTS // 4
    for number in range(4):
        write_lines(tmp_path / f"in/{number}.txt", texts[number * quarter :][:quarter])
    with three_nodes.one_is_killed_when(lambda: len(list((tmp_path / "out").glob("*.parquet"))) > 3):
        bertfast_ray("encode", minilm, tmp_path / "in", "--piece-size", str(REAL_TEXTS * 10))
    table = read(tmp_path / "out")
    assert table["text"].to_pylist() == texts
    assert np.array_equal(vectors_of(table), bertfast.Encoder.from_pretrained(minilm).encode(texts))
    assert not (tmp_path / "out/_temporary").exists()


def test_the_driver_is_killed_and_goes_on(
    three_nodes: Any,
    bertfast_ray: Callable[..., str],
    minilm: Path,
    cache: Path,
    tmp_path: Path,
    real_texts: list[str],
) -> None:
    texts, out = real_texts[:200], tmp_path / "out"
    for number in range(4):
        write_lines(tmp_path / f"in/{number}.txt", texts[number * 50 : number * 50 + 50])
    arguments = ["encode", minilm, tmp_path / "in", "--piece-size", "2KB"]
    where = ["-o", out, "--ray", three_nodes.address, "--cache-dir", cache]
    process = subprocess.Popen(
        [sys.executable, "-m", "bertfast", *map(str, [*arguments, *where])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 300
        while not list((out / "_finished").glob("*.json")) and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = {path.name.removesuffix(".json") for path in (out / "_finished").iterdir()}
    assert 1 <= len(finished) < 4
    assert json.loads((out / "_bertfast.json").read_text())["finished"] is False
    # Its workers end with it, some time later.
    end = time.monotonic() + 300
    while ray.available_resources().get("CPU", 0) < 3 and time.monotonic() < end:
        time.sleep(0.1)
    before = {path: path.stat() for path in out.glob("*.parquet")}
    assert len(before) > len(finished)
    message = bertfast_ray(*arguments, status=2)
    assert message.startswith(f"output: expected a new or an empty folder, got {out}; --resume goes on")
    message = bertfast_ray(*arguments, "--resume", "--dtype", "int8", status=2)
    assert message == f"{out}: expected the run that began it, dtype 'float32', got 'int8'"
    bertfast_ray(*arguments, "--resume")
    # What was there was left alone, whether its file was finished or not.
    for path, facts in before.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (facts.st_ino, facts.st_mtime_ns), path
    table = read(out)
    assert table["text"].to_pylist() == texts
    assert np.array_equal(vectors_of(table), bertfast.Encoder.from_pretrained(minilm).encode(texts))
    assert not (out / "_temporary").exists()
    whole = tmp_path / "whole"
    bertfast_ray(*arguments, output=whole)
    assert files_in(whole) == files_in(out)
    for name in files_in(whole):
        assert (whole / name).read_bytes() == (out / name).read_bytes(), name


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_is_in_order(
    three_nodes: Any, minilm: Path, cache: Path, tmp_path: Path, real_texts: list[str], sent: int, status: int
) -> None:
    write_lines(tmp_path / "in.txt", real_texts[:200])
    where = ["--ray", three_nodes.address, "--cache-dir", cache, "--quiet", "--piece-size", "2KB"]
    arguments = ["encode", minilm, tmp_path / "in.txt", "-o", tmp_path / "out", *where]
    process = subprocess.Popen(
        [sys.executable, "-m", "bertfast", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 300
    while not list(tmp_path.glob("out/*.parquet")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(sent)
    _, said = process.communicate(timeout=300)
    assert process.returncode == status, said
    assert "Traceback" not in said
    assert json.loads((tmp_path / "out/_bertfast.json").read_text())["finished"] is False
    assert not (tmp_path / "out/_temporary").exists()


def test_resume_takes_new_files_and_no_changed_ones(
    bertfast_ray: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "in", tmp_path / "out"
    write_lines(path / "a.txt", LINES[:10])
    bertfast_ray("encode", tiny, path)
    made = (out / "a.txt.00000.parquet").stat().st_mtime_ns
    write_lines(path / "b.txt", LINES[10:20])
    bertfast_ray("encode", tiny, path, "--resume")
    assert (out / "a.txt.00000.parquet").stat().st_mtime_ns == made
    assert read(out)["text"].to_pylist() == LINES[:20]
    # A piece that somebody deleted is made again.
    (out / "b.txt.00000.parquet").unlink()
    bertfast_ray("encode", tiny, path, "--resume")
    assert read(out)["text"].to_pylist() == LINES[:20]
    write_lines(path / "a.txt", LINES[:11])
    message = bertfast_ray("encode", tiny, path, "--resume", status=2)
    assert message.startswith(f"a.txt: changed since {out} was begun: expected modified ")
    (path / "a.txt").unlink()
    message = bertfast_ray("encode", tiny, path, "--resume", status=2)
    assert message == f"{out}: expected the input a.txt that it began with, got none"


class TestBadInput:
    def test_a_row_ends_the_run_or_is_skipped(
        self, bertfast_ray: Callable[..., str], tiny: Path, tmp_path: Path
    ) -> None:
        lines = [json.dumps({"text": text}) for text in LINES]
        lines[37] = '{"text": null}'
        lines[38] = '{"text": 3}'
        lines[90] = "no JSON"
        path = write_lines(tmp_path / "in.jsonl", lines)
        arguments = ["encode", tiny, path, "--field", "text", "--piece-size", "500"]
        message = bertfast_ray(*arguments, "--workers", "1", status=2)
        assert message == f"{path}:38: field 'text' must be a string, got NoneType"
        manifest = json.loads((tmp_path / "out/_bertfast.json").read_text())
        assert manifest["finished"] is False
        assert files_in(tmp_path / "out") & {"_finished/in.jsonl.json"} == set()
        assert not (tmp_path / "out/_temporary").exists()
        # Who skips them may go on with what there is.
        bertfast_ray(*arguments, "--resume", "--on-error", "skip")
        kept = [text for index, text in enumerate(LINES) if index not in (37, 38, 90)]
        table = read(tmp_path / "out")
        assert table["text"].to_pylist() == kept
        assert np.array_equal(vectors_of(table), bertfast.Encoder.from_pretrained(tiny).encode(kept))
        skipped = [
            json.loads(line)
            for file in sorted((tmp_path / "out/_skipped").iterdir())
            for line in file.read_text().splitlines()
        ]
        assert [(entry["file"], entry["row"]) for entry in skipped] == [(str(path), n) for n in (38, 39, 91)]
        assert skipped[1]["reason"] == "field 'text' must be a string, got int"
        assert skipped[2]["reason"].startswith("not a JSON object: ")

    def test_a_field_that_no_line_has(
        self, bertfast_ray: Callable[..., str], tiny: Path, tmp_path: Path
    ) -> None:
        path = write_lines(tmp_path / "in.jsonl", ['{"text": "a", "n": 1}'])
        message = bertfast_ray("encode", tiny, path, "--field", "body", status=2)
        assert message == f"{path}: expected a field 'body' in the first lines, got 'text', 'n'"

    def test_a_row_of_parquet(self, bertfast_ray: Callable[..., str], tiny: Path, tmp_path: Path) -> None:
        texts = [*LINES[:50], None, *LINES[50:]]
        pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet", row_group_size=10)
        message = bertfast_ray("encode", tiny, tmp_path / "in.parquet", "--piece-size", "300", status=2)
        assert message == f"{tmp_path}/in.parquet:51: column 'text': expected str, got null"

    def test_a_text_that_is_too_long_for_a_task(
        self, bertfast_ray: Callable[..., str], minilm: Path, tmp_path: Path
    ) -> None:
        folder = make_task_folder(tmp_path / "model", transformers.BertForSequenceClassification, minilm)
        texts = ["fine"] * 10
        texts[3] = texts[7] = "long " * 60
        path = write_lines(tmp_path / "in.txt", texts)
        message = bertfast_ray("predict", "text-classification", folder, path, status=2)
        assert message == f"{path}:4: expected at most 48 tokens, got 62; --truncation cuts it off"
        out = tmp_path / "skipped"
        bertfast_ray("predict", "text-classification", folder, path, "--on-error", "skip", output=out)
        assert read(out)["text"].to_pylist() == ["fine"] * 8
        (file,) = (out / "_skipped").iterdir()
        assert [json.loads(line)["row"] for line in file.read_text().splitlines()] == [4, 8]
        expected = bertfast.pipeline("text-classification", folder)(["fine"] * 8)
        assert read(out)["prediction"].to_pylist() == expected
        arguments = ["text-classification", folder, path, "--option", "truncation=[3]"]
        message = bertfast_ray("predict", *arguments, status=2, output=tmp_path / "other")
        assert message.startswith("truncation: expected one of ")
        assert not (tmp_path / "other/_bertfast.json").exists()

    def test_a_file_that_cannot_be_read(
        self, bertfast_ray: Callable[..., str], tiny: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "in"
        write_lines(path / "a.txt", LINES[:5])
        (path / "b.parquet").write_bytes(b"PAR1 and nothing else")
        message = bertfast_ray("encode", tiny, path, status=2)
        assert message.startswith(f"{path}/b.parquet: damaged Parquet: ")
        assert not (tmp_path / "out").exists()
        pq.write_table(pa.table({"body": ["a"]}), path / "b.parquet")
        assert bertfast_ray("encode", tiny, path, status=2) == (
            f"{path}/b.parquet: expected one column 'text', got 'body'"
        )
        (path / "c.txt").symlink_to(path / "nowhere")
        (path / "d.txt.gz").write_bytes(gzip.compress(b"a\nb\n" + os.urandom(5000).hex().encode())[:-2000])
        bertfast_ray("encode", tiny, path, "--on-error", "skip")
        found = read(tmp_path / "out")["text"].to_pylist()
        assert found[:5] == LINES[:5]
        skipped = files_in(tmp_path / "out/_skipped")
        assert {"b.parquet.jsonl", "c.txt.jsonl", "d.txt.gz.00000.jsonl"} <= skipped
        (reason,) = (tmp_path / "out/_skipped/d.txt.gz.00000.jsonl").read_text().splitlines()
        assert "damaged gzip data after line 2" in reason

    def test_a_model_that_is_not_there(
        self, bertfast_ray: Callable[..., str], tmp_path: Path, tiny: Path
    ) -> None:
        path = write_lines(tmp_path / "in.txt", LINES[:5])
        message = bertfast_ray("encode", tmp_path / "none", path, status=2)
        assert f"{tmp_path}/none: no such folder" in message
        assert message.startswith("node ")
        (tmp_path / "empty").mkdir()
        assert "config.json" in bertfast_ray("encode", tmp_path / "empty", path, status=2)
        assert not (tmp_path / "out").exists()
        assert bertfast_ray("encode", tiny, path, "--prompt-name", "x", status=2).startswith(
            "prompt_name: expected one of query, document, got 'x'"
        )
        # Nothing was begun that the next one would have to go on with.
        bertfast_ray("encode", tiny, path)

    def test_an_output_that_cannot_be_written(
        self, bertfast_ray: Callable[..., str], tiny: Path, tmp_path: Path
    ) -> None:
        path = write_lines(tmp_path / "in/a.txt", LINES[:5])
        message = bertfast_ray("encode", tiny, path, status=2, output=path)
        assert message.startswith("output: expected a folder apart from the input")
        message = bertfast_ray("encode", tiny, tmp_path / "in", status=2, output=tmp_path / "in/out")
        assert message.startswith("output: expected a folder apart from the input")
        (tmp_path / "file").touch()
        message = bertfast_ray("encode", tiny, path, status=2, output=tmp_path / "file")
        assert message == f"output: expected a folder, got the file {tmp_path}/file"
        (tmp_path / "other").mkdir()
        (tmp_path / "other/x").touch()
        message = bertfast_ray("encode", tiny, path, "--resume", status=2, output=tmp_path / "other")
        assert message.startswith(f"output: expected _bertfast.json in {tmp_path}/other")
        message = bertfast_ray("encode", tiny, path, status=2, output=tmp_path / "file/x")
        assert f"{tmp_path}/file" in message

    def test_a_column_that_is_there_already(
        self, bertfast_ray: Callable[..., str], tiny: Path, tmp_path: Path
    ) -> None:
        pq.write_table(pa.table({"text": ["a"], "embedding": [1]}), tmp_path / "in.parquet")
        message = bertfast_ray("encode", tiny, tmp_path / "in.parquet", status=2)
        assert message == f"{tmp_path}/in.parquet: column 'embedding': expected none of this name, got one"


def test_without_ray_one_file_as_before(tiny: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.txt", LINES[:5])
    message = error_of(run_bertfast("encode", tiny, path, path, "-o", tmp_path / "v.npy"))
    assert message == "FILE: expected one without --ray, got 2"
    message = error_of(run_bertfast("encode", tiny, path, "-o", tmp_path / "v.npy", "--resume"))
    assert message == "--resume: expected --ray beside it"
    message = error_of(run_bertfast("encode", tiny, "--ray", path, path, "-o", tmp_path / "v"))
    assert message.startswith(f"--ray: expected an address, got the file {path}")


def test_a_cluster_of_its_own(tiny: Path, tmp_path: Path, cache: Path) -> None:
    path = write_lines(tmp_path / "in.txt", LINES[:5])
    arguments = ["encode", tiny, path, "-o", tmp_path / "out", "--ray", "local", "--cache-dir", cache]
    done = run_bertfast(*arguments)
    assert done.returncode == 0, done.stderr
    assert "5 texts of 1 files in" in done.stderr
    assert read(tmp_path / "out")["text"].to_pylist() == LINES[:5]
    done = run_bertfast(*arguments, "--resume", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "bertfast: warning: 1 texts are longer than the model takes and were cut off\n"
