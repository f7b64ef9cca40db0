"""A corpus that a cluster builds: the bytes of one machine, whatever dies meanwhile."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import bertfast
from bertfast import pretraining
from bertfast.distributed import build_corpus
from bertfast.distributed.corpus import _number_of_shards
from bertfast.pretraining import Corpus
from bertfast.pretraining.build_job import files_for
from cluster_corpora import Gate, nothing_is_left, shards_of, wait_for, whole_shards
from command_line import error_of, run_bertfast
from token_store import files

# Of text that is built from; the default is what a test has time for.
MEGABYTES = int(os.environ.get("BERTFAST_CLUSTER_MEGABYTES", "3"))


@pytest.fixture(scope="module")
def english(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dictionary entries, one a line."""
    path = tmp_path_factory.mktemp("inputs") / "english.txt"
    data = (data_dir / "english.txt").read_bytes()
    left = MEGABYTES * 1_000_000
    with path.open("wb") as file:
        while left > 0:
            left -= file.write(data[: data.find(b"\n", left) + 1] if left < len(data) else data)
    return path


@pytest.mark.parametrize(
    ("options", "num_shards"),
    [
        ({"documents": "line"}, 7),
        ({"documents": "line", "split_sentences": True}, None),
        ({"split_sentences": lambda text: text.split(". ")}, 3),
    ],
)
def test_the_bytes_of_one_machine(three_nodes, english, data_dir, tokenizer, tmp_path, options, num_shards):
    bible = (data_dir / "bible-chapters.txt").read_bytes()
    (tmp_path / "a.txt").write_bytes(bible[:500_000])
    (tmp_path / "b.gz").write_bytes(gzip.compress(bible[500_000:700_000]))
    (tmp_path / "c.txt").write_bytes(b"")
    inputs = [tmp_path / "a.txt", tmp_path / "b.gz", english, tmp_path / "c.txt"]
    if callable(options.get("split_sentences")):
        # A function of Python takes its time.
        inputs.remove(english)
    store, whole = tmp_path / "store", tmp_path / "whole"
    pretraining.build_corpus(inputs, tokenizer, whole, **options)
    corpus = build_corpus(inputs, tokenizer, store, num_shards=num_shards, **options)
    assert corpus.num_documents == Corpus(whole).num_documents > 100
    assert files(store) == files(whole)
    assert not shards_of(store).exists()


@pytest.mark.parametrize(
    ("mebibytes", "at_once", "expected"),
    [(0, 8, 1), (9, 8, 1), (80, 8, 10), (960, 3, 12), (1 << 20, 8, 1024), (1 << 20, 512, 2048)],
)
def test_how_many_shards_there_are(few, mebibytes, at_once, expected):
    file = dataclasses.replace(files_for(few, few.parent / "store")[0], size=mebibytes << 19)
    assert _number_of_shards([file, file], at_once) == expected


def test_every_format_and_a_segmenter(three_nodes, chinese_texts, data_dir, tmp_path, monkeypatch, capsys):
    tokenizer = bertfast.Tokenizer.from_pretrained(data_dir / "vocab-zh", compat="google")
    texts, inputs = chinese_texts[:240], tmp_path / "inputs"
    inputs.mkdir()
    for name, first in (("a.jsonl", 0), ("e.jsonl", 180)):
        lines = [json.dumps({"body": text}) + "\n" for text in texts[first : first + 60]]
        (inputs / name).write_text("".join(lines))
    pq.write_table(pa.table({"body": texts[60:120]}), inputs / "b.parquet", row_group_size=7)
    lines = [json.dumps({"body": text}, ensure_ascii=False) for text in texts[120:180]]
    (inputs / "c.zst").write_bytes(zstandard.compress("\n".join(lines).encode()))
    store, whole = tmp_path / "new/store", tmp_path / "whole"
    options = {"field": "body", "segmenter": "jieba", "split_sentences": True}
    pretraining.build_corpus(inputs, tokenizer, whole, **options)
    monkeypatch.setattr("bertfast.file_progress.StatusLine.is_due", lambda self: True)
    corpus = build_corpus(inputs, tokenizer, store, num_shards=4, show_progress=True, **options)
    assert corpus.num_documents == 240
    shown = capsys.readouterr().err
    assert re.search(r"^[1-3] of 4 shards, (25|50|75)%, \d+ s left$", shown, re.MULTILINE)
    assert "4 of 4 shards, 100%, 0 s left\nmerging 4 shards\n" in shown
    assert files(store) == files(whole)


@pytest.mark.parametrize("workers", ["die too", "go on"])
def test_a_node_dies_in_the_middle(three_nodes, few, tokenizer, tmp_path, workers):
    gate = Gate(tmp_path / "gate", lambda text: True)
    store, whole = tmp_path / "store", tmp_path / "whole"
    victim = three_nodes.cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    seen: list[object] = []

    def kill() -> None:
        try:
            wait_for(lambda: victim.node_id in gate.begun())
            seen.append((store.exists(), whole_shards(store)))
            three_nodes.cluster.remove_node(victim, allow_graceful=False)
            if workers == "die too":
                os.kill(gate.begun()[victim.node_id], signal.SIGKILL)
        finally:
            gate.open()

    killer = threading.Thread(target=kill)
    killer.start()
    options = {"documents": "line", "split_sentences": gate.splitter()}
    build_corpus(few, tokenizer, store, num_shards=8, **options)
    killer.join()
    assert seen == [(False, [])]
    # What the dead had begun was done again. Who only seemed to be dead may have ended what it had begun.
    lines = len(few.read_text().splitlines())
    assert gate.calls() >= lines + (workers == "die too")
    pretraining.build_corpus(few, tokenizer, whole, **options)
    assert gate.calls() == lines
    assert files(store) == files(whole)
    assert not shards_of(store).exists()


def test_a_node_dies_at_any_moment(three_nodes, english, tokenizer, tmp_path):
    store, whole = tmp_path / "store", tmp_path / "whole"

    def kill() -> None:
        wait_for(lambda: whole_shards(store))
        three_nodes.kill_one()

    killer = threading.Thread(target=kill)
    killer.start()
    build_corpus(english, tokenizer, store, documents="line", num_shards=24)
    killer.join()
    pretraining.build_corpus(english, tokenizer, whole, documents="line")
    assert files(store) == files(whole)


def without_progress(stderr: str) -> list[str]:
    """The lines but for those that are written now and then, if it takes long."""
    return [line for line in stderr.splitlines() if not re.match(r"\d+ of \d+ shards, ", line)]


# The command, with sentences that a gate lets through.
COMMAND = """
import functools
import sys
from pathlib import Path
from bertfast import cli, distributed
sys.path.insert(0, str(Path(sys.argv[1]).parents[1]))
from cluster_corpora import Gate
gate, last = Gate.__new__(Gate), sys.argv[3]
gate.folder, gate.waits = Path(sys.argv[2]), lambda text: text == last
build, split = distributed.build_corpus, gate.splitter()
split.__module__ = "gate"
distributed.build_corpus = lambda *given, **options: build(*given, **(options | {"split_sentences": split}))
sys.exit(cli.main(sys.argv[4:]))
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_the_driver_ends_and_is_started_again(three_nodes, few, minilm, tmp_path, number, status):
    lines = few.read_text().splitlines()
    gate = Gate(tmp_path / "gate", lambda text: text == lines[-1])
    store, whole = tmp_path / "store", tmp_path / "whole"
    build = ["corpus", "build", few, "--model", minilm, "--documents", "line", "-o", store]
    command = [sys.executable, "-c", COMMAND, __file__, str(gate.folder), lines[-1], *map(str, build)]
    command += ["--ray", three_nodes.address]
    driver = subprocess.Popen([*command, "--num-shards", "6"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: driver.poll() is not None or (gate.begun() and len(whole_shards(store)) == 5))
    driver.send_signal(number)
    stderr = driver.communicate(timeout=60)[1]
    assert driver.returncode == status, stderr
    if number == signal.SIGINT:
        goes_on, interrupted = without_progress(stderr)
        assert goes_on == f"{store} is not finished: the same command with --resume goes on"
        assert interrupted == "bertfast: interrupted"
    # Ray ends the workers of a driver that has gone.
    (worker,) = gate.begun().values()
    wait_for(lambda: not Path("/proc", str(worker)).exists())
    assert not store.exists()
    done = sum(Corpus(shard).num_sentences for shard in whole_shards(store))
    assert 0 < done < len(lines)
    message = error_of(subprocess.run(command, capture_output=True, text=True))
    assert message == f"{store}.shards: has shards of an unfinished corpus: resume it, or overwrite it"
    assert len(whole_shards(store)) == 5
    gate.open()
    gate.calls()
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    said = without_progress(again.stderr)
    assert said[:2] == ["going on: 5 of 6 shards are there", "merging 6 shards"]
    assert gate.calls() == len(lines) - done
    split = gate.splitter()
    split.__module__ = "gate"
    pretraining.build_corpus(few, minilm, whole, documents="line", split_sentences=split)
    assert files(store) == files(whole)
    assert not shards_of(store).exists()


def test_the_command(three_nodes, begun, few, few_files, minilm, tmp_path):
    store = tmp_path / "a"
    arguments = ["corpus", "build", few, "--model", minilm, "--documents", "line"]
    cluster = ["--ray", three_nodes.address]
    done = run_bertfast(*arguments, "-o", store, *cluster, "--num-shards", "2")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    merging, last = without_progress(done.stderr)
    assert merging == "merging 2 shards"
    assert re.fullmatch(rf"{store}: [\d,]+ documents, [\d,]+ sentences, [\d,]+ tokens in \d+\.\d s", last)
    assert files(store) == few_files
    assert error_of(run_bertfast(*arguments, "-o", store, *cluster)).startswith(f"{store}: is a finished")
    # A path that says not where from is that of the command, not of the workers.
    begun((0, 2))
    place = os.path.relpath(few, tmp_path)
    relative = ["corpus", "build", place, "--model", minilm, "--documents", "line", "-o", "store"]
    done = run_bertfast(*relative, *cluster, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "going on: 2 of 3 shards are there"
    assert files(tmp_path / "store") == few_files
    done = run_bertfast(*arguments, "-o", store, *cluster, "--overwrite", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    for options, message in [
        (["--ray", "127.0.0.1:1"], "address: expected a Ray cluster at 127.0.0.1:1, got no answer: "),
        (["--ray", "ray://head:10001"], "address: expected host:port, got 'ray://head:10001'"),
        ([*cluster, "--shard", "0/2"], "--shard: expected it without --ray"),
        (
            [*cluster, "--num-threads", "2"],
            "num_cpus: expected at most 1, the CPUs of the largest node, got 2",
        ),
        (["--resume"], "--resume: expected it with --ray only"),
        (["--num-shards", "2"], "--num-shards: expected it with --ray only"),
    ]:
        message_there = error_of(run_bertfast(*arguments, "-o", tmp_path / "x", *options))
        assert message_there.startswith(message)
        assert nothing_is_left(tmp_path / "x")
