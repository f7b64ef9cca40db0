"""What several tests of pretraining ask for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import bertfast


@pytest.fixture(scope="session")
def tokenizer(data_dir: Path) -> bertfast.Tokenizer:
    return bertfast.Tokenizer.from_pretrained(str(data_dir / "minilm"))


@pytest.fixture(scope="session")
def texts(english_texts: list[str], chinese_texts: list[str]) -> list[str]:
    """Some of each; a fifth of the lines are blank in one way or another, one has no tokens, one is long."""
    draw = random.Random(7)
    lines = draw.sample(english_texts, 2500) + draw.sample(chinese_texts, 500)
    lines += [*draw.choices(["", "  ", "\u3000\t"], k=750), "\u200d", " ".join(english_texts[:3000])]
    draw.shuffle(lines)
    return lines
