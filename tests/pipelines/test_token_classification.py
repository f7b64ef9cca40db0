"""Entities as transformers finds them, in every strategy; and what it does not have."""

from __future__ import annotations

import itertools
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

import bertfast
from bertfast.errors import ArgumentError, TruncationWarning
from bertfast.vocabulary import save_vocabulary, train_vocabulary
from task_folder import TEXTS, assert_same, leaves, make_task_folder, theirs

STRATEGIES = ("none", "simple", "first", "average", "max")
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "I-X-Y"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*are longer than"),
    pytest.mark.filterwarnings("ignore:.*Tokenizer does not support real words"),
    pytest.mark.filterwarnings("ignore:.*knows no words"),
]


def make(folder: Path, tokenizer: Path, labels: list[str] = LABELS, model: Any = None, **config: Any) -> Path:
    return make_task_folder(
        folder,
        model or transformers.BertForTokenClassification,
        tokenizer,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **config,
    )


@pytest.fixture(scope="module")
def english(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("english"), minilm)


@pytest.fixture(scope="module")
def chinese(zh_vocab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("chinese"), zh_vocab.parent)


@pytest.fixture(scope="module")
def byte_level(english_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa with a byte-level BPE, to which a word is what is between spaces."""
    vocabulary = tmp_path_factory.mktemp("vocabulary")
    trained = train_vocabulary(english_texts[:2000] + TEXTS, kind="byte-bpe", size=1000)
    save_vocabulary(trained, vocabulary, kind="byte-bpe", max_length=48)
    model = transformers.RobertaForTokenClassification
    return make(
        tmp_path_factory.mktemp("roberta"),
        vocabulary,
        model=model,
        pad_token_id=1,
        max_position_embeddings=50,
        type_vocab_size=1,
    )


@pytest.fixture(scope="module")
def unigram(english_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with the kind of tokenizer that ALBERT has: a token may be a mere space before a word."""
    vocabulary = tmp_path_factory.mktemp("vocabulary")
    trained = train_vocabulary(english_texts[:2000], kind="unigram", size=1000)
    save_vocabulary(trained, vocabulary, kind="unigram", max_length=48)
    return make(tmp_path_factory.mktemp("unigram"), vocabulary, LABELS[::-1])


@pytest.fixture(params=["english", "chinese", "byte_level", "unigram"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy(folder: Path, strategy: str) -> None:
    ours = bertfast.pipeline("ner", folder, aggregation_strategy=strategy)
    expected = theirs("ner", folder, aggregation_strategy=strategy)
    found = ours(TEXTS)
    assert_same(found, expected(TEXTS))
    assert len(list(leaves(found))) > 25
    for text in TEXTS[:4]:
        assert_same(ours(text), expected(text))
    everything = ours(TEXTS, ignore_labels=[])
    assert_same(everything, expected(TEXTS, ignore_labels=[]))
    assert len(list(leaves(everything))) > len(list(leaves(found)))
    assert_same(
        ours(TEXTS, ignore_labels=["PER", "B-LOC", "I-LOC"]),
        expected(TEXTS, ignore_labels=["PER", "B-LOC", "I-LOC"]),
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_words_that_came_apart(folder: Path, strategy: str) -> None:
    options: dict[str, Any] = {"aggregation_strategy": strategy, "is_split_into_words": True}
    texts = [text.split() or ["one"] for text in TEXTS] + [["", "two", "", "New York ", " x"], ["a"] * 60]
    ours, expected = bertfast.pipeline("ner", folder), theirs("ner", folder)
    assert_same(ours(texts, **options), expected(texts, **options))
    assert_same(ours(texts, delimiter="", **options), expected(texts, delimiter="", **options))
    assert_same(ours(texts, delimiter=" — ", **options), expected(texts, delimiter=" — ", **options))
    # One list of words is a list of one result, as there.
    assert_same(ours(texts[0], **options), expected(texts[0], **options))
    assert ours([], **options) == []
    assert ours([[], ["x"], []], ignore_labels=[], **options)[::2] == [[], []]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("stride", [0, 7, 30])
def test_windows_of_long_texts(folder: Path, english_texts: list[str], strategy: str, stride: int) -> None:
    texts = [*random.Random(stride).sample(english_texts, 3), *TEXTS[:2], " ".join(TEXTS)]
    ours = bertfast.pipeline("ner", folder, aggregation_strategy=strategy, stride=stride)
    expected = theirs("ner", folder, aggregation_strategy=strategy, stride=stride)
    found = ours(texts)
    assert_same(found, expected(texts))
    assert_same(ours(texts, batch_tokens=50), expected(texts))
    # The last word of the longest text has been seen.
    longest = max(range(len(texts)), key=lambda place: len(texts[place]))
    whole = ours(texts[longest], ignore_labels=[])
    assert texts[longest][whole[-1]["end"] :].strip() == ""
    words = [text.split() or ["one"] for text in texts]
    assert_same(ours(words, is_split_into_words=True), expected(words, is_split_into_words=True))
    # There the tokenizer says how long a window is.
    shorter = theirs("ner", folder, aggregation_strategy=strategy, stride=stride)
    shorter.tokenizer.model_max_length = 40
    assert_same(ours(texts, max_length=40), shorter(texts))


@pytest.mark.parametrize("seed", range(4))
def test_random_labels_and_texts(folder: Path, seed: int, english_texts: list[str]) -> None:
    """Labels that mean nothing, mixed with those that do; texts put together from anything."""
    draw = random.Random(seed)
    pool = ["O", "B-A", "I-A", "B-B", "I-B", "A", "B", "B-", "I-", "E-A", "S-A", "B-A-B", "o", "-", "I-O", ""]
    labels = draw.sample(pool, len(LABELS))
    glue = ["", " ", "  ", "-", "'", "中", "é", "\u0301", "😀", ". ", "\n"]
    texts = [
        "".join(
            draw.choice(english_texts)[: draw.randrange(12)] + draw.choice(glue)
            for _ in range(draw.randrange(14))
        )
        for _ in range(8)
    ]
    ours, expected = bertfast.pipeline("ner", folder), theirs("ner", folder)
    expected.model.config.id2label = dict(enumerate(labels))
    ours.encoder._labels[:] = labels
    for strategy, stride in itertools.product(STRATEGIES, (None, 5)):
        if strategy == "none" and stride is not None:
            continue
        options = {"aggregation_strategy": strategy, "stride": stride, "ignore_labels": ["O", "I-A", ""]}
        their_entities = expected(texts, **options)
        if stride is not None:
            # They return an entity of no characters twice if it is the first.
            their_entities = [entities[entities[:1] == entities[1:2] :] for entities in their_entities]
        assert_same(ours(texts, **options), their_entities)


def test_places_count_in_the_text_that_was_given(english: Path) -> None:
    """Not in the normalized one, which has other characters."""
    text = "\uff21\uff22\uff23 \ufb01nd Ünïcödé\u0301 \u200b ß 中文 end"
    for token in bertfast.pipeline("ner", english)(text, ignore_labels=[]):
        part = text[token["start"] : token["end"]]
        normal = bertfast.Tokenizer.from_pretrained(english).normalize(part).strip()
        assert token["word"].removeprefix("##") in ("[UNK]", normal, part), token


def test_a_cut_off_text_is_told_about_once(english: Path) -> None:
    ours = bertfast.pipeline("ner", english)
    with pytest.warns(TruncationWarning, match="1 of 2 texts are longer than 48 tokens") as caught:
        ours(["word " * 100, "short"])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours("word " * 100)
        bertfast.pipeline("ner", english, aggregation_strategy="simple", stride=3)("word " * 100)


# ------------------------------------------------------------------------------------ what transformers lacks


def test_schemes_with_an_end(minilm: Path, tmp_path: Path) -> None:
    labels = ["O", "B-A", "I-A", "E-A", "S-A", "B-B", "E-B"]
    folder = make(tmp_path, minilm, labels)
    find = bertfast.pipeline("ner", folder)
    tokens = find(TEXTS[0], ignore_labels=[])
    groups = find(TEXTS[0], aggregation_strategy="simple", scheme="auto", ignore_labels=[])
    expected, before = [], "O"
    for token in tokens:
        label = token["entity"]
        goes_on = label[:1] in "IE" and before[:1] in "BI" and label[1:] == before[1:]
        if goes_on or label == before == "O":
            expected[-1][1] = token["end"]
        else:
            expected.append([token["start"], token["end"]])
        before = label
    assert [[group["start"], group["end"]] for group in groups] == expected
    assert {group["entity_group"] for group in groups} <= {"O", "A", "B"}
    assert_same(
        find(TEXTS, aggregation_strategy="simple"),
        theirs("ner", folder)(TEXTS, aggregation_strategy="simple"),
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_constrained_labels_follow_each_other(english: Path, strategy: str, english_texts: list[str]) -> None:
    find = bertfast.pipeline("ner", english, aggregation_strategy=strategy, ignore_labels=[])
    texts = [*TEXTS, *english_texts[:20]]
    free, bound = find(texts), find(texts, constrained=True)
    assert free != bound
    if strategy == "none":
        for tokens in bound:
            labels = ["O", *(token["entity"] for token in tokens)]
            for before, after in itertools.pairwise(labels):
                if after in ("I-PER", "I-LOC"):
                    assert before[2:] == after[2:]
        assert any(
            after in ("I-PER", "I-LOC") and before[2:] != after[2:]
            for tokens in free
            for before, after in itertools.pairwise(["O", *(token["entity"] for token in tokens)])
        )
    assert all(0 <= entity["score"] <= 1 for entity in leaves(bound))


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"aggregation_strategy": "best"}, ArgumentError, "aggregation_strategy: expected one of 'none'"),
        ({"stride": 3}, ArgumentError, "stride: expected None with aggregation_strategy='none'"),
        ({"stride": 46, "aggregation_strategy": "max"}, ArgumentError, "stride: expected less than 46"),
        ({"stride": -1, "aggregation_strategy": "max"}, ArgumentError, "stride: expected 0 or more"),
        ({"stride": 1.5, "aggregation_strategy": "max"}, ArgumentError, "stride: expected 0 or more"),
        ({"scheme": "iobes"}, ArgumentError, "scheme: expected one of 'auto', 'bio'"),
        ({"ignore_labels": "O"}, TypeError, "ignore_labels: expected a list"),
        ({"delimiter": 3}, TypeError, "delimiter: expected str"),
        ({"top_k": 3}, ArgumentError, "options of token-classification: expected one of"),
    ],
)
def test_options_that_cannot_be(english: Path, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        bertfast.pipeline("ner", english, **options)
    with pytest.raises(error, match=message):
        bertfast.pipeline("ner", english)("text", **options)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["x", "y z"], r"inputs\[1\]: expected a list of words, got str|got"),
        ([["x"], "y z"], r"inputs\[1\]: expected a list of words, got str"),
        ([["x"], ["y", 3]], r"inputs\[1\]\[1\]: expected str, got int"),
        ("x y", r"inputs: expected a list of words, got str|inputs\[0\]"),
        (3, r"inputs: expected a list of words or several, got int"),
    ],
)
def test_what_is_no_list_of_words(english: Path, inputs: Any, message: str) -> None:
    find = bertfast.pipeline("ner", english, is_split_into_words=True)
    if inputs == ["x", "y z"]:  # is one list of words
        assert len(find(inputs)) == 1
        return
    with pytest.raises(TypeError, match=message):
        find(inputs)


def test_a_lone_surrogate_in_a_word(english: Path) -> None:
    find = bertfast.pipeline("ner", english, is_split_into_words=True)
    with pytest.raises(ArgumentError, match=r"inputs\[40\]\[1\]: expected text that can be written as UTF-8"):
        find([["fine"]] * 40 + [["fine", "\ud800"]])


def test_arrays_of_words(english: Path) -> None:
    find = bertfast.pipeline("ner", english, is_split_into_words=True)
    words = ["Ada", "Lovelace"]
    assert find(np.array(words)) == find(words)
    assert find([np.array(words)]) == find([words])
