"""torch.compile over the transformers model; it compiles for each shape in the untimed calls."""

from __future__ import annotations

from bertfast.bench.engines import Setup
from bertfast.bench.engines.transformers import Transformers, load_model


def prepare(setup: Setup) -> Transformers:
    """See `EngineModule`."""
    import torch

    return Transformers(setup, torch.compile(load_model(setup)))
