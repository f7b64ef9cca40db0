"""Pairs to scores and texts to sparse vectors by models of other families, as in sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers

from bertfast.cross_encoder import CrossEncoder
from bertfast.sparse_encoder import SparseEncoder
from bertfast.vocabulary import Kind, save_vocabulary, train_vocabulary
from family_models import make_folder
from sentence_folder import TEXTS

PAIRS = [(first, second) for first in TEXTS for second in TEXTS[::2]]
FAMILIES: dict[str, tuple[Kind, str]] = {
    "roberta": ("byte-bpe", "Roberta"),
    "albert": ("unigram", "Albert"),
    "distilbert": ("wordpiece", "DistilBert"),
    "electra": ("wordpiece", "Electra"),
}

pytestmark = pytest.mark.filterwarnings("ignore:.*are longer than")


def make(folder: Path, family: str, head: str, **changes: Any) -> Path:
    kind, prefix = FAMILIES[family]
    trained = train_vocabulary(TEXTS * 5, kind=kind, size=300)
    model = getattr(transformers, prefix + head)
    make_folder(folder, family, model, vocab_size=trained.get_vocab_size(), **changes)
    save_vocabulary(trained, folder, kind=kind, max_length=66)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_scores(tmp_path: Path, family: str) -> None:
    folder = make(tmp_path, family, "ForSequenceClassification", num_labels=2)
    expected = sentence_transformers.CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    assert np.ptp(expected, axis=0).min() > 0.01
    np.testing.assert_allclose(CrossEncoder(folder).predict(PAIRS), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_sparse_vectors(tmp_path: Path, family: str) -> None:
    folder = make(tmp_path, family, "ForMaskedLM")
    reference = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    with torch.inference_mode():
        expected = reference.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    ours = SparseEncoder.from_pretrained(folder)
    np.testing.assert_allclose(ours.encode(TEXTS).toarray(), expected, rtol=0, atol=2e-5)
    assert ours.decode(ours.encode(TEXTS[0]), top_k=1)[0][1] == pytest.approx(expected[0].max(), abs=2e-5)
