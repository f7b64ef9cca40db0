"""Labels of texts and pairs, with the nesting of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

import bertfast
from bertfast.errors import ArgumentError
from bertfast.pipelines.scores import sigmoid, softmax
from task_folder import TEXTS, assert_same, make_task_folder, theirs

PAIRS = [{"text": text, "text_pair": pair} for text, pair in zip(TEXTS[:7], TEXTS[6::-1], strict=True)]


@pytest.fixture(scope="module")
def folder(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task_folder(
        tmp_path_factory.mktemp("model"),
        transformers.BertForSequenceClassification,
        minilm,
        id2label={0: "bad", 1: "fair", 2: "good", 3: "best"},
        label2id={"bad": 0, "fair": 1, "good": 2, "best": 3},
        max_position_embeddings=128,
        length=128,
    )


@pytest.fixture(scope="module")
def ours(folder: Path) -> Any:
    return bertfast.pipeline("text-classification", folder)


@pytest.fixture(scope="module")
def expected(folder: Path) -> Any:
    return theirs("text-classification", folder)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": None},
        {"top_k": 50},
        {"function_to_apply": "sigmoid"},
        {"function_to_apply": "none", "top_k": None},
        {"function_to_apply": "softmax", "top_k": 2},
        {"truncation": True},
        {"truncation": True, "max_length": 7, "top_k": None},
        {"truncation": "only_first", "max_length": 60, "padding": True},
        {"add_special_tokens": False},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "inputs", [TEXTS[0], TEXTS, PAIRS[3], PAIRS, [TEXTS[3]], [PAIRS[0], *TEXTS[:2], PAIRS[2]]]
)
def test_calls(ours: Any, expected: Any, inputs: Any, options: dict[str, Any]) -> None:
    if options.get("add_special_tokens") is False and isinstance(inputs, list):
        inputs = [one for one in inputs if one not in TEXTS[1:3] and one != PAIRS[1]]
    assert_same(ours(inputs, **options), expected(inputs, **options))


@pytest.mark.parametrize(
    "options", [{"top_k": None}, {"top_k": 2}, {"function_to_apply": "sigmoid"}], ids=str
)
def test_options_of_the_pipeline(folder: Path, options: dict[str, Any]) -> None:
    ours = bertfast.pipeline("sentiment-analysis", folder, **options)
    expected = theirs("sentiment-analysis", folder, **options)
    for inputs in (TEXTS[0], TEXTS, PAIRS[0]):
        assert_same(ours(inputs), expected(inputs))
        assert_same(ours(inputs, top_k=1), expected(inputs, top_k=1))


@pytest.mark.parametrize(
    "config",
    [
        {"num_labels": 1},
        {"num_labels": 1, "problem_type": "regression"},
        {"num_labels": 3, "problem_type": "regression"},
        {"num_labels": 5, "problem_type": "multi_label_classification"},
        {"num_labels": 2, "problem_type": "single_label_classification"},
    ],
    ids=str,
)
def test_kinds_of_problems(minilm: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    model = transformers.BertForSequenceClassification
    folder = make_task_folder(tmp_path, model, minilm, **config)
    ours, expected = bertfast.pipeline("text-classification", folder), theirs("text-classification", folder)
    assert_same(ours(TEXTS), expected(TEXTS))
    assert_same(ours(TEXTS, top_k=None), expected(TEXTS, top_k=None))


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (
            transformers.DistilBertForSequenceClassification,
            {"dim": 36, "n_layers": 2, "n_heads": 3, "hidden_dim": 50},
        ),
        (transformers.ElectraForSequenceClassification, {"embedding_size": 26}),
        (transformers.BertForSequenceClassification, {"type_vocab_size": 3}),
    ],
)
def test_families(minilm: Path, tmp_path: Path, model: Any, config: dict[str, Any]) -> None:
    """Pairs with token types and without."""
    folder = make_task_folder(
        tmp_path, model, minilm, num_labels=3, max_position_embeddings=128, length=128, **config
    )
    ours, expected = bertfast.pipeline("text-classification", folder), theirs("text-classification", folder)
    assert_same(ours(TEXTS + PAIRS, top_k=None), expected(TEXTS + PAIRS, top_k=None))


def test_scores_of_large_logits() -> None:
    logits = np.array([[-1000.0, 0.0, 1000.0], [-30, 3, 88]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(softmax(logits)[0], [0, 0, 1])
        np.testing.assert_allclose(sigmoid(logits)[0], [0, 0.5, 1])
        # Small probabilities keep their digits.
        np.testing.assert_allclose(sigmoid(logits)[1, 0], np.exp(-30) / (1 + np.exp(-30)), rtol=1e-12)


def test_texts_that_are_too_long(ours: Any) -> None:
    long = "word " * 200
    with pytest.raises(
        ArgumentError, match=r"inputs\[41\]: expected at most 128 tokens, got 203; truncation"
    ):
        ours(["short"] * 40 + [PAIRS[0], {"text": "short", "text_pair": "word " * 199}, long])
    with pytest.raises(ArgumentError, match=r"inputs: expected at most 128 tokens, got 202; truncation"):
        ours(long)
    assert ours([long], truncation=True) == ours(["word " * 126])


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (3, TypeError, 'inputs: expected a text, a dict {"text", "text_pair"} or several of these, got int'),
        (None, TypeError, "inputs: expected a text"),
        (b"text", TypeError, "inputs: expected a text"),
        (["a", 3], TypeError, r"inputs\[1\]: expected str or a dict"),
        ([["a", "b"]], TypeError, r"inputs\[0\]: expected str or a dict"),
        ({"text": 3}, TypeError, r"inputs\['text'\]: expected str, got int"),
        ([{"text": "a", "text_pair": 3}], TypeError, r"inputs\[0\]\['text_pair'\]: expected str, got int"),
        (
            [{"text_pair": "a"}],
            ArgumentError,
            r"""inputs\[0\]: expected the keys "text" and "text_pair", got \[""",
        ),
        ({"text": "a", "pair": "b"}, ArgumentError, "inputs: expected the keys"),
        (["a", "\ud800"], ArgumentError, r"inputs\[1\]: expected text that can be written as UTF-8"),
        (
            {"text": "a", "text_pair": "b\udfff"},
            ArgumentError,
            r"inputs\['text_pair'\]: expected text that can",
        ),
    ],
)
def test_inputs_that_cannot_be(ours: Any, inputs: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ours(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k: expected a positive integer, got 0"),
        ({"top_k": "all"}, "top_k: expected a positive integer"),
        ({"top_k": True}, "top_k: expected a positive integer"),
        ({"function_to_apply": "tanh"}, "function_to_apply: expected one of"),
        ({"truncation": "both"}, "truncation: expected one of"),
        ({"padding": "max_length"}, "padding: expected one of"),
        ({"max_length": 0}, "max_length: expected a positive integer"),
        ({"stride": 3}, "options of text-classification: expected one of"),
    ],
)
def test_options_that_cannot_be(ours: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ours("text", **options)


def test_other_names_for_the_same(ours: Any) -> None:
    assert ours("text", function_to_apply="default") == ours("text")
    assert ours([{"text": "text", "text_pair": None}]) == ours([{"text": "text"}]) == ours(["text"])
