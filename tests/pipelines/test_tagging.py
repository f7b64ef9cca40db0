"""The functions behind entities: schemes, words, groups, the best allowed path, windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bertfast.errors import ArgumentError
from bertfast.pipelines import tagging
from bertfast.pipelines.tagging import Scheme


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (["O", "B-PER", "I-PER"], "bio"),
        (["O", "I-PER", "I-LOC"], "bio"),
        (["O", "B-PER", "I-PER", "E-PER", "S-PER"], "bioes"),
        (["O", "B-PER", "I-PER", "S-PER"], "bioes"),
        (["B", "M", "E", "S"], "bmes"),
        (["O", "B-PER", "M-PER", "E-PER", "S-LOC"], "bmes"),
        (["O", "B-PER", "I-PER", "L-PER", "U-PER"], "bilou"),
        (["NOUN", "VERB", "S"], "bio"),
        (["LABEL_0", "LABEL_1"], "bio"),
        (["O", "B-PER", "E-PER", "U-PER"], "bio"),
        (["O"], "bio"),
    ],
)
def test_a_scheme_is_recognised(labels: list[str], name: str) -> None:
    assert Scheme.of(labels, "auto").name == name


def test_an_unknown_scheme() -> None:
    with pytest.raises(ArgumentError, match=r"scheme: expected one of 'auto', 'bio', .*, got 'iob'"):
        Scheme.of(["O"], "iob")


def grouped(
    labels: list[str], path: list[str], scheme: str, windows: list[int] | None = None
) -> list[list[str]]:
    numbers = np.array([labels.index(label) for label in path], np.intp)
    places = np.array(windows or [0] * len(path), np.intp)
    starts = tagging.group_starts(numbers, places, Scheme.of(labels, scheme)).tolist()
    return [path[start:stop] for start, stop in itertools.pairwise([*starts, len(path)])]


def test_groups() -> None:
    bioes = ["O", "B-A", "I-A", "E-A", "S-A", "B-B", "E-B"]
    path = ["O", "O", "B-A", "I-A", "E-A", "E-A", "S-A", "I-A", "I-A", "B-A", "E-B", "S-A", "S-A", "O"]
    assert grouped(bioes, path, "bioes") == [
        ["O", "O"],
        ["B-A", "I-A", "E-A"],
        ["E-A"],
        ["S-A"],
        ["I-A", "I-A"],
        ["B-A"],
        ["E-B"],
        ["S-A"],
        ["S-A"],
        ["O"],
    ]
    assert grouped(["B", "M", "E", "S"], list("BMESSBE"), "auto") == [list("BME"), ["S"], ["S"], list("BE")]
    bio = ["O", "B-A", "I-A"]
    assert grouped(bio, ["I-A", "I-A", "B-A", "I-A"], "bio", [0, 0, 0, 1]) == [
        ["I-A", "I-A"],
        ["B-A"],
        ["I-A"],
    ]
    assert grouped(bio, [], "bio") == []


def test_words() -> None:
    is_subword = np.array([True, False, True, True, False, True, False])
    windows = np.array([0, 0, 0, 0, 0, 1, 1])
    starts = tagging.word_starts(is_subword, windows)
    assert starts.tolist() == [0, 1, 4, 5, 6]
    scores = np.random.default_rng(0).random((7, 3))
    scores[2] = scores[3] = [0.1, 2.0, 0.2]
    first = tagging.word_scores(scores, starts, "first")
    assert np.array_equal(first, scores[[0, 1, 4, 5, 6]])
    assert np.array_equal(tagging.word_scores(scores, starts, "max"), scores[[0, 2, 4, 5, 6]])
    average = tagging.word_scores(scores, starts, "average")
    np.testing.assert_allclose(average[1], scores[1:4].mean(axis=0))
    assert np.array_equal(average[[0, 2, 3, 4]], scores[[0, 4, 5, 6]])
    for strategy in ("first", "max", "average"):
        nothing = np.zeros((0, 3))
        starts = tagging.word_starts(np.zeros(0, bool), np.zeros(0, np.intp))
        assert tagging.word_scores(nothing, starts, strategy).shape == (0, 3)


ALLOWED = {
    "bio": (["O", "B-A", "I-A", "I-B"], {("O", "I-A"), ("I-B", "I-A"), ("", "I-A")}),
    "bioes": (
        ["O", "B-A", "I-A", "E-A", "S-A", "B-B"],
        {
            *((before, after) for before in ("", "O", "E-A", "S-A", "B-B") for after in ("I-A", "E-A")),
            *((before, after) for before in ("B-A", "I-A") for after in ("", "O", "B-A", "S-A", "B-B")),
        },
    ),
}
"""Labels, and what may not follow what; "" is the start or the end of a text."""


@pytest.mark.parametrize("name", ALLOWED)
def test_transitions(name: str) -> None:
    labels, forbidden = ALLOWED[name]
    scheme = Scheme.of(labels, name)
    for (i, before), (j, after) in itertools.product(enumerate(labels), repeat=2):
        assert (scheme.transitions[i, j] < 0) == ((before, after) in forbidden), (before, after)
    assert (scheme.may_start < 0).tolist() == [("", label) in forbidden for label in labels]
    assert (scheme.may_end < 0).tolist() == [(label, "") in forbidden for label in labels]


@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize("seed", range(6))
def test_the_best_path_is_the_best_of_all(name: str, seed: int) -> None:
    """Windows of every length at once, beside the best of all paths that are allowed."""
    draw = np.random.default_rng(seed)
    labels, forbidden = ALLOWED[name]
    lengths = draw.permutation([1, 1, 2, 3, 4, 5, 4])
    numbers = np.repeat(np.arange(len(lengths)), lengths)
    scores = draw.dirichlet(np.full(len(labels), 0.5), len(numbers))
    begins, stops = (draw.random((2, len(lengths))) < 0.6).tolist()
    got = tagging.decode(scores, numbers, Scheme.of(labels, name), np.array(begins), np.array(stops))
    for window in range(len(lengths)):
        some = np.log(np.maximum(scores[numbers == window], 1e-300))
        best = max(
            (
                path
                for path in itertools.product(range(len(labels)), repeat=len(some))
                if not forbidden.intersection(
                    itertools.pairwise(
                        [
                            *([""] * begins[window]),
                            *(labels[label] for label in path),
                            *([""] * stops[window]),
                        ]
                    )
                )
            ),
            key=lambda path: sum(row[label] for row, label in zip(some, path, strict=True)),
        )
        assert tuple(got[numbers == window]) == best


def test_a_path_where_none_is_allowed() -> None:
    scheme = Scheme.of(["B-A", "I-A", "E-A"], "bioes")
    one = np.array([[0.2, 0.5, 0.3]])
    got = tagging.decode(one, np.zeros(1, np.intp), scheme, np.array([True]), np.array([True]))
    # A single token can neither begin and end: one offence, with the better of the two.
    assert got.tolist() == [2]
    assert tagging.decode(np.zeros((0, 3)), np.zeros(0, np.intp), scheme, np.zeros(0), np.zeros(0)).shape == (
        0,
    )


def test_windows_are_merged() -> None:
    def entity(start: int, end: int, score: float) -> dict[str, float]:
        return {"start": start, "end": end, "score": score}

    first, longer, better = entity(0, 5, 0.9), entity(4, 10, 0.1), entity(20, 25, 0.6)
    merged = tagging.merge_windows(
        [entity(20, 25, 0.5), first, entity(30, 31, 0.3), longer, better, entity(22, 24, 0.99)]
    )
    assert merged == [longer, better, entity(30, 31, 0.3)]
    assert tagging.merge_windows([]) == []
