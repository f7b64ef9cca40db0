"""Our engine, through the same public interface that everyone uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertfast.bench.engines import Setup


class BertFast:
    """`bertfast.Encoder`."""

    def __init__(self, setup: Setup) -> None:
        import bertfast

        self.version = bertfast.__version__
        self._encoder = bertfast.Encoder.from_pretrained(
            str(setup.folder), dtype=setup.dtype, num_threads=setup.threads
        )

    def run_ids(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Engine`."""
        return np.asarray(self._encoder(input_ids, attention_mask).last_hidden_state)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Engine`."""
        return np.asarray(self._encoder.encode(list(texts), show_progress_bar=False))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Engine`."""
        ragged = self._encoder.tokenizer.encode_ragged(
            list(texts), truncation=True, max_length=self._encoder.max_seq_length
        )
        return [int(n) for n in np.diff(ragged.cu_seqlens)]


def prepare(setup: Setup) -> BertFast:
    """See `EngineModule`."""
    return BertFast(setup)
