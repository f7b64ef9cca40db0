"""``attn_implementation="bertfast"``: the Rust attention inside models of ``transformers``."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from bertfast.acceleration import register_attention
from bertfast.models import attention_interface
from family_models import BERT_SIZES, SIZES
from tolerance import FLOOR

MODELS: dict[str, Any] = {
    "bert": transformers.BertConfig(**SIZES, **BERT_SIZES),
    "roberta": transformers.RobertaConfig(**SIZES, **BERT_SIZES),
    "xlm-roberta": transformers.XLMRobertaConfig(**SIZES, **BERT_SIZES),
    "camembert": transformers.CamembertConfig(**SIZES, **BERT_SIZES),
    "albert": transformers.AlbertConfig(**SIZES, **BERT_SIZES, embedding_size=26),
    "distilbert": transformers.DistilBertConfig(**SIZES, dim=36, n_layers=3, n_heads=3, hidden_dim=50),
    "electra": transformers.ElectraConfig(**SIZES, **BERT_SIZES, embedding_size=26),
}
LENGTHS = [23, 1, 17, 7]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """The mask of each call of the Rust attention."""
    register_attention()
    seen: list[Tensor | None] = []

    def rust_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Any:
        seen.append(mask)
        return original(query, key, value, mask, scale)

    original = attention_interface.rust_attention
    monkeypatch.setattr(attention_interface, "rust_attention", rust_attention)
    return seen


def make(name: str, implementation: str = "bertfast", **kwargs: Any) -> Any:
    torch.manual_seed(0)
    config = copy.deepcopy(MODELS[name])  # the model writes into it
    model = transformers.AutoModel.from_config(config, attn_implementation=implementation, **kwargs)
    assert model.config._attn_implementation == implementation
    return model.eval()


def batch(pattern: str = "right") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    columns = torch.arange(max(LENGTHS))[None]
    mask = columns < torch.tensor(LENGTHS)[:, None]
    if pattern == "left":
        mask = mask.flip(1)
    elif pattern == "holes":
        mask = (torch.rand(mask.shape, generator=generator) < 0.5) | (columns == 4)
    ids = torch.randint(5, SIZES["vocab_size"], mask.shape, generator=generator)
    return {"input_ids": ids} if pattern == "none" else {"input_ids": ids, "attention_mask": mask.long()}


def close(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    limit = 2 * FLOOR * max(1.0, float(expected.abs().max()))  # each of the two may be off by FLOOR
    np.testing.assert_allclose(got.detach(), expected.detach(), rtol=0, atol=limit)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pattern", ["none", "right", "left", "holes"])
def test_every_family(calls: list[Tensor | None], name: str, pattern: str) -> None:
    """All positions, those of padding too."""
    inputs = batch(pattern)
    with torch.no_grad():
        got = make(name)(**inputs).last_hidden_state
        assert len(calls) == 3
        assert all(mask is None if pattern == "none" else mask.shape == (4, 23) for mask in calls)
        close(got, make(name, "sdpa")(**inputs).last_hidden_state)
    assert len(calls) == 3


def test_a_mask_without_padding_is_no_mask(calls: list[Tensor | None]) -> None:
    inputs = batch() | {"attention_mask": torch.ones(4, 23)}
    with torch.inference_mode():
        got = make("bert")(**inputs).last_hidden_state
        close(got, make("bert", "sdpa")(**inputs).last_hidden_state)
    assert calls == [None] * 3


@pytest.mark.parametrize("kind", ["bool", "float", "keys", "other_keys_for_each_head"])
def test_masks_of_four_dimensions(calls: list[Tensor | None], kind: str) -> None:
    inputs = batch()
    keys = inputs["attention_mask"].bool()[:, None, None, :]
    mask = {
        "bool": keys & torch.ones(23, 23, dtype=torch.bool).tril(),
        "float": torch.zeros(4, 1, 23, 23).masked_fill(~keys, -1e4),
        "keys": keys,
        "other_keys_for_each_head": keys.repeat(1, 3, 1, 1),
    }[kind]
    inputs["attention_mask"] = mask
    with torch.no_grad():
        got = make("bert")(**inputs).last_hidden_state
        close(got, make("bert", "sdpa")(**inputs).last_hidden_state)
    assert len(calls) == (3 if kind == "keys" else 0)


def test_gradients_are_those_of_sdpa(calls: list[Tensor | None]) -> None:
    inputs = batch()
    gradients = []
    for implementation in ("bertfast", "sdpa"):
        model = make("bert", implementation)
        model(**inputs).pooler_output.sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert not calls
    for name, expected in gradients[1].items():
        assert torch.equal(gradients[0][name], expected), name


def test_weights_that_are_trained_count_at_once(calls: list[Tensor | None]) -> None:
    inputs = batch()
    model, twin = make("bert"), make("bert", "sdpa")
    with torch.no_grad():
        before = model(**inputs).last_hidden_state
        for parameter in [*model.parameters(), *twin.parameters()]:
            parameter.mul_(1.1)
        got = model(**inputs).last_hidden_state
        close(got, twin(**inputs).last_hidden_state)
    assert not torch.allclose(got, before)
    assert len(calls) == 6


def test_dropout(calls: list[Tensor | None]) -> None:
    inputs = batch()
    results = []
    for implementation in ("bertfast", "sdpa"):
        model = make("bert", implementation).train()
        torch.manual_seed(7)
        with torch.no_grad():
            results.append(model(**inputs).last_hidden_state)
    assert not calls
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(calls: list[Tensor | None], dtype: torch.dtype) -> None:
    inputs = batch()
    with torch.no_grad():
        got, expected = (make("bert", kind).to(dtype)(**inputs)[0] for kind in ("bertfast", "sdpa"))
    assert not calls
    assert torch.equal(got, expected)


def test_a_decoder(calls: list[Tensor | None]) -> None:
    """Causal, with and without padding, and with a cache that grows."""
    config = transformers.BertConfig(
        **SIZES, **BERT_SIZES, is_decoder=True, pad_token_id=0, eos_token_id=None
    )
    results = []
    for implementation in ("bertfast", "sdpa"):
        torch.manual_seed(0)
        config._attn_implementation = implementation
        model = transformers.BertLMHeadModel(config).eval()
        assert model.config._attn_implementation == implementation
        with torch.no_grad():
            plain, padded = model(**batch("none")).logits, model(**batch("left")).logits
        tokens = model.generate(**batch("left"), max_new_tokens=5, do_sample=False)
        results.append((plain, padded, tokens))
    assert not calls or all(mask is None for mask in calls)
    for got, expected in zip(*results, strict=True):
        close(got, expected)


def test_causal_by_configuration(calls: list[Tensor | None]) -> None:
    inputs = batch("none")
    models = [make("bert", kind) for kind in ("bertfast", "sdpa")]
    with torch.no_grad():
        both_ways = models[0](**inputs).last_hidden_state
        assert len(calls) == 3
        for model in models:
            model.config.is_causal = True
        got, expected = (model(**inputs).last_hidden_state for model in models)
    assert len(calls) == 3
    assert torch.equal(got, expected)
    assert not torch.allclose(got, both_ways, atol=1e-2)


def test_cross_attention(calls: list[Tensor | None]) -> None:
    config = transformers.BertConfig(**SIZES, **BERT_SIZES, is_decoder=True, add_cross_attention=True)
    results = []
    for implementation in ("bertfast", "sdpa"):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config, attn_implementation=implementation).eval()
        states = torch.randn(4, 9, 36)
        seen = torch.ones(4, 9).tril(3)
        with torch.no_grad():
            output = model(**batch(), encoder_hidden_states=states, encoder_attention_mask=seen)
        results.append(output.last_hidden_state)
    close(*results)


def test_a_model_that_is_there(calls: list[Tensor | None]) -> None:
    model, inputs = make("bert", "sdpa"), batch()
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
        model.set_attn_implementation("bertfast")
        close(model(**inputs).last_hidden_state, expected)
    assert len(calls) == 3


def test_asking_for_weights_is_as_with_sdpa(calls: list[Tensor | None]) -> None:
    inputs = batch()
    with torch.no_grad():
        got, expected = (
            make("bert", kind)(**inputs, output_attentions=True) for kind in ("bertfast", "sdpa")
        )
    assert not calls
    assert got.attentions == expected.attentions
    assert torch.equal(got.last_hidden_state, expected.last_hidden_state)


@pytest.mark.parametrize("pattern", ["none", "right"])
def test_compiled_in_one_graph(pattern: str) -> None:
    register_attention()
    inputs = batch(pattern)
    model = make("bert")
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        close(compiled(**inputs).last_hidden_state, model(**inputs).last_hidden_state)


def test_a_head_and_a_pipeline(calls: list[Tensor | None], minilm: Any, real_texts: list[str]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    scores = []
    for implementation in ("bertfast", "sdpa"):
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            minilm, attn_implementation=implementation
        )
        classify = transformers.pipeline(
            "text-classification", model=model, tokenizer=tokenizer, device="cpu"
        )
        scores.append([found["score"] for found in classify(real_texts[:3], batch_size=3, truncation=True)])
    assert len(calls) == 6
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)
