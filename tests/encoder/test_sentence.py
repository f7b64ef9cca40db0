"""Folders of sentence-transformers: every module applied as it is there, or refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import bertfast
from bertfast.errors import ArgumentError, CheckpointError, ConfigError
from bertfast.sentence import LowerCase, read_sentence_folder
from sentence_folder import TEXTS, make_sentence_folder, write_json, write_modules

MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
OLD_KEYS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}

Open = Callable[..., bertfast.Encoder]


def agree(encoder: bertfast.Encoder, folder: Path, texts: list[str] = TEXTS, **kwargs: Any) -> None:
    """The vectors are those of sentence-transformers for the same folder."""
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts, **kwargs)
    ours = encoder.encode(texts, **kwargs)
    assert ours.shape == theirs.shape
    if "truncate_dim" not in kwargs:
        assert encoder.get_embedding_dimension() == ours.shape[1]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * max(1, np.abs(theirs).max()))


def old_folder(path: Path, pooling: dict[str, Any], *modules: str) -> Path:
    folder = make_sentence_folder(path, pooling=pooling)
    write_modules(folder, "Transformer", "Pooling", *modules)
    return folder


# -------------------------------------------------------------------------------------------------- pooling


@pytest.mark.filterwarnings("ignore:.*are longer than")
@pytest.mark.parametrize("mode", MODES)
def test_pooling_of_older_versions(opened: Open, tmp_path: Path, mode: str) -> None:
    folder = old_folder(tmp_path, {"word_embedding_dimension": 32, OLD_KEYS[mode]: True})
    assert read_sentence_folder(folder).pooling.modes == (mode,)
    agree(opened(folder), folder)


@pytest.mark.filterwarnings("ignore:.*are longer than")
@pytest.mark.parametrize("modes", [*MODES, ["mean", "cls"], ("max", "lasttoken", "weightedmean"), MODES])
def test_folders_that_version_6_saves(opened: Open, tiny: Path, tmp_path: Path, modes: Any) -> None:
    model = SentenceTransformer(
        modules=[Transformer(str(tiny)), Pooling(32, pooling_mode=modes), Normalize()], device="cpu"
    )
    model.save(str(tmp_path))
    agree(opened(tmp_path), tmp_path)


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_older_concatenation_has_its_own_order(opened: Open, tmp_path: Path) -> None:
    keys = ["lasttoken", "mean", "cls", "max"]
    folder = old_folder(tmp_path, {OLD_KEYS[mode]: True for mode in keys} | {OLD_KEYS["weightedmean"]: False})
    assert read_sentence_folder(folder).pooling.modes == ("cls", "max", "mean", "lasttoken")
    agree(opened(folder), folder)


def test_no_mode_means_mean(tmp_path: Path) -> None:
    folder = old_folder(tmp_path, {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False})
    assert read_sentence_folder(folder).pooling.modes == ("mean",)


@pytest.mark.parametrize("mode", MODES)
def test_pooling_can_be_chosen(encoder: bertfast.Encoder, tiny: Path, mode: str) -> None:
    theirs = SentenceTransformer(
        modules=[Transformer(str(tiny)), Pooling(32, mode), Normalize()], device="cpu"
    )
    texts = TEXTS[:4]
    np.testing.assert_allclose(encoder.encode(texts, pooling=mode), theirs.encode(texts), rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore:.*are longer than")
@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("prompt", ["query: ", "", "x"])
def test_prompts_that_do_not_count(opened: Open, tmp_path: Path, mode: str, prompt: str) -> None:
    folder = old_folder(tmp_path, {OLD_KEYS[mode]: True, "include_prompt": False})
    agree(opened(folder), folder, [text for text in TEXTS if text], prompt=prompt)


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_a_plain_folder_means_mean_pooling_without_normalizing(opened: Open, tmp_path: Path) -> None:
    folder = make_sentence_folder(tmp_path, modules=False)
    encoder = opened(folder)
    agree(encoder, folder)
    assert encoder.info()["modules"] == []
    assert not np.allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1, atol=0.01)


# --------------------------------------------------------------------------------------------------- modules


@pytest.mark.filterwarnings("ignore:.*are longer than")
@pytest.mark.parametrize(
    "activation", [torch.nn.Tanh, torch.nn.Identity, torch.nn.ReLU, torch.nn.Sigmoid, torch.nn.SiLU]
)
@pytest.mark.parametrize("kwargs", [{}, {"bias": False}, {"use_residual": True}])
def test_dense(opened: Open, tiny: Path, tmp_path: Path, activation: Any, kwargs: dict[str, Any]) -> None:
    modules = [
        Transformer(str(tiny)),
        Pooling(32, ["cls", "mean"]),
        Dense(64, 64, activation_function=activation(), **kwargs),
        Dense(64, 11, activation_function=activation(), **kwargs),
        Normalize(),
    ]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path))
    agree(opened(tmp_path), tmp_path)
    agree(opened(tmp_path), tmp_path, normalize_embeddings=True, truncate_dim=7)


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_dense_of_older_versions(opened: Open, dense_folder: Path) -> None:
    agree(opened(dense_folder), dense_folder)


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_order_counts(opened: Open, dense_folder: Path) -> None:
    """Normalize before Dense is not Normalize after it."""
    folder = dense_folder
    after = opened(folder).encode(TEXTS)
    write_modules(folder, "Transformer", "Pooling", "Normalize", "Dense")
    (folder / "2_Dense").rename(folder / "3_Dense")
    agree(opened(folder), folder)
    assert not np.allclose(opened(folder).encode(TEXTS), after, atol=0.01)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"activation_function": "os.system"}, ConfigError, "activation_function: expected one of"),
        ({"activation_function": "torch.nn.modules.activation.Softmax"}, ConfigError, "activation_function"),
        ({"in_features": 31}, CheckpointError, "linear.weight: expected shape (5, 31), found (5, 32)"),
        ({"out_features": 0}, ConfigError, "out_features: expected a positive integer, got 0"),
        ({"in_features": None}, ConfigError, "in_features: expected a positive integer, got None"),
        ({"use_residual": True}, CheckpointError, "residual.weight is missing, expected shape (5, 32)"),
        (
            {"module_input_name": "token_embeddings"},
            ConfigError,
            "module_input_name: expected 'sentence_embedding'",
        ),
    ],
)
def test_dense_that_cannot_be_applied(
    dense_folder: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = dense_folder / "2_Dense/config.json"
    base = {"in_features": 32, "out_features": 5, "bias": True}
    write_json(path, base | change)
    with pytest.raises(error, match=re.escape(message)):
        read_sentence_folder(dense_folder)


def test_dense_that_does_not_fit_the_pooling(dense_folder: Path) -> None:
    write_json(dense_folder / "1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]})
    with pytest.raises(ConfigError, match="Dense: in_features is 32, but it is given 64"):
        bertfast.Encoder.from_pretrained(dense_folder)


def test_dense_with_a_pickle_only(dense_folder: Path) -> None:
    before = bertfast.Encoder.from_pretrained(dense_folder).encode("abc")
    from safetensors.torch import load_file

    weights = dense_folder / "2_Dense/model.safetensors"
    torch.save(load_file(weights), dense_folder / "2_Dense/pytorch_model.bin")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"2_Dense: only pytorch_model\.bin") as caught:
        bertfast.Encoder.from_pretrained(dense_folder)
    exec("\n".join(line.strip() for line in str(caught.value).splitlines()[1:]))
    np.testing.assert_array_equal(bertfast.Encoder.from_pretrained(dense_folder).encode("abc"), before)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["Transformer", "Pooling", "CNN"], "the module 'sentence_transformers.models.CNN' is not supported"),
        (
            ["Transformer", "Pooling", "modeling_custom.Dense"],
            "the module 'modeling_custom.Dense' is not supported",
        ),
        (["Transformer", "Pooling", "WeightedLayerPooling"], "WeightedLayerPooling' is not supported"),
        (["Transformer"], "expected a Transformer, a Pooling and what follows it, got Transformer"),
        (["Pooling", "Transformer"], "expected a Transformer, a Pooling"),
        (["Transformer", "Pooling", "Pooling"], "expected a Transformer, a Pooling"),
        ([], "expected a Transformer, a Pooling"),
    ],
)
def test_modules_that_are_refused(tmp_path: Path, modules: list[str], message: str) -> None:
    folder = make_sentence_folder(tmp_path)
    write_modules(folder, *modules)
    with pytest.raises(ConfigError, match=re.escape(message)):
        bertfast.Encoder.from_pretrained(folder)


@pytest.mark.parametrize("path", ["../1_Pooling", "/etc", "a/../../b", "C:\\x", "..\\x", "a\0", None, 3])
def test_modules_lie_inside_the_folder(tmp_path: Path, path: object) -> None:
    folder = make_sentence_folder(tmp_path)
    entries = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": path, "type": "sentence_transformers.models.Pooling"},
    ]
    write_json(folder / "modules.json", entries)
    with pytest.raises(ConfigError, match="path: expected a folder inside"):
        read_sentence_folder(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", {}, "expected a list of modules"),
        ("modules.json", [1], "expected a list of modules"),
        ("modules.json", [{}], "the module None is not supported"),
        ("1_Pooling/config.json", [], "expected a JSON object"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "pooling_mode: expected one or several of cls"),
        ("1_Pooling/config.json", {"pooling_mode": 3}, "pooling_mode: expected names, got 3"),
        ("1_Pooling/config.json", {"pooling_mode": []}, "pooling_mode: expected one or several of cls"),
        ("1_Pooling/config.json", {"pooling_mode_median": True}, "pooling_mode_median: unknown mode"),
        (
            "1_Pooling/config.json",
            {"include_prompt": "no"},
            "include_prompt: expected true or false, got 'no'",
        ),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "module_input_name: expected"),
        (
            "sentence_bert_config.json",
            {"max_seq_length": 0},
            "max_seq_length: expected a positive integer, got 0",
        ),
        (
            "sentence_bert_config.json",
            {"max_seq_length": "9"},
            "max_seq_length: expected a positive integer, got '9'",
        ),
        ("sentence_bert_config.json", {"do_lower_case": 1}, "do_lower_case: expected true or false, got 1"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task: expected"),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"max_length": 3}}},
            "processing_kwargs: not",
        ),
        ("config_sentence_transformers.json", {"prompts": ["q"]}, "prompts: expected an object of texts"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "x"},
            "default_prompt_name: expected one of",
        ),
        (
            "config_sentence_transformers.json",
            {"similarity_fn_name": "maxsim"},
            "similarity_fn_name: expected one of",
        ),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type: expected"),
        (
            "config_sentence_transformers.json",
            {"truncate_dim": -1},
            "truncate_dim: expected a positive integer",
        ),
    ],
)
def test_damaged_settings(tmp_path: Path, file: str, content: Any, message: str) -> None:
    folder = make_sentence_folder(tmp_path)
    write_json(folder / file, content)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read_sentence_folder(folder)
    assert str(folder / file) in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ],
)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_settings_that_are_no_json(tmp_path: Path, file: str, content: bytes) -> None:
    folder = make_sentence_folder(tmp_path)
    (folder / file).write_bytes(content)
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_sentence_folder(folder)


def test_missing_pooling_settings(tmp_path: Path) -> None:
    folder = make_sentence_folder(tmp_path)
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(FileNotFoundError, match="1_Pooling"):
        read_sentence_folder(folder)


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_the_transformer_in_a_folder_of_its_own(opened: Open, tmp_path: Path) -> None:
    """As the first versions saved it."""
    folder = make_sentence_folder(tmp_path / "model")
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        (folder / name).rename(inner / name)
    write_json(inner / "sentence_bert_config.json", {"max_seq_length": 20})
    entries = json.loads((folder / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    write_json(folder / "modules.json", entries)
    encoder = opened(folder)
    assert encoder.max_seq_length == 20
    agree(encoder, folder)


# -------------------------------------------------------------------------------------------------- settings


@pytest.mark.filterwarnings("ignore:.*longer than")
@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_distilbert_config.json"])
def test_max_seq_length(opened: Open, tmp_path: Path, name: str) -> None:
    folder = make_sentence_folder(tmp_path)
    write_json(folder / name, {"max_seq_length": 9, "do_lower_case": False})
    encoder = opened(folder)
    assert encoder.max_seq_length == encoder.get_max_seq_length() == 9
    agree(encoder, folder)
    encoder.max_seq_length = 5
    theirs = SentenceTransformer(str(folder), device="cpu")
    theirs.max_seq_length = 5
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs.encode(TEXTS), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("tokenizer", "sentence", "length"),
    [
        ({}, {}, 64),
        ({"model_max_length": 12}, {}, 12),
        ({"model_max_length": 12}, {"max_seq_length": 20}, 20),
        ({"model_max_length": 512}, {}, 64),
        ({}, {"max_seq_length": 512}, 64),
        ({"model_max_length": int(1e30)}, {}, 64),
    ],
)
def test_where_the_length_comes_from(
    tmp_path: Path, tokenizer: dict[str, Any], sentence: dict[str, Any], length: int
) -> None:
    folder = make_sentence_folder(tmp_path)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True} | tokenizer)
    if sentence:
        write_json(folder / "sentence_bert_config.json", sentence)
    assert bertfast.Encoder.from_pretrained(folder).max_seq_length == length


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_do_lower_case_comes_on_top_of_the_tokenizer(opened: Open, tmp_path: Path) -> None:
    """With a tokenizer that keeps case and accents; special tokens in a text stay special."""
    folder = make_sentence_folder(tmp_path)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    texts = ["ABC", "a[MASK]B [SEP] C", "\u039f\u03a3 \u0130X", "Jumps OVER"]
    cased = opened(folder).encode(texts)
    write_json(folder / "sentence_bert_config.json", {"do_lower_case": True})
    encoder = opened(folder)
    agree(encoder, folder, texts)
    agree(encoder, folder, texts, prompt="QUERY ")
    assert not np.allclose(encoder.encode(texts), cased, atol=0.01)
    tokens = encoder.encode("ABC", output_value=None)["input_ids"]
    assert tokens.tolist() == encoder.tokenizer("abc")["input_ids"]


def test_lower_case_is_character_wise() -> None:
    from tokenizers.normalizers import Lowercase

    ours, theirs = LowerCase(["[MASK]"]), Lowercase()
    for text in ("", "ABC", "\u039f\u03a3", "A\u03a3", "\u03a3", "\u0130stanbul", "\u1e9e", "\U00010400"):
        assert ours(text) == theirs.normalize_str(text)
    assert ours("A [MASK] B[mask]") == "a [MASK] b[mask]"


PROMPTS = {"query": "find: ", "passage": "text: ", "other": "o"}


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_prompts(opened: Open, tmp_path: Path) -> None:
    folder = make_sentence_folder(tmp_path)
    write_json(
        folder / "config_sentence_transformers.json", {"prompts": PROMPTS, "default_prompt_name": "other"}
    )
    encoder, theirs = opened(folder), SentenceTransformer(str(folder), device="cpu")
    assert encoder.prompts == theirs.prompts
    assert encoder.default_prompt_name == "other"

    def check(method: str, **kwargs: Any) -> np.ndarray:
        ours = getattr(encoder, method)(TEXTS, **kwargs)
        np.testing.assert_allclose(ours, getattr(theirs, method)(TEXTS, **kwargs), rtol=0, atol=2e-5)
        return ours

    results = [
        check("encode"),
        check("encode", prompt_name="query"),
        check("encode", prompt="mine "),
        check("encode", prompt=""),
        check("encode", prompt="mine ", prompt_name="query"),
        check("encode_query"),
        check("encode_document"),
        check("encode_document", prompt_name="passage"),
        check("encode_query", prompt="mine "),
    ]
    assert np.array_equal(results[1], results[5])  # encode_query takes "query"
    assert np.array_equal(results[3], results[6])  # encode_document takes "document", which is empty
    assert len({vectors.tobytes() for vectors in results}) == 5
    with pytest.raises(ArgumentError, match="prompt_name: expected one of query, document, passage, other"):
        encoder.encode("a", prompt_name="answer")


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity(encoder: bertfast.Encoder, tiny: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": name})
    theirs = SentenceTransformer(str(folder), device="cpu")
    encoder = bertfast.Encoder.from_pretrained(folder)
    assert encoder.similarity_fn_name == theirs.similarity_fn_name == name
    random = np.random.default_rng(0)
    a, b = random.normal(size=(4, 8)).astype(np.float32), random.normal(size=(6, 8)).astype(np.float32)
    a[1] = 0
    for x, y in ((a, b), (a[0], b), (a, b[0]), (list(a), list(b)), (a, a)):
        got = encoder.similarity(x, y)
        assert isinstance(got, np.ndarray)
        np.testing.assert_allclose(got, theirs.similarity(x, y), rtol=0, atol=2e-3 if x is y else 1e-5)
    np.testing.assert_allclose(
        encoder.similarity_pairwise(a, b[:4]), theirs.similarity_pairwise(a, b[:4]), rtol=0, atol=1e-5
    )
    tensors = encoder.similarity(torch.from_numpy(a), torch.from_numpy(b))
    assert isinstance(tensors, torch.Tensor)
    np.testing.assert_array_equal(tensors, encoder.similarity(a, b))
    assert encoder.similarity(a[:0], b).shape == (0, 6) or encoder.similarity(a[:0], b).size == 0
    assert encoder.similarity(a, b[:0]).shape == (4, 0)


def test_truncate_dim_of_the_folder(opened: Open, tmp_path: Path) -> None:
    folder = make_sentence_folder(tmp_path)
    write_json(folder / "config_sentence_transformers.json", {"truncate_dim": 7})
    encoder = opened(folder)
    agree(encoder, folder, TEXTS[:4])
    assert encoder.get_embedding_dimension() == encoder.get_sentence_embedding_dimension() == 7
    assert encoder.encode(TEXTS[:4], truncate_dim=20).shape == (4, 20)
