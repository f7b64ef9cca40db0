"""The torch module, its snapshot on the Rust engine, and both backends of `Encoder` give the same numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bertfast
from bert_folder import TINY, make_bert_folder
from bertfast.errors import ArgumentError
from bertfast.models import BertConfig, BertModel
from tolerance import COSINE, FLOOR, cosines
from transformers_reference import ODD_SHAPES, random_batch

LENGTHS = [23, 1, 40, 7, 31]


def close(got: Any, expected: Any) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    limit = 2 * FLOOR * max(1.0, np.abs(expected).max(initial=0.0))  # each of the two may be off by FLOOR
    np.testing.assert_allclose(got, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_to_encoder(shape: str) -> None:
    torch.manual_seed(0)
    config = BertConfig.from_dict(TINY | ODD_SHAPES[shape] | {"layer_norm_eps": 1e-3})
    model = BertModel(config).eval()
    batch = random_batch(config.to_dict(), LENGTHS)
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = model(**batch)
    encoder = model.to_encoder()
    got = encoder(**batch)
    assert isinstance(got.last_hidden_state, torch.Tensor)  # results in kind
    close(got.last_hidden_state[mask], expected.last_hidden_state[mask])
    close(got.pooler_output, expected.pooler_output)


def test_to_encoder_is_a_snapshot() -> None:
    model = BertModel(BertConfig.from_dict(TINY)).eval()
    ids = random_batch(TINY, [9, 5])["input_ids"]
    encoder = model.to_encoder()
    before = encoder(ids).last_hidden_state
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    assert torch.equal(encoder(ids).last_hidden_state, before)
    with torch.no_grad():
        close(model.to_encoder()(ids).last_hidden_state, model(ids).last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_to_encoder_of_other_dtypes(dtype: torch.dtype) -> None:
    model = BertModel(BertConfig.from_dict(TINY)).eval().to(dtype)
    ids = random_batch(TINY, [9, 5])["input_ids"]
    got = model.to_encoder()(ids).last_hidden_state
    with torch.no_grad():
        close(got, model.float()(ids).last_hidden_state)


def test_to_encoder_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    encoder = BertModel(BertConfig.from_dict(TINY), add_pooling_layer=False).to_encoder(num_threads=1)
    assert not list(tmp_path.iterdir())
    output = encoder(np.array([[3, 4, 5]]))
    assert np.isfinite(output.last_hidden_state).all()
    assert output.pooler_output is None


def test_to_encoder_with_a_tokenizer(minilm: Path, real_texts: list[str]) -> None:
    source = bertfast.Encoder.from_pretrained(minilm)
    encoder = BertModel.from_pretrained(minilm).to_encoder(tokenizer=source.tokenizer)
    encoder.max_seq_length = source.max_seq_length
    texts = real_texts[:20]
    np.testing.assert_array_equal(
        encoder.encode(texts, normalize_embeddings=True), source.encode(texts, normalize_embeddings=True)
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[bertfast.Encoder, bertfast.Encoder]:
    folder = make_bert_folder(tmp_path_factory.mktemp("tiny"), layer_norm_eps=1e-3, initializer_range=0.05)
    return (
        bertfast.Encoder.from_pretrained(folder),
        bertfast.Encoder.from_pretrained(folder, backend="torch"),
    )


def test_both_backends_on_padded_ids(both: tuple[bertfast.Encoder, bertfast.Encoder]) -> None:
    batch = {name: tensor.numpy() for name, tensor in random_batch(TINY, LENGTHS).items()}
    batch["attention_mask"] = np.random.default_rng(0).random(batch["input_ids"].shape) < 0.5
    batch["attention_mask"][:, 5] = True
    rust, twin = (
        encoder(**batch, output_hidden_states=True, output_attentions=True).to_tuple() for encoder in both
    )
    assert len(rust) == len(twin) == 4
    for got, expected in zip(rust, twin, strict=True):
        if isinstance(got, tuple):
            assert len(got) == len(expected)
            for one, other in zip(got, expected, strict=True):
                close(one, other)
        else:
            close(got, expected)


def test_both_backends_on_ragged_ids(both: tuple[bertfast.Encoder, bertfast.Encoder]) -> None:
    random = np.random.default_rng(0)
    cu_seqlens = np.concatenate([[0], np.cumsum(LENGTHS)])
    ids = random.integers(0, TINY["vocab_size"], cu_seqlens[-1])
    types = random.integers(0, 2, cu_seqlens[-1])
    rust, twin = (encoder.forward_ragged(ids, cu_seqlens, types) for encoder in both)
    close(rust.last_hidden_state, twin.last_hidden_state)
    close(rust.pooler_output, twin.pooler_output)


MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.mark.filterwarnings("ignore:.* longer than")
@pytest.mark.parametrize("prompt", [None, "query: "])
def test_both_backends_on_texts(minilm: Path, real_texts: list[str], prompt: str | None) -> None:
    texts = [*sorted(real_texts[:60], key=len)[:30], max(real_texts, key=len), ""]
    rust = bertfast.Encoder.from_pretrained(minilm)
    twin = bertfast.Encoder.from_pretrained(minilm, backend="torch")
    a, b = (encoder.encode(texts, prompt=prompt) for encoder in (rust, twin))
    close(a, b)
    assert cosines(a, b).min() >= COSINE
    a, b = (encoder.encode(texts, prompt=prompt, pooling=MODES) for encoder in (rust, twin))
    assert a.shape == (len(texts), 384 * len(MODES))
    close(a, b)
    assert rust.info()["truncated_texts"] == twin.info()["truncated_texts"] == 2
    assert rust.info()["backend"] == "rust"
    assert twin.info()["backend"] == "torch"


@pytest.mark.parametrize("skip", [0, 2, 9, 50])
def test_both_engines_leave_out_the_same_tokens(tmp_path: Path, skip: int) -> None:
    """Also where nothing is left of a text."""
    from bertfast import _bertfast
    from bertfast.models.backend import TorchEngine

    make_bert_folder(tmp_path, layer_norm_eps=1e-3, initializer_range=0.05)
    arguments = (tmp_path / "config.json").read_text(), [str(tmp_path / "model.safetensors")]
    cu_seqlens = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    ids = np.random.default_rng(0).integers(0, TINY["vocab_size"], cu_seqlens[-1], dtype=np.int32)
    results = []
    for engine in (_bertfast.Encoder.load(*arguments), TorchEngine(*arguments)):
        out = np.full((len(LENGTHS), len(MODES) * TINY["hidden_size"]), np.nan, np.float32)
        engine.pool(ids, cu_seqlens, None, MODES, skip, False, out, None)
        results.append(out)
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=4 * FLOOR)


def test_info_has_the_same_keys(both: tuple[bertfast.Encoder, bertfast.Encoder]) -> None:
    rust, twin = (encoder.info() for encoder in both)
    assert {"dtype", "num_threads", "unused", "packed_bytes", "hidden_size"} <= rust.keys() & twin.keys()
    for key in rust.keys() & twin.keys() - {"backend", "num_threads", "packed_bytes"}:
        assert rust[key] == twin[key], key


def test_no_such_device(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path)
    for device in ("cuda:77", "nonsense"):
        with pytest.raises(ArgumentError, match="device"):
            bertfast.Encoder.from_pretrained(folder, device=device)
    with pytest.raises(ArgumentError, match="device"):
        bertfast.Encoder.from_pretrained(folder, device="cuda", backend="rust")
