"""OpenVINO on the plain ONNX export (it fuses by itself), held to float32.

Without the precision hint it silently computes in bfloat16 on CPUs that have it, which is another contest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertfast.bench import export
from bertfast.bench.engines import Setup
from bertfast.bench.peer_texts import PeerTexts


class OpenVino:
    """An OpenVINO model compiled for the CPU."""

    def __init__(self, setup: Setup) -> None:
        import openvino

        self.version = openvino.__version__.split("-")[0]
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(export.plain_path(setup)),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": setup.threads,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
            },
        )
        self._request = compiled.create_infer_request()
        self._texts = PeerTexts(setup)

    def run_ids(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Engine`."""
        feed = export.feed(input_ids, attention_mask)
        return np.asarray(self._request.infer(feed, share_inputs=True)[export.OUTPUT])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Engine`."""
        return self._texts.encode(texts, self.run_ids)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Engine`."""
        return self._texts.count_tokens(texts)


def build(setup: Setup) -> None:
    """See `bertfast.bench.engines`."""
    export.ensure(setup)


def prepare(setup: Setup) -> OpenVino:
    """See `EngineModule`."""
    return OpenVino(setup)
