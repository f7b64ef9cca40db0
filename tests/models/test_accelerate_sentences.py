"""`accelerate` on a ``SentenceTransformer``: an `Encoder` with everything that the model was set to."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, Pooling
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

import bertfast
from bertfast.acceleration import accelerate
from bertfast.errors import ArgumentError, ConfigError
from sentence_folder import TEXTS, make_sentence_folder
from tolerance import COSINE, cosines


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_sentence_folder(tmp_path / "tiny", modules=False, layer_norm_eps=1e-3, initializer_range=0.05)


def model_of(tiny: Path, *modules: Any, **kwargs: Any) -> SentenceTransformer:
    modules = modules or (Pooling(32), Normalize())
    return SentenceTransformer(modules=[Transformer(str(tiny)), *modules], device="cpu", **kwargs)


def agree(model: SentenceTransformer, texts: list[str] = TEXTS, **kwargs: Any) -> bertfast.Encoder:
    encoder = accelerate(model)
    assert isinstance(encoder, bertfast.Encoder)
    got, expected = encoder.encode(texts, **kwargs), model.encode(texts, **kwargs)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))
    return encoder


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_real_texts(minilm: Path, real_texts: list[str]) -> None:
    model = SentenceTransformer(str(minilm), device="cpu")
    encoder = accelerate(model)
    assert encoder.max_seq_length == model.max_seq_length == 256
    assert encoder.get_embedding_dimension() == model.get_embedding_dimension() == 384
    texts = [*real_texts[:40], max(real_texts, key=len), ""]
    got, expected = encoder.encode(texts), model.encode(texts)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)
    assert cosines(got, expected).min() >= COSINE
    both = [engine.similarity(engine.encode_query(texts[:3]), engine.encode_document(texts[3:7]))
            for engine in (encoder, model)]  # fmt: skip
    np.testing.assert_allclose(*both, rtol=0, atol=1e-4)
    # The same as from the folder, bit for bit.
    assert np.array_equal(got, bertfast.Encoder.from_pretrained(minilm).encode(texts))


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_what_the_model_was_set_to(tiny: Path) -> None:
    model = model_of(tiny, Pooling(32, pooling_mode=["mean", "cls"], include_prompt=False))
    model.prompts = {"query": "find: ", "document": "", "other": "other: "}
    model.default_prompt_name = "other"
    model.max_seq_length = 11
    model.truncate_dim = 50
    model.similarity_fn_name = "dot"
    encoder = agree(model)
    assert encoder.prompts == model.prompts
    assert encoder.default_prompt_name == "other"
    assert encoder.max_seq_length == 11
    assert encoder.truncate_dim == encoder.get_embedding_dimension() == 50
    assert encoder.similarity_fn_name == "dot"
    agree(model, prompt_name="query")
    agree(model, prompt="7 ", truncate_dim=3, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_query(TEXTS), model.encode_query(TEXTS), rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        encoder.similarity(encoder.encode("a"), encoder.encode("b")),
        model.similarity(model.encode("a"), model.encode("b")),
        rtol=0,
        atol=1e-3,
    )


@pytest.mark.filterwarnings("ignore:.*are longer than")
@pytest.mark.parametrize("modes", ["cls", "max", "weightedmean", ["lasttoken", "mean_sqrt_len_tokens"]])
def test_pooling_and_modules(tiny: Path, modes: Any) -> None:
    pooling = Pooling(32, pooling_mode=modes)
    width = pooling.get_embedding_dimension()
    torch.manual_seed(0)
    agree(model_of(tiny, pooling))
    agree(model_of(tiny, pooling, Dense(width, 9, activation_function=torch.nn.ReLU()), Normalize()))
    agree(model_of(tiny, pooling, Dense(width, width, bias=False, use_residual=True)))


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_it_is_a_snapshot(tiny: Path) -> None:
    model = model_of(tiny)
    encoder = accelerate(model)
    before = encoder.encode(TEXTS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    model.prompts["query"] = "changed"
    model.max_seq_length = 5
    assert np.array_equal(encoder.encode(TEXTS), before)
    assert encoder.prompts["query"] == ""
    # What is trained in between, in the next snapshot.
    agree(model)


@pytest.fixture
def no_file_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_nothing_hangs_on_the_folder(tiny: Path, no_file_left: None) -> None:
    encoder = agree(model_of(tiny, Pooling(32), Dense(32, 7)))
    tokenizer = pickle.loads(pickle.dumps(encoder.tokenizer))
    assert tokenizer("a fox")["input_ids"] == encoder.tokenizer("a fox")["input_ids"]


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_lower_case_and_added_tokens(tmp_path: Path) -> None:
    folder = make_sentence_folder(tmp_path / "tiny", modules=False, vocab_size=99, layer_norm_eps=1e-3)
    transformer = Transformer(str(folder), do_lower_case=True)
    transformer.tokenizer.add_tokens(["quick", "brown"])
    agree(SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu"))


@pytest.mark.filterwarnings("ignore:.*are longer than")
def test_truncation_on_the_left(tiny: Path) -> None:
    model = model_of(tiny)
    model.max_seq_length = 9
    right = accelerate(model).encode(TEXTS)
    model.tokenizer.truncation_side = "left"
    assert not np.allclose(agree(model).encode(TEXTS), right, atol=1e-2)


@pytest.mark.filterwarnings("ignore:.*are longer than")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_dtypes(tiny: Path, dtype: torch.dtype) -> None:
    model = model_of(tiny, Pooling(32), Dense(32, 7)).to(dtype)
    got = accelerate(model).encode(TEXTS)
    np.testing.assert_allclose(got, model.float().encode(TEXTS), rtol=0, atol=2e-5)


def test_arguments(tiny: Path) -> None:
    encoder = accelerate(model_of(tiny), num_threads=1, dtype=["int8"])
    assert encoder.info()["num_threads"] == 1
    assert encoder.info()["dtype"] == "int8"
    for argument in ({"dtype": "float16"}, {"num_threads": 0}, {"isa": "mmx"}):
        with pytest.raises(ArgumentError, match=next(iter(argument))):
            accelerate(model_of(tiny), **argument)


@pytest.mark.parametrize("kind", [CrossEncoder, SparseEncoder, SentenceTransformer])
def test_the_transformer_inside(tmp_path: Path, kind: Any) -> None:
    """Other classes keep their Python and run their model here."""
    folder = make_sentence_folder(tmp_path / "tiny", modules=False, layer_norm_eps=1e-3)
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(folder)
    config.num_labels = 1
    base = {CrossEncoder: BertForSequenceClassification, SparseEncoder: BertForMaskedLM}.get(kind, BertModel)
    base(config).save_pretrained(folder)
    model = kind(str(folder), device="cpu")

    def scores() -> Any:
        if kind is CrossEncoder:
            return model.predict([("a fox", "a dog"), ("quick", "and lazy as ever")])
        vectors = model.encode(TEXTS[:4])
        return vectors.to_dense().numpy() if kind is SparseEncoder else vectors

    expected = scores()
    model[0].model = accelerate(model[0].model)
    np.testing.assert_allclose(scores(), expected, rtol=0, atol=2e-5)


class Mine(SentenceTransformer):
    pass


class MyPooling(Pooling):
    pass


def with_hidden_states(tiny: Path) -> SentenceTransformer:
    transformer = Transformer(
        str(tiny),
        modality_config={"text": {"method": "forward", "method_output_name": "pooler_output"}},
        module_output_name="sentence_embedding",
    )
    return SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")


def with_processing(tiny: Path) -> SentenceTransformer:
    transformer = Transformer(str(tiny), processing_kwargs={"text": {"add_special_tokens": False}})
    return SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda tiny: model_of(tiny, Pooling(32), Dropout(0.1)), ArgumentError, "Dropout is not supported"),
        (lambda tiny: model_of(tiny, MyPooling(32)), ArgumentError, "MyPooling is not supported"),
        (lambda tiny: model_of(tiny, Normalize()), ArgumentError, "got Transformer, Normalize"),
        (lambda tiny: Mine(modules=[Transformer(str(tiny)), Pooling(32)], device="cpu"),
         ArgumentError, "its subclass Mine"),
        (with_hidden_states, ArgumentError, "pooler_output"),
        (with_processing, ConfigError, "processing_kwargs: not supported"),
        (lambda tiny: model_of(tiny, Pooling(32), Dense(32, 7, activation_function=torch.nn.GELU())),
         ConfigError, "^SentenceTransformer.save/2_Dense/config.json: activation_function"),
        (lambda tiny: CrossEncoder(str(tiny), device="cpu"), ArgumentError, "its transformer can be"),
        (lambda tiny: SparseEncoder(str(tiny), device="cpu"), ArgumentError, "SparseEncoder"),
        (lambda tiny: model_of(tiny).to("meta"), ArgumentError, "on the CPU, got one on meta"),
    ],
)  # fmt: skip
def test_models_that_are_refused(
    tiny: Path, no_file_left: None, make: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        accelerate(make(tiny))
