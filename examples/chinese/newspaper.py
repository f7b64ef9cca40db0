"""People's Daily of January 1998 with its tags: articles, sentences, names.

The file has a paragraph on each line, as `word/tag word/tag ...`. What it does not have are the places where
articles begin, and the brackets around names of several words that other editions of this corpus have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LABELS = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
"""Tags of words that are names, and what they are called in the columns; other proper names (nz) are not."""

HEADLINE = 40
"""Characters of a headline, at most."""

# The end of a line that is no headline, and what may stand behind a headline all the same.
_FINAL = "。！？…”：；）"
_PICTURE = re.compile("（附图片[^（）]*）$")

# Family names of two characters; all others that are words of their own have one.
_DOUBLE_FAMILY_NAMES = frozenset(re.findall("..", "欧阳司马上官诸葛司徒皇甫尉迟公孙令狐慕容夏侯东方"))

_SENTENCE = re.compile("[^。！？]*[。！？]+[”’』」》）]*|[^。！？]+$")


@dataclass(frozen=True)
class Name:
    """A name in a paragraph: `text[start:end]` is a PER, LOC or ORG."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Paragraph:
    """A line of the newspaper: its text without spaces, and the names in it."""

    text: str
    names: tuple[Name, ...]


Article = list[Paragraph]


def read_articles(path: Path, lines: int | None = None) -> list[Article]:
    """The articles of the file, or of its first lines."""
    with path.open(encoding="utf-8") as file:
        paragraphs = [parse(line) for number, line in enumerate(file) if lines is None or number < lines]
    return split_articles([paragraph for paragraph in paragraphs if paragraph.text])


def parse(line: str) -> Paragraph:
    """A line of `word/tag`."""
    words = [(word, tag) for word, _, tag in (token.rpartition("/") for token in line.split())]
    return Paragraph("".join(word for word, _ in words), tuple(find_names(words)))


def find_names(words: Iterable[tuple[str, str]]) -> Iterator[Name]:
    """The names among tagged words. Those of persons are put together of their parts."""
    place = 0
    run: list[str] = []
    for word, tag in [*words, ("", "")]:
        if tag == "nr":
            run.append(word)
            place += len(word)
            continue
        start = place - sum(map(len, run))
        for name in join_names(run):
            yield Name(start, start + len(name), LABELS["nr"])
            start += len(name)
        run = []
        if tag in LABELS:
            yield Name(place, place + len(word), LABELS[tag])
        place += len(word)


def join_names(parts: list[str]) -> list[str]:
    """Words tagged as names of persons that stand side by side, as names.

    A family name takes the word behind it. A word alone is a foreign name, a given name, or a family name
    that a title follows. Three words, two family names and more, are one name: that of a wife.
    """
    if len(parts) == 3 and [len(part) > 1 for part in parts] == [False, False, True]:
        return ["".join(parts)]
    names: list[str] = []
    rest = iter(parts)
    for part in rest:
        is_family_name = len(part) == 1 or part in _DOUBLE_FAMILY_NAMES
        names.append(part + (next(rest, "") if is_family_name else ""))
    return names


def split_articles(paragraphs: Iterable[Paragraph]) -> list[Article]:
    """Articles begin at a headline: a short line that does not end as sentences do, behind one that does."""
    articles: list[Article] = []
    was_final = True
    for paragraph in paragraphs:
        text = _PICTURE.sub("", paragraph.text)
        is_final = text.endswith(tuple(_FINAL))
        if not articles or (was_final and not is_final and len(text) <= HEADLINE):
            articles.append([])
        articles[-1].append(paragraph)
        was_final = is_final
    return articles


def sentences(paragraph: Paragraph) -> Iterator[Paragraph]:
    """A paragraph cut behind `。！？` and quotes and brackets that close there, but for within names."""
    start = 0
    for match in _SENTENCE.finditer(paragraph.text):
        end = match.end()
        if any(name.start < end < name.end for name in paragraph.names):
            continue
        names = [
            Name(name.start - start, name.end - start, name.label)
            for name in paragraph.names
            if start <= name.start < end
        ]
        yield Paragraph(paragraph.text[start:end], tuple(names))
        start = end


def iob2(sentence: Paragraph) -> list[str]:
    """A label for each character: `B-` at the beginning of a name, `I-` within it, else `O`."""
    labels = ["O"] * len(sentence.text)
    for name in sentence.names:
        labels[name.start : name.end] = [f"I-{name.label}"] * (name.end - name.start)
        labels[name.start] = f"B-{name.label}"
    return labels
