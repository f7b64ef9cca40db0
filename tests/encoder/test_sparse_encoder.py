"""`SparseEncoder` beside that of sentence-transformers, on random models."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sentence_transformers
import torch
from safetensors.numpy import save_file

import bertfast
from bert_folder import TINY, bert_tensors
from bertfast import sparse_embeddings, sparse_encoder
from bertfast.errors import ArgumentError, CheckpointError, ConfigError, ShapeError
from bertfast.quantize import quantize
from bertfast.sparse_embeddings import SparseEmbeddings
from bertfast.sparse_encoder import SparseEncoder
from sentence_folder import TEXTS, make_sentence_folder, write_json, write_modules

pytestmark = pytest.mark.filterwarnings("ignore:.*are longer than", "ignore:Sparse invariant checks")

Make = Callable[..., Path]


def make_splade(folder: Path, pooling: dict[str, Any] | None = None) -> Path:
    """A random masked language model with a vocabulary of letters; with `pooling`, as versions 5 saved it."""
    make_sentence_folder(folder, modules=False, architectures=["BertForMaskedLM"])
    tensors = {f"bert.{key}": value for key, value in bert_tensors(TINY, pooler=False).items()}
    random = np.random.default_rng(0)
    head = "cls.predictions.transform"
    tensors[f"{head}.dense.weight"] = random.normal(0, 0.3, (32, 32)).astype(np.float32)
    tensors[f"{head}.dense.bias"] = random.normal(0, 0.3, 32).astype(np.float32)
    tensors[f"{head}.LayerNorm.weight"] = random.normal(3, 1, 32).astype(np.float32)
    tensors[f"{head}.LayerNorm.bias"] = random.normal(0, 1, 32).astype(np.float32)
    # Most of the vocabulary is of no importance to most texts, as in a trained model.
    tensors["cls.predictions.bias"] = random.normal(-2, 1, 97).astype(np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if pooling is not None:
        write_modules(
            folder,
            "sentence_transformers.sparse_encoder.models.MLMTransformer",
            "sentence_transformers.sparse_encoder.models.SpladePooling",
        )
        modules = json.loads((folder / "modules.json").read_text())
        write_json(folder / modules[1]["path"] / "config.json", pooling)
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
        write_json(
            folder / "config_sentence_transformers.json",
            {"model_type": "SparseEncoder", "prompts": {"query": "q: ", "document": ""}},
        )
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda name="folder", *pooling: make_splade(tmp_path / name, *pooling)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder; leave it as it is."""
    return make_splade(tmp_path_factory.mktemp("plain") / "folder")


@pytest.fixture(scope="module")
def both(plain: Path) -> tuple[SparseEncoder, sentence_transformers.SparseEncoder]:
    return SparseEncoder.from_pretrained(plain), theirs(plain)


def theirs(folder: Path) -> sentence_transformers.SparseEncoder:
    return sentence_transformers.SparseEncoder(str(folder), device="cpu")


def assert_close(ours: SparseEmbeddings, expected: torch.Tensor) -> None:
    assert ours.shape == tuple(expected.shape)
    dense = expected.to_dense().numpy()
    np.testing.assert_allclose(ours.toarray(), dense, rtol=0, atol=2e-5)
    assert 0.05 < np.count_nonzero(dense) / dense.size < 0.9


# ------------------------------------------------------------------------------ beside sentence-transformers


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 1}, {"prompt": "q: "}, {"max_active_dims": 5}, {"max_active_dims": 1000}],
    ids=str,
)
def test_vectors_are_those_of_sentence_transformers(both: tuple[Any, Any], options: dict[str, Any]) -> None:
    ours, reference = both
    assert_close(ours.encode(TEXTS, **options), reference.encode(TEXTS, **options))
    assert_close(ours.encode(TEXTS[0], **options), reference.encode(TEXTS[0], **options))


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": 97},
        {"pooling_strategy": "sum", "activation_function": "relu", "embedding_dimension": None},
        {"pooling_strategy": "max", "activation_function": "log1p_relu"},
        {},
    ],
    ids=["max", "sum", "twice", "defaults"],
)
def test_folders_of_older_versions(make: Make, pooling: dict[str, Any]) -> None:
    folder = make("older", pooling)
    ours, reference = SparseEncoder.from_pretrained(folder), theirs(folder)
    assert ours.max_seq_length == reference.max_seq_length == 48
    assert_close(ours.encode(TEXTS), reference.encode(TEXTS))
    assert_close(ours.encode_query(TEXTS), reference.encode_query(TEXTS))
    assert_close(ours.encode_document(TEXTS[0]), reference.encode_document(TEXTS[0]))
    assert not np.allclose(ours.encode(TEXTS).toarray(), ours.encode_query(TEXTS).toarray(), atol=1e-3)


def test_a_folder_that_sentence_transformers_saved(plain: Path, tmp_path: Path) -> None:
    saved = sentence_transformers.SparseEncoder(
        str(plain), device="cpu", max_active_dims=7, similarity_fn_name="cosine", prompts={"p": "x"}
    )
    saved.max_seq_length = 20
    saved.save(str(tmp_path / "saved"))
    ours = SparseEncoder.from_pretrained(tmp_path / "saved")
    assert (ours.max_active_dims, ours.similarity_fn_name, ours.prompts["p"]) == (7, "cosine", "x")
    assert ours.max_seq_length == 20
    assert_close(ours.encode(TEXTS), saved.encode(TEXTS))
    quantize(tmp_path / "saved", tmp_path / "int8", texts=TEXTS, mean_cosine=0, min_cosine=0)
    packed = SparseEncoder.from_pretrained(tmp_path / "int8")
    assert packed.encoder.info()["dtype"] == "int8"
    assert packed.max_active_dims == 7
    assert_close(ours.encode(TEXTS, prompt_name="p"), saved.encode(TEXTS, prompt_name="p"))
    assert np.diff(ours.encode(TEXTS, max_active_dims=3).indptr).tolist() == [3] * len(TEXTS)
    ours.max_active_dims = None
    assert np.diff(ours.encode(TEXTS).indptr).min() > 7


@pytest.mark.parametrize("name", ["dot", "cosine", "euclidean", "manhattan"])
def test_similarities(both: tuple[Any, Any], plain: Path, name: str) -> None:
    ours = SparseEncoder.from_pretrained(plain)
    assert ours.similarity_fn_name == "dot"
    ours.similarity_fn_name = name
    first, second = ours.encode(TEXTS), ours.encode(TEXTS[:2])
    reference = both[1]
    before, reference.similarity_fn_name = reference.similarity_fn_name, name
    expected = reference.similarity(first.to_torch(), second.to_torch())
    reference.similarity_fn_name = before
    # Their Euclidean distances are roots of differences of squares: that of equal vectors is 1e-3.
    close = {"rtol": 1e-5, "atol": 2e-3 if name == "euclidean" else 2e-5}
    np.testing.assert_allclose(ours.similarity(first, second), expected, **close)
    np.testing.assert_allclose(
        ours.similarity(first.to_torch(), second[0].toarray()), expected[:, :1], **close
    )


def test_decoding(both: tuple[Any, Any]) -> None:
    ours, reference = both
    vectors = ours.encode(TEXTS)
    for top_k in (None, 1, 4, 500):
        expected = reference.decode(vectors.to_torch(), top_k=top_k)
        assert ours.decode(vectors, top_k=top_k) == expected
        assert ours.decode(vectors[2], top_k=top_k) == expected[2]
        assert ours.decode(vectors.to_torch(), top_k) == ours.decode(vectors.toarray(), top_k) == expected
        assert ours.decode(vectors.to_scipy(), top_k) == expected
    token, value = ours.decode(vectors[0])[0]
    assert (type(token), type(value)) == (str, float)
    assert ours.decode(np.zeros((2, 97))) == [[], []]
    assert ours.decode(np.zeros(97)) == []
    ties = np.zeros(97, np.float32)
    ties[[9, 7, 30, 8]] = 1, 1, 2, 1
    assert [token for token, _ in ours.decode(ties, top_k=3)] == ours.tokenizer.convert_ids_to_tokens(
        [30, 7, 8]
    )


# ------------------------------------------------------------------------------------------- results


def test_kinds_of_results(both: tuple[Any, Any]) -> None:
    model = both[0]
    vectors = model.encode(TEXTS)
    dense = vectors.toarray()
    assert (vectors.indices.dtype, vectors.values.dtype, vectors.indptr.dtype) == (
        np.int32,
        np.float32,
        np.int64,
    )
    assert (vectors.shape, len(vectors), vectors.nnz) == ((6, 97), 6, np.count_nonzero(dense))
    assert model.get_embedding_dimension() == 97
    assert scipy.sparse.issparse(vectors.to_scipy())
    assert (vectors.to_scipy().toarray() == dense).all()
    tensor = vectors.to_torch()
    assert tensor.is_sparse
    assert tensor.is_coalesced()
    assert (tensor.to_dense().numpy() == dense).all()
    one = model.encode(TEXTS[2])
    assert one.shape == (97,)
    assert (one.toarray() == dense[2]).all()
    assert (one.to_torch().to_dense().numpy() == dense[2]).all()
    assert (one.to_scipy().toarray() == dense[2:3]).all()
    nothing = model.encode([])
    assert (nothing.shape, nothing.nnz, nothing.indptr.tolist()) == ((0, 97), 0, [0])
    assert nothing.toarray().shape == (0, 97)
    assert model.similarity(nothing, vectors).shape == (0, 6)


def test_a_text_has_the_same_bits_in_any_company(
    both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = both[0]
    expected = model.encode(TEXTS).toarray()
    for options in ({"batch_size": 1}, {"batch_tokens": 40}, {"num_threads": 1}, {"batch_size": 4}):
        assert (model.encode(TEXTS, **options).toarray() == expected).all()
    with ThreadPoolExecutor(4) as threads:
        assert all(
            (one.toarray() == row).all()
            for one, row in zip(threads.map(model.encode, TEXTS), expected, strict=True)
        )
    calls: list[int] = []
    plan = sparse_encoder.steps.plan
    monkeypatch.setattr(
        sparse_encoder.steps, "plan", lambda texts, job: calls.append(job.batch_size) or plan(texts, job)
    )
    # Dense vectors are made of as many texts as fit.
    monkeypatch.setattr(sparse_encoder, "_DENSE_BYTES", 97 * 4 * 2)
    assert (model.encode(TEXTS, batch_size=1000).toarray() == expected).all()
    monkeypatch.setattr(sparse_encoder, "_DENSE_BYTES", 1)
    assert (model.encode(TEXTS, batch_size=1000).toarray() == expected).all()
    assert calls == [2, 1]


def test_texts_that_are_cut_off_are_counted(plain: Path) -> None:
    model = SparseEncoder.from_pretrained(plain)
    model.max_seq_length = 16
    assert repr(model) == "SparseEncoder(dimension=97, max_seq_length=16)"
    with pytest.warns(UserWarning, match="2 of 6 texts are longer than 16 tokens"):
        model.encode(TEXTS)


def test_an_encoder_with_the_head(plain: Path, both: tuple[Any, Any]) -> None:
    encoder = bertfast.Encoder.from_pretrained(plain, head="masked-lm")
    assert (SparseEncoder(encoder).encode(TEXTS).toarray() == both[0].encode(TEXTS).toarray()).all()
    with pytest.raises(ArgumentError, match="encoder: expected one with head='masked-lm'"):
        SparseEncoder(bertfast.Encoder.from_pretrained(plain))


# -------------------------------------------------------------------------------- the arrays alone


def random_vectors(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    dense = random.normal(size=(rows, columns)).astype(np.float32)
    dense[random.random(dense.shape) < 0.7] = 0
    dense[rows // 2] = 0
    return dense


def test_rows_of_a_collection() -> None:
    dense = random_vectors(7, 20)
    vectors = SparseEmbeddings.from_dense(dense)
    for index in (0, 3, 6, -1, -7, np.int64(2)):
        assert vectors[index].shape == (20,)
        assert (vectors[index].toarray() == dense[index]).all()
    for some in (slice(2, 5), slice(None), slice(-2, None), slice(5, 2), slice(0, 99)):
        assert vectors[some].shape == dense[some].shape
        assert (vectors[some].toarray() == dense[some]).all()
    assert [row.nnz for row in vectors] == np.count_nonzero(dense, axis=1).tolist()
    for index in (7, -8):
        with pytest.raises(IndexError, match="index: expected -7 to 6"):
            vectors[index]
    with pytest.raises(IndexError, match="this is one vector"):
        vectors[0][0]
    with pytest.raises(ArgumentError, match="index: expected a slice without a step"):
        vectors[::2]


def test_the_greatest_values() -> None:
    dense = np.abs(random_vectors(9, 30)).round(1)
    vectors = SparseEmbeddings.from_dense(dense)
    for most in (1, 3, 100):
        expected = np.zeros_like(dense)
        for row, kept in zip(dense, expected, strict=True):
            for column in np.argsort(-row, kind="stable")[:most]:
                kept[column] = row[column]
        found = vectors.top(most)
        assert (found.toarray() == expected).all()
        assert (np.diff(found.indices)[np.diff(found._rows()) == 0] > 0).all()
    assert vectors[4].top(2).nnz == 0


@pytest.mark.parametrize("block", [1, 300, 1 << 26])
def test_products(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(sparse_embeddings, "_BLOCK_BYTES", block)
    first, second = random_vectors(11, 40), random_vectors(6, 40, seed=1)
    a, b = SparseEmbeddings.from_dense(first), SparseEmbeddings.from_dense(second)
    np.testing.assert_allclose(a.dot(b), first @ second.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a[3].dot(b), first[3:4] @ second.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a.norms(), np.linalg.norm(first, axis=1), rtol=1e-6)
    assert (a.dot(b[3]) == 0).all()  # nothing in it
    with pytest.raises(ShapeError, match="embeddings2: expected 40 dimensions, got 39"):
        a.dot(SparseEmbeddings.from_dense(second[:, 1:]))


# -------------------------------------------------------------------------------------------- errors


def test_arguments_that_are_not_allowed(both: tuple[Any, Any]) -> None:
    model = both[0]
    for options in (
        {"batch_size": 0},
        {"max_active_dims": 0},
        {"max_active_dims": 1.5},
        {"num_threads": -1},
        {"prompt_name": "nonsense"},
    ):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            model.encode(TEXTS, **options)
    with pytest.raises(TypeError, match=r"sentences\[1\]: expected str, got int"):
        model.encode(["a", 1])
    with pytest.raises(ArgumentError, match=r"sentences\[1\]: .* a lone surrogate at character 0"):
        model.encode(["a", "\ud800"], batch_size=1)
    with pytest.raises(ArgumentError, match="top_k: expected a positive integer"):
        model.decode(model.encode("a"), top_k=0)
    with pytest.raises(ShapeError, match="embeddings: expected 97 dimensions, got 96"):
        model.decode(np.ones(96))
    with pytest.raises(ShapeError, match=r"embeddings: expected shape \(n, V\) or \(V,\), got \(1, 1, 97\)"):
        model.decode(np.ones((1, 1, 97)))


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_strategy": "mean"}, "pooling_strategy: expected 'max' or 'sum', got 'mean'"),
        ({"activation_function": "gelu"}, "activation_function: expected 'relu' or 'log1p_relu', got 'gelu'"),
        (
            {"pooling_strategy": "sum", "activation_function": "log1p_relu"},
            "activation_function: 'log1p_relu' is supported with 'max' only",
        ),
        ({"embedding_dimension": "many"}, "embedding_dimension: expected a positive integer"),
        ({"embedding_dimension": 96}, "embedding_dimension: expected 97, the size of the vocabulary, got 96"),
    ],
)
def test_poolings_that_are_refused(make: Make, pooling: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SparseEncoder.from_pretrained(make("refused", pooling))


def test_folders_that_are_none(make: Make, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cls\.predictions"):
        SparseEncoder.from_pretrained(make_sentence_folder(tmp_path / "bare", modules=False))
    with pytest.raises(ConfigError, match=r"modules\.json: the module .*Pooling"):
        SparseEncoder.from_pretrained(make_sentence_folder(tmp_path / "sentence"))
    for number, kinds in enumerate([["MLMTransformer"], ["SpladePooling"], ["SpladePooling"] * 2]):
        folder = make(f"kinds {number}", {})
        write_modules(folder, *(f"sentence_transformers.sparse_encoder.models.{kind}" for kind in kinds))
        with pytest.raises(ConfigError, match=r"expected a Transformer \(or MLMTransformer\) and a Splade"):
            SparseEncoder.from_pretrained(folder)
    folder = make("router", {})
    write_modules(folder, "sentence_transformers.base.modules.router.Router")
    with pytest.raises(ConfigError, match=r"Router' is not supported"):
        SparseEncoder.from_pretrained(folder)
    folder = make("dense", {})
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SentenceTransformer"})
    with pytest.raises(ConfigError, match="model_type: expected 'SparseEncoder', got 'SentenceTransformer'"):
        SparseEncoder.from_pretrained(folder)
    settings = {"model_type": "SparseEncoder", "max_active_dims": 0}
    write_json(folder / "config_sentence_transformers.json", settings)
    with pytest.raises(ConfigError, match="max_active_dims: expected a positive integer, got 0"):
        SparseEncoder.from_pretrained(folder)
