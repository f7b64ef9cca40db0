"""The torch module: tree, start values, inputs, and numbers and gradients beside ``transformers``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from bert_folder import TINY, make_bert_folder
from bertfast.errors import ArgumentError, ShapeError
from bertfast.models import BertConfig, BertModel
from bertfast.models import attention as attention_module
from tolerance import assert_as_good_as_transformers, assert_gradients_close
from transformers_reference import BASE, ODD_SHAPES, Reference, random_batch

LENGTHS = [23, 1, 40, 7, 31]
IMPLEMENTATIONS = ("auto", "sdpa", "eager")


def assert_parity(ours: BertModel, reference: Reference, mask: Tensor | None = None, **inputs: Any) -> None:
    """Every output of valid rows, by the rule of `tolerance`."""
    inputs |= {"output_hidden_states": True}
    with torch.no_grad():
        got = ours(attention_mask=mask, **inputs)
    f32, f64 = reference(attention_mask=mask, **inputs)
    valid = slice(None) if mask is None else mask.bool()
    assert_as_good_as_transformers(
        got.last_hidden_state[valid], f32.last_hidden_state[valid], f64.last_hidden_state[valid], "last"
    )
    assert len(got.hidden_states) == len(f64.hidden_states) == ours.config.num_hidden_layers + 1
    for index in range(len(f64.hidden_states)):
        assert_as_good_as_transformers(
            *(out.hidden_states[index][valid] for out in (got, f32, f64)), f"hidden_states[{index}]"
        )
    # The pooler reads column 0, which has no meaning where it is masked.
    first = slice(None) if mask is None else mask[:, 0].bool()
    assert_as_good_as_transformers(*(out.pooler_output[first] for out in (got, f32, f64)), "pooler_output")


@pytest.fixture(scope="module", params=ODD_SHAPES)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    folder = make_bert_folder(tmp_path_factory.mktemp("odd") / request.param, **ODD_SHAPES[request.param])
    return folder, Reference.of(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    folder = make_bert_folder(tmp_path_factory.mktemp("base"), **BASE)
    return folder, Reference.of(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[BertModel, Reference]:
    folder = make_bert_folder(tmp_path_factory.mktemp("tiny"))
    return BertModel.from_pretrained(folder), Reference.of(folder)


# ------------------------------------------------------------------------------------ numbers and gradients


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_parity_odd_shapes(odd: tuple[Path, Reference], implementation: Any) -> None:
    folder, reference = odd
    model = BertModel.from_pretrained(folder, attn_implementation=implementation)
    batch = random_batch(TINY | model.config.to_dict(), LENGTHS)
    assert_parity(model, reference, batch.pop("attention_mask"), **batch)


def test_parity_base(base: tuple[Path, Reference]) -> None:
    folder, reference = base
    batch = random_batch(BASE | {"type_vocab_size": 2}, [64, 5, 33])
    assert_parity(BertModel.from_pretrained(folder), reference, batch.pop("attention_mask"), **batch)


def gradients(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a fixed random linear function of all valid outputs."""
    model.zero_grad()
    output = model(**batch)
    generator = torch.Generator().manual_seed(9)
    total = 0
    for values in (output.last_hidden_state * batch["attention_mask"][..., None], output.pooler_output):
        factors = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        total = total + (values * factors.to(values.dtype)).sum()
    total.backward()  # type: ignore[union-attr]
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def check_gradients(folder: Path, reference: Reference, batch: dict[str, Tensor]) -> None:
    truth = gradients(reference.f64, batch)
    assert_gradients_close(gradients(BertModel.from_pretrained(folder, dtype=torch.float64), batch), truth)
    their_f32 = gradients(reference.f32, batch)
    assert_gradients_close(gradients(BertModel.from_pretrained(folder), batch), truth, their_f32)


def test_gradients_odd_shapes(odd: tuple[Path, Reference]) -> None:
    batch = random_batch(TINY | ODD_SHAPES[odd[0].name], LENGTHS)
    check_gradients(*odd, batch)


def test_gradients_base(base: tuple[Path, Reference]) -> None:
    check_gradients(*base, random_batch(BASE | {"type_vocab_size": 2}, [24, 5]))


def test_gradients_never_pass_through_the_rust_operator(
    tiny: tuple[BertModel, Reference], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = tiny
    batch = random_batch(TINY, LENGTHS)
    ran = []
    rust = attention_module.rust_attention
    monkeypatch.setattr(attention_module, "rust_attention", lambda *args: ran.append(1) or rust(*args))
    assert all(gradient.abs().sum() > 0 for gradient in gradients(model, batch).values())
    assert not ran
    with torch.no_grad():
        model(**batch)
    assert len(ran) == model.config.num_hidden_layers


def test_training_reduces_a_loss() -> None:
    torch.manual_seed(0)
    config = BertConfig.from_dict(TINY | {"vocab_size": 50})
    model = BertModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(1, 50, (8, 12))
    target = ids.remainder(2).double().mean(dim=1).float()
    losses = []
    for _ in range(30):
        loss = (model(ids).pooler_output[:, 0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


# --------------------------------------------------------------------------------------------------- inputs


def masks() -> dict[str, Tensor]:
    batch, length = 4, 19
    columns = torch.arange(length)[None]
    counts = torch.tensor([19, 3, 11, 1])[:, None]
    holes = torch.rand(batch, length, generator=torch.Generator().manual_seed(4)) < 0.6
    holes[:, 7] = True
    return {
        "right padding": columns < counts,
        "left padding": columns >= length - counts,
        "holes": holes,
        "all": torch.ones(batch, length, dtype=torch.bool),
    }


@pytest.mark.parametrize("pattern", masks())
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_masks_of_any_pattern(tiny: tuple[BertModel, Reference], pattern: str, implementation: Any) -> None:
    source, reference = tiny
    model = BertModel(source.config, attn_implementation=implementation).eval()
    model.load_state_dict(source.state_dict())
    mask = masks()[pattern]
    ids = random_batch(TINY, [mask.shape[1]] * len(mask))["input_ids"]
    assert_parity(model, reference, mask.long(), input_ids=ids)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float32]
)
def test_masks_of_any_dtype(tiny: tuple[BertModel, Reference], dtype: torch.dtype) -> None:
    model, _ = tiny
    batch = random_batch(TINY, LENGTHS)
    mask = batch.pop("attention_mask")
    with torch.no_grad():
        expected, got = model(attention_mask=mask, **batch), model(attention_mask=mask.to(dtype), **batch)
    assert torch.equal(got.last_hidden_state, expected.last_hidden_state)


def test_masks_of_pairs(tiny: tuple[BertModel, Reference]) -> None:
    """(B, S, S) and (B, 1, S, S) masks, here those of two texts packed into one row."""
    model, reference = tiny
    ids = random_batch(TINY, [10])["input_ids"]
    text = torch.tensor([[0] * 6 + [1] * 4])
    pairs = text[:, :, None] == text[:, None, :]
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3]])
    with torch.no_grad():
        packed = model(ids, pairs.long(), position_ids=positions).last_hidden_state
        same = model(ids, pairs[:, None].int(), position_ids=positions).last_hidden_state
        alone = model(ids[:, 6:]).last_hidden_state
    assert torch.equal(packed, same)
    torch.testing.assert_close(packed[:, 6:], alone, rtol=0, atol=2e-5)
    f32, f64 = reference(input_ids=ids, attention_mask=pairs[:, None], position_ids=positions)
    assert_as_good_as_transformers(packed, f32.last_hidden_state, f64.last_hidden_state)


def test_token_types_position_ids_and_embeds(tiny: tuple[BertModel, Reference]) -> None:
    model, reference = tiny
    batch = random_batch(TINY, LENGTHS)
    mask, ids, types = batch["attention_mask"], batch["input_ids"], batch["token_type_ids"]
    generator = torch.Generator().manual_seed(1)
    positions = torch.randint(0, TINY["max_position_embeddings"], ids.shape, generator=generator)
    assert_parity(model, reference, mask, input_ids=ids)
    assert_parity(model, reference, mask, input_ids=ids, token_type_ids=types, position_ids=positions)
    assert_parity(model, reference, mask, input_ids=ids, position_ids=positions[:1])
    with torch.no_grad():
        by_ids = model(ids, mask).last_hidden_state
        by_embeds = model(inputs_embeds=model.embeddings.word_embeddings(ids), attention_mask=mask)
        int32 = model(ids.int(), mask, types.int(), positions.int()).last_hidden_state
        int64 = model(ids, mask, types, positions).last_hidden_state
    assert torch.equal(by_ids, by_embeds.last_hidden_state)
    assert torch.equal(int32, int64)


def test_attentions(tiny: tuple[BertModel, Reference], tmp_path: Path) -> None:
    model, _ = tiny
    model.save_pretrained(tmp_path)
    reference = Reference.of(tmp_path, attn_implementation="eager")
    batch = random_batch(TINY, LENGTHS)
    with torch.no_grad():
        got = model(**batch, output_attentions=True)
    f32, f64 = reference(**batch, output_attentions=True)
    assert len(got.attentions) == len(f64.attentions) == model.config.num_hidden_layers
    valid = batch["attention_mask"][:, None, :, None].expand_as(got.attentions[0]).bool()
    for ours, theirs_f32, theirs_f64 in zip(got.attentions, f32.attentions, f64.attentions, strict=True):
        assert_as_good_as_transformers(ours[valid], theirs_f32[valid], theirs_f64[valid], "attentions")


def test_output_by_name_key_and_position(tiny: tuple[BertModel, Reference]) -> None:
    model, _ = tiny
    output = model(torch.tensor([[5, 6, 7]]))
    assert output.last_hidden_state is output["last_hidden_state"] is output[0]
    assert output.pooler_output is output[1]
    assert output.hidden_states is None
    assert output.attentions is None
    assert len(output.to_tuple()) == 2
    full = model(torch.tensor([[5, 6, 7]]), output_hidden_states=True, output_attentions=True)
    assert full.to_tuple()[2] is full.hidden_states
    assert full[3] is full.attentions


def test_no_pooler() -> None:
    model = BertModel(BertConfig.from_dict(TINY), add_pooling_layer=False)
    output = model(torch.tensor([[5, 6, 7]]))
    assert output.pooler_output is None
    assert "(pooler): None" in str(model) or "pooler" not in str(model)


def test_wrong_inputs() -> None:
    model = BertModel(BertConfig.from_dict(TINY))
    ids = torch.ones(2, 7, dtype=torch.long)
    with pytest.raises(ArgumentError, match="either input_ids or inputs_embeds"):
        model()
    with pytest.raises(ArgumentError, match="either input_ids or inputs_embeds"):
        model(ids, inputs_embeds=torch.zeros(2, 7, 32))
    with pytest.raises(ShapeError, match=r"input_ids: expected shape \(B, S\), got \(7,\)"):
        model(ids[0])
    with pytest.raises(ShapeError, match=r"inputs_embeds: expected shape \(B, S, 32\), got \(2, 7, 31\)"):
        model(inputs_embeds=torch.zeros(2, 7, 31))
    with pytest.raises(
        ShapeError, match=r"attention_mask: expected shape \(2, 7\) like input_ids, got \(2, 8\)"
    ):
        model(ids, torch.ones(2, 8))
    with pytest.raises(ShapeError, match=r"attention_mask: .* got \(2, 7, 8\)"):
        model(ids, torch.ones(2, 7, 8))
    with pytest.raises(ShapeError, match=r"token_type_ids: expected shape \(2, 7\), got \(2, 6\)"):
        model(ids, token_type_ids=torch.ones(2, 6, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"position_ids: expected shape \(2, 7\) or \(1, 7\), got \(7,\)"):
        model(ids, position_ids=torch.arange(7))
    with pytest.raises(ShapeError, match="65 columns, but there are positions for 64"):
        model(torch.ones(1, 65, dtype=torch.long))
    with pytest.raises(IndexError):
        model(torch.tensor([[97]]))
    with pytest.raises(
        ArgumentError, match="attn_implementation: expected one of auto, sdpa, eager, got 'flash'"
    ):
        BertModel(model.config, attn_implementation="flash")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- tree and start


def tree(model: torch.nn.Module) -> str:
    """As printed, but for the bias of LayerNorm, which PyTorch began to show at some point."""
    return re.sub(r"(LayerNorm\(.*), bias=True\)", r"\1)", str(model))


def test_printed_tree() -> None:
    printed = tree(BertModel(BertConfig(vocab_size=21128)))
    assert printed + "\n" == Path(__file__).with_name("bert_tree.txt").read_text()
    theirs = transformers.BertModel(transformers.BertConfig(vocab_size=21128))
    assert printed == tree(theirs)


def test_parameters_are_those_of_transformers() -> None:
    ours = BertModel(BertConfig.from_dict(TINY)).state_dict()
    theirs = transformers.BertModel(transformers.BertConfig(**TINY)).state_dict()
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}


def test_start_values() -> None:
    torch.manual_seed(3)
    config = BertConfig(vocab_size=3000, num_hidden_layers=1, pad_token_id=5, initializer_range=0.03)
    for name, parameter in BertModel(config).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "LayerNorm" in name:
            assert (parameter == 1).all(), name
        elif "token_type" not in name:  # which has too few numbers for statistics
            assert abs(parameter.std().item() - 0.03) < 0.001, name
            assert abs(parameter.mean().item()) < 0.001, name
        if "word_embeddings" in name:
            assert not parameter[5].any()


def test_dropout_only_in_training() -> None:
    model = BertModel(BertConfig.from_dict(TINY))
    ids = torch.ones(1, 9, dtype=torch.long)
    with torch.no_grad():
        assert not torch.equal(model.train()(ids)[0], model(ids)[0])
        assert torch.equal(model.eval()(ids)[0], model(ids)[0])


@pytest.mark.parametrize("grad", [False, True])
def test_compiles_whole(tiny: tuple[BertModel, Reference], grad: bool) -> None:
    model, _ = tiny
    batch = random_batch(TINY, LENGTHS)
    # "aot_eager" traces and differentiates as the default backend does, without needing a C++ compiler.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(grad):
        expected, got = model(**batch), compiled(**batch)
        torch.testing.assert_close(got.last_hidden_state, expected.last_hidden_state, rtol=0, atol=2e-5)
        assert got.last_hidden_state.requires_grad == grad
