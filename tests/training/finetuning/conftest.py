"""Models to begin with; tiny ones are faster with one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tiny_finetuning import KINDS, make_model


@pytest.fixture(scope="package", autouse=True)
def _one_thread_of_torch() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random one of each family."""
    folder = tmp_path_factory.mktemp("models")
    return {family: make_model(folder / family, family) for family in KINDS}
