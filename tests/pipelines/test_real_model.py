"""A real BERT, all-MiniLM-L6-v2, through every pipeline, on real texts; only the heads are random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import bertfast
from bertfast import _bertfast
from bertfast.bench.task_engines import decision, items_of

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
CLASSES = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "fill-mask": transformers.AutoModelForMaskedLM,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "text-classification": {"top_k": None},
    "token-classification": {"aggregation_strategy": "average"},
    "question-answering": {},
    "fill-mask": {"top_k": 3},
}


@pytest.fixture(scope="module")
def folders(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model with a head for each task."""
    found = {}
    for task, model in CLASSES.items():
        torch.manual_seed(1)
        names = {"id2label": dict(enumerate(LABELS))} if task.endswith("classification") else {}
        folder = tmp_path_factory.mktemp(task)
        # Larger than usual: else all labels are about as likely, and rounding decides.
        made = model.from_pretrained(minilm, dtype=torch.float32, **names)
        for name, parameter in made.named_parameters():
            if name.startswith(("classifier", "qa_outputs")):
                torch.nn.init.normal_(parameter, std=0.3)
        made.save_pretrained(folder)
        for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
            if (minilm / name).is_file():
                (folder / name).write_bytes((minilm / name).read_bytes())
        found[task] = folder
    return found


@pytest.fixture(scope="module")
def texts(real_texts: list[str]) -> list[str]:
    return [text[:300] for text in real_texts[:24]]


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask"])
def test_results_are_those_of_transformers(folders: dict[str, Path], texts: list[str], task: str) -> None:
    items = items_of(task, texts, "[MASK]")
    theirs = transformers.pipeline(task, str(folders[task]), device="cpu", **OPTIONS[task])(items)
    ours = bertfast.pipeline(task, folders[task], **OPTIONS[task])(items)
    assert len(ours) == len(theirs) == len(items)
    for got, wanted in zip(ours, theirs, strict=True):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            assert {k: v for k, v in a.items() if k != "score"} == {
                k: v for k, v in b.items() if k != "score"
            }
            assert a["score"] == pytest.approx(b["score"], rel=1e-4)


def test_features_are_those_of_transformers(minilm: Path, texts: list[str]) -> None:
    theirs = transformers.pipeline("feature-extraction", str(minilm), device="cpu")(texts)
    ours = bertfast.pipeline("feature-extraction", minilm)(texts)
    for got, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-5)


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.9), ("int8", 0.7)])
def test_other_dtypes_decide_nearly_alike(
    folders: dict[str, Path], texts: list[str], task: str, dtype: str, least: float
) -> None:
    if dtype not in _bertfast.dtypes():
        pytest.skip(f"{dtype} does not run natively here")
    items = items_of(task, texts, "[MASK]")
    exact, ours = (
        bertfast.pipeline(task, folders[task], dtype=one, **OPTIONS[task])(items)
        for one in ("float32", dtype)
    )
    alike: list[bool] = []
    for a, b in zip(exact, ours, strict=True):
        if task == "token-classification":
            # Entity by entity: with one that differs a text is not another one.
            wanted, got = set(decision(task, a)), set(decision(task, b))
            alike += [entity in got for entity in wanted]
        else:
            alike.append(decision(task, a) == decision(task, b))
    assert np.mean(alike) >= least


def test_the_same_results_through_pytorch(folders: dict[str, Path], texts: list[str]) -> None:
    for task, options in OPTIONS.items():
        items = items_of(task, texts[:6], "[MASK]")
        a, b = (
            bertfast.pipeline(task, folders[task], backend=backend, **options)(items)
            for backend in ("rust", "torch")
        )
        for x, y in zip(a, b, strict=True):
            assert decision(task, x) == decision(task, y)
