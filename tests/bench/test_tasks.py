"""``bertfast bench --task``: every engine on whole pipelines, and what the tables say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from bertfast.bench.task_engines import TASKS, decision, items_of
from bertfast.bench.tasks import TaskReport, TaskSeries
from bertfast.cli import main
from bertfast.vocabulary import save_vocabulary, train_vocabulary
from task_folder import make_task_folder


@pytest.mark.parametrize(
    ("task", "engines"),
    [
        ("token-classification", "bertfast,transformers,onnxruntime"),
        ("question-answering", "bertfast,transformers"),
    ],
)
def test_engines_are_measured_and_decide_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, engines: str
) -> None:
    figures = tmp_path / "report.json"
    options = ["--quick", "--num-texts", "6", "--threads", "1", "--prepared", str(tmp_path / "prepared")]
    line = ["bench", "--random", "1x64", "--task", task, "--engines", engines, *options]
    assert main([*line, "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    assert f"{task}: the head is random" in out
    series = json.loads(figures.read_text())["tasks"][task]
    assert [one["name"] for one in series] == engines.split(",")
    for one in series:
        assert one["failure"] is None, one
        assert len(one["seconds"]) == 1
        assert one["agreement"] == 1.0
        assert one["version"]


def test_a_model_without_token_types_and_a_text_that_is_too_long(tmp_path: Path) -> None:
    """RoBERTa's tokenizer has no token types, which the session asks for, and two positions are nobody's."""
    texts = ["one two three four", "five six", "one six " * 80]
    trained = train_vocabulary(texts, kind="byte-bpe", size=300)
    save_vocabulary(trained, tmp_path / "tokenizer", kind="byte-bpe", max_length=48)
    roberta = transformers.RobertaForMaskedLM
    sizes = {"max_position_embeddings": 50, "type_vocab_size": 1, "pad_token_id": 1}
    folder = make_task_folder(tmp_path / "roberta", roberta, tmp_path / "tokenizer", **sizes)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    figures = tmp_path / "report.json"
    options = ["--threads", "1", "--quick", "--texts", str(tmp_path / "texts.txt"), "--json", str(figures)]
    options += ["--prepared", str(tmp_path / "prepared")]
    assert main(["bench", str(folder), "--task", "text-classification", *options]) == 0
    series = json.loads(figures.read_text())["tasks"]["text-classification"]
    assert [one["name"] for one in series] == ["bertfast", "transformers", "onnxruntime"]
    for one in series:
        assert (one["failure"], one["agreement"]) == (None, 1.0), one


def test_unknown_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--random", "1x64", "--task", "fill-mask", "--engines", "bertfast,candle"]) == 2
    assert "--engines: expected some of bertfast, transformers, onnxruntime" in capsys.readouterr().err


def test_items() -> None:
    texts = ["one two three four", "五个汉字吗", "ab"]
    for task in TASKS:
        assert len(items_of(task, texts, "[MASK]")) == 3
    assert items_of("fill-mask", texts, "[MASK]") == ["one two [MASK] four", "五个[MASK]字吗", "a[MASK]"]
    questions = items_of("question-answering", texts, "")
    assert questions[2] == {"question": "one two three four", "context": "ab"}


def test_decisions() -> None:
    entities = [{"entity_group": "PER", "score": 0.5, "word": "x", "start": 1, "end": 2}]
    assert decision("token-classification", entities) == [("PER", 1, 2)]
    assert decision("text-classification", {"label": "A", "score": 0.1}) == "A"
    assert decision("text-classification", [{"label": "A", "score": 0.1}]) == "A"
    assert decision("question-answering", {"start": 3, "end": 4, "score": 0.1}) == (3, 4)
    assert decision("fill-mask", [{"token": 7}, {"token": 8}]) == 7


def test_ratios_are_medians_over_rounds() -> None:
    ours = TaskSeries("ours", "1", [1.0, 2.0, 4.0], 1.0)
    theirs = TaskSeries("theirs", "2", [2.0, 8.0, 12.0], 0.5)
    gone = TaskSeries("gone", failure="not installed")
    machine = {"cpu": "c", "threads": 2}
    report = TaskReport("m", "f", machine, 10, 3, {"fill-mask": True}, {"fill-mask": [ours, theirs, gone]})
    text = report.render(markdown=True)
    assert "| fill-mask | 5.0 | 1.2 | - |" in text
    assert "| fill-mask | 1.00x | 3.00x | - |" in text
    assert "| fill-mask | 100.0% | 50.0% | - |" in text
    assert "fill-mask: gone: not available: not installed" in text
    assert report.measured
    assert not TaskReport("m", "f", machine, 10, 3, {}, {"fill-mask": [gone]}).measured
