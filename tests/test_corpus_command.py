"""``bertfast corpus build``, ``merge``, ``split``, ``info`` and ``verify`` from end to end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertfast.pretraining import Corpus, build_corpus, split_corpus
from command_line import error_of, run_bertfast
from token_store import files


def command(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return run_bertfast("corpus", *arguments, **options)


@pytest.fixture
def texts(data_dir: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bible.txt"
    path.write_bytes((data_dir / "bible-chapters.txt").read_bytes()[:100_000])
    return path


def test_from_texts_to_a_store(minilm, texts, tmp_path):
    store = tmp_path / "store"
    done = command("build", texts, "--model", minilm, "-o", store)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    corpus = build_corpus(texts, minilm, tmp_path / "again")
    assert files(store) == files(tmp_path / "again")
    counts = (corpus.num_documents, corpus.num_sentences, corpus.num_tokens)
    expected = re.escape("{}: {:,} documents, {:,} sentences, {:,} tokens in ".format(store, *counts))
    assert re.fullmatch(rf"{expected}\d+\.\d s\n", done.stderr)

    done = command("info", store)
    assert done.returncode == 0, done.stderr
    for fact in (*map("{:,}".format, counts), "wordpiece, 30,522 ids", "documents blank_line", "16 bits"):
        assert fact in done.stdout
    manifest = json.loads(command("info", store, "--json").stdout)
    assert manifest == corpus.manifest

    done = command("verify", store)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("every file is as its checksum says\n")
    assert command("verify", store, "--quiet").stderr == ""
    sentences = store / "sentences.bin"
    data = bytearray(sentences.read_bytes())
    data[-20] ^= 1
    sentences.write_bytes(data)
    assert f"{sentences}: damaged: " in error_of(command("verify", store))


def test_shards_are_merged(minilm, texts, tmp_path):
    stores = [tmp_path / f"part{index}" for index in range(2)]
    for index, store in enumerate(stores):
        options = ["--shard", f"{index}/2", "--quiet"]
        done = command("build", texts, "--model", minilm, "-o", store, *options)
        assert (done.returncode, done.stderr) == (0, "")
    assert "shard 1 of 2" in command("info", stores[1]).stdout
    merged = tmp_path / "merged"
    done = command("merge", *reversed(stores), "-o", merged)
    assert done.returncode == 0, done.stderr
    assert " documents, " in done.stderr
    build_corpus(texts, minilm, tmp_path / "whole")
    assert files(merged) == files(tmp_path / "whole")
    assert error_of(command("merge", *stores, "-o", merged)).startswith(f"{merged}: is a finished corpus")
    assert command("merge", *stores, "-o", merged, "--overwrite", "--quiet").stderr == ""
    assert "shard: expected [0, 1], got [0, 2]" in error_of(command("merge", stores[0], "-o", tmp_path / "x"))


def test_a_corpus_is_split(minilm, texts, tmp_path):
    corpus = build_corpus(texts, minilm, tmp_path / "store")
    train, held_out = tmp_path / "train", tmp_path / "held_out"
    arguments = ["split", corpus.folder, "-o", train, held_out]
    done = command(*arguments, "--held-out", "0.2", "--seed", "1")
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    for line, folder in zip(lines, (train, held_out), strict=True):
        assert line.startswith(f"{folder}: {Corpus(folder).num_documents:,} documents, ")
    split_corpus(corpus.folder, tmp_path / "a", tmp_path / "b", held_out=0.2, seed=1)
    assert (files(train), files(held_out)) == (files(tmp_path / "a"), files(tmp_path / "b"))
    assert "splits" in command("info", train).stdout
    assert "is a finished corpus" in error_of(command(*arguments))
    assert command(*arguments, "--overwrite", "--quiet", "--held-out", "0.1").stderr == ""
    assert json.loads(command("info", train, "--json").stdout)["options"]["splits"] == [
        {"held_out": 0.1, "seed": 0, "side": "train"}
    ]
    assert "held_out: expected a share between 0 and 1, got 2.0" in error_of(
        command(*arguments, "--held-out", "2")
    )
    assert "seed: expected an integer from 0 to" in error_of(command(*arguments, "--seed", "-1"))


def test_numbers_that_are_too_large_are_one_line(minilm, texts, tmp_path):
    texts.write_bytes(texts.read_bytes()[:10_000])
    store = tmp_path / "store"
    build = ["build", texts, "--model", minilm, "-o", store]
    huge = str(10**30)
    message = f"num_threads: expected at most 65536, got {huge}"
    assert error_of(command(*build, "--num-threads", huge)) == message
    assert not store.exists()
    assert command(*build, "--quiet").returncode == 0
    for number in ("1000000000", huge):
        message = f"max_predictions_per_seq: expected an integer from 0 to 65535, got {number}"
        assert error_of(command("show", store, "--max-predictions-per-seq", number)) == message
    # The largest that there is fits into memory.
    out = tmp_path / "samples.jsonl"
    options = ["--max-predictions-per-seq", "65535", "--masked-lm-prob", "0", "--quiet"]
    assert command("export", store, "-o", out, *options).returncode == 0
    with out.open() as lines:
        assert len(json.loads(next(lines))["masked_lm_ids"]) == 65535
    # The limit is that of the share.
    options = ["--masked-lm-prob", "0.3", "--quiet"]
    assert command("export", store, "-o", out, *options).returncode == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {len(row["masked_lm_ids"]) for row in rows} == {39}
    assert max(sum(row["masked_lm_weights"]) for row in rows) > 30


def test_options_reach_the_builder(data_dir, minilm, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "One. Two. [MASK]\\nThree."}\n{"body": "我来到北京清华大学"}\n')
    for index, options in enumerate(
        [
            ["--field", "body"],
            ["--field", "body", "--split-sentences", "--compat", "google"],
            ["--field", "body", "--documents", "blank-line"],
            ["--documents", "file", "--num-threads", "1"],
        ]
    ):
        arguments = ["build", path, "--model", minilm, "-o", tmp_path / str(index), *options]
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
    shown = [command("info", tmp_path / str(index), "--json").stdout for index in range(4)]
    options = [json.loads(text)["options"] for text in shown]
    assert options[0] == {
        "compat": "huggingface",
        "documents": "line",
        "field": "body",
        "segmenter": None,
        "split_sentences": False,
    }
    assert options[1] == options[0] | {"split_sentences": True, "compat": "google"}
    assert options[2]["documents"] == "blank_line"
    assert options[3] == options[0] | {"documents": "file", "field": None}
    counts = [json.loads(text)["sentences"] for text in shown]
    assert counts == [3, 5, 3, 2]
    vocabulary = data_dir / "vocab-zh"
    store = tmp_path / "words"
    done = command(
        "build", path, "--model", vocabulary, "-o", store, "--field", "body", "--segmenter", "jieba"
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert '"segmenter": "jieba' in command("info", store, "--json").stdout


def test_mistakes_are_one_line(minilm, texts, tmp_path):
    store = tmp_path / "store"
    build = ["build", texts, "--model", minilm, "-o", store]
    assert command(*build, "--quiet").returncode == 0
    before = files(store)
    message = f"{store}: is a finished corpus: name another folder, or overwrite it"
    assert error_of(command(*build)) == message
    assert files(store) == before
    assert command(*build, "--quiet", "--overwrite", "--documents", "line").returncode == 0
    assert files(store) != before
    assert "absent" in error_of(
        command("build", tmp_path / "absent", "--model", minilm, "-o", tmp_path / "x")
    )
    assert "vocab.txt" in error_of(command("build", texts, "--model", tmp_path, "-o", tmp_path / "x"))
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"one\n\xff\n")
    message = f"{bad}:2: not UTF-8: byte 0xff at position 0"
    assert error_of(command("build", bad, "--model", minilm, "-o", tmp_path / "x")) == message
    assert not (tmp_path / "x").exists()
    assert "No such file" in error_of(command("info", tmp_path / "x"))
    for arguments, message in [
        (["build", "a", "-o", "b"], "--model"),
        (
            ["build", "a", "--model", "m", "-o", "b", "--shard", "2/2"],
            "2/2: expected I/N with I from 0 to N - 1",
        ),
        (["build", "a", "--model", "m", "-o", "b", "--shard", "x"], "x: expected I/N"),
        (["build", "a", "--model", "m", "-o", "b", "--documents", "page"], "page"),
        (["build", "a", "--model", "m", "-o", "b", "--segmenter", "other"], "other"),
    ]:
        done = command(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    done = command()
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("build", "merge", "split", "info", "verify"))


# The command with many blocks and a checkpoint behind each.
SLOWLY = """
import sys
import bertfast.pretraining.inputs as inputs
from bertfast import cli, pretraining
inputs.BLOCK = 20_000
build = pretraining.build_corpus
pretraining.build_corpus = lambda *args, **options: build(*args, **options, checkpoint_seconds=0)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_an_interrupted_command_is_given_again(data_dir, minilm, tmp_path, number, status):
    inputs, store = [data_dir / "bible-chapters.txt"] * 2, tmp_path / "store"
    arguments = ["corpus", "build", *inputs, "--model", minilm, "-o", store]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    journal = store / "journal.json"
    while not (journal.exists() and '"position": "' in journal.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == status
    if number == signal.SIGINT:
        first, last = stderr.splitlines()
        assert first == f"{store} is not finished: the same command without --overwrite goes on"
        assert last == "bertfast: interrupted"
    else:
        assert stderr == ""
    assert error_of(command("info", store)).startswith(f"{store}: is not finished")
    done = command("build", *inputs, "--model", minilm, "-o", store)
    assert done.returncode == 0, done.stderr
    assert re.match(r"going on behind [\d,]+ sentences\n", done.stderr)
    build_corpus(inputs, minilm, tmp_path / "whole")
    assert files(store) == files(tmp_path / "whole")


def test_a_terminal_sees_how_far_it_is(data_dir, minilm, tmp_path):
    inputs, store = [tmp_path / "text"], tmp_path / "store"
    inputs[0].write_bytes((data_dir / "bible-chapters.txt").read_bytes()[:100_000])
    ours, theirs = pty.openpty()
    arguments = ["corpus", "build", *inputs, "--model", minilm, "-o", store]
    often = "import bertfast.file_progress as f; f.StatusLine.is_due = lambda self: True"
    process = subprocess.Popen([sys.executable, "-c", often + SLOWLY, *map(str, arguments)], stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 1 << 16)
        except OSError:  # The other side has gone.
            break
    os.close(ours)
    assert process.wait() == 0
    lines = re.findall(r"\r\x1b\[K([\d,]+ tokens, [\d,.]+ MB/s, (\d+)%, [\d:]+( s)? left)", seen.decode())
    assert [int(line[1]) for line in lines] == [20, 40, 60, 80, 100]
    assert re.search(r"\r\x1b\[K.*/store: \d+ documents, .* tokens in \d", seen.decode())
