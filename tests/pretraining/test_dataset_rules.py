"""The published rules of pairs, by numbers: what is drawn, how often, and that it is drawn uniformly.

Every token of the corpus is another one, so that a sample says where each of its tokens is from. Seeds are
fixed: a test cannot fail by chance. A right rule exceeds the bounds with a probability of 1e-4.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import binom, chisquare, kstest

from bertfast.pretraining import Masking, PretrainingConfig, PretrainingDataset
from numbered_store import FIRST, numbered, write_store

RARE = 1e-4
NO_MASKS = Masking(masked_lm_prob=0.0, count="stochastic")


class Corpus(NamedTuple):
    folder: Path
    documents: list[list[list[int]]]


class Pair(NamedTuple):
    """First and last token of each segment, counted from the corpus' first; the label."""

    first: tuple[int, int]
    second: tuple[int, int]
    label: int

    @property
    def lengths(self) -> tuple[int, int]:
        return self.first[1] - self.first[0] + 1, self.second[1] - self.second[0] + 1


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory):
    """Writes a corpus of documents of sentences of these lengths."""

    def write(lengths: list[list[int]]) -> Corpus:
        documents = numbered(lengths)
        return Corpus(write_store(tmp_path_factory.mktemp("corpus") / "store", documents), documents)

    return write


def pairs(corpus: Corpus, **settings: object) -> list[Pair]:
    """All samples of all passes."""
    config = PretrainingConfig(**{"masking": NO_MASKS, "short_seq_prob": 0.0, **settings})
    batch = PretrainingDataset(corpus.folder, config, seed=3)
    arrays = batch.batch(range(len(batch)), padding=None)
    label = arrays.get("next_sentence_label", arrays.get("sentence_order_label"))
    found = []
    for row, (start, end) in enumerate(zip(arrays["cu_seqlens"], arrays["cu_seqlens"][1:], strict=False)):
        ids = arrays["input_ids"][start:end] - FIRST
        cut = int((arrays["token_type_ids"][start:end] == 0).sum())
        first, second = ids[1 : cut - 1], ids[cut:-1]
        found.append(Pair((first[0], first[-1]), (second[0], second[-1]), int(label[row])))
    return found


def is_share(hits: int, total: int, p: float) -> bool:
    """Whether so many of so many are what a coin with probability p may give."""
    return min(binom.cdf(hits, total, p), binom.sf(hits - 1, total, p)) > RARE / 2


def is_uniform(values: list[int], count: int) -> bool:
    counts = Counter(values)
    assert set(counts) <= set(range(count))
    return chisquare([counts[value] for value in range(count)]).pvalue > RARE


def test_short_targets(make):
    # Documents of many sentences of one token: a pair that follows on has as many tokens as its target.
    corpus = make([[1] * 2000 for _ in range(15)])
    settings = {"max_seq_length": 43, "short_seq_prob": 0.25}
    targets = []
    for seed_pass in range(40):
        config = PretrainingConfig(masking=NO_MASKS, **settings)
        dataset = PretrainingDataset(corpus.folder, config, seed=9, epoch=seed_pass)
        lengths = dataset.lengths() - 3
        firsts = dataset.batch(range(len(dataset)), padding=None)
        document = (firsts["input_ids"][firsts["cu_seqlens"][:-1] + 1] - FIRST) // 2000
        for number in range(15):
            # All of a document have one target, but for what its end leaves.
            target = int(lengths[document == number].max())
            assert (lengths[document == number] == target).mean() > 0.9
            targets.append(target)
    short = [target for target in targets if target < 40]
    # A short target is the longest one in a 39th of the cases.
    assert is_share(len(short), len(targets), 0.25 * 38 / 39)
    assert (
        kstest(np.array(short) + np.random.default_rng(0).random(len(short)), "uniform", (2, 38)).pvalue
        > RARE
    )
    assert min(targets) >= 2


def test_the_cut_of_the_first_segment_is_uniform(make):
    # Seven sentences of one token fill a sample.
    corpus = make([[1] * 7 for _ in range(500)])
    for format in ("nsp", "sop"):
        found = pairs(corpus, format=format, max_seq_length=10, dupe_factor=8)
        if format == "sop":
            cuts = [pair.lengths[pair.label] for pair in found]
        else:
            cuts = [pair.lengths[0] for pair in found if pair.first[0] % 7 == 0]
        assert len(cuts) == 4000
        assert is_uniform([cut - 1 for cut in cuts], 6)


def test_half_of_the_second_segments_are_random(make):
    corpus = make([[3] * 7 for _ in range(400)])
    found = pairs(corpus, max_seq_length=24, dupe_factor=8)
    # Where a pair begins in its document with two sentences at least, a coin decides.
    several = [pair for pair in found if pair.first[0] % 21 < 18]
    assert is_share(sum(pair.label for pair in several), len(several), 0.5)
    alone = [pair for pair in found if pair.first[0] % 21 == 18]
    assert alone
    assert all(pair.label == 1 for pair in alone)
    for pair in found:
        assert (pair.first[0] // 21 == pair.second[0] // 21) == (pair.label == 0)
    orders = pairs(corpus, format="sop", max_seq_length=24, dupe_factor=8)
    assert is_share(sum(pair.label for pair in orders), len(orders), 0.5)
    for pair in orders:
        first, second = (pair.second, pair.first) if pair.label else (pair.first, pair.second)
        assert second[0] == first[1] + 1


def test_the_other_document_and_its_start_are_uniform(make):
    count, sentences = 9, 6
    corpus = make([[2] * sentences for _ in range(count)])
    found = pairs(corpus, max_seq_length=15, dupe_factor=250)
    random = [pair for pair in found if pair.label == 1]
    for own in (0, 4, 8):
        others = [
            pair.second[0] // (2 * sentences) for pair in random if pair.first[0] // (2 * sentences) == own
        ]
        assert own not in others
        assert is_uniform([other - (other > own) for other in others], count - 1)
    assert is_uniform([pair.second[0] // 2 % sentences for pair in random], sentences)
    # It takes whole sentences until the target is reached or its document ends, and is then cut to fit.
    for pair in random:
        (first, second), start = pair.lengths, pair.second[0] // 2 % sentences
        assert first + second == min(12, first + 2 * (sentences - start))


def test_truncation_takes_from_the_longer_side_at_both_ends(make):
    # Two sentences of 5 and 40 tokens into 20: the longer loses 25. Of 40 and 40 each is left 10.
    uneven = pairs(make([[5, 40]] * 300), format="sop", max_seq_length=23, dupe_factor=4)
    assert {tuple(sorted(pair.lengths)) for pair in uneven} == {(5, 15)}
    even = pairs(make([[40, 40]] * 300), format="sop", max_seq_length=23, dupe_factor=4)
    assert {pair.lengths for pair in even} == {(10, 10)}
    odd = pairs(make([[40, 40]] * 100), format="sop", max_seq_length=24, dupe_factor=1)
    # Of two that are as long the second loses one first.
    assert {pair.lengths for pair in odd} == {(11, 10)}
    front = [pair.first[0] % 40 for pair in even] + [pair.second[0] % 40 for pair in even]
    assert is_share(sum(front), 30 * len(front), 0.5)
    # Each token by itself, not all of them at one end: the variance is that of 30 coins.
    assert 6.3 < np.var(front) < 8.8


def test_sentence_order_of_one_sentence_is_cut_at_a_word(tmp_path: Path):
    # Words begin at multiples of three, and where the sentence does.
    documents = [[list(range(6 + 60 * d, 6 + 60 * d + 30))] for d in range(300)]
    store = write_store(tmp_path / "store", documents, word_every=3)
    found = pairs(Corpus(store, documents), format="sop", max_seq_length=64, dupe_factor=4)
    assert len(found) == 1200
    cuts = []
    for pair in found:
        first, second = (pair.second, pair.first) if pair.label else (pair.first, pair.second)
        assert first[1] + 1 == second[0]
        assert first[0] % 60 == 1
        assert second[1] - first[0] == 29
        cuts.append((second[0] - first[0]) // 3 - 1)
        assert (second[0] - first[0]) % 3 == 0
    assert is_uniform(cuts, 9)
    assert is_share(sum(pair.label for pair in found), len(found), 0.5)
    # Without a second word there is nothing to be cut: left out.
    words = write_store(tmp_path / "words", [[[6, 7, 8]], [[9, 10, 11], [12]]], word_every=3)
    assert len(pairs(Corpus(words, []), format="sop", max_seq_length=64)) == 1


def test_sentence_order_takes_two_sentences_where_one_would_fill_a_sample(make):
    corpus = make([[30, 4, 30, 4], [30]])
    for pair in pairs(corpus, format="sop", max_seq_length=20, dupe_factor=20):
        ends = sorted([pair.first, pair.second])
        if ends[0][0] < 68:
            # Of a sentence and the one that follows, never of one that was cut.
            assert ends[0][1] % 34 < 30 <= ends[1][0] % 34


def test_what_random_pairs_do_not_use_is_used_again(make):
    corpus = make([[2] * 10 for _ in range(40)])
    found = pairs(corpus, max_seq_length=15, dupe_factor=1)
    following = 0
    for pair, then in itertools.pairwise(found):
        if pair.first[0] // 20 == then.first[0] // 20:
            expected = pair.first[1] + 1 if pair.label else pair.second[1] + 1
            # Where tokens were cut off at the end the next sentence begins a little later.
            assert expected <= then.first[0] <= expected + 2
            following += 1
    assert following > 40
