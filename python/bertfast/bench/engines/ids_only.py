"""What the engines that know token ids only have in common: their way from texts to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertfast.bench.engines import Setup
from bertfast.bench.peer_texts import PeerTexts


class IdsOnly:
    """An engine whose texts are tokenized, batched and pooled by `PeerTexts`."""

    version: str

    def __init__(self, setup: Setup) -> None:
        self._texts = PeerTexts(setup)

    def run_ids(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Engine`."""
        raise NotImplementedError

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Engine`."""
        return self._texts.encode(texts, self.run_ids)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Engine`."""
        return self._texts.count_tokens(texts)
