"""onnxruntime on the graph that its own BERT optimizer fuses (Attention, SkipLayerNormalization, ...).

In int8 on the same graph, quantized by its ``quantize_dynamic``: weights per channel beforehand, activations
per tensor while it runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bertfast.bench import prepare as prepared
from bertfast.bench.dtypes import INT8
from bertfast.bench.engines import Setup
from bertfast.bench.engines.ids_only import IdsOnly
from bertfast.bench.prepare import onnx_export, onnx_int8, onnx_optimized


class OnnxRuntime(IdsOnly):
    """`onnxruntime.InferenceSession`."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread: each call computes on the thread that made it.
        options.intra_op_num_threads = setup.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.version = onnxruntime.__version__
        model = onnx_int8.path(setup) if setup.dtype == INT8 else onnx_optimized.path(setup)
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def run_ids(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Engine`."""
        feed = onnx_export.feed(input_ids, attention_mask)
        return np.asarray(self._session.run([onnx_export.OUTPUT], feed)[0])


def build(setup: Setup) -> None:
    """See `bertfast.bench.engines`."""
    prepared.ensure(setup, "onnx_int8" if setup.dtype == INT8 else "onnx_optimized")


def prepare(setup: Setup) -> OnnxRuntime:
    """See `EngineModule`."""
    return OnnxRuntime(setup)
