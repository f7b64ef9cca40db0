"""`DataCollator` in place of the one of transformers: keys, types, padding, and the keys of samples."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

import bertfast
from bertfast.errors import ArgumentError, BertFastError, DtypeError, ShapeError, TokenIdError
from bertfast.pretraining import Masking, mask_tokens
from bertfast.training import DataCollator

TEXTS = ["The cat sat on the mat, unbelievably.", "Hello!", "A man is eating food with a fork and a knife."]


@pytest.fixture(scope="module")
def tokenizer(minilm) -> bertfast.Tokenizer:
    return bertfast.Tokenizer.from_pretrained(minilm)


@pytest.fixture
def features(tokenizer) -> list[dict[str, Any]]:
    return [dict(tokenizer(text)) for text in TEXTS]


def test_keys_and_types_are_those_of_transformers(tokenizer, features, minilm):
    ours = DataCollator(tokenizer, seed=0, pad_to_multiple_of=8)(features)
    hf = AutoTokenizer.from_pretrained(minilm)
    theirs = DataCollatorForLanguageModeling(hf, pad_to_multiple_of=8)(features)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name].shape, ours[name].dtype) == (tensor.shape, tensor.dtype)
    for name in ("token_type_ids", "attention_mask"):
        assert torch.equal(ours[name], theirs[name])
    asked = ours["labels"] != -100
    original = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(f["input_ids"]) for f in features], batch_first=True
    )
    original = torch.nn.functional.pad(original, (0, asked.shape[1] - original.shape[1]))
    assert torch.equal(ours["labels"][asked], original[asked])
    assert torch.equal(ours["input_ids"][~asked], original[~asked])
    assert asked.any(dim=1).all()


@pytest.mark.parametrize("unit", ["token", "whole_word", "ngram", "span"])
def test_an_index_is_the_key(tokenizer, features, unit):
    masking = Masking(unit=unit, count="ceil")
    collator = DataCollator(tokenizer, masking, seed=5, return_tensors="np")
    collator.set_epoch(3)
    for number, sample in enumerate(features):
        sample["index"] = 10 + number
    together = collator(features)
    for row, (text, sample) in enumerate(zip(TEXTS, features, strict=True)):
        ids = tokenizer(text)["input_ids"]
        inputs, labels = mask_tokens(ids, tokenizer, masking=masking, seed=5, epoch=3, index=10 + row)
        assert together["input_ids"][row, : len(ids)].tolist() == inputs.tolist()
        assert together["labels"][row, : len(ids)].tolist() == labels.tolist()
        assert (together["labels"][row, len(ids) :] == -100).all()
        alone = collator([sample])
        assert alone["labels"][0].tolist() == labels.tolist()
    collator.set_epoch(4)
    assert not np.array_equal(collator(features)["labels"], together["labels"])


def test_without_an_index_masks_are_new_every_time_and_the_same_again(tokenizer, features):
    def three() -> list[bytes]:
        collator = DataCollator(tokenizer, seed=5, return_tensors="np")
        return [collator(features)["labels"].tobytes() for _ in range(3)]

    assert len(set(three())) == 3
    assert three() == three()


def test_workers_have_masks_of_their_own(tokenizer):
    rows = [{"input_ids": list(range(2000, 2064))}] * 4

    def labels(seed: int) -> list[bytes]:
        loader = DataLoader(
            rows,
            batch_size=1,
            num_workers=2,
            collate_fn=DataCollator(tokenizer, seed=1),
            generator=torch.Generator().manual_seed(seed),
        )
        return [batch["labels"].numpy().tobytes() for _ in range(2) for batch in loader]

    first = labels(0)
    # The same row in two workers, and in two epochs, each of which starts new workers.
    assert len(set(first)) == 8
    assert first == labels(0)
    assert set(first).isdisjoint(labels(1))


def test_any_kind_of_rows(tokenizer, features):
    ids = [sample["input_ids"] for sample in features]
    collator = lambda: DataCollator(tokenizer, seed=5, return_tensors="np")  # noqa: E731
    expected = collator()(ids)
    assert expected.keys() == {"input_ids", "attention_mask", "labels"}
    for kind in (np.array, torch.tensor, tuple, lambda row: np.array(row, np.int32)):
        got = collator()([{"input_ids": kind(row)} for row in ids])
        assert all(np.array_equal(got[name], expected[name]) for name in expected)
    # Rows that are padded already stay as they are.
    padded = tokenizer(TEXTS, padding="max_length", max_length=20)
    got = collator()([{name: padded[name][row] for name in padded} for row in range(3)])
    assert got["input_ids"].shape == (3, 20)
    assert np.array_equal(got["attention_mask"], padded["attention_mask"])
    assert (got["labels"][got["attention_mask"] == 0] == -100).all()


def test_further_entries(tokenizer, features):
    for number, sample in enumerate(features):
        length = len(sample["input_ids"])
        sample["next_sentence_label"] = np.int64(number % 2)
        sample["special_tokens_mask"] = [1] * (length - 2) + [0, 1]
        sample["weight"] = 0.5
    batch = DataCollator(tokenizer, Masking(masked_lm_prob=1), seed=5)(features)
    assert batch["next_sentence_label"].tolist() == [0, 1, 0]
    assert batch["next_sentence_label"].dtype == torch.int64
    assert batch["weight"].dtype.is_floating_point
    assert (batch["labels"] != -100).sum(dim=1).tolist() == [1, 1, 1]
    assert "special_tokens_mask" not in batch
    # What is masked already is only padded, as rows or as a batch.
    rows = [{name: value[row] for name, value in batch.items()} for row in range(3)]
    again = DataCollator(tokenizer, seed=5)(rows)
    assert all(torch.equal(again[name], batch[name]) for name in batch)
    again = DataCollator(tokenizer, seed=5)({name: value.numpy() for name, value in batch.items()})
    assert all(torch.equal(again[name], batch[name]) for name in batch)


def test_left_padding(minilm, features):
    hf = AutoTokenizer.from_pretrained(minilm, padding_side="left")
    batch = DataCollator(hf, seed=0)(features)
    assert batch["attention_mask"][:, -1].all()
    assert not batch["attention_mask"][1, 0]
    assert (batch["input_ids"][1] == hf.pad_token_id).sum() == (batch["attention_mask"][1] == 0).sum()


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([], ArgumentError, "at least one sample"),
        ([{"ids": [1]}], ArgumentError, "at least one sample with input_ids"),
        ([{"input_ids": [1]}, {"input_ids": [1], "index": 0}], ArgumentError, "expected entries"),
        ([{"input_ids": [1.5]}], DtypeError, "input_ids: expected integers, got float64"),
        ([{"input_ids": [[1]]}], ShapeError, "expected samples of shape"),
        ([{"input_ids": [1, 2], "token_type_ids": [0]}], ShapeError, "expected 2 like input_ids"),
        ([{"input_ids": [99999]}], TokenIdError, "got 99999"),
        ([{"input_ids": [1], "labels": 1}], ArgumentError, "labels: expected one for each token"),
        (
            {"input_ids": [[1], [2]], "weight": [1]},
            ShapeError,
            "weight: expected 2 samples like input_ids, got 1",
        ),
        ([{"input_ids": [1], "index": -1}], ArgumentError, "index: expected integers from 0 on"),
        ([{"input_ids": [1], "text": "a"}], ArgumentError, "text: expected a number for each sample"),
    ],
)
def test_bad_samples(tokenizer, samples: list, error: type[BertFastError], message: str):
    with pytest.raises(error, match=message):
        DataCollator(tokenizer, seed=0)(samples)


def test_bad_arguments(tokenizer, minilm):
    for name, value in {"seed": -1, "pad_to_multiple_of": 0, "return_tensors": "tf"}.items():
        with pytest.raises(ArgumentError, match=name):
            DataCollator(tokenizer, **{"seed": 0, name: value})
    with pytest.raises(ArgumentError, match="epoch"):
        DataCollator(tokenizer, seed=0).set_epoch(-1)
    hf = AutoTokenizer.from_pretrained(minilm)
    hf.pad_token = None
    with pytest.raises(ArgumentError, match="padding token"):
        DataCollator(hf, seed=0)


def test_the_trainer_of_transformers_takes_it(tokenizer, features, tmp_path):
    config = BertConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        BertForMaskedLM(config),
        arguments,
        data_collator=DataCollator(tokenizer, seed=1),
        train_dataset=features * 4,
    )
    result = trainer.train()
    assert result.global_step == 2
    assert 5 < result.training_loss < 15
