"""`mask_tokens`: arguments, keys, and the bytes of fixed keys. For the rates see test_masking_rules.py."""

import numpy as np
import pytest
from transformers import AutoTokenizer

import bertfast
from bertfast.errors import ArgumentError, BertFastError, DtypeError, ShapeError, TokenIdError
from bertfast.pretraining import Masking, Vocabulary, mask_tokens, word_start_table

PAD, CLS, SEP, MASK = 0, 101, 102, 103
VOCABULARY = Vocabulary(30522, MASK, (CLS, SEP, MASK), PAD)


GOLDEN = {
    "bert": {
        1: 27694,
        6: 22957,
        7: 2006,
        10: 10829,
        13: 103,
        14: 2732,
        15: 30379,
        16: 6499,
        17: 2016,
        24: 16089,
    },
    "albert": {4: 2003, 5: 14927, 6: 30379, 8: 103, 9: 2732, 10: 103, 11: 103, 12: 103, 16: 17563, 22: 14268},
    "roberta": {
        1: 103,
        3: 2002,
        5: 2736,
        6: 17564,
        7: 2006,
        10: 10831,
        14: 14929,
        17: 14271,
        20: 2019,
        22: 2021,
    },
    "spanbert": {
        1: 103,
        11: 103,
        12: 103,
        13: 30379,
        14: 5203,
        15: 23668,
        16: 17564,
        22: 14271,
        23: 3623,
        24: 1758,
    },
}


def batch(rows: int = 7, width: int = 33, seed: int = 0) -> np.ndarray:
    """Rows of different lengths, padded on the right."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1000, 30000, (rows, width))
    ids[:, 0] = CLS
    for row, length in enumerate(rng.integers(3, width + 1, rows)):
        ids[row, length - 1] = SEP
        ids[row, length:] = PAD
    return ids


def ragged(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same rows without padding."""
    kept = ids != PAD
    return ids[kept], np.concatenate([[0], kept.sum(1).cumsum()])


@pytest.mark.parametrize("unit", ["token", "whole_word", "ngram", "span"])
def test_padded_and_ragged_batches_are_masked_alike(unit: str):
    ids, masking = batch(), Masking(unit=unit, count="ceil")
    inputs, labels = mask_tokens(ids, VOCABULARY, masking=masking, seed=3, epoch=2, index=5)
    flat, ends = ragged(ids)
    flat_inputs, flat_labels = mask_tokens(flat, VOCABULARY, ends, masking=masking, seed=3, epoch=2, index=5)
    kept = ids != PAD
    assert np.array_equal(inputs[kept], flat_inputs)
    assert np.array_equal(labels[kept], flat_labels)
    assert (inputs[~kept] == PAD).all()
    assert (labels[~kept] == -100).all()
    assert (flat_labels != -100).any()
    # What is asked for is what stood there; all else is as it was.
    asked = labels != -100
    assert np.array_equal(labels[asked], ids[asked])
    assert np.array_equal(inputs[~asked], ids[~asked])
    assert not np.isin(labels, [CLS, SEP, PAD]).any()


def test_a_row_has_its_key_wherever_it_lies():
    ids = batch(100)
    inputs, labels = mask_tokens(ids, VOCABULARY, seed=9, epoch=4, index=1000)
    for row in (0, 1, 57, 99):
        for one in (ids[row], ids[row : row + 1]):
            alone = mask_tokens(one, VOCABULARY, seed=9, epoch=4, index=1000 + row)
            assert np.array_equal(alone[0].ravel(), inputs[row])
            assert np.array_equal(alone[1].ravel(), labels[row])
    order = np.random.default_rng(1).permutation(100)
    shuffled = mask_tokens(ids[order], VOCABULARY, seed=9, epoch=4, index=1000 + order)
    assert np.array_equal(shuffled[0], inputs[order])
    assert np.array_equal(shuffled[1], labels[order])


def test_other_keys_give_other_masks():
    ids = np.tile(np.arange(1000, 1100), (50, 1))
    first = mask_tokens(ids, VOCABULARY, seed=1, epoch=0, index=0)[1]
    assert len({row.tobytes() for row in first}) == 50
    for key in ({"seed": 2}, {"seed": 1 + 2**32}, {"epoch": 1}, {"index": 50}, {"index": 2**40}):
        other = mask_tokens(ids, VOCABULARY, **{"seed": 1, "epoch": 0, "index": 0, **key})[1]
        assert not (other == first).all(axis=1).any(), key


def test_threads_change_nothing():
    ids = np.random.default_rng(0).integers(1000, 30000, (3000, 100), dtype=np.int32)
    one = mask_tokens(ids, VOCABULARY, seed=1, num_threads=1)
    two = mask_tokens(ids, VOCABULARY, seed=1, num_threads=2)
    assert one[0].dtype == one[1].dtype == np.int32
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])


def test_fixed_keys_give_fixed_bytes():
    # These masks must never change: runs that are resumed depend on them.
    ids = np.concatenate([[CLS], np.arange(2000, 2024), [SEP]])
    words = np.arange(26) % 3 != 0
    for name, expected in GOLDEN.items():
        masking = Masking.preset(name, masked_lm_prob=0.4, mask_replace_prob=0.4, random_replace_prob=0.4)
        keys = {"seed": 2**63, "epoch": 7, "index": 2**33}
        got, labels = mask_tokens(ids, VOCABULARY, masking=masking, word_starts=words, **keys)
        places = np.flatnonzero(labels != -100)
        assert dict(zip(places.tolist(), got[places].tolist(), strict=True)) == expected, name


def test_the_tokenizers_of_both_libraries(minilm):
    ours, theirs = bertfast.Tokenizer.from_pretrained(minilm), AutoTokenizer.from_pretrained(minilm)
    assert Vocabulary.of(ours) == Vocabulary.of(theirs)
    vocabulary = Vocabulary.of(ours)
    assert (vocabulary.size, vocabulary.mask_token_id, vocabulary.pad_token_id) == (30522, MASK, PAD)
    # The unknown token stands for a word, which may be asked for.
    assert vocabulary.special_token_ids == (PAD, CLS, SEP, MASK)
    texts = ["Unbelievably preposterous antidisestablishmentarianism!", "Hello."]
    padded = ours(texts, padding=True, return_tensors="np")
    labels = mask_tokens(padded["input_ids"], theirs, masking=Masking(masked_lm_prob=1), seed=0)[1]
    expected = np.where(np.isin(padded["input_ids"], [PAD, CLS, SEP]), -100, padded["input_ids"])
    assert np.array_equal(labels, expected)


def test_tokens_that_are_added_are_known(minilm):
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    everything = Masking(masked_lm_prob=1)
    assert (mask_tokens([2000, 30521], tokenizer, masking=everything, seed=0)[1] != -100).all()
    tokenizer.add_tokens(["[NEW]"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["[X]"]})
    labels = mask_tokens([2000, 30522, 30523], tokenizer, masking=everything, seed=0)[1]
    assert labels.tolist() == [2000, 30522, -100]


def test_words_begin_where_the_vocabulary_says(minilm):
    tokenizer = bertfast.Tokenizer.from_pretrained(minilm)
    text = "antidisestablishmentarianism is preposterous, unbelievably so, but a word like others"
    ids = tokenizer([text], return_tensors="np")["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids[0].tolist())
    starts = [not piece.startswith("##") for piece in pieces]
    masking = Masking(unit="whole_word", masked_lm_prob=0.5)
    found = set()
    for index in range(50):
        labels = mask_tokens(ids, tokenizer, masking=masking, seed=0, index=index)[1][0]
        for start, masked, before in zip(starts[1:], labels[1:] != -100, labels[:-1] != -100, strict=True):
            assert start or masked == before
        found.add(labels.tobytes())
    assert len(found) > 20
    # Other word starts by position, as a segmenter has found them.
    whole = np.zeros(ids.shape, bool)
    counts = {
        int(
            (
                mask_tokens(ids, tokenizer, masking=masking, word_starts=whole, seed=0, index=i)[1] != -100
            ).sum()
        )
        for i in range(20)
    }
    assert counts == {0}  # one word, longer than half of the row


def test_masks_of_the_caller():
    ids = np.full((1, 10), 2000)
    everything = Masking(masked_lm_prob=1)
    special = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 0, 1]])
    labels = mask_tokens(ids, VOCABULARY, special_tokens_mask=special, masking=everything, seed=0)[1]
    assert np.array_equal(labels == -100, special == 1)
    attention = 1 - special
    labels = mask_tokens(ids, VOCABULARY, attention_mask=attention, masking=everything, seed=0)[1]
    assert np.array_equal(labels == -100, special == 1)
    # Padding does not count: a tenth of 8 is one, a tenth of 20 is two.
    ids = np.full((1, 20), 2000)
    some = Masking(masked_lm_prob=0.1)
    attention = (np.arange(20) < 8)[None]
    assert (mask_tokens(ids, VOCABULARY, masking=some, seed=0)[1] != -100).sum() == 2
    assert (
        mask_tokens(ids, VOCABULARY, attention_mask=attention, masking=some, seed=0)[1] != -100
    ).sum() == 1


def test_the_input_is_left_alone_and_any_layout_does():
    ids = batch(8, 20)
    before = ids.copy()
    inputs, labels = mask_tokens(ids, VOCABULARY, seed=1)
    assert np.array_equal(ids, before)
    ids.flags.writeable = False
    for other in (
        ids,
        np.asfortranarray(ids),
        np.repeat(ids, 2, axis=1)[:, ::2],
        ids.tolist(),
        ids.astype(np.uint16),
    ):
        again = mask_tokens(other, VOCABULARY, seed=1)
        assert np.array_equal(again[0], inputs)
        assert np.array_equal(again[1], labels)
        assert again[0].dtype == np.int64
    for empty in (np.zeros((0, 5), int), np.zeros((3, 0), int), np.zeros(0, int)):
        assert [array.shape for array in mask_tokens(empty, VOCABULARY, seed=1)] == [empty.shape] * 2
    nothing = mask_tokens([7, 8], Vocabulary(10, 0), [0, 0, 2, 2], seed=1)
    assert (nothing[1] != -100).sum() == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"input_ids": np.zeros((2, 2, 2), int)},
            ShapeError,
            r"expected shape \(B, S\) or \(S,\), got \(2, 2, 2\)",
        ),
        ({"input_ids": np.zeros((2, 2))}, DtypeError, "input_ids: expected integers, got float64"),
        ({"input_ids": [[5, 30522]]}, TokenIdError, "expected ids in 0..30522, got 30522 at position 1"),
        ({"input_ids": [[5], [-1]]}, TokenIdError, "row 1: .* got -1"),
        ({"cu_seqlens": [0, 2]}, ShapeError, r"expected shape \(T,\) with cu_seqlens"),
        ({"input_ids": [5, 6], "cu_seqlens": [0, 3]}, ShapeError, "rise from 0 to 2"),
        ({"input_ids": [5, 6], "cu_seqlens": [0, 2, 1, 2]}, ShapeError, "rise from 0 to 2"),
        ({"input_ids": [5, 6], "cu_seqlens": [0.0, 2.0]}, DtypeError, "cu_seqlens: expected integers"),
        (
            {"attention_mask": np.ones((2, 3))},
            ShapeError,
            r"attention_mask: expected shape \(2, 4\) like input_ids",
        ),
        ({"word_starts": np.ones(8)}, ShapeError, "word_starts"),
        ({"seed": -1}, ArgumentError, "seed: expected an integer from 0 to 18446744073709551615, got -1"),
        ({"seed": 1.5}, ArgumentError, "seed"),
        ({"epoch": 2**28}, ArgumentError, "epoch: expected an integer from 0 to 268435455, got 268435456"),
        ({"index": -1}, ArgumentError, "index"),
        ({"index": [1, 2, 3]}, ShapeError, r"index: expected shape \(2,\), one for each row, got \(3,\)"),
        ({"index": [1, -2]}, ArgumentError, "index: expected numbers from 0 on, got -2"),
        ({"index": [1.0, 2.0]}, DtypeError, "index"),
        ({"num_threads": 0}, ArgumentError, "num_threads"),
        ({"num_threads": 2**70}, ArgumentError, f"num_threads: expected at most 65536, got {2**70}"),
        ({"input_ids": [[1, 2], [3]]}, ShapeError, "input_ids: expected an array, got rows of different"),
        ({"attention_mask": [[1] * 4, [1]]}, ShapeError, "attention_mask: expected an array, got rows of"),
        ({"index": [[1], 2]}, ShapeError, "index: expected an array, got rows of different lengths"),
        ({"input_ids": [1], "cu_seqlens": [0, [1]]}, ShapeError, "cu_seqlens: expected an array, got rows"),
    ],
)
def test_bad_input(arguments: dict, error: type[BertFastError], message: str):
    good = {"input_ids": np.full((2, 4), 2000), "tokenizer": VOCABULARY, "seed": 0}
    with pytest.raises(error, match=message):
        mask_tokens(**{**good, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masked_lm_prob": 1.1}, r"masked_lm_prob: expected a probability in \[0, 1\], got 1.1"),
        ({"mask_replace_prob": float("nan")}, "mask_replace_prob"),
        ({"mask_replace_prob": 0.9, "random_replace_prob": 0.2}, "expected at most 1, got 1.1"),
        ({"unit": "words"}, "unit: expected one of 'token', 'whole_word', 'ngram', 'span', got 'words'"),
        ({"count": "half"}, "count: expected one of"),
        ({"unit": "span", "count": "bernoulli"}, "count: expected"),
        ({"count": "bernoulli", "max_predictions_per_seq": 3}, "max_predictions_per_seq: expected None"),
        ({"max_predictions_per_seq": -1}, "max_predictions_per_seq: expected an integer from 0 to 65535"),
        ({"max_predictions_per_seq": 2**70}, f"from 0 to 65535, got {2**70}"),
        ({"max_predictions_per_seq": 10**6}, "from 0 to 65535, got 1000000"),
    ],
)
def test_bad_rules(arguments: dict, message: str):
    with pytest.raises(ArgumentError, match=message):
        Masking(**arguments)
    with pytest.raises(
        ArgumentError, match="preset: expected one of 'bert', 'albert', 'roberta', 'spanbert'"
    ):
        Masking.preset("gpt")


@pytest.mark.parametrize("unit", ["token", "whole_word", "ngram", "span"])
@pytest.mark.parametrize("count", ["round", "stochastic", "ceil", "bernoulli"])
def test_a_share_of_nothing_masks_nothing(unit: str, count: str):
    if count == "bernoulli" and unit in ("ngram", "span"):
        return
    ids = batch(50, 20)
    inputs, labels = mask_tokens(
        ids, VOCABULARY, masking=Masking(unit=unit, count=count, masked_lm_prob=0.0), seed=1
    )
    assert np.array_equal(inputs, ids)
    assert (labels == -100).all()
    # One token at least of any other share is BERT's.
    if count == "round":
        little = Masking(unit="token", count=count, masked_lm_prob=1e-9)
        assert ((mask_tokens(ids, VOCABULARY, masking=little, seed=1)[1] != -100).sum(axis=1) == 1).all()


def test_bad_vocabularies(minilm):
    with pytest.raises(TokenIdError, match=r"mask_token_id: expected an id in 0\.\.5, got 5"):
        mask_tokens([1], Vocabulary(5, 5), seed=0)
    with pytest.raises(ArgumentError, match="some ids that are not special"):
        mask_tokens([1], Vocabulary(2, 0, (0, 1)), seed=0)
    with pytest.raises(ArgumentError, match="size"):
        Vocabulary(0, 0)
    with pytest.raises(ArgumentError, match="word_starts: expected 3 bytes, got 2"):
        Vocabulary(3, 0, word_starts=b"\0\1")
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokenizer.mask_token = None
    with pytest.raises(ArgumentError, match="expected one with a mask token"):
        Vocabulary.of(tokenizer)


def test_signs_of_words():
    for vocab, expected in [
        ({"play": 0, "##ing": 1, "##": 2, "##s": 4}, [True, False, True, True, False]),
        ({"\u0120play": 0, "ing": 1, "##": 2, "\u0120a": 3}, [True, False, False, True]),
        ({"\u2581play": 0, "ing": 1, "\u2581": 2}, [True, False, True]),
        ({"a": 0, "b": 1}, [True, True]),
        ({}, []),
    ]:
        assert word_start_table(vocab).tolist() == expected
