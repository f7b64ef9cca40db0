"""A corpus on a cluster where something is wrong: what was begun, the inputs, the arguments, the nodes."""

from __future__ import annotations

import dataclasses
import gzip
import os
import re
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bertfast import pretraining
from bertfast.distributed import build_corpus
from bertfast.distributed.shard_folder import ShardFolder
from bertfast.errors import ArgumentError, ClusterError, CorpusError
from cluster_corpora import nothing_is_left, shards_of, whole_shards, work_of
from token_store import files


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
        ({"num_cpus": 2}, ArgumentError, "num_cpus: expected at most 1, the CPUs of the largest node, got 2"),
        ({"num_cpus": 2, "num_shards": 2}, ArgumentError, "num_cpus: expected at most 1, the CPUs"),
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
