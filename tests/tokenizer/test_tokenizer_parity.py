"""Ids, offsets, word ids, pairs and windows equal to the `tokenizers` package's."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken

from bertfast import Tokenizer
from tokenizers_reference import SPECIAL, as_json, assert_same, assert_same_ids, bert, opened, random_texts

Both = tuple[Tokenizer, tokenizers.Tokenizer]


def test_the_reference_is_the_one_that_the_tables_were_made_with() -> None:
    assert tokenizers.__version__ == "0.23.3"


@pytest.mark.parametrize("name", ["uncased", "chinese"])
def test_ids_of_every_line_of_real_english(
    name: str, request: pytest.FixtureRequest, english_texts: list[str]
) -> None:
    assert_same_ids(*request.getfixturevalue(name), english_texts)


def test_ids_of_every_line_of_real_chinese(both: Both, chinese_texts: list[str]) -> None:
    assert_same_ids(*both, chinese_texts)


def test_everything_on_part_of_the_real_text(
    both: Both, english_texts: list[str], chinese_texts: list[str]
) -> None:
    assert_same(*both, english_texts[::30])
    assert_same(*both, chinese_texts[::30])


def test_everything_on_random_strings(both: Both) -> None:
    """100,000 of them; `make fuzz-long` asks for more. Some also as pairs, as words, and in windows."""
    total, batch = int(os.environ.get("BERTFAST_RANDOM_STRINGS", "100000")), 20_000
    for seed in range(1, total // batch + 1):
        texts = random_texts(batch, seed)
        assert_same(*both, texts)
        rng = random.Random(seed)
        first, second = rng.sample(texts, 2000), rng.sample(texts, 2000)
        assert_same(*both, first, second)
        # The reference panics where a stride is too large, and every pair is one of short texts.
        max_length = rng.randrange(8, 40)
        assert_same(*both, first, second, max_length=max_length, stride=rng.choice((0, 1)))
        assert_same(*both, first, max_length=max_length, stride=rng.randrange(max_length - 3))
        words = [text.split(" ") for text in first]
        assert_same(*both, words, is_split_into_words=True)
        assert_same(*both, words, words[::-1], is_split_into_words=True, max_length=max_length)


@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("direction", ["right", "left"])
def test_truncated_pairs_with_their_windows(uncased: Both, strategy: str, direction: str) -> None:
    rng = random.Random(3)
    # Long enough that the reference always reaches the budget: it refuses else, see test_tokenizer_bad_input.
    long = [text for text in random_texts(6000, seed=2) if len(text) > 12]
    short = ["", "a", "two words", "[SEP]", "中文"]
    for max_length in (5, 8, 9, 16, 33):
        first = rng.sample(long if strategy == "only_first" else long + short * 30, 60)
        second = rng.sample(long if strategy == "only_second" else long + short * 30, 60)
        if strategy != "longest_first":
            (second if strategy == "only_first" else first)[:] = ["a"] * 60
        stride = rng.choice((0, 0, 1)) if max_length > 8 else 0
        assert_same(
            *uncased,
            first,
            second,
            max_length=max_length,
            stride=stride,
            strategy=strategy,
            direction=direction,
        )


@pytest.mark.parametrize("direction", ["right", "left"])
def test_truncated_texts_with_their_windows(both: Both, direction: str) -> None:
    texts = random_texts(3000, seed=4)
    for max_length, stride in ((2, 0), (3, 0), (7, 2), (7, 4), (20, 5), (512, 100)):
        assert_same(*both, texts, max_length=max_length, stride=stride, direction=direction)


def test_without_special_tokens(uncased: Both) -> None:
    texts = random_texts(2000, seed=5)
    assert_same(*uncased, texts, add_special_tokens=False)
    assert_same(*uncased, texts, texts[::-1], add_special_tokens=False)
    assert_same(*uncased, texts, add_special_tokens=False, max_length=5, stride=3)


def test_what_truncation_leaves_unread_changes_nothing(uncased: Both) -> None:
    """Without overflow, texts are read only as far as needed: the result is the same as reading all."""
    ours, reference = uncased
    texts, pairs = random_texts(3000, seed=6), random_texts(3000, seed=7)
    for max_length in (3, 4, 9, 20):
        reference.enable_truncation(max_length=max_length)
        expected = [e.ids for e in reference.encode_batch(list(zip(texts, pairs, strict=True)))]
        alone = [e.ids for e in reference.encode_batch(texts)]
        reference.no_truncation()
        assert ours(texts, pairs, truncation=True, max_length=max_length)["input_ids"] == expected
        assert ours(texts, truncation=True, max_length=max_length)["input_ids"] == alone
        ragged = ours.encode_ragged(texts, truncation=True, max_length=max_length)
        assert ragged.truncated == sum(len(e.ids) > max_length for e in reference.encode_batch(texts))


@pytest.mark.parametrize("clean_text", [True, False])
@pytest.mark.parametrize("handle_chinese_chars", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False, None])
@pytest.mark.parametrize("lowercase", [True, False])
def test_every_normalizer_option(
    tmp_path: Path,
    cased: Both,
    clean_text: bool,
    handle_chinese_chars: bool,
    strip_accents: bool | None,
    lowercase: bool,
) -> None:
    reference = bert(
        cased[1].get_vocab(),
        clean_text=clean_text,
        handle_chinese_chars=handle_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    ours = opened(reference, tmp_path)
    texts = random_texts(4000, seed=8)
    assert_same(ours, reference, texts)
    for text in texts[:1000]:
        assert ours.normalize(text) == reference.normalizer.normalize_str(text)


def test_added_tokens_with_every_flag(tmp_path: Path, uncased: Both) -> None:
    contents = ["foo", "Bar", "foo bar", "fo", "中", "é", "[X]", " x", "x ", "ab#", "\u00a0y", "##z", "İ"]
    words = [*contents, *(text.upper() for text in contents), " ", "  ", "\t", "_", ".", *SPECIAL]
    rng = random.Random(9)
    for trial in range(40):
        tokens = [
            AddedToken(
                content,
                single_word=rng.random() < 0.3,
                lstrip=rng.random() < 0.3,
                rstrip=rng.random() < 0.3,
                normalized=rng.random() < 0.5,
                special=rng.random() < 0.3,
            )
            for content in rng.sample(contents, 5)
        ]
        reference = bert(uncased[1].get_vocab(), added=tokens)
        ours = opened(reference, tmp_path / str(trial))
        texts = random_texts(500, seed=trial, words=words)
        texts += ["".join(rng.choices(words, k=rng.randrange(1, 7))) for _ in range(500)]
        assert_same(ours, reference, texts)
        assert ours.get_vocab() == reference.get_vocab()


def test_other_templates(tmp_path: Path, uncased: Both) -> None:
    """Any special tokens around the texts, as MPNet has, or none."""
    from tokenizers import processors

    reference = bert(uncased[1].get_vocab())
    texts = random_texts(300, seed=10)
    for number, processor in enumerate(
        [
            processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101)),
            processors.TemplateProcessing(
                single="[CLS]:3 [MASK]:1 $A:2",
                pair="$A:4 [SEP]:1 [SEP]:1 $B:0",
                special_tokens=[("[CLS]", 101), ("[SEP]", 102), ("[MASK]", 103)],
            ),
        ]
    ):
        reference.post_processor = processor
        ours = opened(reference, tmp_path / str(number))
        assert_same(ours, reference, texts)
        assert_same(ours, reference, texts, texts[::-1])
        assert_same(ours, reference, texts, texts[::-1], max_length=9, stride=0)
    parsed = as_json(reference)
    assert parsed["post_processor"]["type"] == "TemplateProcessing"
