"""The model with its head as ONNX, after onnxruntime's BERT optimizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bertfast.bench import prepare
from bertfast.bench.engines import Setup
from bertfast.bench.prepare.onnx_export import INPUTS, OPSET

PACKAGES: tuple[str, ...] = ("onnx", "onnxruntime", "torch", "transformers")
NEEDS: tuple[str, ...] = ()
CALIBRATED = False


def path(setup: Setup) -> Path:
    """The result."""
    return prepare.folder(setup, "task_onnx") / "model.onnx"


def main(setup: Setup, out: Path) -> None:
    """Writes ``model.onnx``."""
    import torch
    from onnxruntime.transformers import optimizer

    from bertfast.bench.task_engines.transformers import model_class

    assert setup.task is not None
    names = ("start_logits", "end_logits") if setup.task == "question-answering" else ("logits",)

    class Logits(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            output = self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            )
            return tuple(output[name] for name in names)

    model = model_class(setup.task).from_pretrained(
        str(setup.folder), attn_implementation="eager", dtype=torch.float32
    )
    ids = torch.arange(5, 23).reshape(2, 9) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # A mask of ones only would be folded away.
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "sequence"} for name in INPUTS}
    axes |= {
        name: {0: "batch"} if setup.task == "text-classification" else {0: "batch", 1: "sequence"}
        for name in names
    }
    plain = out / "plain.onnx"
    with torch.no_grad():
        torch.onnx.export(
            Logits(model).eval(),
            (ids, mask, torch.zeros_like(ids)),
            str(plain),
            opset_version=OPSET,
            dynamo=False,  # The optimizer knows the patterns of the TorchScript exporter.
            input_names=list(INPUTS),
            output_names=list(names),
            dynamic_axes=axes,
        )
    config = json.loads((setup.folder / "config.json").read_text(encoding="utf-8"))
    optimized = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
    )
    optimized.save_model_to_file(str(out / "model.onnx"))
    plain.unlink()
