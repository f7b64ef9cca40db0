"""A snapshot: tensors in memory to the Rust engine, which never sees a change of theirs afterwards."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bertfast import _bertfast, arguments
from bertfast.models.weights import save_weights
from bertfast.steps import Engine


def load_engine(
    config: Mapping[str, Any],
    weights: Mapping[str, Any],
    *,
    head: str | None = None,
    dtype: str | Sequence[str] = "float32",
    num_threads: int | None = None,
    isa: str | None = None,
) -> Engine:
    """The Rust engine with these weights.

    They go there in a safetensors file, in a private folder that is gone when this returns.

    Args:
        config: The content of ``config.json``.
        weights: A ``state_dict`` on the CPU, in any dtype and with any strides. Of several names for one
            tensor that of the embeddings counts, else the first; what is no tensor is left out.
        head: Name of the head that is computed, one of ``bertfast.heads.HEADS``; None for the bare encoder.
        dtype: What the engine computes in, as in `bertfast.Encoder.from_pretrained`; ``"auto"`` is
            ``"float32"``.
        num_threads: Limit on the threads that it uses.
        isa: Instruction set level, as in `bertfast.Encoder.from_pretrained`.

    Raises:
        ConfigError: The model is none that bertfast can run.
        CheckpointError: Tensors are missing or misshapen (all are listed).
        ArgumentError: An argument has no such value, or this CPU does not run the dtype.
    """
    arguments.check_num_threads(num_threads)
    dtype = arguments.first_native(arguments.check_dtypes(dtype), isa)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.safetensors")
        save_weights(_distinct(weights), file)
        # The engine maps the file; its pages stay when the name goes.
        return _bertfast.Encoder.load(
            json.dumps(config), [file], dtype=dtype, num_threads=num_threads, isa=isa, head=head
        )


def _distinct(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Each tensor once, in a dtype that the engine reads: not float64."""
    tensors: dict[str, Tensor] = {}
    places = set()
    # Not every model has its embeddings before the decoder that shares their tensor.
    for name in sorted(weights, key=lambda name: "embeddings" not in name):
        tensor = weights[name]
        if not isinstance(tensor, Tensor):
            continue
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in places:
            continue
        places.add(place)
        if tensor.dtype == torch.float64:
            tensor = tensor.float()
        elif tensor.untyped_storage().nbytes() > tensor.nbytes:
            tensor = tensor.clone()  # a part of a larger one, which safetensors would take for a second name
        tensors[name] = tensor
    return tensors
