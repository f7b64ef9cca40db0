"""`accelerate`: what a model of ``transformers`` or sentence-transformers gives, and what it does not."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import modeling_outputs

import bertfast
from bertfast import _bertfast
from bertfast.acceleration import accelerate
from bertfast.errors import ArgumentError, CheckpointError, ConfigError, DtypeError, ShapeError, TokenIdError
from family_models import BERT_SIZES, SIZES
from tolerance import FLOOR, assert_as_good_as_transformers, cosines

FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": BERT_SIZES,
    "Roberta": BERT_SIZES | {"type_vocab_size": 1, "pad_token_id": 1},
    "XLMRoberta": BERT_SIZES | {"type_vocab_size": 2, "pad_token_id": 3},
    "Camembert": BERT_SIZES | {"type_vocab_size": 1, "pad_token_id": 1},
    "Albert": BERT_SIZES | {"embedding_size": 26, "num_hidden_groups": 2},
    "DistilBert": {"dim": 36, "n_layers": 3, "n_heads": 3, "hidden_dim": 50},
    "Electra": BERT_SIZES | {"embedding_size": 26},
}
LENGTHS = [23, 1, 40, 7, 31]


def make(family: str, kind: str = "Model", **changes: Any) -> Any:
    """A random model in which no weight has its initial 0 or 1."""
    config = getattr(transformers, f"{family}Config")(**SIZES | FAMILIES[family] | changes)
    # Eager: the only one that gives attention weights.
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, family + kind)(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            mean = 1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0
            weight.normal_(mean, 0.1)
    return model


def batch(family: str, pattern: str = "right") -> dict[str, Tensor]:
    """Ids, types and a mask, which is left out if ``pattern`` is "none"."""
    padding = FAMILIES[family].get("pad_token_id", 0)
    generator = torch.Generator().manual_seed(1)
    columns = torch.arange(max(LENGTHS))[None]
    mask = columns < torch.tensor(LENGTHS)[:, None]
    if pattern == "left":
        mask = mask.flip(1)
    elif pattern == "holes":
        mask = (torch.rand(mask.shape, generator=generator) < 0.5) | (columns == 4)
    elif pattern == "none":
        mask = torch.ones_like(mask)
    ids = torch.randint(padding + 1, SIZES["vocab_size"], mask.shape, generator=generator)
    inputs = {"input_ids": torch.where(mask, ids, padding) if pattern in ("left", "right") else ids}
    if pattern != "none":
        inputs["attention_mask"] = mask.long()
    if family != "DistilBert":
        types = FAMILIES[family].get("type_vocab_size", 2)
        inputs["token_type_ids"] = torch.randint(0, types, mask.shape, generator=generator)
    return inputs


@torch.no_grad()
def references(model: Any, **inputs: Any) -> tuple[Any, Any]:
    """The original in float32, and in float64."""
    return model(**inputs), copy.deepcopy(model).double()(**inputs)


# ------------------------------------------------------------------------------------------- bare models


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pattern", ["none", "right", "left", "holes"])
def test_bare_models(family: str, pattern: str) -> None:
    model, inputs = make(family), batch(family, pattern)
    wanted = {"output_hidden_states": True, "output_attentions": True}
    f32, f64 = references(model, **inputs, **wanted)
    got = accelerate(model)(**inputs, **wanted)
    assert type(got) is type(f32)
    assert list(got.keys()) == list(f32.keys())
    mask = inputs.get("attention_mask", torch.ones(5, 40)).bool()
    names = ["last_hidden_state", *(f"hidden_states[{layer}]" for layer in range(4))]
    assert len(got.hidden_states) == len(f32.hidden_states) == 4
    for name, ours, a, b in zip(
        names,
        [got.last_hidden_state, *got.hidden_states],
        [f32.last_hidden_state, *f32.hidden_states],
        [f64.last_hidden_state, *f64.hidden_states],
        strict=True,
    ):
        assert ours.shape == a.shape
        assert_as_good_as_transformers(ours[mask], a[mask], b[mask], name)
        assert not ours[~mask].any(), "padding"
    pairs = mask[:, None, :, None] & mask[:, None, None, :]
    for layer in range(3):
        ours, a, b = (output.attentions[layer] for output in (got, f32, f64))
        assert_as_good_as_transformers(ours * pairs, a * pairs, b * pairs, f"attentions[{layer}]")
        assert not ours.masked_select(~pairs.expand_as(ours)).any()
    if "pooler_output" in f32:
        if pattern in ("none", "right"):  # elsewhere transformers pools a column that is masked
            assert_as_good_as_transformers(got.pooler_output, f32.pooler_output, f64.pooler_output)
    else:
        assert "pooler_output" not in got


def test_without_a_pooler() -> None:
    torch.manual_seed(0)
    model = transformers.BertModel(make("Bert").config, add_pooling_layer=False).eval()
    got, expected = accelerate(model)(**batch("Bert")), model(**batch("Bert"))
    assert got.pooler_output is expected.pooler_output is None
    assert list(got.keys()) == list(expected.keys()) == ["last_hidden_state"]


@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.int32, torch.uint8, torch.float16])
def test_masks_of_any_dtype(kind: torch.dtype) -> None:
    model, inputs = accelerate(make("Bert")), batch("Bert")
    expected = model(**inputs).last_hidden_state
    inputs["attention_mask"] = inputs["attention_mask"].to(kind)
    assert torch.equal(model(**inputs).last_hidden_state, expected)


def test_positions() -> None:
    original = make("Bert")
    model, inputs = accelerate(original), batch("Bert")
    mask = inputs["attention_mask"].bool()
    for positions in (torch.arange(40)[None] + 20, torch.arange(40).expand(5, -1) + 3):
        f32, f64 = references(original, **inputs, position_ids=positions)
        got = model(**inputs, position_ids=positions)
        assert_as_good_as_transformers(
            got.last_hidden_state[mask], f32.last_hidden_state[mask], f64.last_hidden_state[mask]
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_signature_is_the_original_one(family: str) -> None:
    original = make(family)
    model = accelerate(original)
    assert inspect.signature(model.forward) == inspect.signature(original.forward)
    inputs = batch(family)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(model(ids, mask).last_hidden_state, expected)
    if family == "DistilBert":  # where others have the types
        with pytest.raises(ArgumentError, match="inputs_embeds"):
            model(ids, mask, torch.zeros(5, 40, 36))
    else:
        types = inputs["token_type_ids"]
        expected = model(**inputs).last_hidden_state
        assert torch.equal(model(ids, mask, types).last_hidden_state, expected)


def test_what_the_configuration_says_is_the_default() -> None:
    original, inputs = make("Bert"), batch("Bert")
    assert accelerate(original)(**inputs).hidden_states is None
    original.config.output_hidden_states = True
    original.config.output_attentions = True
    model = accelerate(original)
    assert len(model(**inputs).hidden_states) == 4
    assert len(model(**inputs).attentions) == 3
    assert model(**inputs, output_hidden_states=False).hidden_states is None
    original.config.return_dict = False
    given = accelerate(original)(**inputs)
    assert isinstance(given, tuple)
    assert len(given) == len(original(**inputs))
    assert isinstance(
        accelerate(original)(**inputs, return_dict=True),
        modeling_outputs.BaseModelOutputWithPoolingAndCrossAttentions,
    )
    assert torch.equal(model(**inputs, return_dict=False)[0], given[0])


def test_types_of_zero_for_a_model_without_types() -> None:
    """Tokenizers give them, and the original takes no notice."""
    model, inputs = accelerate(make("DistilBert")), batch("DistilBert")
    expected = model(**inputs).last_hidden_state
    zeros = torch.zeros_like(inputs["input_ids"])
    assert torch.equal(model(**inputs, token_type_ids=zeros).last_hidden_state, expected)
    with pytest.raises(ArgumentError, match="no token types"):
        model(**inputs, token_type_ids=zeros + 1)


# --------------------------------------------------------------------------------------------- snapshots


def test_it_is_a_snapshot_and_the_original_stays() -> None:
    original, inputs = make("Roberta").train(), batch("Roberta")
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    model = accelerate(original)
    assert original.training
    assert original.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.state_dict().items())
    expected = model(**inputs).last_hidden_state
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.mul_(3)
    original.config.pad_token_id = 7
    original.config.output_hidden_states = True
    del original
    gc.collect()
    again = model(**inputs)
    assert torch.equal(again.last_hidden_state, expected)
    assert again.hidden_states is None
    assert model.config.pad_token_id == 1


def test_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    accelerate(make("Bert"))
    with pytest.raises(CheckpointError):
        accelerate(broken())
    assert not list(tmp_path.iterdir())


def broken() -> Any:
    """A model one of whose layers is of another make."""
    model = make("Bert")

    class Adapter(nn.Module):
        def __init__(self, base_layer: nn.Module) -> None:
            super().__init__()
            self.base_layer = base_layer

    query = model.encoder.layer[1].attention.self.query
    model.encoder.layer[1].attention.self.query = Adapter(query)
    return model


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_originals_of_other_dtypes(dtype: torch.dtype) -> None:
    original, inputs = make("Bert").to(dtype), batch("Bert")
    mask = inputs["attention_mask"].bool()
    got = accelerate(original)(**inputs).last_hidden_state
    assert got.dtype == torch.float32
    f32, f64 = references(original.float(), **inputs)
    assert_as_good_as_transformers(got[mask], f32.last_hidden_state[mask], f64.last_hidden_state[mask])


def test_originals_with_strange_strides() -> None:
    original, inputs = make("Bert"), batch("Bert")
    expected = accelerate(original)(**inputs).last_hidden_state
    layer = original.encoder.layer[0]
    whole = torch.cat([layer.attention.self.query.weight, layer.attention.self.key.weight]).detach()
    layer.attention.self.query.weight.data, layer.attention.self.key.weight.data = whole[:36], whole[36:]
    layer.output.dense.weight.data = layer.output.dense.weight.data.T.contiguous().T
    assert torch.equal(accelerate(original)(**inputs).last_hidden_state, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_what_the_engine_computes_in(dtype: str) -> None:
    if dtype not in _bertfast.dtypes():
        pytest.skip(f"this CPU does not multiply {dtype}")
    original, inputs = make("Bert", hidden_size=96, intermediate_size=192), batch("Bert")
    mask = inputs["attention_mask"].bool()
    exact = accelerate(original)(**inputs).last_hidden_state[mask]
    model = accelerate(original, dtype=[dtype, "float32"], num_threads=1)
    assert model.info()["dtype"] == dtype
    assert model.info()["num_threads"] == 1
    got = model(**inputs).last_hidden_state[mask]
    assert got.dtype == model.dtype == torch.float32
    assert cosines(got.numpy(), exact.numpy()).min() > {"bfloat16": 0.999, "int8": 0.995}[dtype]
    assert not torch.equal(got, exact)


# ------------------------------------------------------------------------------------- manners of a module


def test_what_a_module_is_asked_for() -> None:
    original = make("Bert")
    original.name_or_path = "somewhere/tiny"
    model = accelerate(original)
    assert isinstance(model, nn.Module)
    assert type(model).__name__ == "BertModel"
    assert model.device == torch.device("cpu")
    assert model.name_or_path == "somewhere/tiny"
    assert model.base_model_prefix == "bert"
    assert model.config.to_dict() == original.config.to_dict()
    assert model.config is not original.config
    assert not model.training
    assert not model.can_generate()
    for same in (
        model.eval(),
        model.train(False),
        model.to("cpu"),
        model.to(torch.float32),
        model.cpu(),
        model.float(),
        model.requires_grad_(False),
    ):
        assert same is model
    assert "Rust engine" in repr(model)
    assert repr(nn.ModuleDict({"inner": model}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.train(), "train the original"),
        (lambda model: model.train(True), "train the original"),
        (lambda model: nn.Sequential(model).train(), "train the original"),
        (lambda model: model.requires_grad_(), "train the original"),
        (lambda model: model.parameters(), "parameters: "),
        (lambda model: list(model.named_parameters()), "named_parameters: "),
        (lambda model: model.state_dict(), "state_dict: "),
        (lambda model: nn.Sequential(model).state_dict(), "state_dict: "),
        (lambda model: model.load_state_dict({}), "load_state_dict: "),
        (lambda model: nn.Sequential(model).load_state_dict({}), "load_state_dict: "),
        (lambda model: model.half(), "torch.float16.*dtype="),
        (lambda model: model.double(), "torch.float64"),
        (lambda model: model.to(torch.bfloat16), "torch.bfloat16"),
        (lambda model: nn.Sequential(model).half(), "torch.float16"),
        (lambda model: model.to("cuda"), "expected the CPU"),
        (lambda model: model.cuda(), "expected the CPU"),
        (lambda model: model.to("meta"), "expected the CPU.*meta"),
    ],
)
def test_what_a_module_does_and_this_does_not(call: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call(accelerate(make("Bert")))


def test_pickling() -> None:
    with pytest.raises(TypeError, match="send the original"):
        pickle.dumps(accelerate(make("Bert")))


def test_hooks_and_a_module_around_it() -> None:
    model, inputs = accelerate(make("Bert")), batch("Bert")
    seen = []
    model.register_forward_hook(lambda module, args, output: seen.append(type(output).__name__))

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.linear = model, nn.Linear(36, 2)

        def forward(self, **inputs: Tensor) -> Any:
            return self.linear(self.inner(**inputs).pooler_output)

    around = Around().eval()
    logits = around(**inputs)
    logits.sum().backward()
    assert around.linear.weight.grad is not None
    assert [name for name, _ in around.named_parameters()] == ["linear.weight", "linear.bias"]
    assert seen == ["BaseModelOutputWithPoolingAndCrossAttentions"]


def test_a_pipeline(minilm: Path, real_texts: list[str], caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    original = transformers.AutoModel.from_pretrained(minilm)
    texts = real_texts[:5]
    results = []
    for model in (accelerate(original), original):
        extract = transformers.pipeline("feature-extraction", model=model, tokenizer=tokenizer, device="cpu")
        assert "BertModel" in repr(extract)
        results.append(extract(texts, truncation=True))
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2 * FLOOR * np.abs(expected).max())
    assert "not supported" not in caplog.text


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.zeros(5)}, ArgumentError, "labels: expected None, this is for inference"),
        ({"inputs_embeds": torch.zeros(5, 40, 36)}, ArgumentError, "inputs_embeds: expected None"),
        ({"input_ids": None}, TypeError, "input_ids: expected a torch tensor, got NoneType"),
        ({"input_ids": [[5] * 40] * 5}, TypeError, "input_ids: expected a torch tensor, got list"),
        ({"input_ids": torch.ones(40, dtype=torch.long)}, ShapeError, r"input_ids: expected shape \(B, S\)"),
        ({"input_ids": torch.ones(5, 40)}, DtypeError, "input_ids: expected integers"),
        ({"input_ids": torch.full((5, 40), 97)}, TokenIdError, "expected 0 to 96, got 97"),
        ({"input_ids": torch.full((5, 40), -1)}, TokenIdError, "got -1"),
        ({"token_type_ids": torch.full((5, 40), 2)}, TokenIdError, "token_type_ids"),
        ({"attention_mask": torch.ones(5, 39)}, ShapeError, "attention_mask: expected shape"),
        ({"attention_mask": torch.ones(5, 1, 40, 40)}, ShapeError, "attention_mask: .*got .5, 1, 40, 40"),
        ({"attention_mask": torch.zeros(5, 40)}, ArgumentError, "masks every token"),
        ({"attention_mask": torch.ones(5, 40, dtype=torch.complex64)}, DtypeError, "complex64"),
        ({"input_ids": torch.ones(5, 40, dtype=torch.long, device="meta")}, ArgumentError, "on the CPU"),
        ({"output_hidden_states": [1]}, ArgumentError, "output_hidden_states: expected True, False or None"),
        ({"encoder_hidden_states": torch.zeros(5, 3, 36)}, ArgumentError, "encoder_hidden_states"),
        ({"is_causal": True}, ArgumentError, "is_causal: expected None"),
        ({"nonsense": 3}, ArgumentError, "nonsense: expected None"),
    ],
)
def test_arguments_of_the_forward(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        accelerate(make("Bert"))(**batch("Bert") | change)


def test_too_long() -> None:
    with pytest.raises(ShapeError, match="70"):
        accelerate(make("Bert"))(torch.ones(1, 71, dtype=torch.long))


def mine() -> Any:
    class BertModel(transformers.BertModel):
        pass

    return BertModel(make("Bert").config)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda: "bert-base-uncased", TypeError, "model: expected a model of transformers, got str"),
        (lambda: nn.Linear(2, 3), ArgumentError, "got torch.nn.modules.linear.Linear"),
        (lambda: transformers.GPT2Model(transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9)),
         ArgumentError, "classes BertModel, .*GPT2Model"),
        (lambda: make("Bert", "ForPreTraining"), ArgumentError, "two heads"),
        (lambda: make("Albert", "ForPreTraining"), ArgumentError, "two heads"),
        (lambda: make("Bert", "LMHeadModel", is_decoder=True), ArgumentError, "BertLMHeadModel"),
        (lambda: make("Bert", is_decoder=True), ConfigError, "is_decoder: expected False"),
        (lambda: make("Bert", is_causal=True), ConfigError, "is_causal: expected False"),
        (lambda: make("Bert", hidden_act="quick_gelu"), ConfigError, "hidden_act: .*quick_gelu"),
        (lambda: make("Bert", position_embedding_type="relative_key"), ConfigError, "position_embedding"),
        (lambda: make("Bert").to("meta"), ArgumentError, "expected one on the CPU, got one on meta"),
        (mine, ArgumentError, "mine.<locals>.BertModel"),
        (broken, CheckpointError, r"encoder.layer.1.attention.self.query.weight.*missing"),
        (lambda: accelerate(make("Bert")), ArgumentError, "got bertfast.models.accelerated.BertModel"),
    ],
)  # fmt: skip
def test_models_that_are_refused(model: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        accelerate(model())


def test_parameters_that_would_be_forgotten() -> None:
    model = make("Bert")
    model.encoder.layer[1].output.adapter = nn.Linear(36, 36)
    with pytest.raises(ArgumentError, match=r"encoder.layer.1.output.adapter.*merge adapters"):
        accelerate(model)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"dtype": "float16"}, "dtype: expected"),
        ({"num_threads": 0}, "num_threads: expected a positive integer"),
        ({"isa": "mmx"}, "isa"),
    ],
)
def test_other_arguments(argument: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        accelerate(make("Bert"), **argument)


def test_results_have_no_gradient() -> None:
    model = accelerate(make("Bert"))
    assert not model(**batch("Bert")).last_hidden_state.requires_grad
    with torch.inference_mode():
        assert model(**batch("Bert")).last_hidden_state.shape == (5, 40, 36)


def test_no_rows() -> None:
    output = accelerate(make("Bert"))(torch.zeros(0, 7, dtype=torch.long))
    assert output.last_hidden_state.shape == (0, 7, 36)
    assert output.pooler_output.shape == (0, 36)


def test_it_is_exported() -> None:
    if not hasattr(bertfast, "accelerate"):
        pytest.skip("not yet")
    assert bertfast.accelerate is accelerate
