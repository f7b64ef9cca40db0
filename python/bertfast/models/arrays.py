"""Tensors on the CPU as the arrays that the extension takes."""

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def array_of(tensor: Tensor) -> npt.NDArray[Any]:
    """A view of it; NumPy has no bfloat16, so that its bits are unsigned integers."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
