"""Bad input to an encoder: an error of the right class that says what was wrong, or a documented result."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import bertfast
from bert_folder import TINY, make_bert_folder
from bertfast import _bertfast
from bertfast.errors import ArgumentError, ConfigError, DtypeError, ShapeError, TokenIdError, TokenizerError

IDS = np.arange(14).reshape(2, 7) + 5
ONES = np.ones((2, 7), int)
V, P = TINY["vocab_size"], TINY["max_position_embeddings"]


def changed(row: int, column: int, value: int) -> np.ndarray:
    ids = IDS.copy()
    ids[row, column] = value
    return ids


CALLS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (
        "mask of another length",
        {"attention_mask": np.ones((2, 8), int)},
        ShapeError,
        "attention_mask: expected shape (2, 7) like input_ids, got (2, 8)",
    ),
    (
        "mask of another rank",
        {"attention_mask": np.ones((2, 1, 1, 7), int)},
        ShapeError,
        "attention_mask: expected shape (2, 7) like input_ids, got (2, 1, 1, 7)",
    ),
    (
        "types of another shape",
        {"token_type_ids": np.zeros((1, 7), int)},
        ShapeError,
        "token_type_ids: expected shape (2, 7) like input_ids, got (1, 7)",
    ),
    (
        "positions of another shape",
        {"position_ids": np.zeros((7,), int)},
        ShapeError,
        "position_ids: expected shape (2, 7) like input_ids, got (7,)",
    ),
    ("one row", {"input_ids": IDS[0]}, ShapeError, "input_ids: expected shape (B, S), got (7,)"),
    (
        "three dimensions",
        {"input_ids": IDS[None]},
        ShapeError,
        "input_ids: expected shape (B, S), got (1, 2, 7)",
    ),
    ("a number", {"input_ids": 3}, ShapeError, "input_ids: expected shape (B, S), got ()"),
    ("rows of two lengths", {"input_ids": [[1, 2], [3]]}, ShapeError, "input_ids: expected shape (B, S): "),
    (
        "no columns",
        {"input_ids": np.zeros((2, 0), int)},
        ShapeError,
        "input_ids: expected at least one column, got (2, 0)",
    ),
    (
        "too long",
        {"input_ids": np.ones((1, P + 1), int)},
        ShapeError,
        f"input_ids: expected at most {P} columns (the model's positions), got (1, {P + 1})",
    ),
    (
        "float ids",
        {"input_ids": IDS.astype(np.float32)},
        DtypeError,
        "input_ids: expected integers, got float32",
    ),
    (
        "float tensor",
        {"input_ids": torch.ones(2, 7)},
        DtypeError,
        "input_ids: expected integers, got torch.float32",
    ),
    (
        "bfloat16 tensor",
        {"input_ids": torch.ones(2, 7, dtype=torch.bfloat16)},
        DtypeError,
        "input_ids: expected integers, got torch.bfloat16",
    ),
    ("boolean ids", {"input_ids": IDS > 0}, DtypeError, "input_ids: expected integers, got bool"),
    ("texts as ids", {"input_ids": [["a", "b"]]}, DtypeError, "input_ids: expected integers, got <U1"),
    ("objects as ids", {"input_ids": [[None, 1]]}, DtypeError, "input_ids: expected integers, got object"),
    (
        "float mask",
        {"attention_mask": ONES.astype(float)},
        DtypeError,
        "attention_mask: expected integers, got float64",
    ),
    (
        "float types",
        {"token_type_ids": ONES.astype(float)},
        DtypeError,
        "token_type_ids: expected integers, got float64",
    ),
    (
        "id too big",
        {"input_ids": changed(1, 2, V)},
        TokenIdError,
        f"input_ids[1, 2]: expected 0 to {V - 1}, got {V}",
    ),
    (
        "id that int32 would wrap",
        {"input_ids": changed(0, 0, 2**32 + 1)},
        TokenIdError,
        f"input_ids[0, 0]: expected 0 to {V - 1}, got 4294967297",
    ),
    (
        "unsigned id over int64",
        {"input_ids": np.full((2, 7), 2**64 - 1, np.uint64)},
        TokenIdError,
        f"input_ids[0, 0]: expected 0 to {V - 1}, got 18446744073709551615",
    ),
    (
        "negative id",
        {"input_ids": changed(0, 6, -1)},
        TokenIdError,
        f"input_ids[0, 6]: expected 0 to {V - 1}, got -1",
    ),
    (
        "type too big",
        {"token_type_ids": ONES * 2},
        TokenIdError,
        "token_type_ids[0, 0]: expected 0 to 1, got 2",
    ),
    (
        "position too big",
        {"position_ids": ONES * P},
        TokenIdError,
        f"position_ids[0, 0]: expected 0 to {P - 1}, got {P}",
    ),
    (
        "row of padding",
        {"attention_mask": np.array([[1] * 7, [0] * 7])},
        ArgumentError,
        "attention_mask: row 1 masks every token",
    ),
    (
        "no threads",
        {"num_threads": 0},
        ArgumentError,
        "num_threads: expected a positive integer or None, got 0",
    ),
    (
        "fewer threads",
        {"num_threads": -1},
        ArgumentError,
        "num_threads: expected a positive integer or None, got -1",
    ),
    (
        "a truth as threads",
        {"num_threads": True},
        ArgumentError,
        "num_threads: expected a positive integer or None",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_call(
    encoder: bertfast.Encoder, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        encoder(**{"input_ids": IDS} | change)


def test_errors_are_the_builtin_ones_too() -> None:
    assert issubclass(ShapeError, ValueError)
    assert issubclass(DtypeError, TypeError)
    assert issubclass(TokenIdError, IndexError)
    assert issubclass(ArgumentError, ValueError)


def test_what_is_masked_may_be_anything(encoder: bertfast.Encoder) -> None:
    mask = ONES.copy()
    mask[1, 3:] = 0
    output = encoder(
        np.where(mask, IDS, -100), mask, np.where(mask, 0, 99), np.where(mask, np.arange(7), 10**6)
    )
    np.testing.assert_array_equal(output.last_hidden_state, encoder(IDS, mask).last_hidden_state)


FLAT = np.arange(9) + 5
RAGGED: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (
        "does not start with 0",
        {"cu_seqlens": [1, 9]},
        ShapeError,
        "cu_seqlens: expected 0 to 9, the tokens of input_ids, got 1 to 9",
    ),
    (
        "does not end with T",
        {"cu_seqlens": [0, 4, 8]},
        ShapeError,
        "cu_seqlens: expected 0 to 9, the tokens of input_ids, got 0 to 8",
    ),
    ("beyond the end", {"cu_seqlens": [0, 2**40]}, ShapeError, "cu_seqlens: expected 0 to 9"),
    ("nothing", {"cu_seqlens": np.zeros(0, int)}, ShapeError, "cu_seqlens: expected 0 to 9"),
    (
        "an empty sequence",
        {"cu_seqlens": [0, 4, 4, 9]},
        ShapeError,
        "cu_seqlens: expected strictly increasing, got 4, 4 at 1",
    ),
    (
        "decreasing",
        {"cu_seqlens": [0, 7, 4, 9]},
        ShapeError,
        "cu_seqlens: expected strictly increasing, got 7, 4 at 1",
    ),
    ("of floats", {"cu_seqlens": [0.0, 9.0]}, DtypeError, "cu_seqlens: expected integers, got float64"),
    (
        "too long",
        {"input_ids": np.ones(P + 1, int), "cu_seqlens": [0, P + 1]},
        ShapeError,
        f"cu_seqlens: expected at most {P} tokens in a sequence, got {P + 1} at 0",
    ),
    ("padded ids", {"input_ids": FLAT[None]}, ShapeError, "input_ids: expected shape (T,), got (1, 9)"),
    ("float ids", {"input_ids": FLAT * 1.0}, DtypeError, "input_ids: expected integers, got float64"),
    (
        "id too big",
        {"input_ids": FLAT + V},
        TokenIdError,
        f"input_ids[0]: expected 0 to {V - 1}, got {V + 5}",
    ),
    (
        "types of another length",
        {"token_type_ids": FLAT[:8]},
        ShapeError,
        "token_type_ids: expected shape (9,) like input_ids, got (8,)",
    ),
    ("type too big", {"token_type_ids": FLAT}, TokenIdError, "token_type_ids[0]: expected 0 to 1, got 5"),
    ("position too big", {"position_ids": FLAT + P}, TokenIdError, f"position_ids[0]: expected 0 to {P - 1}"),
    (
        "no threads",
        {"num_threads": 0},
        ArgumentError,
        "num_threads: expected a positive integer or None, got 0",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), [c[1:] for c in RAGGED], ids=[c[0] for c in RAGGED])
def test_ragged(
    encoder: bertfast.Encoder, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        encoder.forward_ragged(**{"input_ids": FLAT, "cu_seqlens": [0, 4, 9]} | change)


TEXTS: list[tuple[str, Any, type[Exception], str]] = [
    ("bytes", b"text", TypeError, "sentences: expected str or a sequence of str, got bytes"),
    ("bytes in a list", ["a", b"text"], TypeError, "sentences[1]: expected str, got bytes"),
    ("None", None, TypeError, "sentences: expected str or a sequence of str, got NoneType"),
    ("None in a list", ["a", None], TypeError, "sentences[1]: expected str, got NoneType"),
    ("a number", 3, TypeError, "sentences: expected str or a sequence of str, got int"),
    ("a list of lists", [["a"]], TypeError, "sentences[0]: expected str, got list"),
    ("a dict", {"a": "b"}, TypeError, "sentences: expected str or a sequence of str, got dict"),
    ("numbers in an array", np.arange(3), TypeError, "sentences[0]: expected str, got int"),
    ("a lone surrogate", ["a", "b \ud800 c"], ValueError, "surrogate"),
]


@pytest.mark.parametrize(("texts", "error", "message"), [c[1:] for c in TEXTS], ids=[c[0] for c in TEXTS])
def test_texts(encoder: bertfast.Encoder, texts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        encoder.encode(texts)


ENCODE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"num_threads": 0}, ArgumentError, "num_threads: expected a positive integer or None, got 0"),
    ({"batch_size": 0}, ArgumentError, "batch_size: expected a positive integer, got 0"),
    ({"batch_tokens": -5}, ArgumentError, "batch_tokens: expected a positive integer, got -5"),
    ({"truncate_dim": 0}, ArgumentError, "truncate_dim: expected a positive integer, got 0"),
    ({"precision": "float16"}, ArgumentError, "precision: expected one of 'float32', "),
    ({"output_value": "logits"}, ArgumentError, "output_value: expected one of 'sentence_embedding', "),
    ({"pooling": "median"}, ArgumentError, "pooling: expected one or several of cls, "),
    ({"pooling": []}, ArgumentError, "pooling: expected one or several of cls, "),
    ({"prompt_name": "poem"}, ArgumentError, "prompt_name: expected one of query, document, got 'poem'"),
    ({"prompt": 3}, TypeError, "prompt: expected str, got int"),
    ({"device": "cuda:7"}, ArgumentError, "device: this encoder runs on 'cpu', got 'cuda:7'"),
    ({"device": ["cpu", "cpu"]}, ArgumentError, "pool: not supported"),
    ({"pool": {}}, ArgumentError, "pool: not supported"),
    ({"precision": "int8"}, ArgumentError, "precision: ranges for 'int8' cannot be taken from a single text"),
    ({"out": np.zeros((2, 32), np.float32)}, ShapeError, "out: expected shape (1, 32), got (2, 32)"),
    ({"out": np.zeros((1, 32))}, DtypeError, "out: expected float32, got float64"),
    (
        {"out": np.zeros((32, 2), np.float32)[:, :1].T},
        ArgumentError,
        "out: expected a writeable C-contiguous array",
    ),
    (
        {"out": np.broadcast_to(np.float32(0), (1, 32))},
        ArgumentError,
        "out: expected a writeable C-contiguous",
    ),
    ({"out": [[0.0] * 32]}, TypeError, "out: expected a numpy array or memmap, got list"),
    (
        {"out": np.zeros((1, 4), np.int8), "precision": "ubinary"},
        ArgumentError,
        "out: only for float32 vectors",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), ENCODE, ids=lambda x: str(x)[:40])
def test_encode(
    encoder: bertfast.Encoder, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        encoder.encode(["a text"], **arguments)


@pytest.mark.parametrize("output_value", ["sentence_embedding", "token_embeddings"])
def test_a_lone_surrogate_is_found_in_any_step(encoder: bertfast.Encoder, output_value: str) -> None:
    texts = ["a"] * 50 + ["b \ud800 c"] + ["d"] * 50
    message = r"sentences\[50\]: expected text .* as UTF-8, got a lone surrogate at character 2"
    for batch_size in (1, 7, 1000):
        with pytest.raises(ArgumentError, match=message):
            encoder.encode(texts, batch_size=batch_size, output_value=output_value)
        with pytest.raises(ArgumentError, match=message):
            list(encoder.encode_iter(texts, batch_size=batch_size))
    with pytest.raises(ArgumentError, match=r"prompt: expected text .* a lone surrogate at character 0"):
        encoder.encode("a", prompt="\udc00")


def test_unknown_arguments_are_refused(encoder: bertfast.Encoder) -> None:
    with pytest.raises(TypeError, match="normalise"):
        encoder.encode(["a"], normalise=True)


def test_encode_iter_checks_its_arguments_at_once(encoder: bertfast.Encoder) -> None:
    with pytest.raises(ArgumentError, match="num_threads"):
        encoder.encode_iter(["a"], num_threads=0)
    with pytest.raises(TypeError, match="expected an iterable of texts, got one text"):
        encoder.encode_iter("a text")
    with pytest.raises(TypeError, match=re.escape("sentences[1]: expected str, got int")):
        list(encoder.encode_iter(["a", 3]))


def test_no_texts(encoder: bertfast.Encoder) -> None:
    for nothing in ([], (), np.array([], dtype=str)):
        vectors = encoder.encode(nothing)
        assert (vectors.shape, vectors.dtype) == ((0, 32), np.float32)
    assert encoder.encode([], precision="int8").shape == (0, 32)
    assert encoder.encode([], precision="binary").shape == (0, 4)
    assert encoder.encode([], convert_to_tensor=True).shape == (0, 32)
    assert encoder.encode([], convert_to_numpy=False) == []
    assert list(encoder.encode_iter([])) == []


def test_an_empty_text_is_its_special_tokens(encoder: bertfast.Encoder) -> None:
    special = encoder([[2, 3]]).last_hidden_state.mean(axis=1)
    expected = special / np.linalg.norm(special)
    for text in ("", "   ", "\u0000", "\u200b"):
        np.testing.assert_allclose(encoder.encode(text), expected[0], atol=1e-6)


def test_ten_megabytes_of_text(opened: Callable[..., bertfast.Encoder], tiny: Path) -> None:
    encoder = opened(tiny)
    with pytest.warns(UserWarning, match="1 of 3 texts are longer than 64 tokens"):
        vectors = encoder.encode(["word " * 2_000_000, "short", "x" * 10_000_000])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[1], encoder.encode("short"), atol=1e-6)


def test_no_tokenizer(opened: Callable[..., bertfast.Encoder], tmp_path: Path) -> None:
    encoder = opened(make_bert_folder(tmp_path))
    assert encoder([[1, 2]]).last_hidden_state.shape == (1, 2, 32)
    with pytest.raises(TokenizerError, match="no tokenizer"):
        encoder.encode("a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "onnx"}, "backend: expected one of 'auto', 'rust', 'torch', got 'onnx'"),
        ({"backend": "rust", "device": "cuda"}, "device: expected 'cpu' with backend='rust', got 'cuda'"),
        ({"device": "cuda:99"}, "device"),
        ({"device": "nonsense"}, "device"),
        ({"dtype": "int3"}, "dtype: expected "),
        ({"dtype": "int3", "backend": "torch"}, "dtype: expected "),
        ({"num_threads": 0}, "num_threads: expected a positive integer or None, got 0"),
    ],
)
def test_from_pretrained(tiny: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)):
        bertfast.Encoder.from_pretrained(tiny, **arguments)


@pytest.mark.parametrize("device", [-1, "cpu:0", "cpu", None])
def test_other_names_of_the_cpu(tiny: Path, device: Any) -> None:
    encoder = bertfast.Encoder.from_pretrained(tiny, device=device)
    assert (encoder.info()["backend"], encoder.device) == ("rust", "cpu")
    encoder.encode("a", device=device)


def test_a_device_has_its_number() -> None:
    from bertfast.loading import device_name
    from bertfast.models.backend import existing_device

    assert [device_name(one) for one in (0, 1, "cuda", "cuda:1")] == ["cuda:0", "cuda:1", "cuda", "cuda:1"]
    assert str(existing_device("cpu")) == "cpu"


def test_the_device_of_a_call_is_the_encoders_own(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = bertfast.Encoder.from_pretrained(tiny, backend="torch")
    info = encoder.info() | {"device": "cuda:1"}
    monkeypatch.setattr(encoder.engine, "info", lambda: info)
    on_a_gpu = bertfast.Encoder(encoder.engine, encoder.config, tokenizer=encoder.tokenizer)
    assert (on_a_gpu.device, on_a_gpu.info()["backend"]) == ("cuda:1", "torch")
    for same in (None, 1, "cuda", "cuda:1", torch.device("cuda"), torch.device("cuda", 1)):
        on_a_gpu.encode("a", device=same)
    for other in (0, -1, "cpu", "cuda:0", torch.device("cuda", 0)):
        with pytest.raises(ArgumentError, match="device: this encoder runs on 'cuda:1', got"):
            on_a_gpu.encode("a", device=other)


def test_without_torch(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bertfast.models.backend", None)
    with pytest.raises(bertfast.errors.BertFastError, match=r"pip install 'bertfast\[torch\]'"):
        bertfast.Encoder.from_pretrained(tiny, backend="torch")


@pytest.mark.parametrize("value", [0, 1, P + 1, 2.5, "8", True])
def test_max_seq_length(encoder: bertfast.Encoder, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"max_seq_length: expected 2 to {P}"):
        encoder.max_seq_length = value


def test_pooling_that_does_not_fit_a_dense_module(
    opened: Callable[..., bertfast.Encoder], dense_folder: Path
) -> None:
    encoder = opened(dense_folder)
    with pytest.raises(ConfigError, match="Dense: in_features is 32, but it is given 64"):
        encoder.encode("a", pooling=["cls", "mean"])


def test_vectors_that_do_not_fit(encoder: bertfast.Encoder) -> None:
    with pytest.raises(ShapeError, match=re.escape("embeddings2: expected shape (m, 3), got (2, 4)")):
        encoder.similarity(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(
        ShapeError, match=re.escape("embeddings2: expected shape (2, 3) like embeddings1, got (1, 3)")
    ):
        encoder.similarity_pairwise(np.ones((2, 3)), np.ones((1, 3)))
    with pytest.raises(ArgumentError, match="similarity_fn_name"):
        encoder.similarity_fn_name = "closeness"


def test_more_than_the_machine_has(tmp_path: Path) -> None:
    # More than there are addresses, so that no machine has it.
    size = {"num_hidden_layers": 40, "max_position_embeddings": 400_000, "num_attention_heads": 8}
    encoder = bertfast.Encoder.from_pretrained(make_bert_folder(tmp_path, **size))
    with pytest.raises(ArgumentError, match=r"^cannot allocate \d+ values of 4 bytes"):
        encoder(np.full((1, 400_000), 7), output_attentions=True)


@pytest.mark.parametrize("isa", bertfast.info()["isas"])
@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize(
    "name", ["intermediate.dense.bias", "attention.self.query.bias", "attention.self.value.bias"]
)
def test_what_is_no_number_in_a_checkpoint_is_seen(tmp_path: Path, isa: str, act: str, name: str) -> None:
    folder = make_bert_folder(tmp_path, hidden_act=act)
    tensors = load_file(folder / "model.safetensors")
    tensors[f"encoder.layer.0.{name}"][0] = np.nan
    save_file(tensors, folder / "model.safetensors")
    encoder = bertfast.Encoder.from_pretrained(folder, isa=isa)
    assert np.isnan(encoder(IDS).last_hidden_state).all()


def test_arrays_in_the_order_of_fortran() -> None:
    weight, x = np.ones((3, 2), np.float32), np.ones((2, 2), np.float32)
    linear = _bertfast.Linear(weight)
    assert linear(x).tolist() == [[2, 2, 2]] * 2
    for call in (
        lambda: _bertfast.Linear(np.asfortranarray(weight)),
        lambda: linear(np.asfortranarray(x)),
        lambda: _bertfast.normalize(np.asfortranarray(x)),
    ):
        with pytest.raises(ArgumentError, match=r"^expected a C-contiguous array$"):
            call()


def test_bad_calls_from_many_threads_leave_good_ones_alone(encoder: bertfast.Encoder) -> None:
    expected = encoder(IDS).last_hidden_state
    results: list[bool] = []

    def call(bad: bool) -> None:
        for _ in range(20):
            if bad:
                with pytest.raises(TokenIdError):
                    encoder(IDS + V)
            else:
                results.append(np.array_equal(encoder(IDS).last_hidden_state, expected))

    threads = [threading.Thread(target=call, args=(index % 2 == 1,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == [True] * 80
