"""Questions made of a newspaper: a clause in which a name is asked for, and the article that it is from.

They show whether a model finds a passage and marks the right piece of it, in texts that are longer than what
it reads at once. They do not show that it understands: the words of the question stand in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from newspaper import Article, Name
from splitting import number, sample

WHAT = {"PER": "什么人", "LOC": "什么地方", "ORG": "什么机构"}
"""What is asked for."""
CONTEXT = range(200, 801)
"""Characters of a context: the beginning of an article, whole paragraphs."""
CLAUSE = range(12, 41)
"""Characters of what a question is made of."""
MOST_OF_KIND = 2
"""Questions about an article for each kind of name."""

_CLAUSE = re.compile("[^，。！？；：]+")
# Quotes and brackets may be open, and who reports from where always stands in the same words.
_NO_QUESTION = re.compile("[（）“”‘’《》『』]|新华社|本报|记者|摄$")


def squad(articles: Sequence[Article], most: int) -> dict[str, Any]:
    """Questions about random articles in the format of SQuAD 1.1, `most` of them."""
    data = []
    for article in sample(articles, lambda one: "".join(paragraph.text for paragraph in one), len(articles)):
        found = questions_of(article)
        qas = found["qas"][:most]
        most -= len(qas)
        if qas:
            data.append({"title": article[0].text, "paragraphs": [{**found, "qas": qas}]})
    return {"version": "1.1", "data": data}


def questions_of(article: Article) -> dict[str, Any]:
    """A context and its questions, a few for each kind of name."""
    context = ""
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in WHAT}
    for paragraph in article:
        if len(context) + len(paragraph.text) >= CONTEXT.stop:
            break
        for clause in _CLAUSE.finditer(paragraph.text):
            for name in paragraph.names:
                if clause.start() <= name.start and name.end <= clause.end():
                    question = ask(paragraph.text, clause.span(), name)
                    answer = {
                        "text": paragraph.text[name.start : name.end],
                        "answer_start": len(context) + name.start,
                    }
                    if question is not None:
                        found[name.label].append(
                            {"question": question, "clause": clause[0], "answers": [answer]}
                        )
        context += paragraph.text + "\n"
    context = context.removesuffix("\n")
    qas: list[dict[str, Any]] = []
    for all_of_kind in found.values():
        candidates = [one for one in all_of_kind if context.count(one.pop("clause")) == 1]
        if len(context) in CONTEXT:
            for one in sample(candidates, lambda one: str(one["question"]), MOST_OF_KIND):
                qas.append({"id": f"{number(context):016x}-{len(qas)}", **one})
    return {"context": context, "qas": qas}


def ask(text: str, clause: tuple[int, int], name: Name) -> str | None:
    """The clause with a word of question in the place of the name, if that is a question worth asking."""
    start, end = clause
    whole, answer = text[start:end], text[name.start : name.end]
    if len(whole) not in CLAUSE or len(whole) < 2 * len(answer) or whole.count(answer) > 1:
        return None
    if _NO_QUESTION.search(whole):
        return None
    return f"{text[start : name.start]}{WHAT[name.label]}{text[name.end : end]}？"
