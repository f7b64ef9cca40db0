"""CTranslate2, which takes the padding out of a batch; int8 is its own dynamic quantization."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bertfast.bench import prepare as prepared
from bertfast.bench.dtypes import INT8
from bertfast.bench.engines import Setup
from bertfast.bench.engines.ids_only import IdsOnly


class CTranslate2(IdsOnly):
    """`ctranslate2.Encoder`."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        import ctranslate2

        self.version = ctranslate2.__version__
        self._view = ctranslate2.StorageView.from_array
        self._encoder = ctranslate2.Encoder(
            str(prepared.folder(setup, _step(setup))),
            device="cpu",
            compute_type=setup.dtype,
            intra_threads=setup.threads,
            inter_threads=setup.calls,
        )

    def run_ids(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Engine`."""
        ids, lengths = input_ids.astype(np.int32), attention_mask.sum(axis=1).astype(np.int32)
        output = self._encoder.forward_batch(self._view(ids), self._view(lengths))
        return np.array(output.last_hidden_state)


def _step(setup: Setup) -> str:
    return "ctranslate2_int8" if setup.dtype == INT8 else "ctranslate2_float32"


def build(setup: Setup) -> None:
    """See `bertfast.bench.engines`."""
    prepared.ensure(setup, _step(setup))


def prepare(setup: Setup) -> CTranslate2:
    """See `EngineModule`."""
    return CTranslate2(setup)
