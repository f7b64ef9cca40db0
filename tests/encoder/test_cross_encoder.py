"""`CrossEncoder` beside that of sentence-transformers, on random models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from safetensors.numpy import save_file

import bertfast
from bert_folder import TINY, bert_tensors
from bertfast.activations import sigmoid
from bertfast.cross_encoder import CrossEncoder
from bertfast.errors import ArgumentError, CheckpointError, ConfigError
from sentence_folder import TEXTS, make_sentence_folder, write_json

PAIRS = [(first, second) for first in TEXTS for second in TEXTS[::2]]

pytestmark = pytest.mark.filterwarnings("ignore:.*are longer than")

Make = Callable[..., Path]


def make_classifier(folder: Path, labels: int = 1, **config: Any) -> Path:
    """A random classifier with a vocabulary of letters."""
    names = [f"LABEL_{number}" for number in range(labels)]
    make_sentence_folder(
        folder,
        modules=False,
        architectures=["BertForSequenceClassification"],
        id2label={str(number): name for number, name in enumerate(names)},
        label2id={name: number for number, name in enumerate(names)},
        **config,
    )
    tensors = {f"bert.{key}": value for key, value in bert_tensors(TINY | config).items()}
    random = np.random.default_rng(labels)
    # Large: else all pairs have nearly the same score, and nothing could be told apart.
    tensors["bert.pooler.dense.weight"] *= 4
    tensors["classifier.weight"] = random.normal(0, 2, (labels, 32)).astype(np.float32)
    tensors["classifier.bias"] = random.normal(0, 1, labels).astype(np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Folders of random classifiers."""
    return lambda name="folder", *labels, **config: make_classifier(tmp_path / name, *labels, **config)


@pytest.fixture(scope="module", params=[1, 2, 5])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Ours and theirs, of one folder; leave them as they are."""
    folder = make_classifier(tmp_path_factory.mktemp("both") / "folder", request.param)
    return CrossEncoder(folder), theirs(folder)


def theirs(folder: Path, **options: Any) -> sentence_transformers.CrossEncoder:
    return sentence_transformers.CrossEncoder(str(folder), device="cpu", **options)


def assert_close(ours: Any, expected: Any) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)


# ------------------------------------------------------------------------------ beside sentence-transformers


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"apply_softmax": True},
        {"batch_size": 2},
        {"prompt": "query: "},
        {"activation_fn": torch.nn.Tanh()},
        {"activation_fn": torch.sigmoid},
        {"activation_fn": torch.nn.functional.relu, "apply_softmax": True},
    ],
    ids=["none", "softmax", "steps", "prompt", "module", "builtin", "function"],
)
def test_scores_are_those_of_sentence_transformers(both: tuple[Any, Any], options: dict[str, Any]) -> None:
    ours, reference = both
    assert_close(ours.predict(PAIRS, **options), reference.predict(PAIRS, **options))


def test_the_models_tell_pairs_apart(both: tuple[Any, Any]) -> None:
    logits = both[1].predict(PAIRS, activation_fn=torch.nn.Identity())
    assert np.ptp(logits, axis=0).min() > 0.5
    assert both[0].num_labels == both[1].num_labels == np.size(logits[0])


def test_a_folder_that_sentence_transformers_saved(make: Make, tmp_path: Path) -> None:
    options = {"prompts": {"web": "search: ", "none": ""}, "default_prompt_name": "web"}
    saved = theirs(make(), max_length=20, activation_fn=torch.nn.Identity(), **options)
    saved.save(str(tmp_path / "saved"))
    model = CrossEncoder.from_pretrained(tmp_path / "saved")
    assert (model.max_length, model.max_seq_length) == (20, 20)
    reference = theirs(tmp_path / "saved")
    for call in ({}, {"prompt_name": "none"}, {"prompt": "x"}):
        assert_close(model.predict(PAIRS, **call), reference.predict(PAIRS, **call))
    assert model.predict(PAIRS).min() < 0
    model.max_length = 11
    reference.max_seq_length = 11
    assert_close(model.predict(PAIRS), reference.predict(PAIRS))
    assert repr(model) == "CrossEncoder(num_labels=1, max_length=11)"


def test_prompts_of_the_call(make: Make) -> None:
    folder = make()
    ours = CrossEncoder(folder, prompts={"q": "query: "}, default_prompt_name="q")
    reference = theirs(folder, prompts={"q": "query: "}, default_prompt_name="q")
    assert_close(ours.predict(PAIRS), reference.predict(PAIRS))
    with pytest.raises(ArgumentError, match="default_prompt_name: expected one of"):
        CrossEncoder(folder, default_prompt_name="q")


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (1, "Sigmoid"),
        (1, "modules.linear.Identity"),
        (3, "modules.activation.Sigmoid"),
        (3, "ReLU"),
        (1, "Tanh"),
    ],
)
def test_activations_that_the_configuration_names(make: Make, labels: int, name: str) -> None:
    path = f"torch.nn.{name}"
    folder = make("newer", labels, sentence_transformers={"activation_fn": path, "version": "5.0.0"})
    expected = theirs(folder).predict(PAIRS)
    assert_close(CrossEncoder(folder).predict(PAIRS), expected)
    older = make("older", labels, sbert_ce_default_activation_function=path)
    assert_close(CrossEncoder(older).predict(PAIRS), expected)


def test_other_activations_are_refused(make: Make) -> None:
    for number, name in enumerate(["torch.nn.Mish", "my.package.Sigmoid", "Sigmoid", 3]):
        folder = make(str(number), sentence_transformers={"activation_fn": name})
        with pytest.raises(ConfigError, match="activation_fn: expected "):
            CrossEncoder(folder)
    folder = make("given", sentence_transformers={"activation_fn": "torch.nn.Mish"})
    model = CrossEncoder(folder, activation_fn=torch.nn.Mish())
    assert_close(model.predict(PAIRS), theirs(folder).predict(PAIRS))


def test_activations_of_numpy(make: Make) -> None:
    model = CrossEncoder(make())
    plain = model.predict(PAIRS, activation_fn=lambda x: x)
    assert_close(model.predict(PAIRS, activation_fn=np.tanh), np.tanh(plain))
    np.testing.assert_allclose(model.predict(PAIRS), 1 / (1 + np.exp(-plain.astype(np.float64))), rtol=1e-6)
    model.activation_fn = np.negative
    assert_close(model.predict(PAIRS), -plain)


def test_the_sigmoid_of_extreme_logits() -> None:
    x = np.array([-200, -100, -50, 0, 50, 200], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        ours = sigmoid(x)
    np.testing.assert_allclose(ours, torch.sigmoid(torch.from_numpy(x)), rtol=1e-6, atol=1e-43)


def test_lower_casing_that_the_folder_asks_for(make: Make, tmp_path: Path) -> None:
    cased = make()
    write_json(cased / "tokenizer_config.json", {"do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    theirs(cased).save(str(tmp_path / "saved"))
    path = tmp_path / "saved/sentence_bert_config.json"
    write_json(path, json.loads(path.read_text()) | {"do_lower_case": True})
    expected = theirs(tmp_path / "saved").predict(PAIRS, prompt="QUERY ")
    assert_close(CrossEncoder(tmp_path / "saved").predict(PAIRS, prompt="QUERY "), expected)
    plain = CrossEncoder(cased).predict(PAIRS, prompt="QUERY ")
    assert not np.allclose(expected, plain, atol=1e-3)


# ------------------------------------------------------------------------------------------- results


def test_kinds_of_results(make: Make) -> None:
    for labels in (1, 3):
        model = CrossEncoder(make(str(labels), labels))
        scores = model.predict(PAIRS)
        assert isinstance(scores, np.ndarray)
        tensor = model.predict(PAIRS, convert_to_tensor=True)
        assert isinstance(tensor, torch.Tensor)
        assert (tensor.numpy() == scores).all()
        listed = model.predict(PAIRS, convert_to_numpy=False)
        assert isinstance(listed, list)
        assert (torch.stack(listed) == tensor).all()
        # One pair, in every form.
        for pair in (PAIRS[3], list(PAIRS[3]), np.array(PAIRS[3])):
            assert (model.predict(pair) == scores[3]).all()
        assert (model.predict([PAIRS[3]]) == scores[3:4]).all()
        assert (model.predict(np.array(PAIRS)) == scores).all()
        assert (model.predict(iter(PAIRS)) == scores).all()
        assert model.predict([]).shape == scores[:0].shape
        assert model.predict([], convert_to_tensor=True).shape == scores[:0].shape


def test_a_pair_has_the_same_bits_in_any_company(make: Make) -> None:
    model = CrossEncoder(make(labels=2))
    scores = model.predict(PAIRS)
    for options in ({"batch_size": 1}, {"batch_tokens": 70}, {"num_threads": 1}, {"batch_size": 5}):
        assert (model.predict(PAIRS, **options) == scores).all()
    with ThreadPoolExecutor(4) as threads:
        assert (np.stack(list(threads.map(model.predict, PAIRS))) == scores).all()


def test_pairs_that_are_cut_off_are_counted(make: Make) -> None:
    model = CrossEncoder(make(), max_length=16)
    lengths = [len("".join(a.split())) + len("".join(b.split())) + 3 for a, b in PAIRS]
    with pytest.warns(UserWarning, match="are longer than 16 tokens and were cut off"):
        model.predict(PAIRS)
    assert model.encoder.info()["truncated_texts"] == sum(length > 16 for length in lengths) > 3


def test_ranking(make: Make) -> None:
    folder = make()
    model, reference = CrossEncoder(folder), theirs(folder)
    for options in ({}, {"top_k": 3}, {"return_documents": True}, {"top_k": 99, "prompt": "q: "}):
        ours = model.rank("a fox", TEXTS, **options)
        expected = reference.rank("a fox", TEXTS, **options)
        assert [list(one) for one in ours] == [list(one) for one in expected]
        assert [one["corpus_id"] for one in ours] == [one["corpus_id"] for one in expected]
        assert [one.get("text") for one in ours] == [one.get("text") for one in expected]
        np.testing.assert_allclose(
            [one["score"] for one in ours], [one["score"] for one in expected], atol=2e-5
        )
        assert {type(one["score"]) for one in ours} == {float}
    assert model.rank("a fox", []) == []
    # Of the same score, the first comes first.
    assert [one["corpus_id"] for one in model.rank("x", ["y"] * 5)] == [0, 1, 2, 3, 4]


def test_an_encoder_with_the_head(make: Make) -> None:
    folder = make()
    encoder = bertfast.Encoder.from_pretrained(folder, head="sequence-classification")
    assert (CrossEncoder(encoder).predict(PAIRS) == CrossEncoder(folder).predict(PAIRS)).all()
    with pytest.raises(ArgumentError, match="model: expected an encoder with head='sequence-classification'"):
        CrossEncoder(bertfast.Encoder.from_pretrained(folder))


def test_torch_is_not_imported(make: Make) -> None:
    program = (
        "import sys; from bertfast.cross_encoder import CrossEncoder as C; "
        f"print(C({str(make())!r}).rank('a', ['b', 'c'])[0]['corpus_id']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("0", "1")


# -------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ("text", "sentences: expected pairs of texts, got str"),
        (7, "sentences: expected pairs of texts, got int"),
        ({"a": "b"}, "sentences: expected pairs of texts, got dict"),
        (["a", "b", "c"], "sentences: expected a pair of texts, got list of 3"),
        (["a", 1], r"sentences\[1\]: expected str, got int"),
        ([("a", "b"), "cd"], r"sentences\[1\]: expected a pair of texts, got str"),
        ([("a", "b"), ("c",)], r"sentences\[1\]: expected a pair of texts, got tuple of 1"),
        ([("a", "b"), ("c", None)], r"sentences\[1\]\[1\]: expected str, got NoneType"),
    ],
)
def test_no_pairs(make: Make, sentences: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        CrossEncoder(make()).predict(sentences)


def test_arguments_that_are_not_allowed(make: Make) -> None:
    model = CrossEncoder(make())
    for options in ({"batch_size": 0}, {"num_threads": 0}, {"prompt_name": "q"}, {"batch_tokens": 0}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            model.predict(PAIRS, **options)
    with pytest.raises(ArgumentError, match=r"sentences\[2\]\[1\]: .* a lone surrogate at character 1"):
        model.predict([*PAIRS[:2], ("a", "b\ud800")], batch_size=1)
    for length in (2, 65, "3"):
        with pytest.raises(ArgumentError, match="max_length: expected 3 to 64"):
            CrossEncoder(make(f"length {length}"), max_length=length)
    with pytest.raises(TypeError, match=r"documents\[1\]: expected str, got int"):
        model.rank("q", ["a", 1])
    with pytest.raises(TypeError, match="documents: expected texts, got str"):
        model.rank("q", "text")
    with pytest.raises(TypeError, match="query: expected str, got list"):
        model.rank(["q"], ["a"])
    with pytest.raises(ArgumentError, match="top_k: expected a positive integer"):
        model.rank("q", ["a"], top_k=0)
    with pytest.raises(ArgumentError, match="rank: expected a model with one label, this one has 2"):
        CrossEncoder(make("two", 2)).rank("q", ["a"])


def test_arguments_by_place_and_by_their_newer_name(make: Make) -> None:
    folder = make()
    ours, reference = CrossEncoder(folder), theirs(folder)
    places = (None, None, 4, False, torch.nn.Identity(), False, True, True, "cpu")
    torch.testing.assert_close(
        ours.predict(PAIRS, *places), reference.predict(PAIRS, *places), atol=2e-5, rtol=0
    )
    assert_close(ours.predict(inputs=PAIRS), reference.predict(inputs=PAIRS))
    places = (2, True, None, None, 4, False, torch.nn.Identity(), "cpu")
    found, expected = (model.rank("a fox", TEXTS, *places) for model in (ours, reference))
    assert [one["text"] for one in found] == [one["text"] for one in expected]
    with pytest.raises(ArgumentError, match="device: this encoder runs on 'cpu', got 'cuda'"):
        ours.rank("a fox", TEXTS, device="cuda")


def test_nothing_goes_beside_an_encoder(make: Make) -> None:
    encoder = bertfast.Encoder.from_pretrained(make(), head="sequence-classification")
    for options in ({"dtype": "int8"}, {"device": "cuda"}, {"revision": "main"}):
        with pytest.raises(ArgumentError, match=f"{next(iter(options))}: expected nothing beside an encoder"):
            CrossEncoder(encoder, **options)


def test_folders_that_are_none(make: Make, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"classifier\.weight"):
        CrossEncoder(make_sentence_folder(tmp_path / "bare", modules=False))
    with pytest.raises(ConfigError, match=r"modules\.json: the module .*Pooling"):
        CrossEncoder(make_sentence_folder(tmp_path / "sentence"))
    theirs(make()).save(str(tmp_path / "saved"))
    path = tmp_path / "saved/config_sentence_transformers.json"
    write_json(path, json.loads(path.read_text()) | {"model_type": "SparseEncoder"})
    with pytest.raises(ConfigError, match="model_type: expected 'CrossEncoder', got 'SparseEncoder'"):
        CrossEncoder(tmp_path / "saved")
    with pytest.raises(FileNotFoundError, match="cross-encoder/no-such-model"):
        CrossEncoder("no-such-model", local_files_only=True)
    with pytest.raises(FileNotFoundError):
        CrossEncoder(tmp_path / "nothing")


def test_a_pipeline_opens_its_folder(make: Make, tmp_path: Path) -> None:
    """What sentence-transformers saved lists modules, none of which is a pooling."""
    source = make("source", 3)
    sentence_transformers.CrossEncoder(str(source)).save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved/modules.json").is_file()
    options = {"function_to_apply": "none", "truncation": True}
    classify = bertfast.pipeline("text-classification", tmp_path / "saved", **options)
    inputs = [{"text": first, "text_pair": second} for first, second in PAIRS if second]
    expected = bertfast.pipeline("text-classification", source, **options)(inputs)
    assert classify(inputs) == expected
