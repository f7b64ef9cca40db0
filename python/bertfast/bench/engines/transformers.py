"""torch through Hugging Face transformers, its fused attention (sdpa); the reference for accuracy, too."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertfast.bench.engines import Setup
from bertfast.bench.engines.ids_only import IdsOnly


def load_model(setup: Setup) -> Any:
    """The torch module in the setup's dtype, without a pooler, ready for inference."""
    import torch
    from transformers import AutoModel

    torch.set_num_threads(setup.threads)
    model = AutoModel.from_pretrained(
        str(setup.folder),
        attn_implementation="sdpa",
        dtype=getattr(torch, setup.dtype),
        add_pooling_layer=False,
    )
    return model.eval()


class Transformers(IdsOnly):
    """A torch module of transformers, eager or compiled."""

    def __init__(self, setup: Setup, model: Any) -> None:
        super().__init__(setup)
        import torch
        import transformers

        self.version = f"{transformers.__version__}, torch {torch.__version__}"
        self._torch = torch
        self._model = model

    def run_ids(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Engine`."""
        torch = self._torch
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(attention_mask)
            )
        return np.asarray(output.last_hidden_state.float().numpy())


def prepare(setup: Setup) -> Transformers:
    """See `EngineModule`."""
    return Transformers(setup, load_model(setup))
