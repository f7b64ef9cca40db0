"""A corpus that a cluster builds: the bytes of one machine, whatever dies meanwhile."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import bertfast
from bertfast import pretraining
from bertfast.distributed import build_corpus
from bertfast.distributed.corpus import _number_of_shards
from bertfast.distributed.shard_folder import ShardFolder, ShardWork
from bertfast.errors import ArgumentError, ClusterError, CorpusError
from bertfast.pretraining import Corpus
from bertfast.pretraining.build_job import BuildJob, BuildOptions, files_for
from command_line import error_of, run_bertfast
from token_store import files

# Of text that is built from; the default is what a test has time for.
MEGABYTES = int(os.environ.get("BERTFAST_CLUSTER_MEGABYTES", "3"))


@pytest.fixture(scope="module")
def tokenizer(minilm: Path) -> bertfast.Tokenizer:
    return bertfast.Tokenizer.from_pretrained(minilm)


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


@pytest.fixture(scope="module")
def few(english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "few.txt"
    data = english.read_bytes()[:60_000]
    path.write_bytes(data[: data.rindex(b"\n") + 1])
    return path


def shards_of(store: Path) -> Path:
    return store.with_name(store.name + ".shards")


def whole_shards(store: Path) -> list[Path]:
    return sorted(shards_of(store).glob("shard-*"))


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


class Gate:
    """Texts that are not split before somebody says so, and who has begun with one."""

    def __init__(self, folder: Path, waits: Callable[[str], bool]) -> None:
        folder.mkdir()
        self.folder, self.waits = folder, waits

    def open(self) -> None:
        (self.folder / "open").touch()

    def begun(self) -> dict[str, int]:
        """The nodes that have begun, with the process that has."""
        return {path.name.partition("-")[2]: int(path.read_bytes()) for path in self.folder.glob("node-*")}

    def splitter(self) -> Callable[[str], list[str]]:
        # By value, as a function within one is: workers know nothing of this module.
        folder, waits = self.folder, self.waits

        def split(text: str) -> list[str]:
            with open(folder / "calls", "ab") as calls:
                calls.write(b".")
            if waits(text) and not (folder / "open").exists():
                import ray

                node = ray.get_runtime_context().get_node_id()
                (folder / f"new-{node}").write_text(str(os.getpid()))
                (folder / f"new-{node}").rename(folder / f"node-{node}")
                while not (folder / "open").exists():
                    time.sleep(0.02)
            return [text]

        return split

    def calls(self) -> int:
        """How many texts were split since it was asked last."""
        path = self.folder / "calls"
        count = path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
        return count


def wait_for(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


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


# The command, with sentences that a gate lets through.
COMMAND = """
import functools
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from bertfast import cli, distributed
sys.path.insert(0, str(Path(sys.argv[1]).parents[1]))
spec = spec_from_file_location("test_corpus", sys.argv[1])
tests = module_from_spec(spec)
spec.loader.exec_module(tests)
gate, last = tests.Gate.__new__(tests.Gate), sys.argv[3]
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
        goes_on, interrupted = stderr.splitlines()
        assert goes_on == f"{store} is not finished: the same command with --resume goes on"
        assert interrupted == "bertfast: interrupted"
    # Ray ends the workers of a driver that has gone.
    (worker,) = gate.begun().values()
    wait_for(lambda: not Path("/proc", str(worker)).exists())
    assert not store.exists()
    assert number == signal.SIGKILL or not list(shards_of(store).glob(".shard*"))
    done = sum(Corpus(shard).num_sentences for shard in whole_shards(store))
    assert 0 < done < len(lines)
    message = error_of(subprocess.run(command, capture_output=True, text=True))
    assert message == f"{store}.shards: has shards of an unfinished corpus: resume it, or overwrite it"
    assert len(whole_shards(store)) == 5
    gate.open()
    gate.calls()
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stderr.startswith("going on: 5 of 6 shards are there\nmerging 6 shards\n")
    assert gate.calls() == len(lines) - done
    split = gate.splitter()
    split.__module__ = "gate"
    pretraining.build_corpus(few, minilm, whole, documents="line", split_sentences=split)
    assert files(store) == files(whole)
    assert not shards_of(store).exists()


@pytest.fixture
def begun(few: Path, tokenizer: bertfast.Tokenizer, tmp_path: Path) -> Callable[..., Path]:
    """Makes what a driver leaves that was killed."""

    def begin(built: Sequence[int] = (0,), name: str = "store", **changes: Any) -> Path:
        store = tmp_path / name
        folder = ShardFolder(store)
        folder.path.mkdir()
        work = work_of(folder, few, tokenizer, **changes)
        for index in built:
            work.build(index)
        return store

    return begin


def work_of(folder: ShardFolder, inputs: Path, tokenizer: bertfast.Tokenizer, **changes: Any) -> ShardWork:
    options = BuildOptions(documents="line")
    found = files_for(inputs, folder.path)
    described = BuildJob.of(found, tokenizer, folder.path, options).options
    key = folder.begin(found, tokenizer, described, 3)
    work = ShardWork(folder.path, key, found, tokenizer, options, described, 3)
    return dataclasses.replace(work, **changes)


@pytest.fixture(scope="module")
def few_files(few: Path, tokenizer: bertfast.Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> object:
    """What is in a store of the few."""
    store = tmp_path_factory.mktemp("few") / "store"
    pretraining.build_corpus(few, tokenizer, store, documents="line")
    return files(store)


def test_what_a_driver_leaves_at_the_end(three_nodes, begun, few, few_files, tokenizer, tmp_path):
    options = {"documents": "line", "resume": True}
    # Behind the merge, with the shards there or not.
    for index, gone in enumerate((0, 2)):
        store = begun((0, 1, 2), f"merged{index}")
        ShardFolder(store).begin_merging()
        pretraining.merge_corpora(whole_shards(store), store)
        before = (store / "tokens.bin").stat().st_ino
        for shard in whole_shards(store)[:gone]:
            shutil.rmtree(shard)
        build_corpus(few, tokenizer, store, **options)
        assert (store / "tokens.bin").stat().st_ino == before
        assert not shards_of(store).exists()
    # In the middle of it.
    store = begun((0, 1, 2), "merging")
    ShardFolder(store).begin_merging()
    pretraining.merge_corpora(whole_shards(store), store)
    (store / "manifest.json").rename(store / "manifest.json.new")
    (store / "documents.bin").unlink()
    build_corpus(few, tokenizer, store, **options)
    assert files(store) == few_files
    assert not shards_of(store).exists()
    # Before it: a store that is there is somebody else's.
    store = begun((0, 1, 2), "other")
    pretraining.build_corpus(few, tokenizer, store, documents="line")
    with pytest.raises(FileExistsError, match="is a finished corpus"):
        build_corpus(few, tokenizer, store, **options)
    assert len(whole_shards(store)) == 3
    (store / "manifest.json").unlink()
    with pytest.raises(CorpusError, match=r"other: expected an empty folder, found documents\.bin$"):
        build_corpus(few, tokenizer, store, **options)
    shutil.rmtree(store)
    build_corpus(few, tokenizer, store, **options)
    assert files(store) == few_files
    build_corpus(few, tokenizer, store, documents="line", overwrite=True)
    assert files(store) == few_files
    assert not shards_of(store).exists()
    # Attempts that came to nothing, and a job that was not written yet.
    store = tmp_path / "attempts"
    (shards_of(store) / ".shard-00000-of-00003.0a.tmp").mkdir(parents=True)
    (shards_of(store) / ".job.json.0a.tmp").touch()
    build_corpus(few, tokenizer, store, documents="line")
    assert files(store) == few_files
    assert not shards_of(store).exists()


def test_a_damaged_shard_is_in_no_store(three_nodes, begun, few, few_files, tokenizer):
    store = begun()
    tokens = whole_shards(store)[0] / "tokens.bin"
    tokens.write_bytes(b"\x01\x02" + tokens.read_bytes()[2:])
    for _ in range(2):
        with pytest.raises(CorpusError, match=r"tokens\.bin: damaged.* \(to begin anew: overwrite\)$"):
            build_corpus(few, tokenizer, store, documents="line", resume=True)
        assert not store.exists()
    build_corpus(few, tokenizer, store, documents="line", overwrite=True)
    assert files(store) == few_files


def test_what_is_gone_on_with_must_be_the_same(
    three_nodes, begun, few, minilm, data_dir, tokenizer, tmp_path
):
    store = begun()
    same = {"inputs": few, "tokenizer": tokenizer, "documents": "line"}
    for changes, message in [
        ({"documents": "file"}, r'options\.documents: expected "line", got "file"'),
        ({"split_sentences": True}, r"options\.split_sentences: expected false, got true"),
        ({"num_shards": 4}, "num_shards: expected 3, got 4"),
        ({"tokenizer": data_dir / "vocab-zh"}, r"tokenizer/\w+\.json: was begun with another tokenizer"),
        ({"inputs": [few, few]}, "was begun with 1 input files, now there are 2"),
    ]:
        with pytest.raises(CorpusError, match=rf"{message}.* \(to begin anew: overwrite\)$"):
            build_corpus(**(same | changes), store=store, resume=True)
        assert len(whole_shards(store)) == 1
    with pytest.raises(ArgumentError, match="resume: expected it without overwrite"):
        build_corpus(**same, store=store, resume=True, overwrite=True)
    folder = ShardFolder(store)
    with folder.locked(), pytest.raises(CorpusError, match=r"store\.shards: another process is building it$"):
        build_corpus(**same, store=store, overwrite=True)
    for content in ("{", "[]", "{}"):
        (folder.path / "job.json").write_text(content)
        with pytest.raises(CorpusError, match=r"job\.json: damaged: .*\(to begin anew: overwrite\)$"):
            build_corpus(**same, store=store, resume=True)
    (folder.path / "notes").write_text("mine")
    with pytest.raises(CorpusError, match="expected shards of a corpus or nothing, found notes"):
        build_corpus(**same, store=store, overwrite=True)
    assert len(whole_shards(store)) == 1


def nothing_is_left(store: Path) -> bool:
    return not store.exists() and not shards_of(store).exists()


def test_what_is_wrong_in_an_input_is_said_as_on_one_machine(three_nodes, few, tokenizer, tmp_path):
    store, bad = tmp_path / "store", tmp_path / "bad.txt"
    bad.write_bytes(few.read_bytes() + b"good\nbad \xff\n")
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(few.read_bytes())[:-100])
    blank = tmp_path / "blank"
    blank.write_text(" \n\n")
    for inputs in (bad, cut, blank, tmp_path / "absent", [few, tmp_path / "absent"], []):
        with pytest.raises((ValueError, OSError)) as here:
            pretraining.build_corpus(inputs, tokenizer, tmp_path / "here", documents="line")
        with pytest.raises(type(here.value)) as there:
            build_corpus(inputs, tokenizer, store, documents="line", num_shards=1)
        assert str(there.value) == str(here.value)
        assert nothing_is_left(store)
    # The shards without it are whole, but no store is.
    with pytest.raises(ArgumentError, match=r"bad\.txt:\d+: not UTF-8"):
        build_corpus(bad, tokenizer, store, documents="line", num_shards=4)
    assert not store.exists()


def test_arguments(three_nodes, few, tokenizer, tmp_path):
    store = tmp_path / "store"
    lock = threading.Lock()

    def unsendable(text: str) -> list[str]:
        with lock:
            return [text]

    for options, kind, message in [
        ({"num_shards": 0}, ArgumentError, "num_shards: expected a positive integer, got 0"),
        ({"num_cpus": 0}, ArgumentError, "num_cpus: expected a positive integer, got 0"),
        ({"num_cpus": 2}, ArgumentError, "num_cpus: expected at most 1, as the largest node has, got 2"),
        ({"num_cpus": 2, "num_shards": 2}, ArgumentError, "num_cpus: expected at most 1, as the largest"),
        ({"max_retries": -2}, ArgumentError, "max_retries: expected an integer from -1 on, got -2"),
        ({"documents": "page"}, ArgumentError, "documents: expected"),
        ({"segmenter": "other"}, ArgumentError, "segmenter: expected 'jieba' or a function, got 'other'"),
        ({"split_sentences": unsendable}, TypeError, "split_sentences, segmenter: expected what can be sent"),
        ({"field": 3}, TypeError, "field: expected str or None, got int"),
        ({"tokenizer": 3}, TypeError, "tokenizer: expected a bertfast.Tokenizer or its folder, got int"),
    ]:
        with pytest.raises(kind, match=message):
            build_corpus(**({"inputs": few, "tokenizer": tokenizer} | options), store=store)
        assert nothing_is_left(store)
    for place in (few.parent, few.parent / "store", few):
        with pytest.raises(ArgumentError, match="store: expected a folder outside of the inputs"):
            build_corpus(few.parent if place != few else few, tokenizer, place)
    store.mkdir()
    (store / "notes").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(CorpusError, match=r"expected .*empty folder, found notes"):
            build_corpus(few, tokenizer, store, overwrite=overwrite)
        assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_workers_that_die_again_and_again(three_nodes, few, tokenizer, tmp_path):
    attempts = tmp_path / "attempts"

    def die(text: str) -> list[str]:
        with attempts.open("ab") as file:
            file.write(b".")
        os.kill(os.getpid(), signal.SIGKILL)
        return [text]

    with pytest.raises(ClusterError, match=r"shard 0 of 1: Ray: .*died"):
        build_corpus(few, tokenizer, tmp_path / "store", num_shards=1, max_retries=1, split_sentences=die)
    assert attempts.stat().st_size == 2
    assert nothing_is_left(tmp_path / "store")


def test_what_a_node_does_not_see_is_named(three_nodes, few, tokenizer, tmp_path, monkeypatch):
    # What is under this name depends on who asks: workers have another current folder.
    own = Path("/proc/self/cwd")
    (tmp_path / "texts").mkdir()
    shutil.copy(few, tmp_path / "texts/few.txt")
    monkeypatch.chdir(tmp_path)
    pretraining.build_corpus(few, tokenizer, tmp_path / "store")
    for inputs, store, missing in [
        (own / "texts/few.txt", tmp_path / "store", own / "texts/few.txt"),
        (few, own / "store", own / "store.shards/job.json"),
    ]:
        before = files(store)
        with pytest.raises(FileNotFoundError) as caught:
            build_corpus(inputs, tokenizer, store, documents="line", overwrite=True)
        # What is there is not lost to a mistake.
        assert files(store) == before
        assert not shards_of(store).exists()
        assert re.fullmatch(rf"node [\d.]+: {missing}", caught.value.filename)
        assert caught.value.strerror == "No such file or directory"


def test_what_is_another_thing_on_a_node(begun, few, tokenizer, tmp_path):
    folder = ShardFolder(begun(()))
    good = work_of(folder, few, tokenizer)
    good.check()
    (other,) = good.files
    for changes, kind, message in [
        ({"key": "0"}, ClusterError, r"store\.shards: expected a folder that all nodes share, got another$"),
        ({"version": "0.0"}, ClusterError, "^expected bertfast 0.0, got "),
        (
            {"files": [dataclasses.replace(other, size=other.size + 1)]},
            ClusterError,
            rf"few\.txt: expected the same file everywhere, {other.size + 1} bytes, got {other.size}$",
        ),
        ({"files": [dataclasses.replace(other, path="/absent")]}, FileNotFoundError, "/absent"),
        (
            {"described": good.described | {"segmenter": "jieba 0"}},
            ClusterError,
            r"^options\.segmenter: expected 'jieba 0', got None$",
        ),
    ]:
        work = dataclasses.replace(good, **changes)
        for ask in (work.check, lambda work=work: work.build(2)):
            with pytest.raises(kind, match=message):
                ask()
        assert whole_shards(tmp_path / "store") == []
        assert list(folder.path.glob(".shard*")) == []


def test_attempts_at_the_same_time(begun, few, few_files, tokenizer, tmp_path):
    store = begun(())
    work = work_of(ShardFolder(store), few, tokenizer)
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(work.build, [0, 0, 1, 2, 1, 2]))
    assert list(shards_of(store).glob(".shard*")) == []
    pretraining.merge_corpora(whole_shards(store), store)
    assert files(store) == few_files


def test_the_command(three_nodes, begun, few, few_files, minilm, tmp_path):
    store = tmp_path / "a"
    arguments = ["corpus", "build", few, "--model", minilm, "--documents", "line"]
    cluster = ["--ray", three_nodes.address]
    done = run_bertfast(*arguments, "-o", store, *cluster, "--num-shards", "2")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    merging, last = done.stderr.splitlines()
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
        ([*cluster, "--num-threads", "2"], "num_cpus: expected at most 1, as the largest node has, got 2"),
        (["--resume"], "--resume: expected it with --ray only"),
        (["--num-shards", "2"], "--num-shards: expected it with --ray only"),
    ]:
        message_there = error_of(run_bertfast(*arguments, "-o", tmp_path / "x", *options))
        assert message_there.startswith(message)
        assert nothing_is_left(tmp_path / "x")
