"""The export after onnxruntime's BERT optimizer: Attention, BiasGelu, ... are one node each."""

from __future__ import annotations

import json
from pathlib import Path

from bertfast.bench import prepare
from bertfast.bench.engines import Setup
from bertfast.bench.prepare import onnx_export

PACKAGES: tuple[str, ...] = ("onnxruntime",)
NEEDS: tuple[str, ...] = ("onnx_export",)
CALIBRATED = False


def path(setup: Setup) -> Path:
    """The result."""
    return prepare.folder(setup, "onnx_optimized") / "model.onnx"


def main(setup: Setup, out: Path) -> None:
    """Writes ``model.onnx``; errors as in `optimize`."""
    optimize(onnx_export.plain_path(setup), setup.folder, out / "model.onnx")


def optimize(plain: Path, folder: Path, path: Path) -> None:
    """Writes what onnxruntime's optimizer makes of an export.

    Args:
        plain: the export.
        folder: of the model.
        path: the file.

    Raises:
        RuntimeError: the optimizer found no attention, so it would not be the graph that its users get.
    """
    from onnxruntime.transformers import optimizer

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
    )
    fused = model.get_fused_operator_statistics()
    if not fused.get("Attention"):
        raise RuntimeError(f"onnxruntime's optimizer fused no Attention: {fused}")
    model.save_model_to_file(str(path))
