"""``bertfast predict`` from end to end, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import transformers

import bertfast
from bertfast.whole_file import JsonLinesWriter
from command_line import error_of, run_bertfast
from task_folder import TEXTS, make_task_folder

LINES = [text.replace("\n", " ") for text in TEXTS]


def predict(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return run_bertfast("predict", *arguments, **options)


@pytest.fixture(scope="module")
def folders(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {
        "text-classification": transformers.BertForSequenceClassification,
        "token-classification": transformers.BertForTokenClassification,
        "fill-mask": transformers.BertForMaskedLM,
        "question-answering": transformers.BertForQuestionAnswering,
    }
    path = tmp_path_factory.mktemp("models")
    return {task: make_task_folder(path / task, model, minilm) for task, model in made.items()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "results.jsonl"


def results_of(path: Path) -> list[Any]:
    assert os.listdir(path.parent) == [path.name]
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def test_labels(folders: dict[str, Path], tmp_path: Path, out: Path) -> None:
    folder = folders["text-classification"]
    file = write_lines(tmp_path / "texts", LINES)
    done = predict("sentiment-analysis", folder, file, "-o", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert f"{len(LINES)} texts in" in done.stderr
    assert str(out) in done.stderr
    expected = bertfast.pipeline("text-classification", folder)
    assert results_of(out) == expected(LINES)
    options = ["--top-k", "all", "--function-to-apply", "none", "--batch-tokens", "30", "--quiet"]
    done = predict("text-classification", folder, file, "-o", out, *options)
    assert (done.returncode, done.stderr) == (0, "")
    found = [line["predictions"] for line in results_of(out)]
    assert found == expected(LINES, top_k=None, function_to_apply="none")


def test_pairs(folders: dict[str, Path], tmp_path: Path, out: Path) -> None:
    folder = folders["text-classification"]
    entries = [{"a": text, "n": 3, "b": pair} for text, pair in zip(LINES[:5], LINES[4::-1], strict=True)]
    file = write_lines(tmp_path / "pairs.jsonl", [json.dumps(entry) for entry in entries])
    done = predict(
        "text-classification", folder, file, "-o", out, "--field", "a", "--pair-field", "b", "--truncation"
    )
    assert done.returncode == 0, done.stderr
    pairs = [{"text": entry["a"], "text_pair": entry["b"]} for entry in entries]
    assert results_of(out) == bertfast.pipeline("text-classification", folder)(pairs, truncation=True)


def test_entities(folders: dict[str, Path], tmp_path: Path, out: Path) -> None:
    folder = folders["token-classification"]
    file = write_lines(tmp_path / "texts", [*LINES, "long " * 100])
    options = ["--aggregation-strategy", "simple", "--stride", "5", "--option", 'ignore_labels=["LABEL_0"]']
    done = predict("ner", folder, file, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    expected = bertfast.pipeline("ner", folder, aggregation_strategy="simple", ignore_labels=["LABEL_0"])
    assert [line["predictions"] for line in results_of(out)] == expected([*LINES, "long " * 100], stride=5)
    # Without windows texts are cut off, and how many is said.
    file = write_lines(tmp_path / "long", ["long " * 100] * 40)
    done = predict("ner", folder, file, "-o", out, "--quiet")
    assert done.returncode == 0
    assert done.stderr.startswith("bertfast: warning: 40 texts are longer than the model takes")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["link", "pipe"])
def test_what_is_no_plain_file_stays_what_it_is(
    folders: dict[str, Path], tmp_path: Path, out: Path, name: str
) -> None:
    folder, target = folders["text-classification"], tmp_path / name
    file = write_lines(tmp_path / "texts", LINES[:3])
    if name == "link":
        target.symlink_to(out)
        assert predict("text-classification", folder, file, "-o", target).returncode == 0
        assert target.is_symlink()
        lines = out.read_text("utf-8")
    else:
        os.mkfifo(target)
        with ThreadPoolExecutor() as threads:
            read = threads.submit(target.read_text, "utf-8")
            assert predict("text-classification", folder, file, "-o", target).returncode == 0
            lines = read.result(timeout=60)
        assert target.is_fifo()
    found = [json.loads(line) for line in lines.splitlines()]
    assert found == bertfast.pipeline("text-classification", folder)(LINES[:3])


def test_masks(folders: dict[str, Path], tmp_path: Path, out: Path) -> None:
    folder = folders["fill-mask"]
    texts = ["the [MASK] is", "[MASK] and [MASK]", "a [MASK] " + "word " * 60]
    file = write_lines(tmp_path / "texts", texts)
    options = ["--target", "cat", "--target", "dog", "--top-k", "1", "--truncation"]
    done = predict("fill-mask", folder, file, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    expected = bertfast.pipeline("fill-mask", folder, targets=["cat", "dog"], top_k=1)
    found = [line["predictions"] for line in results_of(out)]
    assert found == expected(texts, tokenizer_kwargs={"truncation": True})
    message = error_of(predict("fill-mask", folder, file, "-o", out))
    assert message.startswith(f"{file}:3: expected at most 48 tokens, got 64; --truncation cuts it off")


def test_answers(folders: dict[str, Path], tmp_path: Path, out: Path) -> None:
    folder = folders["question-answering"]
    entries = [{"question": "Who was it?", "context": text} for text in LINES if text.strip()]
    file = write_lines(tmp_path / "questions.jsonl", [json.dumps(entry) for entry in entries])
    done = predict(
        "question-answering", folder, file, "-o", out, "--option", "max_answer_len=3", "--stride", "4"
    )
    assert done.returncode == 0, done.stderr
    expected = bertfast.pipeline("question-answering", folder, max_answer_len=3, doc_stride=4)
    assert results_of(out) == expected(entries)
    renamed = [{"q": entry["question"], "c": entry["context"]} for entry in entries]
    write_lines(file, [json.dumps(entry) for entry in renamed])
    done = predict(
        "question-answering",
        folder,
        "-",
        "-o",
        out,
        "--field",
        "q",
        "--pair-field",
        "c",
        "--top-k",
        "2",
        input=file.read_text(),
    )
    assert done.returncode == 0, done.stderr
    answers = bertfast.pipeline("question-answering", folder)(entries, top_k=2)
    assert results_of(out) == [{"predictions": one} if isinstance(one, list) else one for one in answers]
    message = error_of(predict("question-answering", folder, file, "-o", out))
    assert message == f"{file}:1: no field 'question', only 'q', 'c'"


def test_an_empty_file(folders: dict[str, Path], tmp_path: Path, out: Path) -> None:
    assert predict("ner", folders["token-classification"], os.devnull, "-o", out).returncode == 0
    assert out.read_bytes() == b""


def test_a_mistake_is_named_by_its_line_and_what_was_there_stays(
    folders: dict[str, Path], tmp_path: Path, out: Path
) -> None:
    out.write_text("before")
    file = write_lines(tmp_path / "texts", [*["fine"] * 70, "long " * 60, "fine"])
    message = error_of(predict("text-classification", folders["text-classification"], file, "-o", out))
    assert message.startswith(f"{file}:71: expected at most 48 tokens, got 62; --truncation cuts")
    write_lines(file, ['{"text": "fine"}', '{"text": "\\ud800"}'])
    message = error_of(
        predict("text-classification", folders["text-classification"], file, "-o", out, "--field", "text")
    )
    assert message.startswith(f"{file}:2: expected text that can be written as UTF-8")
    assert out.read_text() == "before"
    assert os.listdir(out.parent) == [out.name]


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("ner", ["--top-k", "3"], "options of token-classification: expected one of"),
        ("ner", ["--top-k", "all"], "--top-k: expected a number for token-classification, got 'all'"),
        ("ner", ["--pair-field", "b"], "--pair-field: expected none for token-classification"),
        ("text-classification", ["--pair-field", "b"], "--pair-field: expected --field beside it"),
        ("ner", ["--aggregation-strategy", "best"], "aggregation_strategy: expected one of"),
        ("ner", ["--option", "delimiter=3"], "--option: delimiter: expected str, got int"),
        ("ner", ["--option", "no_such=3"], "options of token-classification: expected one of"),
        ("fill-mask", [], "cls.predictions"),
    ],
)
def test_wrong_options(
    folders: dict[str, Path], tmp_path: Path, out: Path, task: str, options: list[str], message: str
) -> None:
    folder = folders["token-classification"] if task != "text-classification" else folders[task]
    file = write_lines(tmp_path / "texts", ["text"])
    assert message in error_of(predict(task, folder, file, "-o", out, *options))
    assert os.listdir(out.parent) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dance", "m", "f", "-o", "o"], "invalid choice: 'dance'"),
        (["ner", "m", "f"], "-o"),
        (["ner", "m", "f", "-o", "o", "--top-k", "0"], "expected at least 1"),
        (["ner", "m", "f", "-o", "o", "--top-k", "x"], "invalid integer value: 'x'"),
        (["ner", "m", "f", "-o", "o", "--option", "x"], "'x': expected NAME=VALUE"),
        (["ner", "m", "no-such-file", "-o", "o"], "no-such-file: No such file or directory"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = predict(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert message in done.stderr


def test_interruption_leaves_nothing(folders: dict[str, Path], out: Path) -> None:
    folder = folders["text-classification"]
    arguments = [sys.executable, "-m", "bertfast", "predict", "text-classification", str(folder), "-"]
    process = subprocess.Popen(
        [*arguments, "-o", str(out)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        # Standard input stays open: the process waits for more.
        process.stdin.write("a text\n")
        process.stdin.flush()
        end = time.monotonic() + 60
        # Until it has opened the weights: an interruption of an import ends otherwise.
        maps = Path(f"/proc/{process.pid}/maps")
        while maps.exists() and time.monotonic() < end and "model.safetensors" not in maps.read_text():
            time.sleep(0.05)
        time.sleep(0.5 if maps.exists() else 5)
        assert os.listdir(out.parent) != []
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
    assert os.listdir(out.parent) == []


def test_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "values.jsonl"
    with JsonLinesWriter(str(path)) as writer:
        writer.write({"text": "Größe\n😀"})
        writer.write([1.5])
        assert writer.lines == 2
        assert not path.exists()
        writer.commit()
    assert path.read_text("utf-8") == '{"text": "Größe\\n😀"}\n[1.5]\n'
    with JsonLinesWriter(str(path)) as writer:
        writer.write(3)
    assert path.read_text("utf-8").startswith('{"text"')
    assert os.listdir(tmp_path) == [path.name]
