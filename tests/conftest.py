"""What every test may ask for: real texts, a real model, random models.

Real data never goes missing quietly: without it a test fails, here as in CI, and says what to do.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

# Set before any test module imports a Hugging Face library: no test talks to the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# And before any loads PyTorch: its threads would keep a core busy while they wait, one that another worker of
# pytest-xdist needs. On two cores the tests of the models take a third of the time with it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell starts background jobs with Ctrl-C ignored, and every program that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def read_lines(path: Path) -> list[str]:
    # Not `splitlines()`: the texts contain separators such as U+2028 that are part of a text, not its end.
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def existing(path: Path) -> Path:
    if not path.exists():
        pytest.fail(f"{path} is missing: run `make data` once", pytrace=False)
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real texts, the real model and vocabularies, as `tests/fetch_data.py` left them."""
    return existing(ROOT / ".data")


@pytest.fixture(scope="session")
def minilm(data_dir: Path) -> Path:
    """The Hugging Face folder of all-MiniLM-L6-v2."""
    return existing(data_dir / "minilm")


@pytest.fixture(scope="session")
def english_texts(data_dir: Path) -> list[str]:
    """About 126,000 dictionary entries and 31,000 Bible verses, 5 to 16,000 characters each."""
    return [text for name in ("english.txt", "bible.txt") for text in read_lines(existing(data_dir / name))]


@pytest.fixture(scope="session")
def chinese_texts(data_dir: Path) -> list[str]:
    """About 35,000 reviews."""
    return read_lines(existing(data_dir / "chinese.txt"))


@pytest.fixture(scope="session")
def zh_vocab(data_dir: Path) -> Path:
    """The `vocab.txt` of bert-base-chinese: 21,128 entries."""
    return existing(data_dir / "vocab-zh/vocab.txt")


@pytest.fixture(scope="session")
def real_texts(english_texts: list[str]) -> list[str]:
    """2,000 real English texts of mixed length: always the same ones, in the same order."""
    return random.Random(2000).sample(english_texts, 2000)
