"""The models for a task beside ``transformers``: names, numbers, losses, gradients, folders."""

from __future__ import annotations

import copy
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import bertfast
from bertfast import models
from bertfast.errors import ArgumentError, CheckpointError, ConfigError, DtypeError, ShapeError, TokenIdError
from bertfast.heads import head_of
from bertfast.models import (
    AlbertConfig,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    RobertaConfig,
)
from family_models import BERT_SIZES, SIZES, make_batch, make_folder
from tolerance import FLOOR, assert_as_good_as_transformers, assert_gradients_close

# The model of `family_models`, and how transformers and we begin the name of its classes.
FAMILIES = {
    "bert": ("Bert", "Bert"),
    "roberta": ("Roberta", "Roberta"),
    "xlm_roberta_padding_3": ("XLMRoberta", "Roberta"),
    "albert": ("Albert", "Albert"),
    "albert_wide_embeddings": ("Albert", "Albert"),
}
TASKS = (
    "MaskedLM",
    "PreTraining",
    "NextSentencePrediction",
    "SequenceClassification",
    "MultipleChoice",
    "TokenClassification",
    "QuestionAnswering",
)
CASES = [
    (name, task)
    for name, (theirs, ours) in FAMILIES.items()
    for task in TASKS
    if hasattr(models, f"{ours}For{task}") and hasattr(transformers, f"{theirs}For{task}")
]
LABELS = {"SequenceClassification": 5, "TokenClassification": 5}
LENGTHS = [17, 1, 20, 7, 12, 9]
TINY = SIZES | BERT_SIZES
NO_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout_prob": 0.0,
}


def test_every_class_has_a_case() -> None:
    tested = {f"{FAMILIES[name][1]}For{task}" for name, task in CASES}
    assert tested == {name for name in models.__all__ if "For" in name}
    assert len(tested) == 18


class Case:
    """A folder of ``transformers``, and its class and ours."""

    def __init__(self, folder: Path, name: str, task: str) -> None:
        theirs, ours = FAMILIES[name]
        self.name, self.task, self.folder = name, task, folder
        self.theirs: Any = getattr(transformers, f"{theirs}For{task}")
        self.ours: Any = getattr(models, f"{ours}For{task}")
        changes = NO_DROPOUT | ({"num_labels": LABELS[task]} if task in LABELS else {})
        make_folder(folder, name, self.theirs, **changes)

    def reference(self, dtype: torch.dtype) -> Any:
        return self.theirs.from_pretrained(self.folder, dtype=dtype, attn_implementation="eager").eval()

    def batch(self) -> dict[str, Tensor]:
        batch = make_batch(self.name, LENGTHS)
        if self.task == "MultipleChoice":
            return {key: values.unflatten(0, (2, 3)) for key, values in batch.items()}
        return batch

    def labels(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(7)
        mask = make_batch(self.name, LENGTHS)["attention_mask"].bool()

        def numbers(limit: int, *shape: int) -> Tensor:
            return torch.randint(limit, shape, generator=generator)

        of_tokens = numbers(97 if self.task in ("MaskedLM", "PreTraining") else 5, *mask.shape)
        of_tokens[~mask | (torch.rand(mask.shape, generator=generator) < 0.7)] = -100
        pair = "sentence_order_label" if "Albert" in self.ours.__name__ else "next_sentence_label"
        return {
            "MaskedLM": {"labels": of_tokens},
            "PreTraining": {"labels": of_tokens, pair: numbers(2, 6)},
            "NextSentencePrediction": {"labels": numbers(2, 6)},
            "SequenceClassification": {"labels": numbers(5, 6)},
            "MultipleChoice": {"labels": numbers(3, 2)},
            "TokenClassification": {"labels": of_tokens},
            # One before the first column, and two behind the last.
            "QuestionAnswering": {
                "start_positions": torch.tensor([3, -2, 0, 20, 11, 8]),
                "end_positions": torch.tensor([5, 0, 19, 33, 11, 8]),
            },
        }[self.task]

    def masks(self) -> dict[str, Tensor]:
        """Which of the logits mean something."""
        batch = make_batch(self.name, LENGTHS)
        mask = batch["attention_mask"].bool()
        names = ["logits", "prediction_logits", "start_logits", "end_logits"]
        of_tokens = self.task in ("MaskedLM", "PreTraining", "TokenClassification", "QuestionAnswering")
        return dict.fromkeys(names, mask) if of_tokens else {}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, task = request.param
    return Case(tmp_path_factory.mktemp(f"{name}-{task}"), name, task)


def assert_parity(case: Case, ours: Any, f32: Any, f64: Any) -> None:
    assert ours.keys() == list(f64.keys())
    masks = case.masks()
    for key in ours:
        if key in ("hidden_states", "attentions"):
            assert len(ours[key]) == len(f64[key])
            continue
        valid = masks.get(key, slice(None))
        if f64[key].dim() == 0:
            valid = ()
        assert_as_good_as_transformers(*(out[key][valid] for out in (ours, f32, f64)), key)


def test_numbers(case: Case) -> None:
    model = case.ours.from_pretrained(case.folder)
    references = [case.reference(dtype) for dtype in (torch.float32, torch.float64)]
    batch, labels = case.batch(), case.labels()
    with torch.no_grad():
        assert_parity(case, *(m(**batch) for m in (model, *references)))
        wanted = {"output_hidden_states": True, "output_attentions": True}
        outputs = [m(**batch, **labels, **wanted) for m in (model, *references)]
    assert torch.isfinite(outputs[0].loss)
    assert outputs[0].keys()[0] == "loss"
    assert outputs[0][0] is outputs[0].loss
    assert_parity(case, *outputs)


def test_gradients(case: Case) -> None:
    def gradients(model: Any) -> dict[str, Tensor]:
        model.train()(**case.batch(), **case.labels()).loss.backward()
        named = model.named_parameters(remove_duplicate=False)
        return {name: p.grad for name, p in named if p.grad is not None}

    f32, f64 = (gradients(case.reference(dtype)) for dtype in (torch.float32, torch.float64))
    assert_gradients_close(gradients(case.ours.from_pretrained(case.folder, dtype=torch.float64)), f64)
    assert_gradients_close(gradients(case.ours.from_pretrained(case.folder)), f64, f32)


def test_state_dict_fits_both_ways(case: Case) -> None:
    theirs = case.reference(torch.float32)
    ours = case.ours(case.ours.config_class.from_pretrained(case.folder)).eval()
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes
    # A tied one counts once.
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))
    fresh = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for a, b in zip(ours(**case.batch()).to_tuple(), theirs(**case.batch()).to_tuple(), strict=True):
            torch.testing.assert_close(a[:, :1], b[:, :1], rtol=0, atol=1e-4)
    theirs.load_state_dict(fresh)
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in theirs.state_dict().items())


def test_saved_folder_opens_in_transformers(case: Case, tmp_path: Path) -> None:
    model = case.ours.from_pretrained(case.folder)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]
    assert config["model_type"] == json.loads((case.folder / "config.json").read_text())["model_type"]

    def saved(folder: Path) -> dict[str, list[int]]:
        with safe_open(folder / "model.safetensors", "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118

    assert saved(tmp_path) == saved(case.folder)
    theirs, report = case.theirs.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    again = case.ours.from_pretrained(tmp_path)
    with torch.no_grad():
        outputs = [m.eval()(**case.batch(), **case.labels()) for m in (model, theirs, again)]
    masks = case.masks()
    for key in outputs[0]:
        ours, from_theirs, from_ours = (out[key] for out in outputs)
        valid = masks.get(key, slice(None)) if ours.dim() else ()
        torch.testing.assert_close(from_theirs[valid], ours[valid], rtol=0, atol=1e-4)
        assert torch.equal(from_ours, ours)


def test_no_warning_where_nothing_is_new(case: Case) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not case.ours.from_pretrained(case.folder).training


def test_on_the_rust_engine(case: Case, tmp_path: Path) -> None:
    model = case.ours.from_pretrained(case.folder)
    encoder = model.to_encoder()
    assert encoder.head == model.head
    batch = make_batch(case.name, LENGTHS)
    with torch.no_grad():
        if case.task == "MultipleChoice":
            expected = {"logits": model(**case.batch()).logits.reshape(6, 1)}
        else:
            output = model(**batch)
            expected = {key: output[key] for key in output}
    if case.task == "PreTraining":
        expected = {"logits": expected["prediction_logits"]}
    got = encoder(**batch)
    model.save_pretrained(tmp_path)
    opened = bertfast.Encoder.from_pretrained(tmp_path, head=head_of(encoder.config) or model.head)
    masks = case.masks()
    for key, values in expected.items():
        valid = masks.get(key, slice(None))
        limit = 4 * FLOOR * max(1.0, values.abs().max().item())
        torch.testing.assert_close(got[key][valid], values[valid], rtol=0, atol=limit)
        assert torch.equal(opened(**batch)[key], got[key])


# ----------------------------------------------------------------------------------------- trees and names


def tree(model: torch.nn.Module) -> str:
    """As printed, but for the bias of LayerNorm, which PyTorch began to show at some point."""
    return re.sub(r"(LayerNorm\(.*), bias=True\)", r"\1)", str(model))


@pytest.mark.parametrize("task", TASKS)
def test_printed_tree(task: str) -> None:
    ours = getattr(models, f"BertFor{task}")(BertConfig(**TINY))
    theirs = getattr(transformers, f"BertFor{task}")(transformers.BertConfig(**TINY))
    assert tree(ours) == tree(theirs)


@pytest.mark.parametrize(
    ("name", "lm_head", "words"),
    [
        ("Bert", "cls.predictions", "bert.embeddings.word_embeddings"),
        ("Roberta", "lm_head", "roberta.embeddings.word_embeddings"),
        ("Albert", "predictions", "albert.embeddings.word_embeddings"),
    ],
)
def test_tied_weights_stay_tied(name: str, lm_head: str, words: str, tmp_path: Path) -> None:
    def tied(model: Any) -> bool:
        head, embedding = model.get_submodule(lm_head), model.get_submodule(words)
        return head.decoder.weight is embedding.weight and head.decoder.bias is head.bias

    config = getattr(models, f"{name}Config")(**TINY)
    cls = getattr(models, f"{name}ForMaskedLM")
    model = cls(config)
    padding = config.pad_token_id
    assert tied(model)
    assert not model.get_submodule(words).weight[padding].any()
    model.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path)
    assert tied(loaded)
    assert tied(loaded.double())
    assert tied(copy.deepcopy(loaded))
    loaded.load_state_dict(model.state_dict())
    assert tied(loaded)
    before = loaded.get_submodule(lm_head).decoder.weight.clone()
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(torch.tensor([[5, 6]]), labels=torch.tensor([[7, -100]])).loss.backward()
    optimizer.step()
    assert tied(loaded)
    assert not torch.equal(loaded.get_submodule(lm_head).decoder.weight, before)
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert tied(getattr(transformers, f"{name}ForMaskedLM").from_pretrained(again))


@pytest.mark.parametrize("present", ["decoder", "bias", "both", "both_differ"])
def test_either_name_of_a_tied_tensor(tmp_path: Path, present: str) -> None:
    model = BertForMaskedLM(BertConfig(**TINY))
    torch.nn.init.normal_(model.cls.predictions.bias)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bias = tensors.pop("cls.predictions.bias")
    words = tensors["bert.embeddings.word_embeddings.weight"]
    if present != "decoder":
        tensors["cls.predictions.bias"] = bias
    if present != "bias":
        tensors["cls.predictions.decoder.bias"] = bias.clone()
        tensors["cls.predictions.decoder.weight"] = words.clone()
    if present == "both_differ":
        tensors["cls.predictions.decoder.weight"] += 1
        tensors["cls.predictions.decoder.bias"] += 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = BertForMaskedLM.from_pretrained(tmp_path)
    decoder = loaded.cls.predictions.decoder
    assert (decoder.weight is loaded.bert.embeddings.word_embeddings.weight) == (present != "both_differ")
    assert (decoder.bias is loaded.cls.predictions.bias) == (present != "both_differ")
    batch = make_batch("bert", LENGTHS)
    theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path).eval()
    loaded.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        got, expected = loaded(**batch).logits, theirs(**batch).logits
        again = BertForMaskedLM.from_pretrained(tmp_path / "again")(**batch).logits
    valid = batch["attention_mask"].bool()
    torch.testing.assert_close(got[valid], expected[valid], rtol=0, atol=1e-4)
    assert torch.equal(again, got)
    encoder = bertfast.Encoder.from_pretrained(tmp_path, head="masked-lm")
    torch.testing.assert_close(encoder(**batch).logits[valid], expected[valid], rtol=0, atol=1e-4)


def test_untied_decoder(tmp_path: Path) -> None:
    config = transformers.BertConfig(**TINY, tie_word_embeddings=False)
    theirs = transformers.BertForMaskedLM(config).eval()
    torch.nn.init.normal_(theirs.cls.predictions.decoder.bias)
    theirs.save_pretrained(tmp_path)
    ours = BertForMaskedLM.from_pretrained(tmp_path)
    assert not ours.config.tie_word_embeddings
    batch = make_batch("bert", LENGTHS)
    with torch.no_grad():
        torch.testing.assert_close(ours(**batch).logits, theirs(**batch).logits, rtol=0, atol=1e-4)
    ours.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["tie_word_embeddings"] is False
    assert load_file(tmp_path / "again/model.safetensors").keys() == theirs.state_dict().keys()


# ------------------------------------------------------------------------------------------- a new head


@pytest.mark.parametrize(
    ("name", "task", "new"),
    [
        ("bert", "SequenceClassification", ["classifier.weight", "classifier.bias"]),
        ("bert", "QuestionAnswering", ["qa_outputs.weight", "qa_outputs.bias"]),
        ("roberta", "TokenClassification", ["classifier.weight", "classifier.bias"]),
        ("roberta", "SequenceClassification", ["classifier.dense.weight", "classifier.out_proj.bias"]),
        ("albert", "MaskedLM", ["predictions.bias", "predictions.dense.weight"]),
        ("albert", "PreTraining", ["predictions.LayerNorm.weight", "sop_classifier.classifier.bias"]),
    ],
)
def test_bare_checkpoint_gets_a_new_head(tmp_path: Path, name: str, task: str, new: list[str]) -> None:
    make_folder(tmp_path, name)
    ours = FAMILIES[name][1]
    bare = getattr(models, f"{ours}Model").from_pretrained(tmp_path)
    cls = getattr(models, f"{ours}For{task}")
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match=f"{cls.__name__}: not in the checkpoint") as caught:
        model = cls.from_pretrained(tmp_path, **({"num_labels": 7} if task in LABELS else {}))
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    assert all(one in message for one in new)
    assert "embeddings" not in message
    assert "decoder" not in message
    assert "pooler" not in message
    for key, tensor in bare.state_dict().items():
        if not key.startswith("pooler"):
            assert torch.equal(model.base_model.state_dict()[key], tensor)
    for key, tensor in model.state_dict().items():
        if key.startswith(ours.lower()) or "decoder.weight" in key:
            continue
        if key.endswith("bias"):
            assert not tensor.any(), key
        elif "orm" in key:
            assert (tensor == 1).all(), key
        else:
            assert 0.05 < tensor.std() < 0.15, key  # initializer_range 0.1
    if task in LABELS:
        assert model.num_labels == 7
        assert model.config.id2label[6] == "LABEL_6"
    again = tmp_path / "again"
    model.save_pretrained(again)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cls.from_pretrained(again)


def test_new_pooler_after_pretraining_without_one(tmp_path: Path) -> None:
    BertForMaskedLM(BertConfig(**TINY)).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"bert\.pooler\.dense\.weight"):
        model = BertForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.bert.pooler.dense.weight.dtype == torch.bfloat16
    assert not model.bert.pooler.dense.bias.any()


def test_a_missing_tensor_of_the_encoder_is_an_error(tmp_path: Path) -> None:
    make_folder(tmp_path, "bert")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.bias"], tensors["embeddings.LayerNorm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        BertForTokenClassification.from_pretrained(tmp_path)
    assert "encoder.layer.1.output.dense.bias [36] is missing" in str(caught.value)
    assert "embeddings.LayerNorm.weight [36] is missing" in str(caught.value)
    assert "classifier" not in str(caught.value)


def test_a_head_of_another_size_is_an_error(tmp_path: Path) -> None:
    make_folder(tmp_path, "bert", transformers.BertForTokenClassification, num_labels=5)
    with pytest.raises(CheckpointError, match=r"classifier\.weight has shape \[5, 36\], expected \[4, 36\]"):
        BertForTokenClassification.from_pretrained(tmp_path, num_labels=4)


def test_a_model_of_another_family_is_an_error(tmp_path: Path) -> None:
    make_folder(tmp_path, "roberta", transformers.RobertaForMaskedLM)
    with pytest.raises(ConfigError, match="model_type: expected 'bert', got 'roberta'"):
        BertForMaskedLM.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="num_lables: RobertaConfig has no value of this name"):
        models.RobertaForTokenClassification.from_pretrained(tmp_path, num_lables=3)


def test_a_bare_model_from_one_with_a_head(tmp_path: Path) -> None:
    model = BertForPreTraining(BertConfig(**TINY))
    model.save_pretrained(tmp_path)
    bare = BertModel.from_pretrained(tmp_path)
    assert all(torch.equal(model.bert.state_dict()[name], t) for name, t in bare.state_dict().items())


# ---------------------------------------------------------------------------------------- configurations


def test_labels_of_a_configuration(tmp_path: Path) -> None:
    assert BertConfig(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    named = BertConfig(id2label={0: "no", 1: "yes", 2: "maybe"})
    assert named.num_labels == 3
    assert named.label2id == {"no": 0, "yes": 1, "maybe": 2}
    assert BertConfig.from_dict(named.to_dict()) == named
    read = BertConfig.from_dict({"id2label": {"1": "b", "0": "a", "10": "c"}})
    assert read.id2label == {1: "b", 0: "a", 10: "c"}
    with pytest.raises(ConfigError, match=r"id2label: expected names for the labels 0 to 2"):
        BertForTokenClassification(read)
    with pytest.raises(ConfigError, match="num_labels: 4 labels, but id2label names 3"):
        BertConfig(num_labels=4, id2label={0: "no", 1: "yes", 2: "maybe"})
    with pytest.raises(ConfigError, match="num_labels: expected a positive integer, got 0"):
        BertConfig(num_labels=0)
    BertForSequenceClassification(BertConfig(**TINY, id2label={0: "x", 1: "y", 2: "z"})).save_pretrained(
        tmp_path
    )
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.id2label == {0: "x", 1: "y", 2: "z"}
    assert theirs.label2id == {"x": 0, "y": 1, "z": 2}
    encoder = bertfast.Encoder.from_pretrained(tmp_path, head="sequence-classification")
    assert encoder.labels == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({}, {}),
        ({"num_labels": 3}, {}),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, {}),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, {"num_labels": 3}),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, {"num_labels": 4}),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 2}, {}),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}, {"num_labels": 5}),
    ],
)
def test_labels_are_read_as_transformers_reads_them(values: dict[str, Any], changes: dict[str, Any]) -> None:
    theirs = transformers.BertConfig.from_dict(copy.deepcopy(values), **changes)
    ours = BertConfig.from_dict(values, **changes)
    assert ours.num_labels == theirs.num_labels
    assert ours.id2label == theirs.id2label


def test_new_names_take_the_place_of_old_ones() -> None:
    old = {"num_labels": 2, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    config = BertConfig.from_dict(old, id2label={0: "x", 1: "y", 2: "z"})
    assert config.num_labels == 3
    assert config.label2id == {"x": 0, "y": 1, "z": 2}


def test_labels_that_a_bare_model_need_not_understand() -> None:
    for names in (["a", "b"], {"first": "a"}, {}, 7):
        config = BertConfig.from_dict(TINY | {"id2label": names})
        assert config.to_dict()["id2label"] == names
        BertModel(config)
        with pytest.raises(ConfigError, match="id2label"):
            BertForTokenClassification(config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BertConfig(classifier_pooling="min"), "classifier_pooling: expected 'cls', 'mean' or 'max'"),
        (lambda: BertConfig(classifier_dropout=-1.0), "classifier_dropout: expected a number of at least 0"),
        (lambda: BertConfig(classifier_dropout="0.1"), "classifier_dropout: expected a number"),  # type: ignore[arg-type]
        (
            lambda: BertForSequenceClassification(BertConfig(problem_type="ranking")),
            "problem_type: expected one of regression, .*, got 'ranking'",
        ),
        (
            lambda: BertForQuestionAnswering(BertConfig(num_labels=3)),
            "num_labels: expected 2 for BertForQuestionAnswering, got 3",
        ),
        (
            lambda: models.AlbertForPreTraining(AlbertConfig(num_labels=3)),
            "num_labels: expected 2 for Albert",
        ),
    ],
)
def test_wrong_configurations(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("name", ["Bert", "Roberta", "Albert"])
@pytest.mark.parametrize("task", [task for task in TASKS if task != "NextSentencePrediction"])
@pytest.mark.parametrize("given", ["defaults", "hidden", "own", "zero"])
def test_dropout_is_that_of_transformers(name: str, task: str, given: str) -> None:
    own = "classifier_dropout_prob" if name == "Albert" else "classifier_dropout"
    values: dict[str, Any] = {"defaults": {}, "hidden": {"hidden_dropout_prob": 0.3}}.get(
        given, {"hidden_dropout_prob": 0.3, own: 0.0 if given == "zero" else 0.7}
    )

    def dropouts(library: Any) -> dict[str, float]:
        cls = getattr(library, f"{name}For{task}", None)
        if cls is None:
            return {}
        config = getattr(library, f"{name}Config")(**TINY, **values)
        prefix = name.lower()
        return {
            path: module.p
            for path, module in cls(config).named_modules()
            if isinstance(module, torch.nn.Dropout) and not path.startswith(prefix)
        }

    assert dropouts(models) == dropouts(transformers)


# -------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("num_labels", "problem_type", "labels"),
    [
        (1, None, torch.tensor([0.5, -1.0, 2.0])),
        (1, "regression", torch.tensor([[0.5], [-1.0], [2.0]])),
        (4, "regression", torch.randn(3, 4, generator=torch.Generator().manual_seed(0))),
        (4, None, torch.tensor([3, 0, 1])),
        (4, None, torch.tensor([[3], [0], [1]])),
        (4, None, torch.tensor([3, -100, 1])),
        (4, "single_label_classification", torch.tensor([3, 0, 1])),
        (4, None, torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [0.3, 1, 0, 0]])),
        (4, "multi_label_classification", torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]])),
        (1, "multi_label_classification", torch.tensor([[1.0], [0.0], [1.0]])),
    ],
)
def test_losses_of_sequences(num_labels: int, problem_type: str | None, labels: Tensor) -> None:
    values = TINY | {"num_labels": num_labels, "problem_type": problem_type}
    ours = BertForSequenceClassification(BertConfig(**values)).eval()
    theirs = transformers.BertForSequenceClassification(transformers.BertConfig(**values)).eval()
    ours.load_state_dict(theirs.state_dict())
    ids = torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]])
    got, expected = ours(ids, labels=labels).loss, theirs(ids, labels=labels).loss
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    # Remembered, as there: pipelines decide by it how logits become scores.
    assert ours.config.problem_type == theirs.config.problem_type


def test_labels_of_any_kind_of_number() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    one = BertForSequenceClassification(BertConfig(**TINY, num_labels=1)).eval()
    assert torch.equal(
        one(ids, labels=torch.tensor([2, 3])).loss, one(ids, labels=torch.tensor([2.0, 3.0])).loss
    )
    several = BertForSequenceClassification(BertConfig(**TINY, num_labels=2)).eval()
    truths = torch.tensor([[True, False], [True, True]])
    expected = F.binary_cross_entropy_with_logits(several(ids).logits, truths.float())
    assert torch.equal(several(ids, labels=truths).loss, expected)
    tokens = BertForTokenClassification(BertConfig(**TINY, num_labels=3)).eval()
    numbers = torch.tensor([[0, 1, 2], [2, -100, 0]])
    assert torch.equal(tokens(ids, labels=numbers.short()).loss, tokens(ids, labels=numbers).loss)


def test_nothing_to_learn_is_not_a_number() -> None:
    model = BertForMaskedLM(BertConfig(**TINY))
    ids = torch.tensor([[5, 6, 7]])
    assert model(ids, labels=torch.full((1, 3), -100)).loss.isnan()
    assert model(ids, labels=torch.full((1, 3), -100), masked_positions=torch.tensor([]).long()).loss.isnan()


@pytest.mark.parametrize("name", ["Bert", "Albert"])
@pytest.mark.parametrize("task", ["MaskedLM", "PreTraining"])
def test_masked_positions_only(name: str, task: str) -> None:
    torch.manual_seed(0)
    config = getattr(models, f"{name}Config")(**TINY | NO_DROPOUT if name == "Albert" else TINY)
    model = getattr(models, f"{name}For{task}")(config).eval()
    batch = make_batch("bert", LENGTHS)
    labels = torch.where(torch.rand(batch["input_ids"].shape) < 0.15, batch["input_ids"], -100)
    labels[batch["attention_mask"] == 0] = -100
    positions = (labels.flatten() != -100).nonzero()[:, 0]
    assert 5 < len(positions) < 30
    others: dict[str, Tensor] = {}
    if task == "PreTraining":
        pair = "sentence_order_label" if name == "Albert" else "next_sentence_label"
        others = {pair: torch.tensor([0, 1, 1, -100, 0, 1])}

    def run(**given: Any) -> tuple[Any, dict[str, Tensor]]:
        model.zero_grad()
        output = model(**batch, labels=labels, **others, **given)
        output.loss.backward()
        return output, {key: p.grad for key, p in model.named_parameters() if p.grad is not None}

    every, expected = run()
    some, got = run(masked_positions=positions)
    key = "logits" if task == "MaskedLM" else "prediction_logits"
    assert some[key].shape == (len(positions), 97)
    torch.testing.assert_close(some[key], every[key].flatten(0, 1)[positions], rtol=0, atol=1e-5)
    torch.testing.assert_close(some.loss, every.loss, rtol=1e-6, atol=1e-6)
    assert_gradients_close(got, expected)
    with torch.no_grad():
        without = model(**batch, masked_positions=positions)
    assert without.loss is None
    assert without[key].shape == (len(positions), 97)


def test_a_pair_without_labels_has_no_loss() -> None:
    model, ids = BertForPreTraining(BertConfig(**TINY)), torch.tensor([[5, 6]])
    assert model(ids, labels=ids).loss is None
    assert model(ids, next_sentence_label=torch.tensor([1])).loss is None


# ------------------------------------------------------------------------------------------------- pooling


@pytest.mark.parametrize("name", ["Bert", "Roberta", "Albert"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("side", ["right", "left", "none"])
def test_classifier_pooling(name: str, pooling: str, side: str, tmp_path: Path) -> None:
    values = TINY | {"num_labels": 5, "classifier_pooling": pooling}
    torch.manual_seed(0)
    model = getattr(models, f"{name}ForSequenceClassification")(
        getattr(models, f"{name}Config")(**values)
    ).eval()
    batch = make_batch(name.lower(), LENGTHS if side != "none" else [9] * 3)
    if side == "left":
        batch = {key: tensor.flip(1) for key, tensor in batch.items()}
    hidden = model.base_model(**batch).last_hidden_state
    expected = []
    for row, mask in zip(hidden, batch["attention_mask"].bool(), strict=True):
        vector = row[mask].mean(0) if pooling == "mean" else row[mask].amax(0)
        if name == "Roberta":
            vector = model.classifier(vector)
        else:
            pooler = model.base_model.pooler
            dense = pooler.dense if name == "Bert" else torch.nn.functional.linear
            vector = dense(vector) if name == "Bert" else dense(vector, pooler.weight, pooler.bias)
            vector = model.classifier(vector.tanh())
        expected.append(vector)
    given = batch if side != "none" else {k: v for k, v in batch.items() if k != "attention_mask"}
    with torch.no_grad():
        logits = model(**given).logits
    torch.testing.assert_close(logits, torch.stack(expected).detach(), rtol=0, atol=1e-5)
    model.save_pretrained(tmp_path)
    for backend in ("rust", "torch"):
        encoder = bertfast.Encoder.from_pretrained(tmp_path, head="sequence-classification", backend=backend)
        torch.testing.assert_close(encoder(**batch).logits, logits, rtol=0, atol=1e-4)
    if side == "right":
        with pytest.raises(ShapeError, match=f"where classifier_pooling is '{pooling}'"):
            model(batch["input_ids"], batch["attention_mask"][:, None, None, :])


# -------------------------------------------------------------------------------------------- wrong inputs


def test_wrong_labels() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    tokens = BertForTokenClassification(BertConfig(**TINY, num_labels=3))
    with pytest.raises(ArgumentError, match="labels: expected -100 or 0 to 2, got 3 at 4"):
        tokens(ids, labels=torch.tensor([[0, 1, 2], [0, 3, -100]]))
    with pytest.raises(ArgumentError, match="labels: expected -100 or 0 to 2, got -1 at 0"):
        tokens(ids, labels=torch.tensor([[-1, 1, 2], [0, 3, -100]]))
    with pytest.raises(ShapeError, match=r"labels: expected shape \(2, 3\), got \(2,\)"):
        tokens(ids, labels=torch.tensor([1, 0]))
    with pytest.raises(DtypeError, match=r"labels: expected integers, got torch\.float32"):
        tokens(ids, labels=torch.zeros(2, 3))
    sequences = BertForSequenceClassification(BertConfig(**TINY, num_labels=3))
    with pytest.raises(ShapeError, match=r"labels: expected shape \(2,\), got \(2, 3\)"):
        sequences(ids, labels=torch.ones(2, 3, dtype=torch.long))
    several = BertForSequenceClassification(BertConfig(**TINY, num_labels=3))
    with pytest.raises(ShapeError, match=r"labels: expected shape \(2, 3\) for multi_label_classif"):
        several(ids, labels=torch.zeros(2))
    masked = BertForMaskedLM(BertConfig(**TINY))
    with pytest.raises(TokenIdError, match="labels: expected -100 or 0 to 96, got 97 at 5"):
        masked(ids, labels=torch.tensor([[0, 1, 2], [0, 3, 97]]))
    for positions in (None, torch.tensor([1])):
        with pytest.raises(ShapeError, match=r"labels: expected shape \(2, 3\), got \(2, 2\)"):
            masked(ids, labels=ids[:, :2], masked_positions=positions)
    with pytest.raises(ShapeError, match=r"masked_positions: expected shape \(R,\), got \(2, 3\)"):
        masked(ids, masked_positions=ids)
    with pytest.raises(DtypeError, match="masked_positions: expected integers"):
        masked(ids, masked_positions=torch.zeros(1))
    with pytest.raises(IndexError):
        masked(ids, masked_positions=torch.tensor([6]))
    pretraining = BertForPreTraining(BertConfig(**TINY))
    with pytest.raises(ArgumentError, match="next_sentence_label: expected -100 or 0 to 1, got 2 at 1"):
        pretraining(ids, labels=ids, next_sentence_label=torch.tensor([0, 2]))
    answers = BertForQuestionAnswering(BertConfig(**TINY))
    with pytest.raises(ShapeError, match=r"end_positions: expected shape \(2,\), got \(3,\)"):
        answers(ids, start_positions=torch.tensor([0, 1]), end_positions=torch.tensor([0, 1, 2]))
    choices = BertForMultipleChoice(BertConfig(**TINY))
    with pytest.raises(ShapeError, match=r"input_ids: expected shape \(B, C, S\), got \(2, 3\)"):
        choices(ids)
    with pytest.raises(ArgumentError, match="labels: expected -100 or 0 to 1, got 2 at 0"):
        choices(ids[None], labels=torch.tensor([2]))
    with pytest.raises(ArgumentError, match="either input_ids or inputs_embeds"):
        choices()
    with pytest.raises(ArgumentError, match="attn_implementation: expected one of"):
        BertForMaskedLM(BertConfig(**TINY), attn_implementation="flash")  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
def test_embeddings_in_place_of_ids(task: str) -> None:
    model = getattr(models, f"BertFor{task}")(BertConfig(**TINY)).eval()
    ids = torch.randint(1, 97, (2, 3, 7) if task == "MultipleChoice" else (2, 7))
    embeds = model.bert.embeddings.word_embeddings(ids)
    with torch.no_grad():
        for a, b in zip(model(ids).to_tuple(), model(inputs_embeds=embeds).to_tuple(), strict=True):
            assert torch.equal(a, b)


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("task", ["SequenceClassification", "MaskedLM", "QuestionAnswering"])
def test_compiles_whole(task: str) -> None:
    model = getattr(models, f"BertFor{task}")(BertConfig(**TINY)).eval()
    batch = make_batch("bert", LENGTHS)
    labels: dict[str, Tensor] = {
        "SequenceClassification": {"labels": torch.tensor([0, 1, 1, 0, 1, 0])},
        "MaskedLM": {"labels": batch["input_ids"]},
        "QuestionAnswering": {
            "start_positions": torch.tensor([0, 1, 1, 0, 1, 0]),
            "end_positions": torch.tensor([0, 1, 1, 0, 1, 0]),
        },
    }[task]
    # "aot_eager" traces and differentiates as the default backend does, without needing a C++ compiler.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got = compiled(**batch, **labels).loss
    torch.testing.assert_close(got, model(**batch, **labels).loss, rtol=1e-5, atol=1e-5)


def test_fine_tuning_learns(tmp_path: Path) -> None:
    """From a bare folder to a classifier that is right, and from its folder to one that still is."""
    make_folder(tmp_path, "bert")
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="start values"):
        model = BertForSequenceClassification.from_pretrained(tmp_path, num_labels=2).train()
    ids = torch.randint(1, 97, (32, 6))
    labels = (ids[:, 1] > 48).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        loss = model(ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path / "tuned")
    encoder = bertfast.Encoder.from_pretrained(tmp_path / "tuned", head="sequence-classification")
    found = np.asarray(encoder(ids.numpy()).logits).argmax(1)
    assert (found == labels.numpy()).mean() > 0.95


def test_roberta_takes_the_exact_gelu_in_its_head() -> None:
    """Whatever the layers have, as in ``transformers``."""
    values = TINY | {"hidden_act": "relu", "pad_token_id": 1}
    ours = models.RobertaForMaskedLM(RobertaConfig(**values)).eval()
    theirs = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**values)).eval()
    theirs.load_state_dict(ours.state_dict())
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)
