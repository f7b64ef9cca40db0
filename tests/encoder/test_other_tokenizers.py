"""A BERT whose tokenizer is of another kind: texts to vectors as in sentence-transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import bertfast
from bert_folder import make_bert_folder
from bertfast.vocabulary import save_vocabulary, train_vocabulary
from sentence_folder import TEXTS, write_json, write_modules

Open = Callable[..., bertfast.Encoder]

pytestmark = pytest.mark.filterwarnings("ignore:.*are longer than")


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a byte-level vocabulary, mean pooling and Normalize."""
    folder = make_bert_folder(tmp_path_factory.mktemp("byte-level"), vocab_size=300)
    trained = train_vocabulary(TEXTS * 5, kind="byte-bpe", size=300)
    save_vocabulary(trained, folder, kind="byte-bpe", max_length=64)
    write_modules(folder, "Transformer", "Pooling", "Normalize")
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling/config.json", pooling)
    return folder


@pytest.mark.parametrize(
    "options",
    [{}, {"prompt": "query: "}, {"batch_size": 2}, {"truncate_dim": 5}, {"convert_to_tensor": True}],
    ids=str,
)
def test_vectors_are_those_of_sentence_transformers(
    opened: Open, byte_level: Path, options: dict[str, Any]
) -> None:
    theirs = SentenceTransformer(str(byte_level), device="cpu").encode(TEXTS, **options)
    ours = opened(byte_level).encode(TEXTS, **options)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_truncation_on_the_left(opened: Open, byte_level: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(byte_level, tmp_path / "folder")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", config | {"truncation_side": "left", "model_max_length": 9})
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(opened(folder).encode(TEXTS), theirs, rtol=0, atol=2e-5)
    write_json(folder / "tokenizer_config.json", config | {"model_max_length": 9})
    assert not np.allclose(opened(folder).encode(TEXTS), theirs, atol=1e-2)


def test_prompts_that_do_not_count(opened: Open, byte_level: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(byte_level, tmp_path / "folder")
    write_json(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": False},
    )
    texts = [text for text in TEXTS if text]
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts, prompt="query: ")
    np.testing.assert_allclose(opened(folder).encode(texts, prompt="query: "), theirs, rtol=0, atol=2e-5)


def test_lower_casing_before_the_tokenizer(opened: Open, byte_level: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(byte_level, tmp_path / "folder")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True})
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(opened(folder).encode(TEXTS), theirs, rtol=0, atol=2e-5)
    assert not np.allclose(theirs[2], opened(byte_level).encode(TEXTS[2]), atol=1e-3)


def test_other_ways_to_the_same(opened: Open, byte_level: Path) -> None:
    encoder = opened(byte_level)
    encoder.max_seq_length = 16
    vectors = encoder.encode(TEXTS)
    lengths = np.diff(encoder.tokenizer.encode_ragged(TEXTS).cu_seqlens)
    assert encoder.info()["truncated_texts"] == np.count_nonzero(lengths > 16) > 0
    np.testing.assert_allclose(np.concatenate(list(encoder.encode_iter(TEXTS))), vectors, rtol=0, atol=1e-6)
    ragged = encoder.tokenizer.encode_ragged(TEXTS, truncation=True, max_length=16)
    states = encoder.forward_ragged(ragged.input_ids, ragged.cu_seqlens).last_hidden_state
    for tokens, start, stop in zip(
        encoder.encode(TEXTS, output_value="token_embeddings"),
        ragged.cu_seqlens,
        ragged.cu_seqlens[1:],
        strict=False,
    ):
        torch.testing.assert_close(tokens, torch.from_numpy(states[start:stop]), rtol=0, atol=1e-6)
    with pytest.raises(bertfast.errors.ArgumentError, match=r"sentences\[1\].*lone surrogate"):
        encoder.encode(["ok", "\ud800"])
