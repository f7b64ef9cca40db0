"""What all pipelines share: the names of tasks, one input or many, streams, steps, errors."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

import bertfast
from bertfast.errors import ArgumentError, TokenizerError
from bertfast.pipelines import ALIASES, TASKS, task_of
from bertfast.pipelines.base import pieces
from task_folder import TEXTS, make_task_folder


@pytest.fixture(scope="module")
def folder(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = transformers.BertForSequenceClassification
    return make_task_folder(tmp_path_factory.mktemp("model"), model, minilm, num_labels=3)


@pytest.fixture(scope="module")
def classify(folder: Path) -> Any:
    return bertfast.pipeline("text-classification", folder)


def test_names_of_tasks(folder: Path) -> None:
    assert set(ALIASES.values()) <= set(TASKS)
    assert task_of("sentiment-analysis") == "text-classification"
    for name in ("summarization", "", None, 3):
        with pytest.raises(ArgumentError, match=r"task: expected one of 'feature-extraction', .*, got"):
            bertfast.pipeline(name, folder)  # type: ignore[arg-type]


def test_the_table_says_what_the_classes_say() -> None:
    for name, (module, class_name, head) in TASKS.items():
        made = getattr(__import__(f"bertfast.pipelines.{module}", fromlist=[class_name]), class_name)
        assert (made.task, made.head) == (name, head)


def test_nothing_is_imported_too_early(folder: Path) -> None:
    code = (
        "import sys, bertfast; bertfast.pipeline; print('bertfast.encoder' in sys.modules);"
        f"bertfast.pipeline('text-classification', {str(folder)!r})('x');"
        "loaded = {name.split('.')[0] for name in sys.modules};"
        "print(*loaded & {'torch', 'transformers', 'tokenizers', 'tqdm'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n\n"


class TorchDataset:
    """What transformers' users pass to a pipeline; it is no iterable."""

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, place: int) -> str:
        assert place < len(TEXTS)
        return TEXTS[place]


def test_kinds_of_inputs(classify: Any) -> None:
    one_by_one = [classify(text)[0] for text in TEXTS]
    assert classify(TEXTS) == one_by_one
    assert classify(tuple(TEXTS)) == one_by_one
    assert classify(np.array(TEXTS)) == one_by_one
    assert list(classify(text for text in TEXTS)) == one_by_one
    assert list(classify(dict.fromkeys(TEXTS).keys())) == one_by_one
    assert list(classify(TorchDataset())) == one_by_one
    assert classify([]) == []
    assert list(classify(iter([]))) == []


@pytest.mark.parametrize(
    "limits",
    [{"batch_size": 1}, {"batch_size": 3}, {"batch_tokens": 1}, {"batch_tokens": 100, "num_threads": 1}],
)
def test_steps_do_not_show(classify: Any, limits: dict[str, int]) -> None:
    """To the last bit."""
    assert classify(TEXTS, top_k=None, **limits) == classify(TEXTS, top_k=None)
    assert list(classify(iter(TEXTS), top_k=None, **limits)) == classify(TEXTS, top_k=None)


def test_a_stream_is_read_as_it_is_needed(classify: Any) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for read in itertools.count(1):
            yield f"text {read}"

    results = classify(endless(), batch_size=5)
    assert read == 0
    for wanted in range(1, 31):
        next(results)
        assert read == (wanted + 4) // 5 * 5
    short = classify(endless(), batch_tokens=40)
    next(short)
    # A step, and the input that no longer fits into it.
    assert read == 6


def test_a_mistake_in_a_stream_comes_in_its_turn(classify: Any) -> None:
    results = classify(iter([*["fine"] * 9, 3]), batch_size=4)
    assert len(list(itertools.islice(results, 9))) == 9
    with pytest.raises(TypeError, match=r"inputs\[9\]: expected str or a dict"):
        next(results)
    results = classify(iter([*["fine"] * 9, "\ud800"]), batch_size=4)
    assert len(list(itertools.islice(results, 8))) == 8
    with pytest.raises(ArgumentError, match=r"inputs\[9\]: .*lone surrogate at character 0"):
        next(results)


def test_a_mistake_in_a_list_is_said_before_anything_is_computed(classify: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(classify, "_run", lambda *_: pytest.fail("computed"))
    with pytest.raises(TypeError, match=r"inputs\[90\]"):
        classify([*["fine"] * 90, None])
    # Options, too, before the first input of a stream.
    with pytest.raises(ArgumentError, match="options of text-classification: expected one of"):
        classify(iter(["x"]), no_such_option=1)


def test_interruption_between_steps(classify: Any) -> None:
    def texts() -> Iterator[str]:
        yield from ["fine"] * 3
        raise KeyboardInterrupt

    results = classify(texts(), batch_size=1)
    assert len(list(itertools.islice(results, 2))) == 2
    with pytest.raises(KeyboardInterrupt):
        list(results)


def test_progress(
    classify: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    classify(TEXTS)
    assert capsys.readouterr().err == ""
    classify(TEXTS, show_progress_bar=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err
    with caplog.at_level(logging.INFO, logger="bertfast"):
        classify(TEXTS)
        assert "100%" in capsys.readouterr().err
        list(classify(iter(TEXTS), show_progress_bar=False))
    assert capsys.readouterr().err == ""


def test_threads_share_a_pipeline(classify: Any) -> None:
    expected, found = classify(TEXTS, top_k=None), []
    threads = [
        threading.Thread(target=lambda: found.append(classify(TEXTS, top_k=None, batch_size=2)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a positive integer, got 0"),
        ({"batch_tokens": 0}, "batch_tokens: expected a positive integer"),
        ({"num_threads": 0}, "num_threads: expected a positive integer or None"),
    ],
)
def test_limits_that_cannot_be(classify: Any, options: dict[str, int], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        classify("x", **options)


def test_encoders(folder: Path, minilm: Path, tmp_path: Path) -> None:
    encoder = bertfast.Encoder.from_pretrained(folder, head="sequence-classification")
    classify = bertfast.pipeline("text-classification", encoder, num_threads=1)
    assert classify.encoder is encoder
    assert classify.tokenizer is encoder.tokenizer
    assert classify(TEXTS) == bertfast.pipeline("text-classification", folder)(TEXTS)
    with pytest.raises(
        ArgumentError, match="model: expected an encoder with head='masked-lm', got one with head='seq"
    ):
        bertfast.pipeline("fill-mask", encoder)
    with pytest.raises(ArgumentError, match="head='sequence-classification', got one with head=None"):
        bertfast.pipeline("text-classification", bertfast.Encoder.from_pretrained(minilm))
    with pytest.raises(ArgumentError, match="dtype: expected nothing beside an encoder"):
        bertfast.pipeline("text-classification", encoder, dtype="int8")
    other = bertfast.Tokenizer.from_pretrained(minilm)
    assert bertfast.pipeline("text-classification", encoder, tokenizer=other).tokenizer is other
    assert bertfast.pipeline("text-classification", encoder, tokenizer=minilm)(TEXTS) == classify(TEXTS)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    with pytest.raises(TokenizerError, match="this model has no tokenizer"):
        bertfast.pipeline("text-classification", tmp_path)
    assert bertfast.pipeline("text-classification", tmp_path, tokenizer=folder)(TEXTS) == classify(TEXTS)


def test_pieces() -> None:
    lengths = [3, 1, 9, 2, 2, 5]
    ends = np.cumsum([0, *lengths])
    ids, types = np.arange(ends[-1], dtype=np.int32), np.arange(ends[-1], dtype=np.int32) % 2
    ragged = bertfast.Ragged(ids, ends, token_type_ids=types)
    for most in (1, 4, 5, 9, 100):
        found = list(pieces(ragged, most))
        assert [piece.start for piece in found] == [0, *(piece.stop for piece in found[:-1])]
        assert found[-1].stop == len(lengths)
        for piece in found:
            assert len(piece.input_ids) <= most or piece.stop == piece.start + 1
            assert np.array_equal(piece.input_ids, ids[piece.first_token : piece.last_token])
            assert np.array_equal(piece.token_type_ids, types[piece.first_token : piece.last_token])
            assert np.diff(piece.cu_seqlens).tolist() == lengths[piece.start : piece.stop]
            assert [stop - start for start, stop in piece.sequences()] == lengths[piece.start : piece.stop]
    assert [(piece.start, piece.stop) for piece in pieces(ragged, 4)] == [(0, 2), (2, 3), (3, 5), (5, 6)]
