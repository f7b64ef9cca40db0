"""`accelerate` on models with a head, alone and in ``transformers.pipeline``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from bertfast.acceleration import accelerate
from bertfast.errors import ArgumentError, ShapeError
from bertfast.models.originals import CLASSES
from family_models import LENGTHS, MODELS, SIZES, make_batch
from tolerance import assert_as_good_as_transformers

# One of each family in `family_models`.
NAMES = {
    "Bert": "bert",
    "Roberta": "roberta",
    "XLMRoberta": "xlm_roberta_padding_3",
    "Camembert": "camembert",
    "Albert": "albert_groups",
    "DistilBert": "distilbert",
    "Electra": "electra",
}
CASES = [name for name in CLASSES if not name.endswith("Model")]


def name_of(class_name: str) -> str:
    return NAMES[class_name.split("For")[0]]


def make(class_name: str, **changes: Any) -> Any:
    """A random model in which no weight has its initial 0 or 1."""
    make_config, _, sizes = MODELS[name_of(class_name)]
    if class_name.endswith(("SequenceClassification", "TokenClassification")):
        changes = {"num_labels": 5} | changes
    torch.manual_seed(0)
    model = getattr(transformers, class_name)(make_config(**SIZES | sizes | changes)).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            mean = 1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0
            weight.normal_(mean, 0.1)
    return model


@torch.no_grad()
def compare(model: Any, inputs: dict[str, Tensor], mask: Tensor) -> None:
    """All outputs, those of tokens where ``mask`` (B, S) says that there are any."""
    f32 = model(**inputs, output_hidden_states=True)
    f64 = copy.deepcopy(model).double()(**inputs, output_hidden_states=True)
    got = accelerate(model)(**inputs, output_hidden_states=True)
    assert type(got) is type(f32)
    assert list(got.keys()) == list(f32.keys())
    for name in got:
        if name == "hidden_states":
            triples = list(zip(got[name], f32[name], f64[name], strict=True))
            assert len(triples) > 3
        else:
            triples = [(got[name], f32[name], f64[name])]
        for ours, a, b in triples:
            assert ours.shape == a.shape
            assert ours.dtype == torch.float32
            assert ours.is_contiguous()
            if ours.shape[:2] == mask.shape:
                assert not ours[~mask].any(), "padding"
                ours, a, b = ours[mask], a[mask], b[mask]
            assert_as_good_as_transformers(ours, a, b, name)


@pytest.mark.parametrize("class_name", CASES)
def test_heads(class_name: str) -> None:
    batch = make_batch(name_of(class_name), LENGTHS)
    mask = batch["attention_mask"].bool()
    if class_name.endswith("MultipleChoice"):
        batch = {name: value.unflatten(0, (2, 4)) for name, value in batch.items()}
    compare(make(class_name), batch, mask)


@pytest.mark.parametrize("class_name", ["BertForMaskedLM", "XLMRobertaForMaskedLM", "AlbertForMaskedLM"])
@pytest.mark.parametrize("changed", ["decoder", "embeddings", "after_the_fact"])
def test_a_decoder_of_its_own(class_name: str, changed: str) -> None:
    """Tied or not is what the tensors say at the moment, whatever the configuration does."""
    model = make(class_name, tie_word_embeddings=changed == "after_the_fact")
    words = model.get_input_embeddings()
    if changed == "after_the_fact":
        torch.manual_seed(1)
        words.weight = torch.nn.Parameter(words.weight + torch.randn_like(words.weight))
    elif changed == "embeddings":
        words.weight.data.mul_(2)
    else:
        model.get_output_embeddings().bias.data.add_(torch.arange(97.0))
    batch = make_batch(name_of(class_name), LENGTHS)
    compare(model, batch, batch["attention_mask"].bool())


def test_one_label_and_many() -> None:
    batch = make_batch("bert", LENGTHS)
    for count in (1, 33):
        model = make("BertForSequenceClassification", num_labels=count)
        assert accelerate(model)(**batch).logits.shape == (8, count)
        compare(model, batch, batch["attention_mask"].bool())


def test_a_classifier_reads_what_its_class_reads() -> None:
    """Not what a key of other models says, which this class takes no notice of."""
    batch = make_batch("bert", LENGTHS)
    model = make("BertForSequenceClassification", classifier_pooling="mean")
    compare(model, batch, batch["attention_mask"].bool())


def test_choices() -> None:
    model = accelerate(make("BertForMultipleChoice"))
    batch = make_batch("bert", [5, 5])
    with pytest.raises(ShapeError, match=r"input_ids: expected shape \(B, C, S\), got \(2, 5\)"):
        model(**batch)
    ids = batch["input_ids"][None]
    expected = model(ids).logits
    assert expected.shape == (1, 2)
    assert torch.equal(model(ids, torch.ones(1, 2, 5)).logits, expected)
    with pytest.raises(ShapeError, match="attention_mask"):
        model(ids, torch.ones(1, 2, 4))


@pytest.mark.parametrize(
    ("class_name", "label"),
    [
        ("BertForSequenceClassification", "labels"),
        ("BertForQuestionAnswering", "start_positions"),
        ("BertForQuestionAnswering", "end_positions"),
        ("BertForNextSentencePrediction", "labels"),
    ],
)
def test_no_loss(class_name: str, label: str) -> None:
    model, batch = accelerate(make(class_name)), make_batch("bert", [5, 3])
    with pytest.raises(ArgumentError, match=f"{label}: expected None, this is for inference"):
        model(**batch, **{label: torch.zeros(2, dtype=torch.long)})
    assert model(**batch, **{label: None}).loss is None


def test_electra_has_no_multiple_choice() -> None:
    with pytest.raises(ArgumentError, match=r"got .*ElectraForMultipleChoice"):
        accelerate(make("ElectraForMultipleChoice"))


def test_the_original_may_go_on_to_train() -> None:
    original, batch = make("BertForSequenceClassification"), make_batch("bert", LENGTHS)
    model = accelerate(original)
    before = model(**batch).logits
    optimizer = torch.optim.SGD(original.train().parameters(), lr=0.1)
    original(**batch, labels=torch.zeros(8, dtype=torch.long)).loss.backward()
    optimizer.step()
    assert torch.equal(model(**batch).logits, before)
    original.eval()
    compare(original, batch, batch["attention_mask"].bool())


# ---------------------------------------------------------------------------------------------- pipelines


@pytest.fixture(scope="module")
def tokenizer(minilm: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(minilm)


def assert_same(got: Any, expected: Any) -> None:
    """Nested results: words and places equal, numbers nearly."""
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        for key in expected:
            assert_same(got[key], expected[key])
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, (float, np.floating)):
        assert got == pytest.approx(expected, abs=2e-5)
    else:
        assert got == expected


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("task", "class_name", "changes", "options"),
    [
        ("text-classification", "BertForSequenceClassification", {}, {"top_k": None}),
        ("text-classification", "BertForSequenceClassification", {"num_labels": 1}, {}),
        ("token-classification", "BertForTokenClassification", {}, {}),
        ("token-classification", "BertForTokenClassification", {}, {"aggregation_strategy": "average"}),
        ("fill-mask", "BertForMaskedLM", {}, {"top_k": 7}),
        ("zero-shot-classification", "BertForSequenceClassification",
         {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}}, {"candidate_labels": ["a", "b"]}),
    ],
)  # fmt: skip
def test_pipelines(
    tokenizer: Any,
    real_texts: list[str],
    caplog: pytest.LogCaptureFixture,
    task: str,
    class_name: str,
    changes: dict[str, Any],
    options: dict[str, Any],
    batch_size: int,
) -> None:
    if "id2label" in changes:
        changes = changes | {"label2id": {name: number for number, name in changes["id2label"].items()}}
        changes["num_labels"] = 3
    original = make(class_name, vocab_size=len(tokenizer), **changes)
    texts = [text[:90] for text in real_texts[:5]]
    if task == "fill-mask":
        texts = [f"[MASK] {text}" for text in texts]
    results = []
    for model in (accelerate(original), original):
        pipeline = transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu")
        results.append([pipeline(texts, batch_size=batch_size, **options), pipeline(texts[0], **options)])
    assert_same(*results)
    assert "not supported" not in caplog.text
