"""Three vocabularies, each as ours and as the reference: uncased 30,522, Chinese 21,128, cased."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from tokenizers import trainers

from bertfast import Tokenizer
from tokenizers_reference import SPECIAL, bert, opened, read_vocab, reference_of

# The reference is the slow part of these tests; nothing forks here.
os.environ["TOKENIZERS_PARALLELISM"] = "true"

Both = tuple[Tokenizer, tokenizers.Tokenizer]


@pytest.fixture(scope="session")
def ours(minilm: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(minilm)


@pytest.fixture(scope="session")
def theirs(minilm: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(minilm)


@pytest.fixture(scope="session")
def uncased(minilm: Path) -> Both:
    return Tokenizer.from_pretrained(minilm), reference_of(minilm)


@pytest.fixture(scope="session")
def chinese(zh_vocab: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    reference = bert(read_vocab(zh_vocab))
    return opened(reference, tmp_path_factory.mktemp("chinese")), reference


@pytest.fixture(scope="session")
def cased(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Upper case and accents are kept; the vocabulary is trained here, on English, Chinese and Latin-1."""
    learner = bert(dict(zip(SPECIAL, range(5), strict=True)), lowercase=False)
    texts = (data_dir / "bible.txt").read_text(encoding="utf-8")[:500_000].splitlines()
    texts += (data_dir / "chinese.txt").read_text(encoding="utf-8")[:50_000].splitlines()
    texts += ["".join(map(chr, range(start, start + 16))) for start in range(0x20, 0x500, 16)]
    trainer = trainers.WordPieceTrainer(vocab_size=6000, special_tokens=SPECIAL, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    reference = bert(learner.get_vocab(), lowercase=False)
    return opened(reference, tmp_path_factory.mktemp("cased")), reference


@pytest.fixture(scope="session", params=["uncased", "chinese", "cased"])
def both(request: pytest.FixtureRequest) -> Both:
    found: Both = request.getfixturevalue(request.param)
    return found
