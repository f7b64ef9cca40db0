"""Figures of classifiers, regressions and answers, beside those of scikit-learn, scipy and SQuAD's rules."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from bertfast.training.finetuning import answer_metrics, metrics

LABELS = st.integers(1, 5).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), min_size=1, max_size=30),
    )
)


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None)
@given(LABELS)
def test_labels_as_scikit_learn(drawn: tuple[int, list[tuple[int, int]]]):
    count, pairs = drawn
    labels, predictions = (np.array(column) for column in zip(*pairs, strict=True))
    ours = metrics.classification_metrics(labels, predictions, count)
    assert ours["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    assert ours["macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(labels, predictions, average="macro", zero_division=0)
    )
    assert ours["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predictions), abs=1e-12)
    confusion = metrics.confusion_matrix(labels, predictions, count)
    expected = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(count), zero_division=0
    )
    for number, scores in enumerate(metrics.label_scores(confusion)):
        assert scores == pytest.approx([float(column[number]) for column in expected])


def test_mcc_of_many_examples_does_not_overflow():
    confusion = np.array([[4 * 10**9, 10**9], [10**9, 4 * 10**9]])
    assert metrics.matthews_corrcoef(confusion) == pytest.approx(0.6)


VALUES = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=20)


@given(VALUES)
def test_correlations_as_scipy(pairs: list[tuple[int, int]]):
    x, y = (np.array(column, float) for column in zip(*pairs, strict=True))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert metrics.pearson(x, y) == metrics.spearman(x, y) == 0
        return
    assert metrics.pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
    assert metrics.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


def test_a_constant_has_no_correlation_though_its_mean_is_rounded():
    assert metrics.pearson([0.1] * 3, [1, 2, 3]) == 0


def test_regression():
    found = metrics.regression_metrics(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    assert found == {"pearson": pytest.approx(1), "spearman": pytest.approx(1), "mse": 2.5}


@pytest.mark.filterwarnings("ignore")
def test_several_labels_as_scikit_learn():
    random = np.random.default_rng(0)
    labels, predictions = (random.random((50, 4)) < share for share in (0.4, 0.5))
    labels[:, 3] = predictions[:, 3] = False
    ours = metrics.multi_label_metrics(labels, predictions)
    for name in ("micro", "macro"):
        expected = sklearn.metrics.f1_score(labels, predictions, average=name, zero_division=0)
        assert ours[f"{name}_f1"] == pytest.approx(expected)
    assert ours["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))


# ---------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Broncos!", "broncos"),
        ("a an the theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("the-best", "thebest"),
        ("“quoted”", "“quoted”"),
        ("A", ""),
        ("don't", "dont"),
        ("An\u00a0apple", "apple"),
    ],
)
def test_normalized_answers(text: str, normalized: str):
    assert answer_metrics.normalize_answer(text) == normalized


@pytest.mark.parametrize(
    ("answers", "prediction", "exact", "f1"),
    [
        (["Denver Broncos", "Broncos"], "the Broncos", 1, 1),
        (["Denver Broncos"], "Broncos", 0, 2 / 3),
        (["one one two"], "one two two", 0, 2 / 3),
        ([], "", 1, 1),
        ([], "something", 0, 0),
        (["something"], "", 0, 0),
        # Of the first nothing is left, so that it is no answer.
        (["the", "Rome"], "", 0, 0),
        (["the"], "", 1, 1),
    ],
)
def test_answers_as_squad(answers: list[str], prediction: str, exact: float, f1: float):
    assert answer_metrics.answer_scores(answers, prediction) == (exact, pytest.approx(f1))


@pytest.mark.parametrize(
    ("answer", "prediction", "exact", "f1"),
    [
        ("北京大学", "北京", 0, 2 / 3),
        ("《北京》", "北京", 1, 1),
        # Only the longest run counts, not all that both have.
        ("北大京", "北小京", 0, 1 / 3),
        ("3677472人", "3677472", 0, 2 / 3),
        ("GDP 增长", "gdp 增长", 1, 1),
        ("上海", "北京", 0, 0),
        # The original means to leave these out, and does not.
        ("北京…", "北京", 0, 4 / 5),
    ],
)
def test_answers_as_cmrc(answer: str, prediction: str, exact: float, f1: float):
    assert answer_metrics.answer_scores([answer], prediction, "cmrc") == (exact, pytest.approx(f1))


def test_which_rule():
    assert answer_metrics.rule_for([["北京"], ["a"]]) == "cmrc"
    assert answer_metrics.rule_for([["Beijing"], ["北京"]]) == "squad"
    assert answer_metrics.rule_for([[], []]) == "squad"


def test_figures_by_kind_of_question():
    found = answer_metrics.answer_metrics([["Rome"], [], []], ["in Rome", "", "x"])
    assert found == {
        "exact_match": pytest.approx(1 / 3),
        "f1": pytest.approx(5 / 9),
        "has_answer_exact_match": 0,
        "has_answer_f1": pytest.approx(2 / 3),
        "no_answer_exact_match": 0.5,
        "no_answer_f1": 0.5,
    }
