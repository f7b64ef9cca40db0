"""The model with its head as ONNX, after onnxruntime's BERT optimizer."""

from __future__ import annotations

from pathlib import Path

from bertfast.bench import prepare
from bertfast.bench.engines import Setup
from bertfast.bench.prepare import onnx_export, onnx_optimized

PACKAGES: tuple[str, ...] = ("onnx", "onnxruntime", "torch", "transformers")
NEEDS: tuple[str, ...] = ()
CALIBRATED = False


def path(setup: Setup) -> Path:
    """The result."""
    return prepare.folder(setup, "task_onnx") / "model.onnx"


def main(setup: Setup, out: Path) -> None:
    """Writes ``model.onnx``; errors as in `onnx_optimized.optimize`."""
    import torch

    from bertfast.bench.task_engines.transformers import model_class

    assert setup.task is not None
    names = ("start_logits", "end_logits") if setup.task == "question-answering" else ("logits",)
    axes = {0: "batch"} if setup.task == "text-classification" else {0: "batch", 1: "sequence"}
    model = model_class(setup.task).from_pretrained(
        str(setup.folder), attn_implementation="eager", dtype=torch.float32
    )
    plain = out / "plain.onnx"
    onnx_export.export(model, dict.fromkeys(names, axes), plain)
    onnx_optimized.optimize(plain, setup.folder, out / "model.onnx")
    plain.unlink()
