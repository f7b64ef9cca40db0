"""Each mistake is an error of the right class that says what came, and costs neither a crash nor the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertfast import Tokenizer
from bertfast.errors import ArgumentError


@pytest.fixture(scope="module")
def tokenizer(minilm: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(minilm)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t(b"bytes"), TypeError, "texts: expected a list of str, got bytes"),
        (lambda t: t(["text", b"bytes"]), TypeError, r"texts\[1\]: expected str, got bytes"),
        (lambda t: t(None), TypeError, "texts: expected a list of str, got NoneType"),
        (lambda t: t(3), TypeError, "texts: expected a list of str, got int"),
        (lambda t: t({"text"}), TypeError, "texts: expected a list of str, got set"),
        (lambda t: t("text", b"pair"), TypeError, "text_pair: expected str like text, got bytes"),
        (lambda t: t("text", ["pair"]), TypeError, "text_pair: expected str like text, got list"),
        (lambda t: t(["text"], "pair"), TypeError, "text_pairs: expected a list of str, got str"),
        (lambda t: t(["text"], [None]), TypeError, r"text_pairs\[0\]: expected str, got NoneType"),
        (lambda t: t.encode_ragged("text"), TypeError, "texts: expected a list of str, got str"),
        (lambda t: t.normalize(b"x"), TypeError, "bytes"),
        (lambda t: t(["a", "b"], ["c"]), ArgumentError, "text_pairs: expected 2 texts.*got 1"),
        (lambda t: t(["ok", "b\ud800c"]), ArgumentError, r"texts\[1\].*lone surrogate at character 1"),
        (lambda t: t(["ok"], ["\udfff"]), ArgumentError, r"text_pairs\[0\].*lone surrogate at character 0"),
        (lambda t: t.normalize("\ud800"), ArgumentError, "lone surrogate"),
        (lambda t: t("a", truncation=True, max_length=1), ArgumentError, "at least 2 .*got 1"),
        (lambda t: t("a", "b", truncation=True, max_length=2), ArgumentError, "at least 3 .*got 2"),
        (lambda t: t("a", max_length=-1), ArgumentError, "max_length: expected 0 or more, got -1"),
        (lambda t: t("a", max_length="8"), TypeError, "max_length"),
        (lambda t: t("a", truncation="longest"), ArgumentError, 'truncation: .*got "longest"'),
        (lambda t: t("a", truncation=1), TypeError, "truncation: expected a bool or a str, got int"),
        (lambda t: t("a", padding="wide"), ArgumentError, "padding: .*got 'wide'"),
        (lambda t: t("a", return_tensors="tf"), ArgumentError, "return_tensors: .*got 'tf'"),
        (lambda t: t("a b c", "d", truncation="only_second", max_length=5), ArgumentError, "more than 2 tok"),
        (lambda t: t("a b c", truncation="only_second", max_length=3), ArgumentError, "a pair of texts"),
        (lambda t: windows(t, "a b c d", max_length=4, stride=2), ArgumentError, "less than the 2.*got 2"),
        (lambda t: windows(t, "a b c d", max_length=4, stride=-1), ArgumentError, "stride: .*got -1"),
        (lambda t: t.encode_ragged(["a"], truncation_side="up"), ArgumentError, 'side: .*got "up"'),
    ],
)
def test_mistakes(
    tokenizer: Tokenizer, call: Callable[[Any], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(tokenizer)
    assert tokenizer("still works")["input_ids"] == [101, 2145, 2573, 102]


def windows(tokenizer: Tokenizer, text: str, **options: Any) -> object:
    return tokenizer.encode_ragged([text], truncation=True, return_overflowing_tokens=True, **options)


def test_windows_that_would_fill_the_memory_are_refused(tokenizer: Tokenizer) -> None:
    text = "a " * 100_000
    with pytest.raises(ArgumentError, match="windows of 2 tokens"):
        tokenizer.encode_ragged([text], [text], truncation=True, max_length=5, return_overflowing_tokens=True)
    assert len(tokenizer.encode_ragged([text], [text], truncation=True, max_length=5).input_ids) == 5


@pytest.mark.parametrize(
    "unit", ["a", "word ", "中", "é", "\u0301", ".", "\x00", "[MASK]", "[", "\u302e", "가", " ", "##"]
)
def test_a_text_of_10_megabytes_takes_linear_time(tokenizer: Tokenizer, unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit.encode()))
        start = time.perf_counter()
        ragged = tokenizer.encode_ragged([text], return_offsets_mapping=True)
        took = time.perf_counter() - start
        assert ragged.offset_mapping is not None
        assert ragged.offset_mapping.max() <= len(text)
        return took

    small = min(seconds(1_000_000) for _ in range(3))
    # Ten times the text; three times as much again for caches and neighbours on the machine. The memory for
    # ten million tokens takes a while whatever is done with them; what is quadratic takes minutes.
    assert seconds(10_000_000) < max(30 * small, 5.0)


def test_sequences_of_other_types_are_taken(tokenizer: Tokenizer) -> None:
    expected = tokenizer(["one", "two"])
    assert tokenizer(("one", "two")) == expected
    assert tokenizer(np.array(["one", "two"]).tolist()) == expected
    with pytest.raises(TypeError, match="ndarray"):
        tokenizer(np.array(["one", "two"]))  # type: ignore[arg-type]
