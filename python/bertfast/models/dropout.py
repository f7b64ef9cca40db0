"""Dropout whose random numbers are made by all threads.

On a CPU PyTorch draws them one after the other, which takes a tenth of a training step.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bertfast import _bertfast
from bertfast.models.arrays import array_of


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`; on a CPU what is dropped is a function of a number drawn from PyTorch's generator.

    The probability counts in steps of 2^-16.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        drops = self.training and self.p > 0
        ours = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
        # Compiled, PyTorch's own is put together with what is around it.
        if drops and ours and not torch.compiler.is_compiling():
            result: Tensor = rust_dropout(x, torch.randint(2**62, (1,)), self.p)
            return result
        return super().forward(x)


@torch.library.custom_op("bertfast::dropout", mutates_args=(), device_types="cpu")
def rust_dropout(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Some values are 0, the others are scaled so that their mean stays.

    Args:
        x: float32 or bfloat16, on the CPU.
        seed: (1,) int64, from 0 on: which ones.
        p: Probability of a value to be dropped.

    Raises:
        ArgumentError: ``p`` is no probability.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    flat = (array_of(x.reshape(-1)), array_of(out.view(-1)))
    _bertfast.dropout(*flat, p, int(seed), torch.get_num_threads())
    return out


@rust_dropout.register_fake
def _(x: Tensor, seed: Tensor, p: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    _, seed, ctx.p = inputs
    ctx.save_for_backward(seed)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (seed,) = ctx.saved_tensors
    return rust_dropout(grad, seed, ctx.p), None, None


rust_dropout.register_autograd(_backward, setup_context=_setup_context)
