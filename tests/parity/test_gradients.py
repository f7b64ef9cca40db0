"""Loss and gradients of every model and head beside ``transformers``, padded, ragged and recomputed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import bertfast.models
from family_models import LENGTHS, make_folder

FAMILIES = {"bert": "Bert", "roberta": "Roberta", "albert": "Albert", "albert_groups": "Albert"}
HEADS = (
    "MaskedLM",
    "PreTraining",
    "NextSentencePrediction",
    "SequenceClassification",
    "TokenClassification",
    "QuestionAnswering",
    "MultipleChoice",
)
CASES = [
    (name, head)
    for name, family in FAMILIES.items()
    for head in HEADS
    if hasattr(bertfast.models, f"{family}For{head}")
]
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LABELS = 5


class Batch:
    """The same sequences padded and ragged, and labels for a head in both forms."""

    def __init__(self, head: str, padding: int, vocab_size: int, types: int) -> None:
        torch.manual_seed(1)
        self.lengths = torch.tensor(LENGTHS)
        self.mask = torch.arange(max(LENGTHS))[None] < self.lengths[:, None]
        self.cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.long), self.lengths.cumsum(0)])
        ids = torch.randint(5, vocab_size, (sum(LENGTHS),))
        token_types = torch.randint(0, types, ids.shape)
        self.ragged: dict[str, Any] = {"input_ids": ids, "token_type_ids": token_types}
        self.padded: dict[str, Any] = {
            "input_ids": self.pad(ids, padding),
            "token_type_ids": self.pad(token_types, 0),
            "attention_mask": self.mask.long(),
        }
        if head in ("MaskedLM", "PreTraining", "TokenClassification"):
            labels = torch.randint(0, LABELS if head == "TokenClassification" else vocab_size, ids.shape)
            labels[torch.rand(ids.shape) < 0.7] = -100
            self.both("labels", self.pad(labels, -100), labels)
        if head in ("SequenceClassification", "NextSentencePrediction"):
            labels = torch.randint(0, LABELS if head[0] == "S" else 2, (len(LENGTHS),))
            self.both("labels", labels, labels)
        if head == "PreTraining":
            self.pair = torch.randint(0, 2, (len(LENGTHS),))
        if head == "QuestionAnswering":
            for name in ("start_positions", "end_positions"):
                places = (torch.rand(len(LENGTHS)) * self.lengths).long()
                self.both(name, places, places)
        if head == "MultipleChoice":
            labels = torch.randint(0, 2, (len(LENGTHS) // 2,))
            self.both("labels", labels, labels)
            self.ragged["num_choices"] = 2
            for name in ("input_ids", "token_type_ids", "attention_mask"):
                self.padded[name] = self.padded[name].unflatten(0, (-1, 2))

    def pad(self, values: Tensor, fill: int) -> Tensor:
        return torch.full(self.mask.shape, fill).masked_scatter(self.mask, values)

    def both(self, name: str, padded: Tensor, ragged: Tensor) -> None:
        self.padded[name], self.ragged[name] = padded, ragged


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    """The tolerance that was agreed on; measured is a tenth of it."""
    assert got.keys() == want.keys()
    overall = float(torch.stack([x.norm() for x in want.values()]).norm())
    for name, gradient in want.items():
        difference = float((got[name] - gradient).norm())
        assert difference <= 1e-5 * float(gradient.norm()) + 1e-6 * overall, name


def models(folder: Path, name: str, head: str) -> tuple[nn.Module, nn.Module]:
    """Ours and that of transformers, in training."""
    class_name = f"{FAMILIES[name]}For{head}"
    theirs_class = getattr(transformers, class_name)
    changes = NO_DROPOUT | ({"classifier_dropout_prob": 0.0} if FAMILIES[name] == "Albert" else {})
    if head in ("SequenceClassification", "TokenClassification"):
        changes |= {"num_labels": LABELS}
    make_folder(folder, name, theirs_class, **changes)
    ours = getattr(bertfast.models, class_name).from_pretrained(folder)
    return ours.train(), theirs_class.from_pretrained(folder).train()


@pytest.mark.parametrize(("name", "head"), CASES)
def test_loss_and_gradients(tmp_path: Path, name: str, head: str) -> None:
    ours, theirs = models(tmp_path, name, head)
    config = theirs.config
    batch = Batch(head, config.pad_token_id, config.vocab_size, config.type_vocab_size)
    padded, ragged = dict(batch.padded), dict(batch.ragged)
    if head == "PreTraining":
        label = "sentence_order_label" if FAMILIES[name] == "Albert" else "next_sentence_label"
        padded[label] = ragged[label] = batch.pair

    want = theirs(**padded)
    want_gradients = gradients(theirs, want.loss)
    got = ours(**padded)
    torch.testing.assert_close(got.loss, want.loss, rtol=1e-5, atol=1e-6)
    own = gradients(ours, got.loss)
    assert_same(own, want_gradients)

    if head in ("MaskedLM", "PreTraining"):
        ragged["masked_positions"] = (ragged["labels"] != -100).nonzero()[:, 0]
    output = ours(**ragged, cu_seqlens=batch.cu_seqlens)
    if head == "QuestionAnswering":
        # transformers' softmax goes over padding too: without it, what each sequence alone gives.
        own = alone(ours, batch)
    else:
        torch.testing.assert_close(output.loss, want.loss, rtol=1e-5, atol=1e-6)
    ragged_gradients = gradients(ours, output.loss)
    assert_same(ragged_gradients, own)

    ours.gradient_checkpointing_enable()
    again = gradients(ours, ours(**ragged, cu_seqlens=batch.cu_seqlens).loss)
    assert all(torch.equal(again[name], gradient) for name, gradient in ragged_gradients.items())


def alone(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The gradients of the mean over sequences, each one on its own."""
    losses = []
    for number, length in enumerate(LENGTHS):
        one = {name: values[number : number + 1] for name, values in batch.padded.items()}
        for name in ("input_ids", "token_type_ids", "attention_mask"):
            one[name] = one[name][:, :length]
        losses.append(model(**one).loss)
    return gradients(model, torch.stack(losses).mean())


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_classifier_of_all_tokens(tmp_path: Path, name: str, pooling: str) -> None:
    ours, _ = models(tmp_path, name, "SequenceClassification")
    ours.config.classifier_pooling = pooling
    batch = Batch("SequenceClassification", ours.config.pad_token_id, 97, ours.config.type_vocab_size)
    padded = ours(**batch.padded)
    want = gradients(ours, padded.loss)
    ragged = ours(**batch.ragged, cu_seqlens=batch.cu_seqlens)
    torch.testing.assert_close(ragged.logits, padded.logits, rtol=1e-4, atol=1e-5)
    assert_same(gradients(ours, ragged.loss), want)
