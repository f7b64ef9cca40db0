"""Dropout by all threads: what is dropped, its gradient, and the generator that it follows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bertfast.models import BertConfig, BertModel
from bertfast.models.dropout import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7,), (3, 50), (300, 5, 33)])
def test_what_is_left_is_scaled_and_so_is_its_gradient(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = (torch.rand(shape) + 1).to(dtype).requires_grad_()
    module = Dropout(0.25)
    y = module(x)
    kept = y != 0
    factor = (torch.ones(1, dtype=dtype) / 0.75).item()
    torch.testing.assert_close(y[kept], (x * factor)[kept], rtol=1e-2, atol=0)
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    torch.testing.assert_close(gradient, kept.to(dtype) * factor, rtol=1e-2, atol=0)
    if x.numel() > 10_000:
        assert abs(float(kept.float().mean()) - 0.75) < 0.01


def test_it_follows_the_generator() -> None:
    x, module = torch.ones(1000), Dropout(0.5)
    torch.manual_seed(3)
    first, second = module(x), module(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, module(x))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_or_everything(p: float) -> None:
    x = torch.ones(100)
    assert torch.equal(Dropout(p)(x), x * (1 - p))


def test_evaluation_changes_nothing() -> None:
    x = torch.randn(100)
    assert Dropout(0.5).eval()(x) is x


def test_threads_and_strides_change_nothing() -> None:
    x, module = torch.rand(90, 200) + 1, Dropout(0.3)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.manual_seed(1)
            found.append(module(x))
        torch.manual_seed(1)
        found.append(module(x.t().contiguous().t()))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_operator_keeps_the_rules_of_torch() -> None:
    x = torch.randn(40, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.bertfast.dropout.default, (x, torch.tensor([3]), 0.2))


def test_models_are_printed_as_before() -> None:
    model = BertModel(BertConfig(num_hidden_layers=1, hidden_size=12, intermediate_size=7))
    assert "(dropout): Dropout(p=0.1, inplace=False)" in str(model)
    assert all(isinstance(m, Dropout) for m in model.modules() if isinstance(m, nn.Dropout))
