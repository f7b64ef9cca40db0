"""What several tests of training ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tiny_pretraining import write_corpus


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus that can be learned."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def eval_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other documents of the same kind."""
    return write_corpus(tmp_path_factory.mktemp("eval"), documents=30, seed=1)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny models are faster so; and the bits of another number of threads are others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
