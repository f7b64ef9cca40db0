"""Builds that are interrupted, refused, or replaced: nothing is lost, and nothing wrong is gone on with."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import bertfast
from bertfast.errors import ArgumentError, CorpusError
from bertfast.pretraining import Corpus, build_corpus, merge_corpora
from corpora import contents
from token_store import files

# Kills at random moments; more of them where that is asked for.
KILLS = int(os.environ.get("BERTFAST_KILLS", "3"))

# A build with many blocks and checkpoints, as a process that can be killed.
BUILD = """
import sys, json
import bertfast.pretraining.inputs as inputs
from bertfast.pretraining import build_corpus
inputs.BLOCK = 20_000
options = json.loads(sys.argv[4])
if options.pop("python", False):
    options["split_sentences"] = str.splitlines
print("begin", flush=True)
build_corpus(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], checkpoint_seconds=0, **options)
print("end", flush=True)
"""


def command(inputs: list[Path], model: Path, store: Path, options: dict[str, object]) -> list[str]:
    paths = json.dumps([str(path) for path in inputs])
    return [sys.executable, "-c", BUILD, paths, str(model), str(store), json.dumps(options)]


@pytest.fixture(scope="module")
def inputs(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Text, compressed text, nothing, and Parquet."""
    folder = tmp_path_factory.mktemp("inputs")
    bible = (data_dir / "bible-chapters.txt").read_bytes()
    (folder / "a").write_bytes(bible[:600_000])
    (folder / "b").write_bytes(b"")
    (folder / "c").write_bytes(gzip.compress(bible[600_000:1_000_000]))
    (folder / "d").write_bytes(bible[1_000_000:1_200_000])
    verses = bible[1_200_000:1_300_000].decode().splitlines()
    pq.write_table(pa.table({"text": verses}), folder / "e", row_group_size=333)
    return [folder / name for name in "abcde"]


@pytest.mark.parametrize("options", [{"split_sentences": True}, {"python": True}, {"shard": [1, 2]}])
def test_a_build_that_is_killed_goes_on_with_the_same_bytes(inputs, minilm, tmp_path, options):
    start = time.monotonic()
    subprocess.run(command(inputs, minilm, tmp_path / "whole", options), check=True, capture_output=True)
    whole = time.monotonic() - start
    draw = random.Random(json.dumps(options))
    store, kills, resumed = tmp_path / "store", 0, 0
    while kills < KILLS or not resumed:
        process = subprocess.Popen(command(inputs, minilm, store, options), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        time.sleep(draw.uniform(0, whole / 3))
        process.kill()
        finished = process.communicate()[0] == "end\n"
        if finished:
            assert files(store) == files(tmp_path / "whole")
            shutil.rmtree(store)
            continue
        kills += 1
        with pytest.raises((CorpusError, FileNotFoundError)):
            Corpus(store)
        journal = store / "journal.json"
        resumed += journal.exists() and json.loads(journal.read_text())["position"] is not None
    done = subprocess.run(command(inputs, minilm, store, options), check=True, capture_output=True, text=True)
    assert done.stdout == "begin\nend\n"
    assert files(store) == files(tmp_path / "whole")
    Corpus(store).verify()


def stop_after(count: int) -> object:
    """A function that splits, and stops the build in the middle like Ctrl-C does."""

    def split(text: str) -> list[str]:
        nonlocal count
        count -= 1
        if count < 0:
            raise KeyboardInterrupt
        return [text]

    return split


@pytest.fixture
def begun(inputs, tokenizer, tmp_path, monkeypatch) -> Path:
    """A store that is not finished."""
    monkeypatch.setattr("bertfast.pretraining.inputs.BLOCK", 20_000)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(
            inputs, tokenizer, tmp_path / "store", split_sentences=stop_after(6000), checkpoint_seconds=0
        )
    return tmp_path / "store"


def test_what_is_gone_on_with_is_not_done_again(begun, inputs, tokenizer, tmp_path):
    calls = 0

    def split(text: str) -> list[str]:
        nonlocal calls
        calls += 1
        return [text]

    split.__qualname__ = stop_after(0).__qualname__
    build_corpus(inputs, tokenizer, begun, split_sentences=split)
    again, calls = calls, 0
    build_corpus(inputs, tokenizer, tmp_path / "whole", split_sentences=split)
    assert 0 < again < calls - 5000
    assert files(begun) == files(tmp_path / "whole")


def test_what_differs_is_said(begun, inputs, tokenizer, minilm, data_dir, tmp_path):
    before = files(begun)
    options = {"inputs": inputs, "tokenizer": tokenizer, "split_sentences": stop_after(0)}
    cased = tmp_path / "cased"
    tokenizer.save_pretrained(cased)
    config = json.loads((cased / "tokenizer_config.json").read_text())
    (cased / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 7}))
    for changes, message in [
        ({"documents": "line"}, r'options\.documents: expected "blank_line", got "line"'),
        ({"split_sentences": True}, r"options\.split_sentences: expected \".*split\", got true"),
        ({"field": "body"}, r'options\.documents: expected "blank_line", got "line"'),
        ({"field": "body", "documents": "blank_line"}, r'options\.field: expected null, got "body"'),
        ({"segmenter": str.split}, r'options\.segmenter: expected null, got "str\.split"'),
        ({"shard": (0, 2)}, r"inputs: expected null, got \"5 files, \d+ bytes"),
        ({"tokenizer": data_dir / "vocab-zh"}, r"tokenizer\.vocab"),
        ({"tokenizer": cased}, r"tokenizer_config\.json: was begun with another tokenizer"),
        (
            {"tokenizer": bertfast.Tokenizer.from_pretrained(minilm, compat="google")},
            r'options\.compat: expected "huggingface", got "google"',
        ),
        ({"inputs": inputs[:-1]}, "was begun with 5 input files, now there are 4"),
        ({"inputs": [*inputs[:4], inputs[0]]}, r"was begun with inputs\[4\] /.*/e, now it is /.*/a"),
    ]:
        with pytest.raises(CorpusError, match=message) as caught:
            build_corpus(store=begun, **(options | changes))
        assert str(caught.value).endswith("(to begin anew: overwrite)")
        assert files(begun) == before
    with pytest.raises(CorpusError, match="is not finished"):
        Corpus(begun)


def test_inputs_that_have_changed_since(begun, inputs, tokenizer, tmp_path):
    options = {"tokenizer": tokenizer, "store": begun, "split_sentences": stop_after(0)}
    data, status = inputs[3].read_bytes(), os.stat(inputs[3])
    try:
        inputs[3].write_bytes(data + b"more\n")
        with pytest.raises(
            CorpusError, match=r"begun with 200000 bytes in inputs\[3\], /.*/d, now there are 200005"
        ):
            build_corpus(inputs, **options)
        inputs[3].write_bytes(data)
        with pytest.raises(CorpusError, match=r"begun with inputs\[3\], /.*/d, which has been changed since"):
            build_corpus(inputs, **options)
        for damaged in ("[", "3", "[[]]", None):
            (begun / "inputs.json").unlink()
            if damaged is not None:
                (begun / "inputs.json").write_text(damaged)
            with pytest.raises(CorpusError, match=r"begun with (other|1|5) input"):
                build_corpus(inputs, **options)
    finally:
        os.utime(inputs[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    # It is not begun anew: the function that stops says that it was asked at once.
    with pytest.raises(KeyboardInterrupt):
        build_corpus(inputs, **options)


def test_a_damaged_half_is_not_gone_on_with(begun, inputs, tokenizer):
    options = {"tokenizer": tokenizer, "store": begun, "split_sentences": stop_after(0)}
    tokens = begun / "tokens.bin"
    good = tokens.read_bytes()
    tokens.write_bytes(b"\xff" + good[1:])
    with pytest.raises(CorpusError, match=r"tokens\.bin: damaged"):
        build_corpus(inputs, **options)
    tokens.write_bytes(good)
    journal = begun / "journal.json"
    text = json.loads(journal.read_text())
    for position in ("", "[]", '{"offset": 3}'):
        journal.write_text(json.dumps(text | {"position": position}))
        with pytest.raises(CorpusError, match=r"journal\.json: damaged: position"):
            build_corpus(inputs, **options)
    journal.write_text("{")
    with pytest.raises(CorpusError, match=r"journal\.json: damaged"):
        build_corpus(inputs, **options)


def test_overwriting(begun, inputs, tokenizer, tmp_path):
    store = begun
    build_corpus(inputs, tokenizer, store, overwrite=True, documents="line")
    (tmp_path / "text").write_text("one\n")
    before = files(store)
    for again in (build_corpus, lambda *arguments: merge_corpora([store], arguments[2])):
        with pytest.raises(FileExistsError, match="is a finished corpus"):
            again(tmp_path / "text", tokenizer, store)
    # What is wrong comes to light before anything is lost.
    with pytest.raises(FileNotFoundError):
        build_corpus(tmp_path / "absent", tokenizer, store, overwrite=True)
    assert files(store) == before
    assert contents(build_corpus(tmp_path / "text", tokenizer, store, overwrite=True)) == [["one"]]
    (store / "notes").write_text("mine")
    before = files(store)
    with pytest.raises(CorpusError, match="expected a corpus or an empty folder, found notes"):
        build_corpus(tmp_path / "text", tokenizer, store, overwrite=True)
    assert files(store) == before


@pytest.mark.parametrize("package", ["zstandard", "pyarrow"])
def test_a_missing_package_costs_no_store(tokenizer, tmp_path, monkeypatch, package):
    (tmp_path / "text").write_text("one\n")
    (tmp_path / "zstandard").write_bytes(zstandard.compress(b"two\n"))
    pq.write_table(pa.table({"text": ["two"]}), tmp_path / "pyarrow")
    store = tmp_path / "store"
    build_corpus(tmp_path / "text", tokenizer, store)
    before = files(store)
    monkeypatch.setitem(sys.modules, package, None)
    for inputs in ([package], ["text", package]):
        with pytest.raises(ImportError, match=rf"{package}: .*pip install 'bertfast\[corpus\]'"):
            build_corpus([tmp_path / name for name in inputs], tokenizer, store, overwrite=True)
    assert files(store) == before


def test_inputs_in_the_store_that_is_overwritten(tokenizer, tmp_path):
    (tmp_path / "text").write_text("one\n")
    store = tmp_path / "store"
    build_corpus(tmp_path / "text", tokenizer, store)
    before = files(store)
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a").symlink_to(store / "manifest.json")
    for path in (store / "tokenizer/vocab.txt", store / "manifest.json", tmp_path / "links"):
        with pytest.raises(ArgumentError, match=r"store: expected a folder without inputs, got .* in it"):
            build_corpus([tmp_path / "text", path], tokenizer, store, overwrite=True)
    with pytest.raises(ArgumentError, match="store: expected a folder outside of the inputs"):
        build_corpus(tmp_path, tokenizer, store, overwrite=True)
    assert files(store) == before


def test_only_the_files_of_a_store_are_removed(tokenizer, tmp_path):
    (tmp_path / "text").write_text("one\n")
    store = tmp_path / "store"

    def refused(name: str) -> None:
        before = files(store)
        with pytest.raises(CorpusError, match=f"store: expected a corpus or an empty folder, found {name}"):
            build_corpus(tmp_path / "text", tokenizer, store, overwrite=True)
        assert files(store) == before

    # Their names alone make no store.
    store.mkdir()
    (store / "tokens.bin").write_bytes(b"mine")
    refused(r"tokens\.bin")
    for content in ("{}", "mine", '{"format": "other", "files": {}}'):
        (store / "manifest.json").write_text(content)
        refused(r"manifest\.json")
    shutil.rmtree(store)
    build_corpus(tmp_path / "text", tokenizer, store)
    notes = store / "tokenizer/notes"
    notes.write_text("mine")
    refused("tokenizer/notes")
    notes.unlink()
    notes.mkdir()
    refused("tokenizer/notes")
    notes.rmdir()
    # What a merge or a removal leaves that was killed.
    whole = files(store)
    for left in ([], ["tokens.bin"], ["tokens.bin", "tokenizer/vocab.txt", "documents.bin"]):
        shutil.rmtree(store)
        (store / "tokenizer").mkdir(parents=True)
        (store / "manifest.json.new").write_bytes(whole["manifest.json"])
        for name in left:
            (store / name).write_bytes(whole[name])
        build_corpus(tmp_path / "text", tokenizer, store, overwrite=True)
        assert files(store) == whole


def test_a_tokenizer_of_before_the_first_checkpoint_is_forgotten(tokenizer, minilm, tmp_path, monkeypatch):
    (tmp_path / "text").write_text("one\n")
    store, options = tmp_path / "store", {"split_sentences": stop_after(0)}
    # As a process that was killed leaves it.
    monkeypatch.setattr("bertfast.pretraining.build_job.remove_files", lambda folder: None)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(tmp_path / "text", tokenizer, store, **options)
    assert (store / "tokenizer/special_tokens_map.json").exists()
    model = tmp_path / "model"
    tokenizer.save_pretrained(model)
    (model / "special_tokens_map.json").unlink()
    other = bertfast.Tokenizer.from_pretrained(model)
    options["split_sentences"] = stop_after(9)
    corpus = build_corpus(tmp_path / "text", other, store, **options)
    assert files(store / "tokenizer") == dict(other.files)
    corpus.verify()


def test_folders_that_are_no_stores(tokenizer, minilm, tmp_path):
    (tmp_path / "text").write_text("one\n")
    (tmp_path / "other/tokenizer").mkdir(parents=True)
    (tmp_path / "other/tokenizer/vocab.txt").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, error, message in [
        ("other", CorpusError, "found tokenizer"),
        ("full", CorpusError, "found notes"),
        ("file", (CorpusError, OSError), "file"),
    ]:
        for overwrite in (False, True):
            with pytest.raises(error, match=message):
                build_corpus(tmp_path / "text", tokenizer, tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "other/tokenizer/vocab.txt").read_text() == "mine"
    assert (tmp_path / "full/notes").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert contents(build_corpus(tmp_path / "text", tokenizer, tmp_path / "empty")) == [["one"]]


def test_a_mistake_before_the_first_checkpoint_leaves_nothing(tokenizer, tmp_path):
    (tmp_path / "text").write_bytes(b"one\n\xff\n")
    (tmp_path / "kept").mkdir()
    for name in ("new", "kept"):
        with pytest.raises(ArgumentError, match="text:2: not UTF-8"):
            build_corpus(tmp_path / "text", tokenizer, tmp_path / name)
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "kept").iterdir()) == []


def test_two_at_once(inputs, tokenizer, tmp_path):
    store = tmp_path / "store"

    def split(text: str) -> list[str]:
        for overwrite in (False, True):
            with pytest.raises(CorpusError, match=r"tokens\.bin: another process is writing it"):
                build_corpus(inputs, tokenizer, store, split_sentences=split, overwrite=overwrite)
        return [text]

    (tmp_path / "text").write_text("one\n")
    corpus = build_corpus(tmp_path / "text", tokenizer, store, split_sentences=split)
    assert contents(corpus) == [["one"]]


FULL = """
import resource, sys
import bertfast.pretraining.inputs as inputs
from bertfast.pretraining import build_corpus
inputs.BLOCK = 20_000
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    build_corpus(sys.argv[1], sys.argv[2], sys.argv[3], checkpoint_seconds=0)
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_what_can_be_gone_on_with(data_dir, minilm, tokenizer, tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    path, store = data_dir / "bible-chapters.txt", tmp_path / "store"
    arguments = [sys.executable, "-c", FULL, str(path), str(minilm), str(store), "1000000"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert str(store) in done.stdout
    assert json.loads((store / "journal.json").read_text())["position"] is not None
    assert build_corpus(path, tokenizer, store).num_documents == 1189
    build_corpus(path, tokenizer, tmp_path / "whole")
    assert files(store) == files(tmp_path / "whole")


def test_ctrl_c_ends_at_once_and_the_rest_is_done_later(inputs, minilm, tmp_path):
    arguments = command([inputs[0]] * 4, minilm, tmp_path / "store", {})
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    journal = tmp_path / "store/journal.json"
    while not (journal.exists() and '"position": "' in journal.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert process.communicate()[1].endswith("KeyboardInterrupt\n")
    assert time.monotonic() - start < 5
    assert process.returncode != 0
    subprocess.run(arguments, check=True, capture_output=True)
    subprocess.run(command([inputs[0]] * 4, minilm, tmp_path / "whole", {}), check=True, capture_output=True)
    assert files(tmp_path / "store") == files(tmp_path / "whole")
