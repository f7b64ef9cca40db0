"""How good answers are: exact match and F1, as SQuAD counts them, and as CMRC does for Chinese.

All figures are between 0 and 1; the scripts that they come from show them times 100.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

Rule = Literal["squad", "cmrc"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_CHINESE = re.compile("[\u4e00-\u9fa5]")
# What the script of CMRC 2018 leaves out. No ellipsis: it has two of them, which no single character equals.
_CHINESE_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")  # noqa: RUF001


def normalize_answer(text: str) -> str:
    """Without capital letters, punctuation, articles and surplus blanks.

    Example:
        >>> normalize_answer("The  Broncos!")
        'broncos'

    Source: ``evaluate-v2.0.py`` of SQuAD.
    """
    text = "".join(letter for letter in text.lower() if letter not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def squad_exact(answer: str, prediction: str) -> float:
    """1 if both are the same when they are normalized."""
    return float(normalize_answer(answer) == normalize_answer(prediction))


def squad_f1(answer: str, prediction: str) -> float:
    """The F1 of the words that both have; of nothing, 1 if both are nothing.

    Example:
        >>> squad_f1("Denver Broncos", "the Broncos")
        0.6666666666666666
    """
    right, found = (normalize_answer(text).split() for text in (answer, prediction))
    if not right or not found:
        return float(right == found)
    return _f1((Counter(right) & Counter(found)).total(), len(right), len(found))


def cmrc_exact(answer: str, prediction: str) -> float:
    """1 if both are the same without punctuation, blanks around them, and capital letters."""
    return float(_without_punctuation(answer) == _without_punctuation(prediction))


def cmrc_f1(answer: str, prediction: str) -> float:
    """The F1 of the longest run of characters that both have; a run of letters or digits counts as one.

    Example:
        >>> cmrc_f1("北京大学", "北京")
        0.6666666666666666

    Source: ``cmrc2018_evaluate.py`` of https://github.com/ymcui/cmrc2018, which takes what is not Chinese
    apart with nltk; here it is taken apart at blanks.
    """
    right, found = (_units(text) for text in (answer, prediction))
    if not right or not found:
        return float(right == found)
    return _f1(_longest_run(right, found), len(right), len(found))


_RULES = {"squad": (squad_exact, squad_f1), "cmrc": (cmrc_exact, cmrc_f1)}


def rule_for(answers: Sequence[Sequence[str]]) -> Rule:
    """``"cmrc"`` if more than half of the letters and digits of all answers are Chinese, else ``"squad"``."""
    text = "".join(answer for some in answers for answer in some)
    letters = sum(letter.isalnum() for letter in text)
    return "cmrc" if 2 * len(_CHINESE.findall(text)) > letters else "squad"


def answer_scores(answers: Sequence[str], prediction: str, rule: Rule = "squad") -> tuple[float, float]:
    """Exact match and F1 of one prediction: the best over all right answers.

    Args:
        answers: None where nothing is the right answer.
        prediction: ``""`` for no answer.
        rule: Which one's.

    Source: ``evaluate-v1.1.py`` and ``evaluate-v2.0.py`` of SQuAD. The second leaves out answers of which
    nothing is left when they are normalized; so does this.
    """
    exact, f1 = _RULES[rule]
    kept = [answer for answer in answers if rule != "squad" or normalize_answer(answer)] or [""]
    return max(exact(answer, prediction) for answer in kept), max(f1(answer, prediction) for answer in kept)


def answer_metrics(
    answers: Sequence[Sequence[str]], predictions: Sequence[str], rule: Rule = "squad"
) -> dict[str, float]:
    """The figures of predictions: means over all, and over each kind if some questions have no answer.

    Args:
        answers: For each question all that are right.
        predictions: One for each question.
        rule: Which one's.

    Returns:
        ``exact_match`` and ``f1``; ``has_answer_f1`` and so on.

    Example:
        >>> answer_metrics([["Rome"]], ["in Rome"])
        {'exact_match': 0.0, 'f1': 0.6666666666666666}
    """
    scores = np.array(
        [answer_scores(right, found, rule) for right, found in zip(answers, predictions, strict=True)]
    )
    has = np.array([bool(right) for right in answers])
    parts: Mapping[str, Any] = {"": np.ones_like(has)}
    if has.any() and not has.all():
        parts = {**parts, "has_answer_": has, "no_answer_": ~has}
    return {
        f"{part}{name}": float(scores[kept, column].mean())
        for part, kept in parts.items()
        for column, name in enumerate(("exact_match", "f1"))
    }


def _f1(both: int, there: int, found: int) -> float:
    if not both:
        return 0.0
    precision, recall = both / found, both / there
    return 2 * precision * recall / (precision + recall)


def _without_punctuation(text: str) -> str:
    return "".join(letter for letter in text.lower().strip() if letter not in _CHINESE_PUNCTUATION)


def _units(text: str) -> list[str]:
    """Chinese characters, and what is between them and blanks; punctuation is taken out."""
    return _CHINESE.sub(lambda found: f" {found[0]} ", _without_punctuation(text)).split()


def _longest_run(a: Sequence[str], b: Sequence[str]) -> int:
    best, row = 0, [0] * (len(b) + 1)
    for one in a:
        row = [0, *(row[place] + 1 if one == other else 0 for place, other in enumerate(b))]
        best = max(best, *row)
    return best


def best_threshold(
    answers: Sequence[Sequence[str]], f1: Sequence[float], odds: Sequence[float]
) -> tuple[float, float]:
    """From which odds on no answer should be given, for the mean F1 to be as great as it can be.

    Args:
        answers: For each question all that are right; none where there is none.
        f1: Of the best answer to each that is not none.
        odds: log(probability of no answer / probability of that answer).

    Returns:
        The greatest F1, and the greatest odds at which an answer is still given; minus infinity if none ever
        should be.

    Example:
        >>> best_threshold([["Rome"], []], [1.0, 0.0], [-2.0, 3.0])
        (1.0, -2.0)

    Source: ``find_best_thresh`` in ``evaluate-v2.0.py`` of SQuAD.
    """
    order = np.argsort(np.array(odds), kind="stable").tolist()
    total = best = float(sum(not right for right in answers))
    threshold = -np.inf
    for place, number in enumerate(order):
        total += f1[number] if answers[number] else -1.0
        # Of equal odds all answers are given, or none.
        is_end = place + 1 == len(order) or odds[order[place + 1]] > odds[number]
        if is_end and total > best:
            best, threshold = total, odds[number]
    return best / max(len(order), 1), float(threshold)
