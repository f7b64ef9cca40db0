"""`mask_tokens` masks what the published rules mask, as often.

Small rows are compared with the exact law of every outcome, which `pretraining_oracle` works out; real
text with its draws. Sample sizes are such that a share that is 1 % off, relatively, is found. The wrong rules
at the end show it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import bertfast
import confidence
import pretraining_oracle as oracle
from bertfast.pretraining import Masking, Vocabulary, mask_tokens, word_start_table
from pretraining_oracle import CLS, MASK, PAD, PRESETS, SEP, UNK, MaskingRule

Array = npt.NDArray[Any]
SIZE = 5000
BERT = Vocabulary(30522, 103, (0, 101, 102, 103), 0)
VOCABULARY = Vocabulary(SIZE, MASK, (PAD, CLS, SEP, MASK), PAD)
ROWS = 1_000_000
# Words of one, two and three tokens in two segments, the unknown token among them, and padding. The last
# [SEP] and the paddings pretend to begin no word, the first word of B too.
IDS = [CLS, 10, 11, 12, 13, 14, 15, SEP, 16, 17, UNK, 19, SEP, PAD, PAD]
STARTS = [True, True, False, True, True, False, False, True, False, True, False, True, True, False, False]
ALIKE = [CLS, *range(10, 19), SEP]


def engine(rule: MaskingRule, **changes: Any) -> Masking:
    names = ("unit", "masked_lm_prob", "count", "max_predictions_per_seq")
    replaced = {name: getattr(rule, name) for name in ("mask_replace_prob", "random_replace_prob")}
    return Masking(**{name: getattr(rule, name) for name in names}, **replaced, **changes)


def masked(
    ids: Sequence[int],
    starts: Sequence[bool] | None,
    masking: Masking,
    rows: int = ROWS,
    vocabulary: Vocabulary = VOCABULARY,
    **key: int,
) -> tuple[Array, Array]:
    """The same row so many times, with other random numbers."""
    inputs = np.tile(np.asarray(ids, np.int32), (rows, 1))
    words = None if starts is None else np.tile(np.asarray(starts, bool), (rows, 1))
    return mask_tokens(inputs, vocabulary, masking=masking, word_starts=words, **{"seed": 1, **key})


def codes(digits: Array, base: int) -> Array:
    """A number for each row of digits."""
    return digits.astype(np.int64) @ base ** np.arange(digits.shape[1], dtype=np.int64)


def code_of(positions: Sequence[int]) -> int:
    return sum(1 << position for position in positions)


def law_of_positions(
    ids: Sequence[int], starts: Sequence[bool] | None, rule: MaskingRule
) -> dict[int, float]:
    if rule.count == "bernoulli":
        return oracle.distribution(lambda d: code_of(chain(*oracle.groups_to_mask(ids, starts, rule, d))))
    law = oracle.law_of_groups(ids, starts, rule, together=True)
    return {code_of(chain(*groups)): probability for groups, probability in law.items()}


def check_positions(
    ids: Sequence[int], starts: Sequence[bool] | None, rule: MaskingRule, expected: MaskingRule | None = None
) -> None:
    _, labels = masked(ids, starts, engine(rule))
    confidence.outcomes(
        confidence.tally(codes(labels != -100, 2)), law_of_positions(ids, starts, expected or rule)
    )


UNITS = {
    "bert": PRESETS["bert"],
    "bert, whole words": replace(PRESETS["bert"], unit="whole_word"),
    "albert": PRESETS["albert"],
    "roberta": PRESETS["roberta"],
    "roberta, whole words": replace(PRESETS["roberta"], unit="whole_word"),
    "n-grams, stochastic": replace(PRESETS["albert"], count="stochastic"),
    "spanbert": PRESETS["spanbert"],
    "spans, at most two tokens": replace(PRESETS["spanbert"], max_predictions_per_seq=2),
    "spans, stochastic": replace(PRESETS["spanbert"], count="stochastic"),
    "bernoulli": MaskingRule(count="bernoulli"),
    "bernoulli, whole words": MaskingRule(unit="whole_word", count="bernoulli"),
}


@pytest.mark.parametrize("share", [0.15, 0.35])
@pytest.mark.parametrize("name", UNITS)
def test_sets_of_positions_have_their_exact_probabilities(name: str, share: float):
    check_positions(IDS, STARTS, replace(UNITS[name], masked_lm_prob=share))


def test_ngrams_and_spans_of_many_words():
    # Longer ones than the row above has room for: half of nine words, and nine of ten.
    check_positions(ALIKE, None, MaskingRule(unit="ngram", masked_lm_prob=0.5))
    check_positions(ALIKE, None, MaskingRule(unit="span", masked_lm_prob=0.7, count="ceil"))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_rules_of_the_oracle(name: str):
    masking = Masking.preset(name)
    assert engine(PRESETS[name], random_special=name in ("bert", "albert")) == masking


# T-f: how many


LENGTHS = range(3, 1200)


def ragged(lengths: Sequence[int]) -> tuple[Array, Array]:
    ends = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.full(ends[-1], 10, np.int32)
    ids[ends[:-1]], ids[ends[1:] - 1] = CLS, SEP
    return ids, ends


@pytest.mark.parametrize("share", [0.15, 0.1, 0.2, 0.25, 0.35, 0.07, 1 / 3, 0.5])
@pytest.mark.parametrize("most", [None, 20])
@pytest.mark.parametrize("count", ["round", "ceil"])
def test_number_of_masked_tokens_is_the_formula(share: float, most: int | None, count: Any):
    ids, ends = ragged(LENGTHS)
    masking = Masking(masked_lm_prob=share, count=count, max_predictions_per_seq=most)
    _, labels = mask_tokens(ids, VOCABULARY, ends, masking=masking, seed=1)
    found = np.add.reduceat(labels != -100, ends[:-1])
    if count == "round":
        expected = [min(max(1, round(n * share)), n - 2) for n in LENGTHS]
    else:
        expected = [math.ceil((n - 2) * share) for n in LENGTHS]
    assert found.tolist() == [number if most is None else min(number, most) for number in expected]


def test_halves_are_rounded_to_even_and_padding_does_not_count():
    lengths = [10, 30, 50, 70, 90, 110, 128]
    ids = np.full((len(lengths), 128), PAD)
    for row, n in zip(ids, lengths, strict=True):
        row[:n] = [CLS, *[10] * (n - 2), SEP]
    _, labels = mask_tokens(ids, VOCABULARY, seed=1)
    assert (labels != -100).sum(axis=1).tolist() == [2, 4, 8, 10, 14, 16, 19]


def test_stochastic_number_is_one_of_two_and_right_on_average():
    # T-j
    for n, share in [(12, 0.15), (17, 0.15), (20, 0.15), (23, 0.4), (9, 0.01)]:
        rule = MaskingRule(count="stochastic", masked_lm_prob=share)
        _, labels = masked([CLS, *range(10, n + 8), SEP], None, engine(rule), rows=1_000_000)
        law = oracle.distribution(lambda draws: oracle.number_to_mask([10] * n, rule, draws))  # noqa: B023
        assert sum(k * probability for k, probability in law.items()) == pytest.approx(n * share)
        found = Counter(confidence.tally((labels != -100).sum(axis=1)))
        if len(law) == 1 or min(law.values()) < 1e-12:
            assert found == {round(n * share): 1_000_000}
        else:
            confidence.outcomes(found, law)


@pytest.mark.parametrize("name", UNITS)
def test_special_tokens_and_what_the_caller_excludes_are_never_masked(name: str):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 40, (20_000, 60)).astype(np.int32)
    excluded = rng.random(ids.shape) < 0.1
    _, labels = mask_tokens(
        ids,
        VOCABULARY,
        masking=engine(replace(UNITS[name], masked_lm_prob=0.5)),
        special_tokens_mask=excluded,
        word_starts=rng.random(ids.shape) < 0.6,
        seed=1,
    )
    lost = labels != -100
    assert not (lost & (excluded | np.isin(ids, list(oracle.SPECIAL)))).any()
    assert np.array_equal(labels[lost], ids[lost])
    assert (lost & (ids == UNK)).any()


# T-g: what becomes of them


def kinds(ids: Sequence[int], inputs: Array, labels: Array) -> Array:
    """0: not masked, 1: [MASK], 2: as it was, 3: another token."""
    other = np.where(inputs == MASK, 1, np.where(inputs == np.asarray(ids), 2, 3))
    return np.where(labels == -100, 0, other)


def law_of_kinds(
    ids: Sequence[int], starts: Sequence[bool] | None, rule: MaskingRule, alike: bool
) -> dict[int, float]:
    """Codes of `kinds` with 1 for [MASK] and 2 for all else, which a group has alike, or not."""
    result: dict[int, float] = {}
    for groups, probability in oracle.law_of_groups(ids, starts, rule).items():
        parts: list[Sequence[int]] = list(groups)
        if rule.merge_spans:
            parts = oracle.runs(sorted(chain(*groups)))
        if not alike:
            parts = [[position] for position in chain(*groups)]
        for choice in product([1, 2], repeat=len(parts)):
            code = sum(kind * 3**place for kind, part in zip(choice, parts, strict=True) for place in part)
            share = math.prod(
                [rule.mask_replace_prob, 1 - rule.mask_replace_prob][kind - 1] for kind in choice
            )
            result[code] = result.get(code, 0.0) + probability * share
    return result


def check_kinds(rule: MaskingRule, expected: MaskingRule | None = None, alike: bool | None = None) -> None:
    # Random tokens are no special ones, so that [MASK] is always meant.
    inputs, labels = masked(ALIKE, None, engine(rule, random_special=False))
    found = codes(np.minimum(kinds(ALIKE, inputs, labels), 2), 3)
    law = law_of_kinds(ALIKE, None, expected or rule, rule.unit == "span" if alike is None else alike)
    confidence.outcomes(confidence.tally(found), law)


@pytest.mark.parametrize("other", [0.0, 0.6])
@pytest.mark.parametrize("unit", ["token", "ngram", "span"])
def test_every_token_or_span_is_replaced_by_itself(unit: str, other: float):
    check_kinds(MaskingRule(unit=unit, masked_lm_prob=0.3, mask_replace_prob=0.4, random_replace_prob=other))


def test_a_row_that_is_all_masked_shows_the_lengths_of_its_spans():
    # T-k: nothing but spans decides which neighbours are replaced alike.
    check_kinds(
        MaskingRule("span", 1.0, "ceil", mask_replace_prob=0.5, random_replace_prob=0.0),
    )


@pytest.mark.parametrize("unit", ["token", "whole_word", "ngram"])
@pytest.mark.parametrize("special", [True, False])
def test_eighty_ten_ten_and_random_tokens_uniform(unit: str, special: bool):
    ids = [CLS, *range(10, 26), SEP]
    starts = [True, *[i % 2 == 0 for i in range(16)], True]
    masking = engine(MaskingRule(unit=unit, masked_lm_prob=0.8), random_special=special)
    inputs, labels = masked(ids, starts, masking, rows=400_000)
    found = kinds(ids, inputs, labels)
    usable = np.arange(SIZE) if special else np.setdiff1d(np.arange(SIZE), list(oracle.SPECIAL))
    same, mask = 0.1 / len(usable), (0.1 if special else 0.0) / len(usable)
    confidence.counts(
        np.bincount(found.ravel(), minlength=4)[1:], [0.8 + mask, 0.1 + same, 0.1 - same - mask]
    )
    # A random token that is [MASK] or the original looks like another kind.
    rows, columns = np.nonzero(found == 3)
    drawn = inputs[rows, columns]
    hidden = {MASK} if special else set()
    for position in range(1, 17):
        here = drawn[columns == position]
        possible = np.setdiff1d(usable, [ids[position], *hidden])
        rank = np.searchsorted(possible, here)
        assert np.array_equal(possible[rank], here)
        confidence.follows(rank, np.arange(1, len(possible) + 1) / len(possible))
        if len(possible) % 100 == 0:
            confidence.uniform(rank * 100 // len(possible), 100)
    totals = np.bincount(drawn, minlength=SIZE)
    expected = np.where(np.isin(np.arange(SIZE), usable), 16.0, 0.0)
    expected[ids[1:-1]] -= 1
    expected[list(hidden)] = 0
    confidence.counts(totals, expected / expected.sum())
    # The second random token of a row has nothing to do with the first.
    second = np.flatnonzero(rows[1:] == rows[:-1]) + 1
    confidence.independent(drawn[second - 1] * 20 // SIZE, drawn[second] * 20 // SIZE)


def test_keys_that_touch_have_nothing_in_common():
    ids = [CLS, *range(10, 18), SEP]
    masking = engine(MaskingRule(masked_lm_prob=0.2))

    def pairs(**key: int) -> Array:
        inputs, labels = masked(ids, None, masking, rows=300_000, **key)
        return codes(kinds(ids, inputs, labels) > 0, 2), codes(kinds(ids, inputs, labels), 4)

    positions, whole = pairs(seed=1)
    for other, whole_other in (
        (positions[1:], whole[1:]),
        pairs(seed=2),
        pairs(seed=1 + (1 << 32)),
        pairs(seed=1, epoch=1),
        pairs(seed=1, index=1 << 32),
    ):
        confidence.independent(positions[: len(other)], other)
        assert (whole[: len(other)] == whole_other).mean() < 0.1
    again = pairs(seed=1)
    assert np.array_equal(whole, again[1])
    assert np.array_equal(whole[1000:], pairs(seed=1, index=1000)[1][:-1000])


# T-h: whole words in real text


@pytest.fixture(scope="module")
def real(tokenizer: bertfast.Tokenizer, english_texts: list[str], chinese_texts: list[str]) -> tuple:
    """Rows of 128 tokens, and which tokens begin a word."""
    sampled = [*english_texts[:: len(english_texts) // 250], *chinese_texts[:: len(chinese_texts) // 50]]
    lists = tokenizer(sampled, add_special_tokens=False, verbose=False)["input_ids"]
    tokens = np.fromiter(chain(*lists), np.int64)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    count = len(tokens) // 126
    rows = np.concatenate(
        [np.full((count, 1), cls), tokens[: count * 126].reshape(-1, 126), np.full((count, 1), sep)], axis=1
    )
    starts = word_start_table(tokenizer.get_vocab())[rows]
    starts[:, 1] = True
    return rows, starts


def by_word_length(rows: Array, starts: Array, labels: Array) -> Array:
    """(B, 13): masked words of 1, 2, 3 and more tokens, words in part, runs of 1 to 8 and more tokens."""
    lost = labels != -100
    first = np.flatnonzero(starts.ravel())
    length = np.diff(np.append(first, rows.size))
    part = np.add.reduceat(lost.ravel().astype(np.int64), first)
    row = first // rows.shape[1]
    result = np.zeros((len(rows), 13))
    whole = part == length
    np.add.at(result, (row[whole], np.minimum(length[whole], 4) - 1), 1)
    np.add.at(result, (row[(part > 0) & ~whole], 4), 1)
    edge = np.diff(lost.astype(np.int8), axis=1, prepend=0, append=0)
    begins, ends = np.argwhere(edge == 1), np.argwhere(edge == -1)
    np.add.at(result, (begins[:, 0], 4 + np.minimum(ends[:, 1] - begins[:, 1], 8)), 1)
    return result


REAL = {name: rule for name, rule in UNITS.items() if "bernoulli" not in name}
REPEATS = 20


def check_real(real: tuple, rule: MaskingRule, expected: MaskingRule | None = None) -> None:
    rows, starts = real

    def strata(labels: Array) -> Array:
        repeats = len(labels) // len(rows)
        found = by_word_length(np.repeat(rows, repeats, axis=0), np.repeat(starts, repeats, axis=0), labels)
        return found.reshape(len(rows), repeats, -1)

    inputs = np.repeat(rows, 30 * REPEATS, axis=0)
    words = np.repeat(starts, 30 * REPEATS, axis=0)
    _, labels = mask_tokens(inputs, BERT, masking=engine(rule), word_starts=words, seed=1)
    draws = oracle.Sampler(1)
    ids = np.where(
        rows == BERT.mask_token_id, MASK, np.where(np.isin(rows, [101, 102]), SEP, np.maximum(rows, 5))
    )
    ours = [
        oracle.mask_row(row, start, expected or rule, draws)[1]
        for row, start in zip(ids.tolist(), starts.tolist(), strict=True)
        for _ in range(REPEATS)
    ]
    engines = strata(labels)
    confidence.same_means(engines, strata(np.array(ours)))
    if rule.unit != "token":
        assert not engines[..., 4].any(), "words that are masked in part"


@pytest.mark.parametrize("name", REAL)
def test_rates_in_real_text_by_word_length(name: str, real: tuple):
    check_real(real, replace(REAL[name], random_ids=range(10)))


# Every check can fail


class GivesUp(oracle.Row):
    """A word that does not fit ends it all, instead of the next being tried."""

    def step(self, masked: Any, tried: Any, room: int, draws: oracle.Draws) -> Any:
        step = super().step(masked, tried, 99, draws)
        return step if step and len(step[1]) <= room else None


class Cuts(oracle.Row):
    """The last word is cut, as the original of SpanBERT does."""

    def step(self, masked: Any, tried: Any, room: int, draws: oracle.Draws) -> Any:
        step = super().step(masked, tried, 99, draws)
        return step and (step[0], step[1][:room])


class Crosses(oracle.Row):
    """Words follow each other across [SEP], as in the original of ALBERT."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.ends = [len(self.words)] * len(self.words)


class Evenly(oracle.Row):
    """Spans begin at a random word instead of in the word of a random token."""

    def step(self, masked: Any, tried: Any, room: int, draws: oracle.Draws) -> Any:
        class Flat(type(draws)):
            def choose(self, weights: Sequence[float]) -> int:
                return super().choose([1.0] * len(weights) if set(weights) <= {1, 2, 3} else weights)

        draws.__class__ = Flat
        return super().step(masked, tried, room, draws)


@pytest.mark.parametrize(
    ("name", "what", "wrong"),
    [
        ("bert, whole words", "Row", GivesUp),
        ("albert", "Row", GivesUp),
        ("spanbert", "Row", Cuts),
        ("albert", "Row", Crosses),
        ("spanbert", "Row", Crosses),
        ("spanbert", "Row", Evenly),
        ("albert", "NGRAM", [0.5454 * 1.05, 0.2584, 0.1689]),
        ("albert", "NGRAM", [1 / 3, 1 / 2, 1]),
        ("spanbert", "SPAN", [0.21 * 0.79**n for n in range(10)]),
    ],
)
def test_wrong_units_are_found(name: str, what: str, wrong: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(oracle, what, wrong)
    with pytest.raises(AssertionError, match=r"chance|impossible"):
        check_positions(IDS, STARTS, replace(UNITS[name], masked_lm_prob=0.35))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("albert", {"ngram_at_end": "clipped"}),
        ("roberta", {"masked_lm_prob": 0.35 * 1.01}),
        ("roberta", {"count": "round"}),
        ("spanbert", {"count": "round"}),
        ("bernoulli", {"masked_lm_prob": 0.35 * 1.01}),
        ("bernoulli, whole words", {"masked_lm_prob": 0.35 * 1.01}),
        ("bert, whole words", {"unit": "token"}),
        ("albert", {"unit": "span"}),
    ],
)
def test_other_rules_are_found(name: str, wrong: dict[str, Any]):
    rule = replace(UNITS[name], masked_lm_prob=0.35)
    with pytest.raises(AssertionError, match=r"chance|impossible"):
        check_positions(IDS, STARTS, rule, replace(rule, **wrong))


def test_other_replacements_are_found():
    rule = MaskingRule("span", 0.6, "ceil", mask_replace_prob=0.4, random_replace_prob=0.0)
    for wrong in ({"mask_replace_prob": 0.42}, {"merge_spans": True}):
        with pytest.raises(AssertionError, match=r"chance|impossible"):
            check_kinds(rule, replace(rule, **wrong))
    with pytest.raises(AssertionError, match=r"chance|impossible"):
        check_kinds(rule, alike=False)


@pytest.mark.parametrize("wrong", [{"unit": "whole_word"}, {"masked_lm_prob": 0.16}])
def test_other_rules_are_found_in_real_text(wrong: dict[str, Any], real: tuple):
    rule = replace(REAL["albert"], random_ids=range(10))
    with pytest.raises(AssertionError, match="means"):
        check_real(real, rule, replace(rule, **wrong))


def test_shares_that_are_one_percent_off_are_found():
    for share, trials in [(0.8, 300_000), (0.1, 5_000_000), (0.5, 500_000)]:
        assert confidence.detectable(trials, share) < 0.0105
        with pytest.raises(AssertionError, match="chance"):
            confidence.share(round(trials * share * 1.01), trials, share)
