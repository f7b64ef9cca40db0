"""Questions with answers out of files in SQuAD's format."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from bertfast.errors import ArgumentError
from bertfast.text_files import TextFile


class Question(NamedTuple):
    """A question about a text."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    """All that are right; none if the text does not say."""
    start: int
    """Where the first of them begins, in characters of the context; -1 if there is none, or not there."""


@dataclass(frozen=True)
class Questions:
    """The questions of a file.

    Attributes:
        name: What messages call the file.
        items: All of them, in order.
        contexts: How many texts they are about.
    """

    name: str
    items: list[Question]
    contexts: int

    def __len__(self) -> int:
        return len(self.items)

    @property
    def has_negatives(self) -> bool:
        """Whether there are questions without an answer, as in SQuAD 2.0."""
        return any(not item.answers for item in self.items)

    def place(self, index: int) -> str:
        """What messages call a question."""
        return f"{self.name}: question {self.items[index].id!r}"


def read_squad(path: str | os.PathLike[str], *, with_starts: bool = False) -> Questions:
    """Reads a file in the format of SQuAD 1.1 or 2.0, plain, gzip or zstd.

    Args:
        path: The file: ``{"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers":
            [{"text", "answer_start"}], "is_impossible"}]}]}]}``.
        with_starts: Leave out the questions whose first answer is not where it is said to be, and warn of
            them. It is looked for in the neighbourhood first: blanks around it do not count, and a file that
            counts in other units of text is one or two off.

    Raises:
        OSError: It cannot be read.
        ArgumentError: It is not JSON (the message begins with ``name:line``) or not of this format (it says
            where).

    Example:
        >>> read_squad("dev-v1.1.json").items[0].answers  # doctest: +SKIP
        ('Denver Broncos', 'Denver Broncos', 'Denver Broncos')

    Source: Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250, and 2018, https://arxiv.org/abs/1806.03822.
    """
    with TextFile(os.fspath(path)) as file:
        name = file.name
        try:
            content = json.loads("\n".join(file))
        except json.JSONDecodeError as error:
            raise ArgumentError(f"{name}:{error.lineno}: not JSON: {error.msg}") from None
        except RecursionError:
            raise ArgumentError(f"{name}: not SQuAD: nested too deeply") from None
        except ValueError as error:  # a number of thousands of digits
            raise ArgumentError(f"{name}: not SQuAD: {error}") from None
    items: list[Question] = []
    known: set[str] = set()
    contexts = 0
    for article, where in _objects(content, "data", name):
        for paragraph, at in _objects(article, "paragraphs", where):
            context = _text(paragraph, "context", at)
            contexts += 1
            for entry, place in _objects(paragraph, "qas", at):
                question = _question(entry, context, place)
                if question.id in known:
                    raise ArgumentError(f"{place}: id {question.id!r} is there twice")
                known.add(question.id)
                items.append(question)
    if not items:
        raise ArgumentError(f"{name}: expected questions, found none")
    return Questions(name, _with_starts(items, name) if with_starts else items, contexts)


def _objects(value: Any, key: str, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list in an object, each with the place where it is."""
    if not isinstance(value, dict) or not isinstance(value.get(key), list):
        raise ArgumentError(f"{where}: expected an object with a list {key!r}")
    for number, entry in enumerate(value[key]):
        place = f"{where}{': ' if key == 'data' else '.'}{key}[{number}]"
        if not isinstance(entry, dict):
            raise ArgumentError(f"{place}: expected an object, got {type(entry).__name__}")
        yield entry, place


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(f"{where}.{key}: expected a text, got {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{where}.{key}: half of a surrogate pair is no text") from None
    return value


def _question(entry: dict[str, Any], context: str, place: str) -> Question:
    identity = entry.get("id")
    if isinstance(identity, bool) or not isinstance(identity, (str, int)):
        raise ArgumentError(f"{place}.id: expected a text, got {identity!r}")
    texts: list[str] = []
    start = -1
    impossible = entry.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise ArgumentError(f"{place}.is_impossible: expected true or false, got {impossible!r}")
    for answer, at in _objects(entry, "answers", place):
        if impossible:
            raise ArgumentError(f"{at}: expected no answer to a question with is_impossible")
        texts.append(_text(answer, "text", at))
        offset = answer.get("answer_start")
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise ArgumentError(f"{at}.answer_start: expected a number of characters, got {offset!r}")
        if len(texts) == 1:
            start = offset
    question = _text(entry, "question", place)
    return Question(str(identity), question, context, tuple(texts), _found(context, texts, start))


def _found(context: str, answers: list[str], start: int) -> int:
    """Where the first answer is, near where it should be; -1 if it is not there."""
    if not answers:
        return -1
    answer = answers[0].strip()
    for distance in range(max(len(answers[0]) - len(answer), 2) + 1):
        for place in (start + distance, start - distance):
            if place >= 0 and context.startswith(answer, place):
                return place
    return -1


def _with_starts(items: list[Question], name: str) -> list[Question]:
    kept = [item for item in items if not item.answers or item.start >= 0]
    lost = [item for item in items if item.answers and item.start < 0]
    if not kept:
        raise ArgumentError(f"{name}: expected answers at their answer_start, found none that is")
    if lost:
        warnings.warn(
            f"{name}: {len(lost)} of {len(items)} questions are left out, for their answers are not at "
            f"answer_start (the first is {lost[0].id!r})",
            stacklevel=3,
        )
    return kept
