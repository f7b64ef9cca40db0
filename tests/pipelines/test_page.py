"""The examples of docs/tasks.md run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from sentence_folder import make_sentence_folder

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = {
    "reviews": transformers.BertForSequenceClassification,
    "people": transformers.BertForTokenClassification,
    "questions": transformers.BertForQuestionAnswering,
    "bert": transformers.BertForMaskedLM,
}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name, model in MODELS.items():
        folder = make_sentence_folder(tmp_path / name, modules=False)
        labels = {0: "O", 1: "B-PER", 2: "I-PER"} if name == "people" else {0: "bad"}
        options = {"id2label": labels} if name in ("people", "reviews") else {}
        model(transformers.BertConfig.from_pretrained(folder, **options)).save_pretrained(folder)
    return tmp_path


def test_the_examples_run(folders: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/tasks.md").read_text(), re.M | re.S)
    assert len(examples) == 4
    # What an example computes is looked at where it has a name.
    checks = """
assert classify("I like it.")[0]["label"] == "bad"
assert set(answer(question="Where?", context="In Berlin.")) == {"score", "start", "end", "answer"}
assert len(fill("Paris is the [MASK] of France.", top_k=3)) == 3
assert vectors.shape[0] == 2
assert encoder.labels == ["O", "B-PER", "I-PER"]
assert fast(input_ids=__import__("torch").tensor([[2, 7, 9, 3]])).logits.shape == (1, 4, 3)
assert model.config._attn_implementation == "bertfast"
"""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(examples) + checks],
        cwd=folders,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_tasks_of_the_page_are_those_that_there_are() -> None:
    from bertfast.heads import HEADS
    from bertfast.pipelines import TASKS

    page = (ROOT / "docs/tasks.md").read_text()
    for name in [*TASKS, *HEADS]:
        assert f"`{name}`" in page
