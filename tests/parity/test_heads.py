"""Every head of every family beside ``transformers``: random weights, odd sizes, padded and ragged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import bertfast
from bertfast import _bertfast
from bertfast.checkpoint import PACKED_FILE, find_weight_files, read_config
from bertfast.errors import ArgumentError, CheckpointError, ConfigError, ShapeError, TokenIdError
from bertfast.heads import HEADS, OF_TOKENS, head_of, labels_of
from family_models import LENGTHS, make_batch, make_folder
from tolerance import assert_as_good_as_transformers

CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm_roberta_padding_3": "XLMRoberta",
    "camembert": "Camembert",
    "albert": "Albert",
    "albert_wide_embeddings": "Albert",
    "albert_groups": "Albert",
    "distilbert": "DistilBert",
    "distilbert_relu": "DistilBert",
    "electra": "Electra",
    "electra_equal_widths": "Electra",
}
SUFFIXES = {
    "SequenceClassification": "sequence-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
    "MaskedLM": "masked-lm",
    "MultipleChoice": "multiple-choice",
    "NextSentencePrediction": "next-sentence",
}
CASES = [
    (name, f"{family}For{suffix}", head)
    for name, family in CLASSES.items()
    for suffix, head in SUFFIXES.items()
    if hasattr(transformers, f"{family}For{suffix}")
    # Its summary of a sequence is a module of its own.
    and (family, suffix) != ("Electra", "MultipleChoice")
]


def labels(head: str) -> dict[str, Any]:
    return {"num_labels": 5} if head in ("sequence-classification", "token-classification") else {}


class Reference:
    """Logits of transformers, (B, K) or (B, S, K), in float32 and float64."""

    def __init__(self, folder: Path, name: str) -> None:
        model = getattr(transformers, name)
        self.models = [
            model.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
            for dtype in (torch.float32, torch.float64)
        ]
        self.name = name

    @torch.no_grad()
    def __call__(self, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        if self.name.endswith("MultipleChoice"):
            choices = {key: value[None] for key, value in batch.items()}
            return [model(**choices).logits[0][:, None] for model in self.models]
        outputs = [model(**batch) for model in self.models]
        if self.name.endswith("QuestionAnswering"):
            return [torch.stack([one.start_logits, one.end_logits], dim=-1) for one in outputs]
        if self.name == "AlbertForPreTraining":
            return [one.sop_logits for one in outputs]
        return [
            one.logits[..., None] if one.logits.dim() == 2 and self.of_tokens else one.logits
            for one in outputs
        ]

    @property
    def of_tokens(self) -> bool:
        return self.name == "ElectraForPreTraining"


def our_logits(output: Any, head: str) -> np.ndarray:
    if head == "question-answering":
        assert output.keys() == ["start_logits", "end_logits"]
        return np.stack([output.start_logits, output.end_logits], axis=-1)
    assert output.keys() == ["logits"]
    return output.logits


@pytest.mark.parametrize(
    ("name", "class_name", "head"),
    [
        *CASES,
        ("albert", "AlbertForPreTraining", "sentence-order"),
        ("electra", "ElectraForPreTraining", "replaced-tokens"),
    ],
)
def test_logits(tmp_path: Path, name: str, class_name: str, head: str) -> None:
    folder = make_folder(tmp_path, name, getattr(transformers, class_name), **labels(head))
    batch = make_batch(name, LENGTHS)
    mask = batch["attention_mask"].bool()
    f32, f64 = Reference(folder, class_name)(batch)
    encoder = bertfast.Encoder.from_pretrained(folder, head=head)
    assert encoder.head == head == encoder.info()["head"]
    assert encoder.info()["num_labels"] == f64.shape[-1]

    padded = our_logits(encoder(**{key: value.numpy() for key, value in batch.items()}), head)
    if head in OF_TOKENS:
        assert (padded[~mask.numpy()] == 0).all()
        padded, f32, f64 = padded[mask.numpy()], f32[mask], f64[mask]
    assert_as_good_as_transformers(padded, f32, f64)

    types = batch.get("token_type_ids")
    ragged = encoder.forward_ragged(
        batch["input_ids"][mask].numpy(),
        np.concatenate([[0], np.cumsum(LENGTHS)]),
        None if types is None else types[mask].numpy(),
    )
    assert np.array_equal(our_logits(ragged, head), padded), "the same bits without padding"


@pytest.mark.parametrize(
    ("name", "class_name"),
    [("bert", "BertForMaskedLM"), ("roberta", "RobertaForMaskedLM"), ("albert", "AlbertForMaskedLM")],
)
def test_likeliest_tokens(tmp_path: Path, name: str, class_name: str) -> None:
    folder = make_folder(tmp_path, name, getattr(transformers, class_name))
    encoder = bertfast.Encoder.from_pretrained(folder, head="masked-lm")
    batch = make_batch(name, LENGTHS)
    mask = batch["attention_mask"].bool()
    _, truth = Reference(folder, class_name)(batch)
    ids, ends = batch["input_ids"][mask].numpy().astype(np.int32), np.concatenate([[0], np.cumsum(LENGTHS)])
    types = batch["token_type_ids"][mask].numpy().astype(np.int32)
    rows = np.array([0, 22, 23, 40, 150, len(ids) - 1])
    scores, tokens = encoder.engine.top_k(ids, ends, types, rows, 7)
    expected = truth[mask][rows].softmax(-1).topk(7)
    assert np.array_equal(tokens, expected.indices.numpy())
    np.testing.assert_allclose(scores, expected.values.numpy(), rtol=2e-4)
    # All of them add up.
    scores, _ = encoder.engine.top_k(ids, ends, types, rows, 97)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)

    out = np.full((len(LENGTHS), 97), np.nan, np.float32)
    encoder.engine.sparse(ids, ends, types, "max", out)
    masked = torch.where(mask[..., None], truth.clamp(min=0), 0)
    np.testing.assert_allclose(out, masked.amax(1).log1p(), atol=2e-5)
    encoder.engine.sparse(ids, ends, types, "sum", out)
    np.testing.assert_allclose(out, masked.log1p().sum(1), rtol=1e-4, atol=1e-4)


def test_a_decoder_of_its_own(tmp_path: Path) -> None:
    """Weights that are not those of the embeddings."""
    folder = make_folder(tmp_path, "bert", transformers.BertForMaskedLM, tie_word_embeddings=False)
    encoder = bertfast.Encoder.from_pretrained(folder, head="masked-lm")
    assert encoder.info()["unused"] == ["cls.predictions.bias"], "transformers adds the decoder's own"
    batch = make_batch("bert", LENGTHS)
    mask = batch["attention_mask"].bool()
    f32, f64 = Reference(folder, "BertForMaskedLM")(batch)
    ours = encoder(**{key: value.numpy() for key, value in batch.items()}).logits
    assert_as_good_as_transformers(ours[mask.numpy()], f32[mask], f64[mask])


def test_models_saved_as_pretrained_have_two_heads(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "bert", transformers.BertForPreTraining)
    batch = make_batch("bert", LENGTHS)
    mask = batch["attention_mask"].bool()
    models = [
        transformers.BertForPreTraining.from_pretrained(folder, dtype=dtype).eval()
        for dtype in (torch.float32, torch.float64)
    ]
    with torch.no_grad():
        f32, f64 = (model(**batch) for model in models)
    inputs = {key: value.numpy() for key, value in batch.items()}
    words = bertfast.Encoder.from_pretrained(folder, head="masked-lm")(**inputs).logits[mask.numpy()]
    assert_as_good_as_transformers(words, f32.prediction_logits[mask], f64.prediction_logits[mask])
    order = bertfast.Encoder.from_pretrained(folder, head="next-sentence")(**inputs).logits
    assert_as_good_as_transformers(order, f32.seq_relationship_logits, f64.seq_relationship_logits)


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_a_classifier_may_read_all_tokens(tmp_path: Path, mode: str) -> None:
    folder = make_folder(tmp_path, "bert", transformers.BertForSequenceClassification, num_labels=5)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"classifier_pooling": mode}))
    model = transformers.BertForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    batch = make_batch("bert", LENGTHS)
    with torch.no_grad():
        states = model.bert(**batch).last_hidden_state
        valid = batch["attention_mask"][..., None].bool()
        if mode == "mean":
            pooled = (states * valid).sum(1) / valid.sum(1)
        else:
            pooled = states.masked_fill(~valid, -torch.inf).amax(1)
        truth = model.classifier(model.bert.pooler.dense(pooled).tanh())
    encoder = bertfast.Encoder.from_pretrained(folder, head="sequence-classification")
    ours = encoder(**{key: value.numpy() for key, value in batch.items()}).logits
    np.testing.assert_allclose(ours, truth, atol=2e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize(
    ("name", "class_name", "head"), [case for case in CASES if case[0] in ("bert", "albert")]
)
def test_rounded_weights(tmp_path: Path, name: str, class_name: str, head: str, dtype: str) -> None:
    if dtype not in _bertfast.dtypes():
        pytest.skip(f"{dtype} does not run natively here")
    folder = make_folder(
        tmp_path, name, getattr(transformers, class_name), num_hidden_layers=2, **labels(head)
    )
    inputs = {key: value.numpy() for key, value in make_batch(name, LENGTHS).items()}
    exact, ours = (
        our_logits(bertfast.Encoder.from_pretrained(folder, head=head, dtype=one)(**inputs), head)
        for one in ("float32", dtype)
    )
    assert not np.array_equal(exact, ours)
    spread = exact.std()
    assert np.abs(exact - ours).max() < {"bfloat16": 0.1, "int8": 0.35}[dtype] * max(spread, 0.1)


@pytest.mark.parametrize("head", ["masked-lm", "token-classification", "sequence-classification"])
def test_a_packed_folder(tmp_path: Path, head: str) -> None:
    suffix = next(suffix for suffix, name in SUFFIXES.items() if name == head)
    folder = make_folder(
        tmp_path / "model", "roberta", getattr(transformers, f"RobertaFor{suffix}"), **labels(head)
    )
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "config.json").write_text(read_config(folder))
    weights = [str(path) for path in find_weight_files(folder)]
    _bertfast.pack(read_config(folder), weights, ["float32"] * 3, packed / PACKED_FILE, head=head)
    again = bertfast.Encoder.from_pretrained(packed, head=head)
    assert again.info()["mapped"]
    assert again.info()["unused"] == []
    inputs = {key: value.numpy() for key, value in make_batch("roberta", LENGTHS).items()}
    expected = bertfast.Encoder.from_pretrained(folder, head=head)(**inputs).logits
    assert np.array_equal(again(**inputs).logits, expected)
    assert bertfast.Encoder.from_pretrained(packed).head is None
    with pytest.raises(CheckpointError, match="this file was packed with"):
        bertfast.Encoder.from_pretrained(packed, head="question-answering")


def test_what_is_not_there(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "bert", transformers.BertForTokenClassification, num_labels=5)
    with pytest.raises(CheckpointError, match=r"no head for question-answering: qa_outputs\.weight"):
        bertfast.Encoder.from_pretrained(folder, head="question-answering")
    with pytest.raises(ArgumentError, match="expected one of sequence-classification, multiple"):
        bertfast.Encoder.from_pretrained(folder, head="sentence-order")
    with pytest.raises(ArgumentError, match="head: expected one of None, 'sequence-classification'"):
        bertfast.Encoder.from_pretrained(folder, head="ner")
    bare = bertfast.Encoder.from_pretrained(folder)
    assert bare.head is None
    with pytest.raises(ArgumentError, match="labels: expected an encoder with a head"):
        bare.labels  # noqa: B018
    ids, ends = np.array([5, 6], np.int32), np.array([0, 2])
    with pytest.raises(ArgumentError, match="opened without one"):
        bare.engine.forward(ids, ends, logits=True)
    encoder = bertfast.Encoder.from_pretrained(folder, head="token-classification")
    for rows, error in [
        ([2], TokenIdError),
        ([-1], TokenIdError),
        ([1, 0], ShapeError),
        ([0, 0], ShapeError),
    ]:
        with pytest.raises(error, match="rows: expected"):
            encoder.engine.forward(ids, ends, logits=True, rows=np.array(rows))
    for k in (0, 6):
        with pytest.raises(ArgumentError, match=f"k: expected 1 to 5, got {k}"):
            encoder.engine.top_k(ids, ends, None, np.array([0]), k)
    with pytest.raises(ArgumentError, match="strategy: expected one of max, sum"):
        encoder.engine.sparse(ids, ends, None, "mean", np.zeros((1, 5), np.float32))
    with pytest.raises(ShapeError, match="expected 5 values, got 6"):
        encoder.engine.sparse(ids, ends, None, "max", np.zeros((1, 6), np.float32))


def test_the_names_of_labels(tmp_path: Path) -> None:
    names = {0: "O", 1: "B-PER", 2: "I-PER"}
    folder = make_folder(tmp_path, "bert", transformers.BertForTokenClassification, id2label=names)
    encoder = bertfast.Encoder.from_pretrained(folder, head="token-classification")
    assert encoder.labels == ["O", "B-PER", "I-PER"]
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["id2label"]
    path.write_text(json.dumps(config))
    encoder = bertfast.Encoder.from_pretrained(folder, head="token-classification")
    assert encoder.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    path.write_text(json.dumps(config | {"id2label": {"0": "O", "1": "B-PER"}}))
    with pytest.raises(ConfigError, match=r"labels 0 to 2 of the classifier, got 2 names .*: 2"):
        bertfast.Encoder.from_pretrained(folder, head="token-classification")
    with pytest.raises(ConfigError, match="id2label: expected an object"):
        labels_of({"id2label": ["O"]}, 1)


def test_the_head_of_a_class() -> None:
    assert {head_of({"architectures": [f"BertFor{suffix}"]}) for suffix in SUFFIXES} <= set(HEADS)
    assert head_of({"architectures": ["ElectraForPreTraining"]}) == "replaced-tokens"
    assert head_of({"architectures": ["AlbertForPreTraining"]}) == "masked-lm"
    for config in ({}, {"architectures": ["BertModel"]}, {"architectures": None}, {"architectures": [3]}):
        assert head_of(config) is None


def test_no_sequences(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "bert", transformers.BertForTokenClassification, num_labels=5)
    encoder = bertfast.Encoder.from_pretrained(folder, head="token-classification")
    assert encoder(np.zeros((0, 4), np.int64)).logits.shape == (0, 4, 5)
    assert encoder.forward_ragged([], [0]).logits.shape == (0, 5)


def test_tensors_come_out_where_tensors_went_in(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "bert", transformers.BertForQuestionAnswering)
    encoder = bertfast.Encoder.from_pretrained(folder, head="question-answering")
    output = encoder(torch.tensor([[5, 6, 7]]), output_hidden_states=True)
    assert output.start_logits.shape == output.end_logits.shape == torch.Size([1, 3])
    assert len(output.hidden_states) == 4
    assert output.last_hidden_state is None
    assert output.keys() == ["start_logits", "end_logits", "hidden_states"]
