"""The optimized graph with int8 weights per output channel, by onnxruntime's dynamic quantization."""

from __future__ import annotations

from pathlib import Path

from bertfast.bench import prepare
from bertfast.bench.engines import Setup
from bertfast.bench.prepare import onnx_optimized

PACKAGES: tuple[str, ...] = ("onnx", "onnxruntime")
NEEDS: tuple[str, ...] = ("onnx_optimized",)
CALIBRATED = False


def path(setup: Setup) -> Path:
    """The result."""
    return prepare.folder(setup, "onnx_int8") / "model.onnx"


def main(setup: Setup, out: Path) -> None:
    """Writes ``model.onnx``."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(onnx_optimized.path(setup)),
        str(out / "model.onnx"),
        per_channel=True,
        weight_type=QuantType.QInt8,
        # What comes out of fused nodes, whose types onnx cannot infer.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
