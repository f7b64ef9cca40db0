"""Samples of a store go into the models as they are, padded or ragged."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import bertfast
from bertfast.models import (
    AlbertConfig,
    AlbertForPreTraining,
    BertConfig,
    BertForPreTraining,
    RobertaConfig,
    RobertaForMaskedLM,
)
from bertfast.pretraining import BatchSampler, Corpus, PretrainingConfig, PretrainingDataset, build_corpus
from bertfast.training import DataCollator

SMALL = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
MODELS = {
    "bert": (BertConfig, BertForPreTraining),
    "albert": (AlbertConfig, AlbertForPreTraining),
    "roberta": (RobertaConfig, RobertaForMaskedLM),
    "spanbert": (BertConfig, bertfast.models.BertForMaskedLM),
}


@pytest.fixture(scope="module")
def corpus(data_dir: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    verses = (data_dir / "bible.txt").read_text(encoding="utf-8").splitlines()[:200]
    folder = tmp_path_factory.mktemp("train")
    text = "\n\n".join("\n".join(verses[start : start + 20]) for start in range(0, 200, 20))
    (folder / "bible.txt").write_text(text, encoding="utf-8")
    return build_corpus([folder / "bible.txt"], bertfast.Tokenizer.from_pretrained(minilm), folder / "store")


@pytest.mark.parametrize("preset", MODELS)
def test_a_batch_is_what_a_model_takes(corpus: Corpus, preset: str):
    dataset = PretrainingDataset(corpus, PretrainingConfig.preset(preset, max_seq_length=48), seed=1)
    configuration, kind = MODELS[preset]
    torch.manual_seed(0)
    config = configuration(vocab_size=30522, max_position_embeddings=64, **SMALL)
    model = kind(config)
    collator = DataCollator(corpus.tokenizer, seed=1)
    loader = DataLoader(
        dataset, batch_size=None, sampler=BatchSampler(dataset, batch_size=8), collate_fn=collator
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    losses = []
    for number, batch in enumerate(itertools.islice(loader, 12)):
        asked = (batch["labels"].flatten() != -100).nonzero()[:, 0]
        torch.manual_seed(number)  # ALBERT's pair head has dropout.
        loss = model(**batch, masked_positions=asked).loss
        if number == 0:
            torch.manual_seed(number)
            assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 1


def test_ragged_batches_have_the_places_of_their_labels(corpus: Corpus):
    dataset = PretrainingDataset(corpus, PretrainingConfig.preset("bert", max_seq_length=48), seed=1)
    indices = dataset.order()[:16]
    ragged, padded = dataset.batch(indices, padding=None), dataset.batch(indices)
    kept = padded["attention_mask"] == 1
    for name in ("input_ids", "labels", "token_type_ids"):
        assert np.array_equal(ragged[name], padded[name][kept])
    assert np.array_equal(ragged["masked_positions"], np.flatnonzero(ragged["labels"] != -100))
    assert np.array_equal(ragged["cu_seqlens"][1:], kept.sum(1).cumsum())
