"""The export quantized by NNCF: static int8 with statistics from calibration texts, as OpenVINO advises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bertfast.bench import prepare
from bertfast.bench.engines import Setup
from bertfast.bench.peer_texts import PeerTexts
from bertfast.bench.prepare import onnx_export
from bertfast.errors import BertFastError

PACKAGES: tuple[str, ...] = ("nncf", "openvino")
NEEDS: tuple[str, ...] = ("onnx_export",)
CALIBRATED = True


def path(setup: Setup) -> Path:
    """The result."""
    return prepare.folder(setup, "openvino_int8") / "model.xml"


def main(setup: Setup, out: Path) -> None:
    """Writes ``model.xml`` and ``model.bin``.

    Raises:
        BertFastError: there are no calibration texts.
    """
    import nncf
    import openvino

    if not setup.calibration:
        raise BertFastError("no texts to calibrate with")

    def inputs(ids: list[int]) -> Any:
        row = np.array([ids], dtype=np.int64)
        return onnx_export.feed(row, np.ones_like(row))

    quantized = nncf.quantize(
        openvino.Core().read_model(onnx_export.plain_path(setup)),
        nncf.Dataset(PeerTexts(setup).token_ids(setup.calibration), inputs),
        subset_size=len(setup.calibration),
        model_type=nncf.ModelType.TRANSFORMER,
    )
    openvino.save_model(quantized, str(out / "model.xml"), compress_to_fp16=False)
