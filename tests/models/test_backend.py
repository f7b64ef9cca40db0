"""`TorchEngine`: the module behind the interface of the Rust engine."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from bert_folder import TINY, make_bert_folder
from bertfast.errors import ArgumentError, CheckpointError, ShapeError, TokenIdError
from bertfast.models import BertModel, backend
from bertfast.models.backend import TorchEngine

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
