"""The command line from end to end, as a process of its own."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bertfast
from command_line import error_of
from command_line import run_bertfast as command

TEXTS = ["A cat sits on the mat.", "", "Größe 42, naïve café", "The weather is fine.  ", "今天天气很好"]


@pytest.fixture(scope="module")
def expected(minilm: Path) -> np.ndarray:
    return bertfast.Encoder.from_pretrained(minilm).encode(TEXTS)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "vectors.npy"


@pytest.fixture(autouse=True)
def _make_out(out: Path):
    out.parent.mkdir()


def test_a_text_file(minilm: Path, lines: Path, out: Path, expected: np.ndarray):
    done = command("encode", minilm, lines, "-o", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "5 texts in" in done.stderr
    assert "texts/s" in done.stderr
    assert "(5, 384) float32" in done.stderr
    vectors = np.load(out)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, expected)
    assert os.listdir(out.parent) == [out.name]


def test_json_lines(minilm: Path, tmp_path: Path, out: Path, expected: np.ndarray):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"n": i, "body": text}) for i, text in enumerate(TEXTS)))
    done = command("encode", minilm, path, "--field", "body", "-o", out)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(out), expected)


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(minilm: Path, lines: Path, out: Path, expected: np.ndarray, packed: bool):
    data = lines.read_bytes()
    arguments = [sys.executable, "-m", "bertfast", "encode", str(minilm), "-", "-o", str(out), "--quiet"]
    done = subprocess.run(
        arguments, input=gzip.compress(data) if packed else data, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert np.array_equal(np.load(out), expected)


def test_standard_output_may_be_a_pipe(minilm: Path, lines: Path, expected: np.ndarray):
    arguments = [sys.executable, "-m", "bertfast", "encode", minilm, lines, "-o", "/dev/stdout", "--quiet"]
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(io.BytesIO(done.stdout)), expected)


def test_texts_are_not_overwritten(minilm: Path, lines: Path, out: Path):
    before = lines.read_bytes()
    out.symlink_to(lines)
    for output in (lines, out):
        for task in (["encode"], ["predict", "feature-extraction"]):
            message = error_of(command(*task, minilm, lines, "-o", output))
            assert message == f"output: expected another file than the input, got {output}"
    assert lines.read_bytes() == before


def test_no_standard_input(minilm: Path, out: Path):
    done = command("encode", minilm, "-", "-o", out, preexec_fn=lambda: os.close(0))
    assert error_of(done) == "<stdin>: Bad file descriptor"


def test_options_reach_the_encoder(minilm: Path, lines: Path, out: Path, expected: np.ndarray):
    options = ["--normalize", "--num-threads", "1", "--batch-tokens", "16", "--dtype", "float32"]
    assert command("encode", minilm, lines, "-o", out, *options).returncode == 0
    vectors = np.load(out)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(vectors - unit).max() < 1e-6


def test_a_prompt(minilm: Path, lines: Path, out: Path, tmp_path: Path):
    model = tmp_path / "model"
    model.mkdir()
    for entry in minilm.iterdir():
        (model / entry.name).symlink_to(entry)
    (model / "config_sentence_transformers.json").unlink()
    (model / "config_sentence_transformers.json").write_text('{"prompts": {"query": "query: "}}')
    done = command("encode", model, lines, "-o", out, "--prompt-name", "query")
    assert done.returncode == 0, done.stderr
    encoder = bertfast.Encoder.from_pretrained(minilm)
    assert np.array_equal(np.load(out), encoder.encode([f"query: {text}" for text in TEXTS]))
    message = error_of(command("encode", model, lines, "-o", out, "--prompt-name", "passage"))
    assert "passage" in message
    assert "query" in message


def test_an_empty_file_gives_no_rows(minilm: Path, tmp_path: Path, out: Path):
    (tmp_path / "empty").touch()
    assert command("encode", minilm, tmp_path / "empty", "-o", out).returncode == 0
    assert np.load(out).shape == (0, 384)


def test_texts_that_are_cut_off_are_told_about(minilm: Path, tmp_path: Path, out: Path):
    (tmp_path / "long").write_text("word " * 300 + "\nshort\n" + "word " * 400)
    done = command("encode", minilm, tmp_path / "long", "-o", out)
    assert done.returncode == 0, done.stderr
    assert "3 texts in" in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[1:] == [
        "bertfast: warning: 2 texts are longer than 256 tokens and were cut off"
    ]


def test_a_missing_file_is_named_and_leaves_nothing(minilm: Path, out: Path):
    assert error_of(command("encode", minilm, "no-such-file", "-o", out)) == (
        "no-such-file: No such file or directory"
    )
    assert os.listdir(out.parent) == []


def test_an_unknown_model_is_named_and_leaves_nothing(lines: Path, out: Path):
    assert "no/such-model" in error_of(command("encode", "no/such-model", lines, "-o", out))
    assert os.listdir(out.parent) == []


def test_a_folder_that_is_no_model(lines: Path, out: Path, tmp_path: Path):
    assert "config.json" in error_of(command("encode", tmp_path, lines, "-o", out))


def test_a_broken_json_line_is_named_and_what_was_there_stays(minilm: Path, tmp_path: Path, out: Path):
    out.write_bytes(b"before")
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "not"\n')
    message = error_of(command("encode", minilm, path, "--field", "text", "-o", out))
    assert message.startswith(f"{path}:2: not a JSON object: ")
    assert out.read_bytes() == b"before"
    assert os.listdir(out.parent) == [out.name]


def test_a_line_that_is_not_utf8_is_named(minilm: Path, tmp_path: Path, out: Path):
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"one\ntwo\nd\xe9j\xe0\n")
    assert error_of(command("encode", minilm, path, "-o", out)).startswith(f"{path}:3: not UTF-8: byte 0xe9")


def test_an_output_that_cannot_be_written_is_named(minilm: Path, lines: Path, tmp_path: Path):
    target = tmp_path / "absent" / "vectors.npy"
    assert error_of(command("encode", minilm, lines, "-o", target)) == f"{target}: No such file or directory"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "m", "f"], "-o"),
        (["encode", "m", "f", "-o", "v.npy", "--num-threads", "0"], "expected at least 1"),
        (["encode", "m", "f", "-o", "v.npy", "--batch-tokens", "x"], "invalid integer value: 'x'"),
        (["encode", "m", "f", "-o", "v.npy", "--no-such-option"], "--no-such-option"),
        (["dance"], "dance"),
        (["bench"], "bench: name either a MODEL or --random LxD"),
        (["bench", "m", "--random", "1x64"], "bench: name either a MODEL or --random LxD"),
        (["bench", "--random", "big"], "--random big: expected LAYERSxHIDDEN"),
        (["bench", "--random", "1x64", "--threads", "0"], "--threads 0: expected at least 1"),
        (["bench", "--random", "1x64", "--engines", "tensorflow"], "unknown engine 'tensorflow'"),
        (["bench", "--random", "1x64", "--texts", "absent.txt"], "absent.txt: No such file or directory"),
        (["bench", "m", "--vocab", "vocab.txt"], "--vocab goes with --random only"),
        (["bench", "no/such-model"], "no/such-model"),
        (["bench", "m", "--json", "absent/out.json"], "--json absent/out.json: no such folder"),
    ],
)
def test_wrong_arguments_are_errors(arguments: list[str], message: str, tmp_path: Path):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert message in done.stderr


def test_dtype_that_does_not_exist(minilm: Path, lines: Path, out: Path):
    assert "float12" in error_of(command("encode", minilm, lines, "-o", out, "--dtype", "float12"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_ends_in_order_and_leaves_nothing(minilm: Path, out: Path, number: int, status: int):
    arguments = [sys.executable, "-m", "bertfast", "encode", str(minilm), "-", "-o", str(out)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    try:
        # Standard input stays open: the process waits for more.
        process.stdin.write("a text\n")
        process.stdin.flush()
        end = time.monotonic() + 60
        while not os.listdir(out.parent) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        assert process.wait(timeout=60) == status
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
    assert os.listdir(out.parent) == []


def test_info_of_the_machine():
    done = command("info")
    assert done.returncode == 0, done.stderr
    assert bertfast.__version__ in done.stdout
    facts = json.loads(command("info", "--json").stdout)
    assert facts["bertfast"]["version"] == bertfast.__version__
    assert facts["bertfast"]["isa"] in done.stdout


def test_info_of_a_model(minilm: Path):
    facts = json.loads(command("info", minilm, "--json").stdout)
    assert facts["model"]["max_seq_length"] == 256
    assert facts["model"]["embedding_dimension"] == 384
    text = command("info", minilm).stdout
    assert "max_seq_length" in text
    assert "256" in text
    assert "no/such-model" in error_of(command("info", "no/such-model"))


def test_version_help_and_no_command():
    assert command("--version").stdout == f"bertfast {bertfast.__version__}\n"
    done = command("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("encode", "info", "bench"))
    done = command()
    assert done.returncode == 2
    assert "usage: bertfast" in done.stderr


def test_a_reader_that_leaves_is_no_error(minilm: Path):
    arguments = [sys.executable, "-m", "bertfast", "info", "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.wait(timeout=60)
    assert process.stderr.read() == ""


def test_importing_the_command_line_imports_nothing_heavy():
    code = "import sys, bertfast.cli; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "torch",
        "transformers",
        "tokenizers",
        "huggingface_hub",
        "onnxruntime",
        "openvino",
        "matplotlib",
    }
    assert not heavy & set(done.stdout.split())
