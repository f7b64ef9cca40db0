"""`Encoder.encode`: the arguments and results of sentence-transformers, and ours besides."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import bertfast
from bertfast.errors import TruncationWarning
from sentence_folder import TEXTS

MANY = [f"{text} {index}" for index in range(20) for text in TEXTS[:4]]


@pytest.fixture(scope="module")
def theirs(tiny: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny), device="cpu")


def close(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    assert ours.shape == theirs.shape
    assert str(ours.dtype) == str(theirs.dtype)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


# --------------------------------------------------------------------------------- as sentence-transformers


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"normalize_embeddings": True},
        {"truncate_dim": 10},
        {"truncate_dim": 10, "normalize_embeddings": True},
        {"truncate_dim": 1000},
        {"convert_to_tensor": True},
        {"convert_to_tensor": True, "convert_to_numpy": False},
        {"batch_size": 3, "show_progress_bar": False, "device": "cpu"},
        {"prompt": "query: "},
        {"precision": "binary", "convert_to_tensor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("sentences", [MANY, MANY[0], MANY[:1], tuple(MANY), np.array(MANY)], ids=type)
def test_results(
    encoder: bertfast.Encoder, theirs: SentenceTransformer, sentences: Any, kwargs: dict[str, Any]
) -> None:
    close(encoder.encode(sentences, **kwargs), theirs.encode(sentences, **kwargs))


def test_arguments_by_place_and_by_their_newer_name(
    encoder: bertfast.Encoder, theirs: SentenceTransformer
) -> None:
    places = (None, "query: ", 4, False, "sentence_embedding", "float32", True, True, "cpu", True, 7)
    close(encoder.encode(MANY, *places), theirs.encode(MANY, *places))
    close(encoder.encode(inputs=MANY), theirs.encode(inputs=MANY))
    close(encoder.encode_query(inputs=MANY[0]), theirs.encode_query(inputs=MANY[0]))
    with pytest.raises(TypeError, match="sentences, inputs: expected one of them, got both"):
        encoder.encode(MANY, inputs=MANY)
    with pytest.raises(TypeError, match="sentences: expected str or a sequence of str, got NoneType"):
        encoder.encode()


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_truncation_on_the_left(opened: Any, tiny: Path, tmp_path: Path) -> None:
    """Whatever is asked for, the end of a text stays."""
    folder = shutil.copytree(tiny, tmp_path / "folder")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"truncation_side": "left"}))
    ours, reference = opened(folder), SentenceTransformer(str(folder), device="cpu")
    ours.max_seq_length = reference.max_seq_length = 9
    close(ours.encode(MANY), reference.encode(MANY))
    for one, other in zip(
        ours.encode(MANY, output_value=None), reference.encode(MANY, output_value=None), strict=True
    ):
        assert one["input_ids"].tolist() == other["input_ids"].tolist()[: len(one["input_ids"])]
        close(one["sentence_embedding"], other["sentence_embedding"])


def test_lists_of_tensors(encoder: bertfast.Encoder, theirs: SentenceTransformer) -> None:
    ours = encoder.encode(MANY, convert_to_numpy=False)
    expected = theirs.encode(MANY, convert_to_numpy=False)
    assert type(ours) is type(expected) is list
    for a, b in zip(ours, expected, strict=True):
        close(a, b)
    close(encoder.encode("abc", convert_to_numpy=False), theirs.encode("abc", convert_to_numpy=False))


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precision(encoder: bertfast.Encoder, theirs: SentenceTransformer, precision: str) -> None:
    """Quantizing is a step function: a vector that differs in the last bit may fall on the other side."""
    from sentence_transformers.util import quantize_embeddings

    ours = encoder.encode(MANY, precision=precision)
    expected = quantize_embeddings(encoder.encode(MANY), precision)
    np.testing.assert_array_equal(ours, expected)
    assert ours.dtype == expected.dtype
    other = theirs.encode(MANY, precision=precision)
    assert ours.dtype == other.dtype
    assert ours.shape == other.shape
    assert np.mean(ours != other) < 0.01


def test_token_embeddings(encoder: bertfast.Encoder, theirs: SentenceTransformer) -> None:
    ours = encoder.encode(MANY, output_value="token_embeddings")
    expected = theirs.encode(MANY, output_value="token_embeddings")
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected, strict=True):
        close(a, b)
    close(
        encoder.encode("abc", output_value="token_embeddings"),
        theirs.encode("abc", output_value="token_embeddings"),
    )


def test_everything(encoder: bertfast.Encoder, theirs: SentenceTransformer) -> None:
    ours, expected = encoder.encode(MANY, output_value=None), theirs.encode(MANY, output_value=None)
    for a, b in zip(ours, expected, strict=True):
        length = len(a["input_ids"])
        assert int(b["attention_mask"].sum()) == length
        for name in ("input_ids", "token_type_ids", "attention_mask", "token_embeddings"):
            close(a[name], b[name][:length])
        close(a["sentence_embedding"], b["sentence_embedding"])
    assert encoder.encode("abc", output_value=None).keys() == ours[0].keys()


def test_callers_that_pass_what_langchain_and_bertopic_pass(encoder: bertfast.Encoder) -> None:
    vectors = encoder.encode(MANY, show_progress_bar=False, batch_size=64, normalize_embeddings=True)
    assert isinstance(vectors.tolist()[0][0], float)
    assert encoder.encode(MANY, show_progress_bar=False, chunk_size=None, pool=None, task=None).shape == (
        80,
        32,
    )


# ------------------------------------------------------------------------------------------------- ours


def same_bits(a: np.ndarray, b: np.ndarray, backend: str) -> None:
    """Equal for the Rust engine; PyTorch's bits depend on the batch."""
    if backend == "rust":
        np.testing.assert_array_equal(a, b)
    else:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"batch_size": 1},
        {"batch_size": 7},
        {"batch_tokens": 1},
        {"batch_tokens": 100},
        {"num_threads": 1},
        {"num_threads": 2},
        {"num_threads": 64},
    ],
    ids=str,
)
def test_steps_and_threads_do_not_change_a_vector(
    encoder: bertfast.Encoder, backend: str, kwargs: dict[str, Any]
) -> None:
    expected = np.stack([encoder.encode(text) for text in MANY])
    same_bits(encoder.encode(MANY), expected, backend)
    same_bits(encoder.encode(MANY, **kwargs), expected, backend)
    same_bits(encoder.encode(MANY[::-1], **kwargs)[::-1], expected, backend)
    streamed = list(encoder.encode_iter(iter(MANY), **kwargs))
    assert all(part.dtype == np.float32 for part in streamed)
    same_bits(np.concatenate(streamed), expected, backend)


def test_dense_modules_do_not_depend_on_the_batch(opened: Any, dense_folder: Path, backend: str) -> None:
    encoder = opened(dense_folder)
    expected = np.stack([encoder.encode(text) for text in MANY])
    for batch_size in (1, 2, 3, 5, 17, 80):
        same_bits(encoder.encode(MANY, batch_size=batch_size), expected, backend)


def test_out(encoder: bertfast.Encoder, backend: str, tmp_path: Path) -> None:
    expected = encoder.encode(MANY)
    array = np.full((len(MANY), 32), np.nan, np.float32)
    assert encoder.encode(MANY, out=array) is array
    same_bits(array, expected, backend)
    memmap = np.lib.format.open_memmap(tmp_path / "v.npy", mode="w+", dtype=np.float32, shape=(len(MANY), 10))
    assert encoder.encode(MANY, out=memmap, truncate_dim=10, batch_size=9) is memmap
    memmap.flush()
    written = np.load(tmp_path / "v.npy")
    same_bits(written, encoder.encode(MANY, truncate_dim=10), backend)
    # Normalize comes before the cut, as in sentence-transformers.
    np.testing.assert_allclose(written, expected[:, :10], rtol=0, atol=1e-6)


def test_encode_iter_takes_texts_as_they_are_needed(encoder: bertfast.Encoder) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"text {taken}"

    vectors = encoder.encode_iter(endless(), batch_size=8, num_threads=1)
    assert taken == 0
    first = next(vectors)
    assert taken <= len(first) + 1 <= 9
    np.testing.assert_allclose(first[0], encoder.encode("text 1"), atol=1e-6)


def test_truncation_is_counted_and_warned_about_once(opened: Any, tiny: Path) -> None:
    encoder = opened(tiny)
    texts = ["a b", "word " * 40, "x " * 62, "x " * 63]  # 62 tokens and 2 special ones just fit
    with pytest.warns(TruncationWarning, match="2 of 4 texts are longer than 64 tokens and were cut off"):
        encoder.encode(texts)
    assert encoder.info()["truncated_texts"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(texts)
        list(encoder.encode_iter(texts))
        encoder.encode(texts, output_value="token_embeddings")
    assert encoder.info()["truncated_texts"] == 8


def test_info(encoder: bertfast.Encoder, backend: str) -> None:
    info = encoder.info()
    expected = {
        "backend": backend,
        "device": "cpu",
        "dtype": "float32",
        "pooling": ["mean"],
        "modules": ["Normalize"],
        "embedding_dimension": 32,
        "max_seq_length": 64,
        "similarity_fn_name": "cosine",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "unused": [],
        "truncated_texts": 0,
    }
    assert info.items() >= expected.items()
    assert info["num_threads"] >= 1


# --------------------------------------------------------------------------------------- progress and Ctrl-C


def test_progress_bar(
    encoder: bertfast.Encoder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.encode(MANY)
    encoder.encode(MANY, show_progress_bar=False)
    assert capsys.readouterr().err == ""
    encoder.encode(MANY, show_progress_bar=True)
    assert "80/80" in capsys.readouterr().err  # tqdm's
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    encoder.encode(MANY, show_progress_bar=True)
    ours = capsys.readouterr().err
    assert "100% 80/80 texts, " in ours
    assert ours.endswith("\n")
    logger = logging.getLogger("bertfast")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    encoder.encode(MANY)
    assert "80/80" in capsys.readouterr().err


def test_ctrl_c_stops_between_two_steps(tiny: Path, backend: str) -> None:
    code = f"""
import bertfast
encoder = bertfast.Encoder.from_pretrained({str(tiny)!r}, backend={backend!r})
texts = ["a text of some words"] * 10_000_000
print("started", flush=True)
encoder.encode(texts)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    # All texts would take minutes.
    _, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    assert process.returncode != 0


def test_eight_threads_share_an_encoder(encoder: bertfast.Encoder, backend: str) -> None:
    expected = encoder.encode(MANY)
    results: list[np.ndarray] = []

    def work() -> None:
        results.extend(encoder.encode(MANY) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(results) == 40
    for result in results:
        same_bits(result, expected, backend)


# ------------------------------------------------------------------------------------------------ real texts


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_real_texts(opened: Callable[..., bertfast.Encoder], minilm: Path, real_texts: list[str]) -> None:
    texts = real_texts[:100]
    expected = SentenceTransformer(str(minilm), device="cpu").encode(texts)
    vectors = opened(minilm).encode(texts)
    assert (vectors * expected).sum(axis=1).min() > 0.999999
    assert torch.is_tensor(opened(minilm).encode(texts[0], convert_to_tensor=True))
