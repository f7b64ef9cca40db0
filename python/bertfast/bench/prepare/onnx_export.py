"""The model as ONNX, as torch writes it: what onnxruntime and OpenVINO begin with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertfast.bench import prepare
from bertfast.bench.engines import Setup

PACKAGES: tuple[str, ...] = ("onnx", "torch", "transformers")
NEEDS: tuple[str, ...] = ()
CALIBRATED = False

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"
OPSET = 17


def plain_path(setup: Setup) -> Path:
    """The export as torch wrote it."""
    return prepare.folder(setup, "onnx_export") / "plain.onnx"


def feed(input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The inputs by name; all tokens are of type 0."""
    return dict(zip(INPUTS, (input_ids, attention_mask, np.zeros_like(input_ids)), strict=True))


def main(setup: Setup, out: Path) -> None:
    """Writes ``plain.onnx``."""
    import torch
    from transformers import AutoModel

    # "eager" attention: from the "sdpa" graph the optimizer fuses no Attention, and OpenVINO is slower on
    # it too.
    model = AutoModel.from_pretrained(
        str(setup.folder), attn_implementation="eager", dtype=torch.float32, add_pooling_layer=False
    )
    export(model, {OUTPUT: {0: "batch", 1: "sequence"}}, out / "plain.onnx")


def export(model: Any, outputs: Mapping[str, dict[int, str]], path: Path) -> None:
    """Writes a model of transformers.

    Args:
        model: with "eager" attention.
        outputs: which of its outputs, and the names of their axes that are of any size.
        path: the file.
    """
    import torch

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            output = self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            )
            return tuple(output[name] for name in outputs)

    ids = torch.arange(5, 23).reshape(2, 9) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # A mask of ones only would be folded away.
    with torch.no_grad():
        torch.onnx.export(
            Named().eval(),
            (ids, mask, torch.zeros_like(ids)),
            str(path),
            opset_version=OPSET,
            dynamo=False,  # The optimizer knows the patterns of the TorchScript exporter.
            input_names=list(INPUTS),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in INPUTS} | dict(outputs),
        )
