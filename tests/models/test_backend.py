"""`TorchEngine`: the module behind the interface of the Rust engine."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bert_folder import TINY, make_bert_folder
from bertfast.errors import ArgumentError, CheckpointError, ConfigError, ShapeError, TokenIdError
from bertfast.heads import OF_TOKENS
from bertfast.models import BertModel, backend, backend_heads
from bertfast.models.backend import TorchEngine
from family_models import make_folder

LENGTHS = [5, 1, 64, 17, 17, 40, 2]
CU = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def engine_of(folder: Path, **kwargs: object) -> TorchEngine:
    config = (folder / "config.json").read_text()
    return TorchEngine(config, [str(folder / "model.safetensors")], **kwargs)  # type: ignore[arg-type]


def ragged(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    tokens = CU[-1]
    ids = random.integers(0, TINY["vocab_size"], tokens, dtype=np.int32)
    types = random.integers(0, 2, tokens, dtype=np.int32)
    positions = random.integers(0, TINY["max_position_embeddings"], tokens, dtype=np.int32)
    return ids, types, positions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=[1, 50, 100000], ids=lambda budget: f"{budget}_tokens_per_step")
def engine(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TorchEngine:
    monkeypatch.setitem(backend.TOKENS_PER_STEP, "cpu", request.param)
    return engine_of(folder)


@pytest.mark.parametrize("given", ["ids", "types", "positions"])
def test_forward_is_the_module_run_on_each_sequence(engine: TorchEngine, folder: Path, given: str) -> None:
    ids, types, positions = ragged()
    if given != "positions":
        positions = None
    if given == "ids":
        types = None
    result = engine.forward(ids, CU, types, positions, hidden_states=True, attentions=True)
    model = BertModel.from_pretrained(folder)
    at = 0
    for row, (start, stop) in enumerate(pairwise(CU)):
        inputs = {"input_ids": ids, "token_type_ids": types, "position_ids": positions}
        one = {
            name: torch.from_numpy(values[start:stop].astype(np.int64))[None]
            for name, values in inputs.items()
            if values is not None
        }
        with torch.no_grad():
            alone = model(**one, output_hidden_states=True, output_attentions=True)
        close(result["last_hidden_state"][start:stop], alone.last_hidden_state[0])
        close(result["pooler_output"][row], alone.pooler_output[0])
        assert len(result["hidden_states"]) == 3
        for got, expected in zip(result["hidden_states"], alone.hidden_states, strict=True):
            close(got[start:stop], expected[0])
        assert len(result["attentions"]) == 2
        size = 4 * (stop - start) ** 2
        for got, expected in zip(result["attentions"], alone.attentions, strict=True):
            close(got[at : at + size], expected.flatten())
        at += size
    assert at == len(result["attentions"][0])


def close(got: np.ndarray, expected: torch.Tensor) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-5)


def test_only_what_was_asked_for(engine: TorchEngine) -> None:
    ids, _, _ = ragged()

    def given(**asked: bool) -> set[str]:
        return {name for name, values in engine.forward(ids, CU, **asked).items() if values is not None}

    assert given() == {"last_hidden_state", "pooler_output"}
    assert given(last_hidden_state=False) == {"pooler_output"}
    assert given(last_hidden_state=False, pooler_output=False, hidden_states=True) == {"hidden_states"}
    assert given(pooler_output=False, attentions=True) == {"last_hidden_state", "attentions"}


def test_no_pooler(tmp_path: Path) -> None:
    result = engine_of(make_bert_folder(tmp_path, pooler=False)).forward(ragged()[0], CU)
    assert result["pooler_output"] is None
    assert result["last_hidden_state"].shape == (CU[-1], 32)


@pytest.mark.parametrize("skip", [0, 1])
def test_pooling_is_that_of_sentence_transformers(engine: TorchEngine, skip: int) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    ids, types, _ = ragged()
    hidden = engine.forward(ids, CU, types)["last_hidden_state"]
    mask = np.arange(max(LENGTHS))[None] < np.array(LENGTHS)[:, None]
    padded = np.zeros((*mask.shape, 32), np.float32)
    padded[mask] = hidden
    features = {"token_embeddings": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask).long()}
    if skip:
        features["prompt_length"] = skip
    theirs = Pooling(32, pooling_mode=tuple(MODES), include_prompt=skip == 0)
    expected = theirs(features)["sentence_embedding"].numpy()
    out = np.full((len(LENGTHS), len(MODES) * 32), np.nan, np.float32)
    engine.pool(ids, CU, types, MODES, skip, False, out)
    # Where nothing is left of a sequence, the last token stays, while they divide by zero.
    usual = np.array(LENGTHS) > skip
    np.testing.assert_allclose(out[usual], expected[usual], rtol=0, atol=1e-5)
    assert np.isfinite(out).all()
    for index, mode in enumerate(MODES):
        one = np.empty((len(LENGTHS), 32), np.float32)
        engine.pool(ids, CU, types, [mode], skip, False, one)
        np.testing.assert_array_equal(one, out[:, index * 32 : index * 32 + 32])


def test_pooling_never_leaves_out_all(engine: TorchEngine) -> None:
    ids, types, _ = ragged()
    last = engine.forward(ids, CU, types)["last_hidden_state"][CU[1:] - 1]
    for mode in MODES:
        out = np.empty((len(LENGTHS), 32), np.float32)
        engine.pool(ids, CU, types, [mode], 1000, False, out)
        np.testing.assert_allclose(out, last, rtol=0, atol=1e-5)
        engine.pool(ids, CU, types, [mode], 1000, True, out)
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, rtol=0, atol=1e-6)


def test_half_precision(folder: Path) -> None:
    ids, types, _ = ragged()
    exact = engine_of(folder).forward(ids, CU, types)["last_hidden_state"]
    for dtype, limit in (("bfloat16", 0.1), ("float16", 0.02)):
        engine = engine_of(folder, dtype=dtype)
        got = engine.forward(ids, CU, types)["last_hidden_state"]
        assert got.dtype == np.float32
        error = np.abs(got - exact).max()
        assert 1e-4 < error < limit
        assert engine.info()["dtype"] == dtype


def test_threads(folder: Path) -> None:
    before = torch.get_num_threads()
    seen = []
    engine = engine_of(folder, num_threads=1)
    engine._model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    engine.forward(ragged()[0], CU)
    assert set(seen) == {1}
    assert torch.get_num_threads() == before
    for wrong in (0, -1):
        with pytest.raises(ArgumentError, match="num_threads"):
            engine_of(folder, num_threads=wrong)
        with pytest.raises(ArgumentError, match="num_threads"):
            engine.forward(ragged()[0], CU, num_threads=wrong)


def test_info(folder: Path) -> None:
    info = engine_of(folder).info()
    assert info["backend"] == "torch"
    assert info["device"] == "cpu"
    assert info["hidden_size"] == 32
    assert info["unused"] == []


@pytest.mark.parametrize("device", ["cuda:77", "nonsense", "meta", ""])
def test_no_such_device(folder: Path, device: str) -> None:
    with pytest.raises(ArgumentError, match="device: "):
        engine_of(folder, device=device)


def test_cuda_is_used_or_refused(folder: Path) -> None:
    ids, types, _ = ragged()
    if not torch.cuda.is_available():
        with pytest.raises(ArgumentError, match="device: 'cuda' cannot be used on this machine"):
            engine_of(folder, device="cuda")
        return
    got = engine_of(folder, device="cuda").forward(ids, CU, types)["last_hidden_state"]
    expected = engine_of(folder).forward(ids, CU, types)["last_hidden_state"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_wrong_inputs(folder: Path) -> None:
    engine = engine_of(folder)
    ids, types, positions = ragged()
    for cu in ([0], [0, 5, 5, CU[-1]], [1, CU[-1]], [0, CU[-1] + 1], [0, 9, 5, CU[-1]]):
        with pytest.raises(ShapeError, match="cu_seqlens: "):
            engine.forward(ids, np.array(cu))
    with pytest.raises(ShapeError, match="a sequence of 146 tokens, at most 64"):
        engine.forward(ids, np.array([0, CU[-1]]))
    with pytest.raises(ShapeError, match="token_type_ids: expected shape"):
        engine.forward(ids, CU, types[:-1])
    right = {"input_ids": ids, "token_type_ids": types, "position_ids": positions}
    for name, limit in (("input_ids", 97), ("token_type_ids", 2), ("position_ids", 64)):
        for wrong in (-1, limit):
            values = right[name].copy()
            values[7] = wrong
            with pytest.raises(TokenIdError, match=f"{name}: {wrong} at token 7, expected 0 to {limit - 1}"):
                engine.forward(**right | {name: values}, cu_seqlens=CU)
    with pytest.raises(ArgumentError, match="modes: 'median' is unknown"):
        engine.pool(ids, CU, None, ["median"], 0, False, np.empty((7, 32), np.float32))
    with pytest.raises(ShapeError, match=r"out: expected shape \(7, 64\), got \(7, 32\)"):
        engine.pool(ids, CU, None, ["cls", "mean"], 0, False, np.empty((7, 32), np.float32))
    with pytest.raises(ArgumentError, match="dtype: expected one of float32, bfloat16, float16, got 'int8'"):
        engine_of(folder, dtype="int8")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    make_bert_folder(tmp_path)
    config = (
        (tmp_path / "config.json").read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.2\.output\.dense\.bias"):
        TorchEngine(config, [tmp_path / "model.safetensors"])


# --------------------------------------------------------------------------------------------------- heads

HEADS = [
    (name, f"{family}For{task}", head)
    for name, family in (("bert", "Bert"), ("roberta", "Roberta"), ("albert", "Albert"))
    for task, head in {
        "SequenceClassification": "sequence-classification",
        "MultipleChoice": "multiple-choice",
        "NextSentencePrediction": "next-sentence",
        "PreTraining": "sentence-order" if family == "Albert" else "next-sentence",
        "TokenClassification": "token-classification",
        "QuestionAnswering": "question-answering",
        "MaskedLM": "masked-lm",
    }.items()
    if hasattr(transformers, f"{family}For{task}")
]
ROWS = np.array([0, 3, 5, 6, 69, 70, 71, 144, 145], np.int64)


def make_head(folder: Path, name: str, cls: str, **changes: Any) -> tuple[TorchEngine, Any, dict[str, Any]]:
    """The engine, the Rust one, and arguments for both."""
    from bertfast import _bertfast

    head = next(head for _, one, head in HEADS if one == cls)
    if head in ("sequence-classification", "token-classification"):
        changes = {"num_labels": 5} | changes
    make_folder(folder, name, getattr(transformers, cls), **changes)
    rust = _bertfast.Encoder.load(
        (folder / "config.json").read_text(), [str(folder / "model.safetensors")], head=head
    )
    ids = np.random.default_rng(0).integers(4, 97, CU[-1], dtype=np.int32)
    return engine_of(folder, head=head), rust, {"input_ids": ids, "cu_seqlens": CU}


@pytest.fixture(params=[1, 3000, 10**6], ids=lambda most: f"{most}_logits_per_step")
def most_logits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backend_heads.LOGITS_PER_STEP, "cpu", request.param)
    monkeypatch.setitem(backend.TOKENS_PER_STEP, "cpu", 100)


@pytest.mark.usefixtures("most_logits")
@pytest.mark.parametrize(("name", "cls", "head"), HEADS)
def test_logits_are_those_of_the_rust_engine(tmp_path: Path, name: str, cls: str, head: str) -> None:
    engine, rust, batch = make_head(tmp_path, name, cls)
    for key in ("head", "num_labels"):
        assert engine.info()[key] == rust.info()[key]
    assert engine.info()["head"] == head
    results = [one.forward(**batch, logits=True) for one in (engine, rust)]
    for key in ("last_hidden_state", "logits"):
        got, expected = (result[key] for result in results)
        assert got.shape == expected.shape
        assert got.dtype == np.float32
        limit = 4e-5 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=0, atol=limit)
    logits = results[0]["logits"]
    assert engine.forward(**batch)["logits"] is None
    alone = engine.forward(**batch, logits=True, last_hidden_state=False, pooler_output=False)
    assert [key for key, values in alone.items() if values is not None] == ["logits"]
    np.testing.assert_array_equal(alone["logits"], logits)
    if head not in OF_TOKENS:
        assert logits.shape == (len(LENGTHS), engine.info()["num_labels"])
        with pytest.raises(ArgumentError, match=f"rows: expected none, {head} has one row for each"):
            engine.forward(**batch, logits=True, rows=ROWS)
        return
    some = engine.forward(**batch, logits=True, rows=ROWS)["logits"]
    np.testing.assert_allclose(some, logits[ROWS], rtol=0, atol=1e-5)
    assert engine.forward(**batch, logits=True, rows=ROWS[:0])["logits"].shape == (0, logits.shape[1])


@pytest.mark.usefixtures("most_logits")
@pytest.mark.parametrize("k", [1, 5, 97])
def test_top_k(tmp_path: Path, k: int) -> None:
    engine, rust, batch = make_head(tmp_path, "bert", "BertForMaskedLM")
    scores, labels = engine.top_k(**batch, token_type_ids=None, rows=ROWS, k=k)
    assert (scores.dtype, labels.dtype) == (np.float32, np.int32)
    logits = torch.from_numpy(engine.forward(**batch, logits=True)["logits"][ROWS])
    expected = logits.double().softmax(1).sort(dim=1, descending=True)
    np.testing.assert_allclose(scores, expected.values[:, :k], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(labels, expected.indices[:, :k])
    theirs = rust.top_k(**batch, token_type_ids=None, rows=ROWS, k=k)
    np.testing.assert_allclose(scores, theirs[0], rtol=1e-3, atol=1e-6)


def test_top_k_of_equal_scores(tmp_path: Path) -> None:
    """The lower label is first, wherever the cut falls."""
    make_head(tmp_path, "bert", "BertForMaskedLM", tie_word_embeddings=False)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["cls.predictions.decoder.weight"].zero_()
    bias = tensors["cls.predictions.decoder.bias"].zero_()
    bias[[80, 10]] = 2.0
    bias[[50, 40, 60]] = 1.0
    save_file(tensors, tmp_path / "model.safetensors")
    engine = engine_of(tmp_path, head="masked-lm")
    ids = np.full(CU[-1], 7, np.int32)
    best = [10, 80, 40, 50, 60, 0, 1, 2]
    for k in range(1, 9):
        scores, labels = engine.top_k(ids, CU, None, ROWS, k)
        assert (labels == best[:k]).all()
        assert (np.diff(scores) <= 0).all()


@pytest.mark.usefixtures("most_logits")
@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("cls", ["BertForMaskedLM", "RobertaForMaskedLM", "AlbertForMaskedLM"])
def test_sparse(tmp_path: Path, cls: str, strategy: str) -> None:
    name = cls.removesuffix("ForMaskedLM").lower()
    engine, rust, batch = make_head(tmp_path, name, cls)
    results = [np.full((len(LENGTHS), 97), np.nan, np.float32) for _ in range(2)]
    for one, out in zip((engine, rust), results, strict=True):
        one.sparse(**batch, token_type_ids=None, strategy=strategy, out=out)
    values = np.log1p(np.maximum(engine.forward(**batch, logits=True)["logits"], 0))
    take = np.max if strategy == "max" else np.sum
    expected = np.stack([take(values[start:stop], axis=0) for start, stop in pairwise(CU)])
    for got in results:
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_pooling_and_texts_do_not_see_the_head(tmp_path: Path) -> None:
    engine, _, batch = make_head(tmp_path, "bert", "BertForSequenceClassification")
    with_head, bare = (np.empty((len(LENGTHS), 36), np.float32) for _ in range(2))
    engine.pool(**batch, token_type_ids=None, modes=["mean"], skip=0, normalize=True, out=with_head)
    engine_of(tmp_path).pool(**batch, token_type_ids=None, modes=["mean"], skip=0, normalize=True, out=bare)
    np.testing.assert_array_equal(with_head, bare)
    assert engine.info()["unused"] == []
    assert engine_of(tmp_path).info()["unused"] == ["classifier.bias", "classifier.weight"]


def test_the_checkpoint_knows_how_many_labels_there_are(tmp_path: Path) -> None:
    make_head(tmp_path, "bert", "BertForTokenClassification")
    config = json.loads((tmp_path / "config.json").read_text())
    for names in (None, {"0": "a", "1": "b"}):
        (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": names, "label2id": None}))
        assert engine_of(tmp_path, head="token-classification").info()["num_labels"] == 5


def test_wrong_heads(tmp_path: Path) -> None:
    engine, rust, batch = make_head(tmp_path, "bert", "BertForMaskedLM")
    for head, message in (
        ("causal-lm", "head: expected one of sequence-classification, .* got 'causal-lm'"),
        ("sentence-order", "head: expected one of .* for a model of type 'bert', got 'sentence-order'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            engine_of(tmp_path, head=head)
    for head, missing in (
        ("token-classification", r"no head for token-classification: classifier\.weight is missing"),
        ("question-answering", r"qa_outputs\.weight \[2, 36\] is missing"),
        ("next-sentence", r"cls\.seq_relationship\.weight \[2, 36\] is missing"),
    ):
        with pytest.raises(CheckpointError, match=missing):
            engine_of(tmp_path, head=head)
    bare = engine_of(tmp_path)
    assert (bare.info()["head"], bare.info()["num_labels"]) == (None, 0)
    out = np.empty((len(LENGTHS), 97), np.float32)
    arguments = (tmp_path / "config.json").read_text(), [tmp_path / "model.safetensors"]
    for one in (bare, type(rust).load(*arguments)):
        with pytest.raises(ArgumentError, match="opened without one"):
            one.forward(**batch, logits=True)
        with pytest.raises(ArgumentError):
            one.top_k(**batch, token_type_ids=None, rows=ROWS, k=3)
        with pytest.raises(ArgumentError, match="opened without one"):
            one.sparse(**batch, token_type_ids=None, strategy="max", out=out)
    for one in (engine, rust):
        for rows, error in (
            ([-1, 3], TokenIdError),
            ([3, CU[-1]], TokenIdError),
            ([3, 3], ShapeError),
            ([5, 3], ShapeError),
        ):
            with pytest.raises(error, match="rows: expected"):
                one.forward(**batch, logits=True, rows=np.array(rows, np.int64))
            with pytest.raises(error, match="rows: expected"):
                one.top_k(**batch, token_type_ids=None, rows=np.array(rows, np.int64), k=3)
        for k in (0, 98):
            with pytest.raises(ArgumentError, match=f"k: expected 1 to 97, got {k}"):
                one.top_k(**batch, token_type_ids=None, rows=ROWS, k=k)
        with pytest.raises(ArgumentError, match="strategy: expected one of max, sum"):
            one.sparse(**batch, token_type_ids=None, strategy="mean", out=out)
        with pytest.raises(ShapeError):
            one.sparse(**batch, token_type_ids=None, strategy="max", out=out[:, :-1].copy())
    engine, rust, batch = make_head(tmp_path / "of_sequences", "bert", "BertForSequenceClassification")
    for one in (engine, rust):
        with pytest.raises(ArgumentError, match="head: expected one that reads all tokens"):
            one.sparse(**batch, token_type_ids=None, strategy="max", out=out)
        with pytest.raises(ArgumentError, match="rows: expected none"):
            one.top_k(**batch, token_type_ids=None, rows=ROWS, k=1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_in_half_precision(tmp_path: Path, dtype: str) -> None:
    engine, _, batch = make_head(tmp_path, "bert", "BertForTokenClassification")
    exact = engine.forward(**batch, logits=True)["logits"]
    got = engine_of(tmp_path, head="token-classification", dtype=dtype).forward(**batch, logits=True)
    assert got["logits"].dtype == np.float32
    assert 1e-5 < np.abs(got["logits"] - exact).max() < 0.2


def test_families_without_a_twin(tmp_path: Path) -> None:
    make_folder(tmp_path, "distilbert", transformers.DistilBertForMaskedLM)
    for head in (None, "masked-lm"):
        with pytest.raises(ConfigError, match=r"one of bert, .* with backend='torch', got 'distilbert'"):
            engine_of(tmp_path, head=head)
