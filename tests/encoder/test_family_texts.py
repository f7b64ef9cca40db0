"""Texts to vectors by models of other families, with their own tokenizers, as in sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer

import bertfast
from bertfast.quantize import quantize
from bertfast.vocabulary import Kind, save_vocabulary, train_vocabulary
from sentence_folder import TEXTS, write_json, write_modules

pytestmark = pytest.mark.filterwarnings("ignore:.*are longer than")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
FAMILIES: dict[str, tuple[Kind, Any, Any, dict[str, Any]]] = {
    "roberta": (
        "byte-bpe",
        transformers.RobertaConfig,
        transformers.RobertaModel,
        # 66 rows: positions begin at 2.
        SIZES | {"type_vocab_size": 1, "max_position_embeddings": 66, "pad_token_id": 1},
    ),
    "albert": (
        "unigram",
        transformers.AlbertConfig,
        transformers.AlbertModel,
        SIZES | {"embedding_size": 16, "max_position_embeddings": 64},
    ),
    "distilbert": (
        "wordpiece",
        transformers.DistilBertConfig,
        transformers.DistilBertModel,
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
    ),
    "electra": (
        "wordpiece",
        transformers.ElectraConfig,
        transformers.ElectraModel,
        SIZES | {"embedding_size": 16, "max_position_embeddings": 64},
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, make_config, make_model, sizes = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    trained = train_vocabulary(TEXTS * 5, kind=kind, size=300)
    save_vocabulary(trained, folder, kind=kind, max_length=64)
    torch.manual_seed(0)
    config = make_config(vocab_size=trained.get_vocab_size(), initializer_range=0.1, **sizes)
    make_model(config).save_pretrained(folder)
    write_modules(folder, "Transformer", "Pooling", "Normalize")
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling/config.json", pooling)
    return folder


def test_vectors_are_those_of_sentence_transformers(folder: Path) -> None:
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    encoder = bertfast.Encoder.from_pretrained(folder)
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs, rtol=0, atol=2e-5)
    # A text does not feel what lies beside it.
    alone = np.stack([encoder.encode(text) for text in TEXTS])
    assert np.array_equal(alone, encoder.encode(TEXTS))


def test_the_longest_text_fits(folder: Path) -> None:
    text = "word " * 200
    theirs = SentenceTransformer(str(folder), device="cpu").encode([text])
    encoder = bertfast.Encoder.from_pretrained(folder)
    assert encoder.max_seq_length == 64
    np.testing.assert_allclose(encoder.encode([text]), theirs, rtol=0, atol=2e-5)


def test_a_quantized_folder_opens(folder: Path, tmp_path: Path) -> None:
    report = quantize(folder, tmp_path / "packed", texts=TEXTS, mean_cosine=0.9, min_cosine=0.8)
    encoder = bertfast.Encoder.from_pretrained(tmp_path / "packed")
    assert encoder.info()["mapped"]
    assert len(report.layer_dtypes) == len(encoder.info()["layer_dtypes"])
    exact = bertfast.Encoder.from_pretrained(folder).encode(TEXTS)
    assert (encoder.encode(TEXTS) * exact).sum(axis=1).min() > 0.8
