"""Entities as seqeval finds and counts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertfast.training.finetuning.entities import (
    Entity,
    EntityScores,
    entities,
    entity_scores,
    strict_entities,
)

GOLDEN = json.loads((Path(__file__).resolve().parents[2] / "golden/seqeval.json").read_text())
TAGS = st.lists(st.sampled_from(["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("PER", "LOC"))]))


def compare(ours: EntityScores, expected: dict[str, Any]) -> None:
    expected = dict(expected)
    micro, macro = expected.pop("micro avg", [0.0] * 4), expected.pop("macro avg", [0.0] * 4)
    assert list(ours.micro) == pytest.approx(micro)
    # Types that are only predicted, and not there, count for both.
    assert {kind: list(scores) for kind, scores in ours.types.items()} == {
        kind: pytest.approx(scores) for kind, scores in expected.items()
    }
    assert ours.macro_f1 == pytest.approx(macro[2])


@pytest.mark.parametrize("number", range(len(GOLDEN)))
@pytest.mark.parametrize("mode", ["default", "strict"])
def test_scores_are_those_of_seqeval(number: int, mode: str):
    case = GOLDEN[number]
    ours = entity_scores(case["labels"], case["predictions"], case["scheme"], strict=mode == "strict")
    compare(ours, case[mode])


def test_the_golden_cases_say_something():
    # Kindly and strictly read they differ, and most are neither all right nor all wrong.
    differing = [case for case in GOLDEN if case["default"] != case["strict"]]
    between = [case for case in GOLDEN if 0 < case["default"].get("micro avg", [0] * 4)[2] < 1]
    assert len(differing) > 50
    assert len(between) > 50


@given(TAGS)
def test_every_word_with_a_type_is_in_one_entity(tags: list[str]):
    words = [number for one in entities(tags, "iobes") for number in range(one.first, one.last + 1)]
    assert words == [number for number, tag in enumerate(tags) if tag != "O"]


@given(TAGS)
def test_strict_entities_are_some_of_the_kind_ones(tags: list[str]):
    kind = entities(tags, "iobes")
    for one in strict_entities(tags, "iobes"):
        assert any(one.type == other.type and one.first >= other.first for other in kind)
        assert tags[one.first][0] in "BS"
        assert tags[one.last][0] in "ES"


@given(st.lists(TAGS, min_size=1))
def test_what_is_the_same_is_right(sentences: list[list[str]]):
    for strict in (False, True):
        scores = entity_scores(sentences, sentences, "iobes", strict=strict)
        assert scores.micro.f1 == (1.0 if scores.micro.support else 0.0)


@pytest.mark.parametrize("scheme", ["iobes", "bmes", "bilou"])
def test_the_letters_of_a_scheme(scheme: str):
    begin, inside, end, single = {"iobes": "BIES", "bmes": "BMES", "bilou": "BILU"}[scheme]
    tags = [f"{begin}-X", f"{inside}-X", f"{end}-X", f"{single}-X", "O", f"{single}-Y", f"{single}-Y"]
    expected = [Entity("X", 0, 2), Entity("X", 3, 3), Entity("Y", 5, 5), Entity("Y", 6, 6)]
    assert entities(tags, scheme) == expected
    assert strict_entities(tags, scheme) == expected


def test_sentences_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        entity_scores([["O"], ["O"]], [["O"]])
