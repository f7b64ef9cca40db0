"""Encoders of small random models, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import bertfast
from sentence_folder import make_sentence_folder, write_json, write_modules


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mean pooling and Normalize; leave it as it is."""
    return make_sentence_folder(tmp_path_factory.mktemp("sentence"))


@pytest.fixture(params=["rust", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(backend: str) -> Callable[..., bertfast.Encoder]:
    """`Encoder.from_pretrained` on each of the engines."""

    def open_(folder: Path, **kwargs: Any) -> bertfast.Encoder:
        return bertfast.Encoder.from_pretrained(folder, backend=backend, **kwargs)

    return open_


@pytest.fixture
def encoder(opened: Callable[..., bertfast.Encoder], tiny: Path) -> bertfast.Encoder:
    """The encoder of `tiny`."""
    return opened(tiny)


@pytest.fixture
def dense_folder(tmp_path: Path) -> Path:
    """Mean pooling, Dense 32 -> 5 with tanh, Normalize."""
    folder = make_sentence_folder(tmp_path / "dense")
    write_modules(folder, "Transformer", "Pooling", "Dense", "Normalize")
    activation = "torch.nn.modules.activation.Tanh"
    write_json(
        folder / "2_Dense/config.json",
        {"in_features": 32, "out_features": 5, "bias": True, "activation_function": activation},
    )
    random = np.random.default_rng(1)
    weights = {"linear.weight": random.normal(size=(5, 32)), "linear.bias": random.normal(size=5)}
    save_file(
        {name: value.astype(np.float32) for name, value in weights.items()},
        folder / "2_Dense/model.safetensors",
    )
    return folder
