"""LAMB against its formula, BERT's groups of parameters, and the course of the learning rate."""

import numpy as np
import pytest
import torch
from torch import nn

from bertfast.errors import ArgumentError
from bertfast.models import AlbertConfig, AlbertForPreTraining, BertConfig, BertForPreTraining
from bertfast.training.optimizers import Lamb, learning_rate, parameter_groups, schedule

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("config", "kind"), [(BertConfig, BertForPreTraining), (AlbertConfig, AlbertForPreTraining)]
)
def test_biases_and_norms_are_not_decayed(config, kind):
    model = kind(config(**SMALL, intermediate_size=32))
    decayed, plain = parameter_groups(model, 0.02)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.02, 0.0)
    assert (decayed["layer_adaptation"], plain["layer_adaptation"]) == (True, False)
    kept = {id(p) for p in plain["params"]}
    for name, parameter in model.named_parameters():
        lower = name.lower()
        assert (id(parameter) in kept) == (lower.endswith("bias") or "norm" in lower), name
    ids = [id(p) for group in (decayed, plain) for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))


def test_what_is_frozen_is_left_out():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    model[0].requires_grad_(False)
    (group,) = parameter_groups(model)
    assert len(group["params"]) == 2
    assert group["weight_decay"] == 0


def plain_lamb(weight, gradients, lr, betas, eps, decay, adapt, corrected):
    """The formula, for one tensor, in float64."""
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for step, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat = m / (1 - betas[0] ** step) if corrected else m
        v_hat = v / (1 - betas[1] ** step) if corrected else v
        u = m_hat / (np.sqrt(v_hat) + eps) + decay * weight
        lengths = np.linalg.norm(weight), np.linalg.norm(u)
        ratio = lengths[0] / lengths[1] if adapt and lengths[0] > 0 and lengths[1] > 0 else 1.0
        weight = weight - lr * ratio * u
    return weight


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lamb_is_its_formula(corrected: bool, adapt: bool, decay: float):
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=(3, 4)), rng.normal(size=5), np.zeros(3)]
    gradients = [[rng.normal(size=start.shape) for start in starts] for _ in range(6)]
    tensors = [nn.Parameter(torch.tensor(start)) for start in starts]
    optimizer = Lamb(
        tensors,
        lr=0.05,
        betas=(0.8, 0.9),
        weight_decay=decay,
        layer_adaptation=adapt,
        bias_correction=corrected,
    )
    for step in gradients:
        for tensor, gradient in zip(tensors, step, strict=True):
            tensor.grad = torch.tensor(gradient)
        optimizer.step()
    for index, (tensor, start) in enumerate(zip(tensors, starts, strict=True)):
        own = [step[index] for step in gradients]
        expected = plain_lamb(start, own, 0.05, (0.8, 0.9), 1e-6, decay, adapt, corrected)
        np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_lamb_goes_on_from_its_state():
    def make() -> tuple[nn.Module, Lamb]:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return model, Lamb(parameter_groups(model), lr=0.1)

    def train(model: nn.Module, optimizer: Lamb, steps: range) -> None:
        for step in steps:
            x = torch.full((2, 4), float(step + 1))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    whole, first = make(), make()
    train(*whole, range(6))
    train(*first, range(3))
    second = make()
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    train(*second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True))


def test_the_learning_rate_rises_and_falls():
    def rates(**options) -> list[float]:
        return [learning_rate(step, warmup_steps=4, total_steps=8, **options) for step in range(10)]

    assert rates() == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0]
    assert rates(decay="polynomial", power=2.0)[4:9] == [1, 0.5625, 0.25, 0.0625, 0]
    assert rates(end=0.5)[4:] == [1, 0.875, 0.75, 0.625, 0.5, 0.5]
    assert rates(decay="constant")[3:] == [0.75, *[1] * 6]
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    scheduler = schedule(optimizer, warmup_steps=2, total_steps=4)
    seen = []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == [0, 1, 2, 1, 0]


def test_bad_values():
    parameters = list(nn.Linear(1, 1).parameters())
    for options in ({"lr": -1}, {"eps": float("nan")}, {"betas": (0.9, 1.0)}, {"weight_decay": -0.1}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            Lamb(parameters, **options)
    optimizer = Lamb(parameters)
    for options in (
        {"warmup_steps": 5, "total_steps": 4},
        {"warmup_steps": 0, "total_steps": 0},
        {"warmup_steps": 0, "total_steps": 4, "decay": "cosine"},
        {"warmup_steps": 0, "total_steps": 4, "power": 0},
    ):
        with pytest.raises(ArgumentError, match="expected"):
            schedule(optimizer, **options)
