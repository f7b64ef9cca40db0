"""Hidden states as transformers returns them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import bertfast
from bertfast.errors import ArgumentError
from task_folder import TEXTS, assert_same, make_task_folder, theirs


@pytest.fixture(scope="module")
def folder(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task_folder(tmp_path_factory.mktemp("model"), transformers.BertModel, minilm)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"truncation": True},
        {"tokenize_kwargs": {"truncation": True, "max_length": 5}},
        {"tokenize_kwargs": {"add_special_tokens": True, "padding": True}, "truncation": "longest_first"},
    ],
    ids=str,
)
def test_hidden_states(folder: Path, options: dict[str, Any]) -> None:
    ours, expected = bertfast.pipeline("feature-extraction", folder), theirs("feature-extraction", folder)
    for inputs in (TEXTS, TEXTS[0]):
        # They write into the dict that they are given.
        assert_same(ours(inputs, **options), expected(inputs, **deepcopy(options)), 1e-4)


def test_tensors(folder: Path) -> None:
    ours = bertfast.pipeline("feature-extraction", folder, return_tensors=True)
    expected = theirs("feature-extraction", folder)
    for one, other in zip(ours(TEXTS), expected(TEXTS, return_tensors=True), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert isinstance(ours("x", return_tensors=False), list)


def test_a_real_model(minilm: Path) -> None:
    """Its folder is one of sentence-transformers; the length is the model's, not that of ``encode``."""
    ours, expected = bertfast.pipeline("feature-extraction", minilm), theirs("feature-extraction", minilm)
    for text in (TEXTS[0], TEXTS[4], "word " * 400):
        assert_same(ours(text), expected(text), 1e-4)


def test_any_encoder_will_do(minilm: Path, tmp_path: Path) -> None:
    folder = make_task_folder(tmp_path, transformers.BertForMaskedLM, minilm)
    encoder = bertfast.Encoder.from_pretrained(folder, head="masked-lm")
    headless = bertfast.pipeline("feature-extraction", folder)
    assert bertfast.pipeline("feature-extraction", encoder)(TEXTS) == headless(TEXTS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"truncation": True, "tokenize_kwargs": {"truncation": True}},
            ArgumentError,
            "truncation: expected once",
        ),
        ({"tokenize_kwargs": {"lowercase": True}}, ArgumentError, "tokenize_kwargs: expected some of"),
        ({"tokenize_kwargs": 3}, TypeError, "tokenize_kwargs: expected a dict, got int"),
        ({"tokenize_kwargs": {"max_length": -1}}, ArgumentError, "max_length: expected a positive integer"),
        ({"truncation": 3}, ArgumentError, "truncation: expected one of"),
    ],
)
def test_options_that_cannot_be(folder: Path, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        bertfast.pipeline("feature-extraction", folder, **options)
