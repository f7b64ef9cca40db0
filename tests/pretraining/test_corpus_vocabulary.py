"""A store is of one vocabulary: models with another one are told apart."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

import bertfast
from bertfast.errors import CorpusError
from bertfast.pretraining import Corpus, PretrainingDataset, build_corpus


@pytest.fixture
def corpus(minilm: Path, tmp_path: Path) -> Corpus:
    (tmp_path / "texts.txt").write_text("A cat sat.\nOn a mat.\n\nA dog ran.\nIt was late.\n")
    return build_corpus([tmp_path / "texts.txt"], minilm, tmp_path / "store")


def test_the_same_vocabulary_in_any_form(corpus: Corpus, minilm: Path):
    for tokenizer in (bertfast.Tokenizer.from_pretrained(minilm), AutoTokenizer.from_pretrained(minilm)):
        corpus.check_vocabulary(tokenizer)
        assert len(PretrainingDataset(corpus, seed=0, tokenizer=tokenizer)) > 0


def test_another_vocabulary_is_named(corpus: Corpus, data_dir: Path, minilm: Path):
    chinese = bertfast.Tokenizer.from_pretrained(data_dir / "vocab-zh")
    expected = "the vocabulary that .*store was built with, 30,522 tokens, got another one with 21,128"
    for check in (
        lambda: corpus.check_vocabulary(chinese),
        lambda: PretrainingDataset(corpus.folder, seed=0, tokenizer=chinese),
    ):
        with pytest.raises(CorpusError, match=expected):
            check()
    longer = AutoTokenizer.from_pretrained(minilm)
    longer.add_tokens(["[NEW]"])
    with pytest.raises(CorpusError, match=r"got another one with 30,523: '\[NEW\]' with id 30522 is in one"):
        corpus.check_vocabulary(longer)
