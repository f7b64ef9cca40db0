"""Ragged batches in the torch modules: attention of each sequence with itself, its gradient, mistakes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

from bertfast.errors import ArgumentError, DtypeError, ShapeError
from bertfast.models import AlbertConfig, AlbertModel, BertConfig, BertForMaskedLM, BertModel, bert
from bertfast.models import ragged_attention as ragged
from bertfast.models.ragged_attention import ragged_attention
from bertfast.models.sequences import Boundaries
from gpu_kernels import kernels_on_the_cpu

CU = torch.tensor([0, 5, 6, 39, 71, 136])
SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 70,
}


def qkv(dtype: torch.dtype = torch.float32, heads: int = 3, size: int = 26) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(int(CU[-1]), heads, size).to(dtype).requires_grad_() for _ in range(3)]


def boundaries(tokens: Tensor) -> Boundaries:
    return Boundaries.of(CU, tokens)


def attend(tensors: list[Tensor], implementation: Any = "auto", dropout: float = 0.0) -> Tensor:
    query, key, value = tensors
    context, _ = ragged_attention(
        query, key, value, boundaries(query), scale=0.2, dropout=dropout, implementation=implementation
    )
    return context


@pytest.mark.parametrize("implementation", ["auto", "sdpa"])
def test_result_and_gradients_are_those_of_the_formula(implementation: str) -> None:
    tensors = qkv()
    got, want = attend(tensors, implementation), attend(tensors, "eager")
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(want)
    for one, other in zip(
        torch.autograd.grad(got, tensors, upstream),
        torch.autograd.grad(want, tensors, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_bfloat16_rounds_what_is_read_and_written() -> None:
    narrow = qkv(torch.bfloat16)
    wide = [x.detach().float().requires_grad_() for x in narrow]
    got, want = attend(narrow), attend(wide)
    assert torch.equal(got, want.to(torch.bfloat16))
    upstream = torch.randn_like(want).to(torch.bfloat16)
    for one, other in zip(
        torch.autograd.grad(got, narrow, upstream),
        torch.autograd.grad(want, wide, upstream.float()),
        strict=True,
    ):
        assert torch.equal(one, other.to(torch.bfloat16))


def test_what_is_dropped_is_up_to_the_generator() -> None:
    tensors = qkv()
    torch.manual_seed(5)
    one = attend(tensors, dropout=0.2)
    assert not torch.equal(one, attend(tensors, dropout=0.2))
    torch.manual_seed(5)
    assert torch.equal(one, attend(tensors, dropout=0.2))
    without = torch.get_rng_state()
    attend(tensors)
    assert torch.equal(without, torch.get_rng_state())


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    # Values of one: the result is the sum of the weights that are left, scaled.
    query, key, _ = qkv(heads=8)
    sums = attend([query, key, torch.ones_like(key)], dropout=0.25)[int(CU[4]) :]
    assert abs(float(sums.mean()) - 1) < 0.01
    # A uniform softmax over 65 keys: the sum is the number of those left / 65 / 0.75.
    even = attend([query * 0, key, torch.ones_like(key)], dropout=0.25)[int(CU[4]) :, :, 0]
    left = even * 65 * 0.75
    torch.testing.assert_close(left, left.round(), rtol=0, atol=1e-3)
    assert abs(float(left.mean()) / 65 - 0.75) < 0.01
    assert abs(float(left.var()) / (65 * 0.25 * 0.75) - 1) < 0.2


def test_the_gradient_finds_the_same_weights_dropped() -> None:
    tensors = [x.detach().requires_grad_() for x in qkv(heads=1, size=4)]
    seed = torch.tensor([9])

    def run(*qkv: Tensor) -> Tensor:
        result: Tensor = torch.ops.bertfast.ragged_attention(*qkv, CU, seed, 0.3, 0.4)[0]
        return result

    upstream = torch.randn(int(CU[-1]), 1, 4)
    grads = torch.autograd.grad(run(*tensors), tensors, upstream)
    for which, gradient in enumerate(grads):
        direction = torch.randn_like(gradient)
        step = 1e-2

        def along(by: float, which: int = which, direction: Tensor = direction) -> float:
            moved = [x + by * direction if i == which else x for i, x in enumerate(tensors)]
            return float((run(*moved).double() * upstream).sum())

        slope = (along(step) - along(-step)) / (2 * step)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=5e-3, abs=5e-3)


def test_the_operator_keeps_the_rules_of_torch() -> None:
    tensors = qkv()
    arguments = (*tensors, CU, torch.tensor([3]), 0.2, 0.1)
    torch.library.opcheck(torch.ops.bertfast.ragged_attention.default, arguments)


def test_operands_of_other_shapes() -> None:
    query, key, value = (x.detach() for x in qkv())
    rest = (CU, torch.tensor([3]), 0.2, 0.0)
    for tensors in ((query, key.transpose(1, 2).contiguous(), value), (query, key, value[:, :1])):
        with pytest.raises(ShapeError, match="like query"):
            torch.ops.bertfast.ragged_attention(*tensors, *rest)


@pytest.mark.parametrize("size", [32, 26])
@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [
        ("_flash", torch.bfloat16),
        ("_memory_efficient", torch.float32),
        ("_memory_efficient", torch.bfloat16),
        ("_jagged", torch.float32),
        ("_jagged", torch.bfloat16),
    ],
)
def test_what_runs_on_a_gpu_says_the_same(
    kernel: str, dtype: torch.dtype, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels by the formula, jagged tensors on PyTorch's code for CPUs."""
    monkeypatch.setattr(ragged, "_kernel", lambda *_: getattr(ragged, kernel))
    tensors = qkv(dtype, size=size)
    query, key, value = tensors
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    with kernels_on_the_cpu() as calls:
        got, want = ragged._on_gpu(query, key, value, boundaries(query), 0.2, 0.0), attend(tensors)
        torch.testing.assert_close(got, want, **tolerance)
        upstream = torch.randn_like(want)
        for one, other in zip(
            torch.autograd.grad(got, tensors, upstream),
            torch.autograd.grad(want, tensors, upstream),
            strict=True,
        ):
            torch.testing.assert_close(one, other, **tolerance)
    assert bool(calls) == (kernel != "_jagged")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_with_a_kernel_of_a_gpu_compiles_once(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For batches of all lengths, with the gradients of what is not compiled."""

    def on_a_gpu(query: Tensor, key: Tensor, value: Tensor, sequences: Boundaries, **options: Any) -> Any:
        q, k, v = (x.bfloat16() for x in (query, key, value))
        context = ragged._on_gpu(q, k, v, sequences, options["scale"], options["dropout"])
        return context.float(), None

    monkeypatch.setattr(bert, "ragged_attention", on_a_gpu)
    monkeypatch.setattr(ragged, "_kernel", lambda *_: ragged._flash)
    sizes = SIZES | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.25}
    model = BertForMaskedLM(BertConfig(**sizes)).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, dynamic=True, backend=counter)
    frames = set()
    with kernels_on_the_cpu() as calls:
        for lengths in ([5, 1, 33, 32, 65], [7, 13, 40], [60, 20]):
            ends = torch.tensor([0, *lengths]).cumsum(0)
            ids = torch.randint(5, 99, (sum(lengths),))
            grads = []
            for one in (model, compiled):
                model.zero_grad()
                one(ids, labels=ids, cu_seqlens=Boundaries.of(ends, ids)).loss.backward()
                grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
            for a, b in zip(*grads, strict=True):
                torch.testing.assert_close(a, b, rtol=2e-2, atol=1e-3)
            frames.add(counter.frame_count)
    assert set(calls) == {("flash", 0.25), ("flash backward", 0.25)}
    assert len(frames) == 1


def test_attentions_and_hidden_states_are_those_of_each_sequence() -> None:
    model = BertModel(BertConfig(**SIZES)).eval()
    ids = torch.randint(5, 99, (136,))
    asked = {"output_attentions": True, "output_hidden_states": True}
    with torch.no_grad():
        ragged = model(ids, cu_seqlens=CU, **asked)
        for number, (start, end) in enumerate(pairwise(CU.tolist())):
            one = model(ids[None, start:end], **asked)
            torch.testing.assert_close(ragged.last_hidden_state[start:end], one.last_hidden_state[0])
            torch.testing.assert_close(ragged.pooler_output[number], one.pooler_output[0])
            for layer in range(2):
                torch.testing.assert_close(ragged.attentions[layer][number], one.attentions[layer][0])
                torch.testing.assert_close(
                    ragged.hidden_states[layer][start:end], one.hidden_states[layer][0]
                )


@pytest.mark.parametrize(
    "model", [BertModel(BertConfig(**SIZES)), AlbertModel(AlbertConfig(**SIZES, embedding_size=16))]
)
def test_dropout_is_the_same_when_layers_are_computed_again(model: BertModel) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    model.train()
    ids = torch.randint(5, 99, (136,))
    found = []
    for again in (False, True):
        (model.gradient_checkpointing_enable if again else model.gradient_checkpointing_disable)()
        torch.manual_seed(4)
        model.zero_grad()
        model(ids, cu_seqlens=CU).last_hidden_state.square().mean().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(found[0]) > 10
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_embeddings_in_place_of_ids() -> None:
    model = BertModel(BertConfig(**SIZES)).eval()
    ids = torch.randint(5, 99, (136,))
    with torch.no_grad():
        want = model(ids, cu_seqlens=CU).last_hidden_state
        got = model(inputs_embeds=model.embeddings.word_embeddings(ids), cu_seqlens=CU).last_hidden_state
    assert torch.equal(got, want)


def test_a_compiled_model() -> None:
    model = BertForMaskedLM(BertConfig(**SIZES, hidden_dropout_prob=0.0)).train()
    model.bert.encoder.layer[0].attention.self.dropout.p = 0.0
    model.bert.encoder.layer[1].attention.self.dropout.p = 0.0
    compiled = torch.compile(model, dynamic=True)
    for cu_seqlens in (CU, torch.tensor([0, 7, 20, 60])):
        tokens = int(cu_seqlens[-1])
        ids = torch.randint(5, 99, (tokens,))
        arguments = {
            "labels": torch.randint(5, 99, (tokens,)),
            "masked_positions": torch.arange(0, tokens, 5),
            "cu_seqlens": cu_seqlens,
        }
        losses, grads = [], []
        for one in (model, compiled):
            model.zero_grad()
            loss = one(ids, **arguments).loss
            loss.backward()
            losses.append(float(loss.detach()))
            grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_what_is_compiled_knows_the_longest_sequence() -> None:
    """As on a GPU, whose kernels want to know: nothing leaves the graph, and no length makes a new one."""
    counter = CompileCounter()

    def on_a_gpu(rows: Tensor, sequences: Boundaries) -> Tensor:
        return rows * sequences.longest

    compiled = torch.compile(on_a_gpu, dynamic=True, fullgraph=True, backend=counter)
    for lengths in ([5, 1, 33], [7, 13, 40], [60, 20], [3, 3]):
        ends = torch.tensor([0, *lengths]).cumsum(0)
        rows = torch.ones(sum(lengths))
        assert torch.equal(compiled(rows, Boundaries.of(ends, rows)), rows * max(lengths))
    assert counter.frame_count == 1


IDS = torch.randint(5, 99, (136,))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"input_ids": IDS[None]}, ShapeError, r"input_ids: expected shape \(T,\) with cu_seqlens"),
        ({"input_ids": IDS[:-1]}, ShapeError, "cu_seqlens: expected to rise strictly from 0 to 135"),
        ({"cu_seqlens": torch.tensor([0, 5, 5, 136])}, ShapeError, "cu_seqlens: expected to rise"),
        ({"cu_seqlens": torch.tensor([1, 136])}, ShapeError, "cu_seqlens: expected to rise"),
        ({"cu_seqlens": torch.tensor([136])}, ShapeError, r"cu_seqlens: expected shape \(B \+ 1,\)"),
        ({"cu_seqlens": CU.float()}, DtypeError, "cu_seqlens: expected integers"),
        ({"cu_seqlens": torch.tensor([0, 136])}, ShapeError, "a sequence of 136 tokens"),
        ({"token_type_ids": IDS[:5]}, ShapeError, "token_type_ids: expected shape"),
        ({"position_ids": IDS[None]}, ShapeError, "position_ids: expected shape"),
        ({"attention_mask": torch.ones(136)}, ArgumentError, "either attention_mask or cu_seqlens"),
        ({"input_ids": None}, ArgumentError, "either input_ids or inputs_embeds"),
        ({"inputs_embeds": torch.zeros(136, 32)}, ArgumentError, "either input_ids or inputs_embeds"),
        (
            {"input_ids": None, "inputs_embeds": torch.zeros(136, 31)},
            ShapeError,
            r"inputs_embeds: expected shape \(T, 32\)",
        ),
    ],
)
def test_what_does_not_fit(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    model = BertModel(BertConfig(**SIZES))
    with pytest.raises(error, match=text):
        model(**{"input_ids": IDS, "cu_seqlens": CU} | arguments)
