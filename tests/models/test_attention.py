"""The attention dispatch and the Rust kernel as a torch operator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bertfast.errors import ShapeError
from bertfast.models import attention as module
from bertfast.models.attention import attention, eager_attention, rust_attention


def heads(*shape: int, seed: int = 0, spread: float = 1.0) -> list[Tensor]:
    """q, k, v of shape (B, N, S, H), as strided as the model makes them: views of (B, S, N * H)."""
    batch, count, length, size = shape
    generator = torch.Generator().manual_seed(seed)
    return [
        (spread * torch.randn(batch, length, count, size, generator=generator)).transpose(1, 2)
        for _ in range(3)
    ]


def truth(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return eager_attention(q.double(), k.double(), v.double(), mask, scale=scale)[0]


SHAPES = [(1, 1, 1, 1), (2, 3, 5, 26), (3, 12, 17, 32), (1, 2, 130, 64), (2, 4, 64, 3), (1, 1, 33, 130)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pattern", ["none", "right", "left", "holes"])
@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_rust_operator_against_the_formula_in_float64(
    shape: tuple[int, int, int, int], pattern: str, spread: float
) -> None:
    batch, _, length, size = shape
    q, k, v = heads(*shape, spread=spread)
    mask = {
        "none": None,
        "right": torch.arange(length)[None] < torch.arange(batch)[:, None] * 2 + (length + 1) // 2,
        "left": torch.arange(length)[None] >= (torch.arange(batch)[:, None] + length) // 3,
        "holes": torch.rand(batch, length, generator=torch.Generator().manual_seed(5)) < 0.5,
    }[pattern]
    if mask is not None:
        mask[:, length // 2] = True  # at least one
    got = rust_attention(q, k, v, mask, size**-0.5)
    assert got.shape == q.shape
    assert got.dtype == torch.float32
    expected = truth(q, k, v, mask, size**-0.5)
    # The scores have the size spread^2; their rounding, 2^-24 * spread^2 * sqrt(H), is the relative error of
    # a weight. PyTorch's own kernel meets the same limit.
    limit = 2**-24 * (4 + spread**2 * math.sqrt(size)) * v.abs().max().item()
    assert (got - expected).abs().max().item() <= limit


def test_any_strides() -> None:
    q, k, v = heads(2, 3, 9, 26)
    expected = rust_attention(q, k, v, None, 0.2)
    for strided in (
        [t.contiguous() for t in (q, k, v)],
        [t.transpose(2, 3).contiguous().transpose(2, 3) for t in (q, k, v)],
        [torch.stack([t, -t], dim=-1)[..., 0] for t in (q, k, v)],
        list(torch.cat([q, k, v], dim=-1).split(26, dim=-1)),
    ):
        torch.testing.assert_close(rust_attention(*strided, None, 0.2), expected, rtol=0, atol=0)
    broadcast = k[:1].expand(2, -1, -1, -1)
    torch.testing.assert_close(
        rust_attention(q, broadcast, v, None, 0.2),
        rust_attention(q, broadcast.contiguous(), v, None, 0.2),
        rtol=0,
        atol=0,
    )


def test_masked_values_are_never_read() -> None:
    q, k, v = heads(2, 2, 7, 8)
    mask = torch.tensor([[1, 1, 0, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1, 0]], dtype=torch.bool)
    expected = rust_attention(q, k, v, mask, 0.3)
    for poison in (math.nan, math.inf):
        for tensor in (k, v):
            tensor.masked_fill_(~mask[:, None, :, None], poison)
        torch.testing.assert_close(rust_attention(q, k, v, mask, 0.3), expected, rtol=0, atol=0)


def test_no_keys_at_all_give_zero() -> None:
    q, k, v = heads(2, 3, 5, 8)
    mask = torch.tensor([[False] * 5, [True] * 5])
    got = rust_attention(q, k, v, mask, 0.3)
    assert not got[0].any()
    assert torch.equal(got[1:], rust_attention(q[1:], k[1:], v[1:], None, 0.3))


def test_bits_depend_neither_on_the_batch_nor_on_threads_nor_on_masked_columns() -> None:
    q, k, v = heads(5, 3, 37, 26)
    lengths = torch.tensor([37, 1, 16, 33, 20])
    mask = torch.arange(37)[None] < lengths[:, None]
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            together = rust_attention(q, k, v, mask, 0.2)
            for row, length in enumerate(lengths.tolist()):
                alone = rust_attention(*(t[row : row + 1, :, :length] for t in (q, k, v)), None, 0.2)
                assert torch.equal(together[row, :, :length], alone[0])
    finally:
        torch.set_num_threads(before)


def test_shapes_that_do_not_fit() -> None:
    q, k, v = heads(2, 3, 5, 8)
    with pytest.raises(ShapeError, match="key: expected shape"):
        rust_attention(q, k[:, :2], v, None, 0.3)
    with pytest.raises(ShapeError, match="key_mask: expected shape"):
        rust_attention(q, k, v, torch.ones(2, 6, dtype=torch.bool), 0.3)


@pytest.mark.parametrize("masked", [False, True])
def test_opcheck(masked: bool) -> None:
    q, k, v = heads(2, 3, 5, 26)
    mask = torch.tensor([[1, 1, 1, 0, 1], [0, 1, 1, 1, 1]], dtype=torch.bool) if masked else None
    torch.library.opcheck(torch.ops.bertfast.attention.default, (q, k, v, mask, 0.2))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The implementations that ran, in order."""
    ran: list[str] = []

    def record(name: str, function):
        def wrapper(*args, **kwargs):
            ran.append(name)
            return function(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(module, "rust_attention", record("rust", module.rust_attention))
    monkeypatch.setattr(module, "eager_attention", record("eager", module.eager_attention))
    sdpa = record("sdpa", torch.nn.functional.scaled_dot_product_attention)
    monkeypatch.setattr(module.F, "scaled_dot_product_attention", sdpa)
    return ran


def test_which_implementation_runs(calls: list[str]) -> None:
    q, k, v = heads(2, 3, 5, 8)
    key_mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    full = key_mask[:, None, None, :].expand(2, 1, 5, 5)
    wants_gradient = q.clone().requires_grad_()

    def ran(*tensors: Tensor, **kwargs: object) -> str:
        calls.clear()
        attention(*tensors, scale=0.3, **kwargs)  # type: ignore[arg-type]
        assert len(calls) == 1
        return calls[0]

    assert ran(q, k, v) == "rust"
    assert ran(q, k, v, key_mask) == "rust"
    assert ran(q, k, v, full) == "sdpa"
    assert ran(q, k, v, torch.zeros(2, 1, 5, 5)) == "sdpa"
    assert ran(q, k, v, dropout=0.5) == "sdpa"
    assert ran(q.double(), k.double(), v.double()) == "sdpa"
    assert ran(q.bfloat16(), k.bfloat16(), v.bfloat16()) == "sdpa"
    assert ran(wants_gradient, k, v) == "sdpa"
    with torch.no_grad():
        assert ran(wants_gradient, k, v) == "rust"
    with torch.inference_mode():
        assert ran(wants_gradient, k, v, key_mask) == "rust"
    assert ran(q, k, v, implementation="sdpa") == "sdpa"
    assert ran(q, k, v, implementation="eager") == "eager"
    assert ran(*(t.to("meta") for t in (q, k, v))) == "sdpa"  # as on any other device than the CPU


def test_all_implementations_agree() -> None:
    q, k, v = heads(3, 2, 11, 26)
    key_mask = torch.rand(3, 11, generator=torch.Generator().manual_seed(1)) < 0.6
    key_mask[:, 4] = True
    pairs = torch.rand(3, 2, 11, 11, generator=torch.Generator().manual_seed(2)) < 0.6
    pairs[..., 0] = True
    additive = torch.zeros(3, 1, 1, 11).masked_fill(~key_mask[:, None, None], -math.inf)
    for mask in (None, key_mask, pairs, additive):
        expected = truth(q, k, v, mask, 0.2)
        for implementation in ("auto", "sdpa", "eager"):
            got = attention(q, k, v, mask, scale=0.2, implementation=implementation)  # type: ignore[arg-type]
            torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6)
    by_key = attention(q, k, v, key_mask, scale=0.2)
    torch.testing.assert_close(attention(q, k, v, additive, scale=0.2), by_key, rtol=0, atol=2e-6)


def test_dropout_drops_weights_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    q = k = torch.zeros(1, 1, 400, 4)
    value = torch.eye(400)[None, None]
    _, weights = eager_attention(q, k, value, scale=1.0, dropout=0.25)
    kept = weights > 0
    assert abs(kept.double().mean().item() - 0.75) < 0.01
    torch.testing.assert_close(weights[kept], torch.full_like(weights[kept], 1 / 400 / 0.75))
