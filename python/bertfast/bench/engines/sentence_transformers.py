"""sentence-transformers as its users call it. On ids it is transformers, so it runs on texts only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertfast.bench.engines import Setup
from bertfast.bench.peer_texts import BATCH_SIZE, PeerTexts


class SentenceTransformers:
    """`sentence_transformers.SentenceTransformer`."""

    def __init__(self, setup: Setup) -> None:
        import sentence_transformers
        import torch

        torch.set_num_threads(setup.threads)
        self.version = f"{sentence_transformers.__version__}, torch {torch.__version__}"
        self._model = sentence_transformers.SentenceTransformer(
            str(setup.folder), device="cpu", model_kwargs={"dtype": getattr(torch, setup.dtype)}
        )
        self._texts = PeerTexts(setup)

    def run_ids(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> None:
        """See `Engine`."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Engine`."""
        return np.asarray(self._model.encode(list(texts), batch_size=BATCH_SIZE, show_progress_bar=False))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `Engine`."""
        return self._texts.count_tokens(texts)


def prepare(setup: Setup) -> SentenceTransformers:
    """See `EngineModule`."""
    return SentenceTransformers(setup)
