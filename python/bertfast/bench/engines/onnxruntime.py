"""onnxruntime on the graph that its own BERT optimizer fuses (Attention, SkipLayerNormalization, ...)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertfast.bench import export
from bertfast.bench.engines import Setup
from bertfast.bench.peer_texts import PeerTexts


class OnnxRuntime:
    """`onnxruntime.InferenceSession`."""

    def __init__(self, setup: Setup) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setup.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.version = onnxruntime.__version__
        self._session = onnxruntime.InferenceSession(
            str(export.optimized_path(setup)), options, providers=["CPUExecutionProvider"]
        )
        self._texts = PeerTexts(setup)

    def run_ids(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Engine`."""
        feed = export.feed(input_ids, attention_mask)
        return np.asarray(self._session.run([export.OUTPUT], feed)[0])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Engine`."""
        return self._texts.encode(texts, self.run_ids)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Engine`."""
        return self._texts.count_tokens(texts)


def build(setup: Setup) -> None:
    """See `bertfast.bench.engines`."""
    export.ensure(setup)


def prepare(setup: Setup) -> OnnxRuntime:
    """See `EngineModule`."""
    return OnnxRuntime(setup)
