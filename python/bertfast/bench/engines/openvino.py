"""OpenVINO on the plain ONNX export (it fuses by itself), held to the dtype that is measured.

Without the precision hint it silently computes in bfloat16 on CPUs that have it, which is another contest. In
int8 (quantized by NNCF with calibration) what is not quantized may run as it likes: that is the faster way.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertfast.bench import prepare as prepared
from bertfast.bench.dtypes import BFLOAT16, FLOAT32, INT8
from bertfast.bench.engines import Setup
from bertfast.bench.engines.ids_only import IdsOnly
from bertfast.bench.prepare import onnx_export, openvino_int8
from bertfast.errors import BertFastError

_HINTS = {FLOAT32: "f32", BFLOAT16: "bf16"}


class OpenVino(IdsOnly):
    """An OpenVINO model compiled for the CPU."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        import openvino

        self.version = openvino.__version__.split("-")[0]
        core = openvino.Core()
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": setup.threads * setup.calls,
            "NUM_STREAMS": setup.calls,
            "PERFORMANCE_HINT": "LATENCY" if setup.calls == 1 else "THROUGHPUT",
        }
        if setup.dtype in _HINTS:
            options["INFERENCE_PRECISION_HINT"] = _HINTS[setup.dtype]
        if setup.dtype == BFLOAT16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BertFastError("OpenVINO has no bfloat16 on this CPU")
        path = openvino_int8.path(setup) if setup.dtype == INT8 else onnx_export.plain_path(setup)
        self._compiled = core.compile_model(core.read_model(path), "CPU", options)
        self._requests = threading.local()

    def run_ids(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Engine`."""
        if not hasattr(self._requests, "mine"):
            self._requests.mine = self._compiled.create_infer_request()
        feed = onnx_export.feed(input_ids, attention_mask)
        return np.asarray(self._requests.mine.infer(feed, share_inputs=True)[onnx_export.OUTPUT])


def build(setup: Setup) -> None:
    """See `bertfast.bench.engines`."""
    prepared.ensure(setup, "openvino_int8" if setup.dtype == INT8 else "onnx_export")


def prepare(setup: Setup) -> OpenVino:
    """See `EngineModule`."""
    return OpenVino(setup)
