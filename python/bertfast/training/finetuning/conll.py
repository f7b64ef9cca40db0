"""Words with tags out of files in CoNLL's columns, and what their tags say about entities."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bertfast.errors import ArgumentError
from bertfast.pipelines.tagging import SCHEMES as LETTERS
from bertfast.text_files import TextFile

SCHEMES = ("iob1", "iob2", "iobes", "bmes", "bilou", "none")
"""What tags may be: the letters before a type and where they stand; ``"none"`` for tags without them."""

# Which letters mean what, in those of BIOES; "iob2" is what pipelines call "bio".
_ROLES = {"iob1": "bio", "iob2": "bio", "iobes": "bioes", "bmes": "bmes", "bilou": "bilou"}
_DOCUMENT = "-DOCSTART-"
# Other spaces, such as the wide one of Chinese texts, may be words.
_BLANKS = re.compile("[ \t]+")


@dataclass(frozen=True)
class TaggedSentences:
    """The sentences of a file.

    Attributes:
        name: What messages call the file.
        scheme: One of `SCHEMES`; ``"iob1"`` has been made ``"iob2"``.
        words: At least one for each sentence.
        tags: As many.
        lines: The line of the file that each sentence begins at.
    """

    name: str
    scheme: str
    words: list[list[str]]
    tags: list[list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.words)


def read_conll(path: str | os.PathLike[str]) -> TaggedSentences:
    """Reads a file with a word in each line, plain, gzip or zstd.

    The first column is the word, the last one its tag; spaces or tabs are between them, and a blank line
    is between sentences. Lines with ``-DOCSTART-`` are skipped. All tags have to be those of one scheme:
    IOB2 (``B-PER I-PER``, which is also called BIO), IOB1 (``B`` only between two neighbours of one type),
    IOBES, BMES or BILOU; or, like parts of speech, of none. IOB1 is returned as IOB2.

    Raises:
        OSError: It cannot be read.
        ArgumentError: Something in it is not as it should be; the message begins with ``name:line``.

    Example:
        >>> read_conll("train.conll").tags[0]  # doctest: +SKIP
        ['B-ORG', 'O', 'B-MISC', 'O']

    Source: Ramshaw and Marcus 1995, https://arxiv.org/abs/cmp-lg/9505040, and Tjong Kim Sang and Veenstra
    1999, https://arxiv.org/abs/cs/9907006, for the schemes; the shared task of CoNLL 2003 for the columns.
    """
    return read_conll_files([path])[0]


def read_conll_files(paths: Sequence[str | os.PathLike[str]]) -> list[TaggedSentences]:
    """Reads files that belong together, the one to learn from first: each as `read_conll`.

    Where the tags of a file may be those of several schemes, the others decide: ``B-PER E-PER`` is IOBES as
    well as BMES. If no scheme fits all of them, each has its own.

    Raises:
        OSError: As `read_conll`; so is ``ArgumentError``.

    Example:
        >>> train, evaluated = read_conll_files(["train.conll", "dev.conll"])  # doctest: +SKIP
    """
    files, schemes = zip(*map(_read, paths), strict=True)
    marked = [some for some in schemes if some != ["none"]]
    shared = [one for one in marked[0] if all(one in some for some in marked)] if marked else []
    return [
        replace(file, scheme=shared[0]) if shared and some != ["none"] else file
        for file, some in zip(files, schemes, strict=True)
    ]


def _read(path: str | os.PathLike[str]) -> tuple[TaggedSentences, list[str]]:
    """The sentences of a file, and all schemes that its tags may be of."""
    words: list[list[str]] = []
    tags: list[list[str]] = []
    # Blank lines are between sentences only, so the first line says where all others are.
    lines: list[int] = []
    with TextFile(os.fspath(path)) as file:
        name = file.name
        for first, sentence in _sentences(file):
            words.append([word for word, _ in sentence])
            tags.append([tag for _, tag in sentence])
            lines.append(first)
    if not words:
        raise ArgumentError(f"{name}: expected words with tags, found none")
    schemes = _schemes(name, tags, lines)
    if schemes == ["iob1"]:
        tags, schemes = [_as_iob2(sentence) for sentence in tags], ["iob2"]
    return TaggedSentences(name, schemes[0], words, tags, lines), schemes


def split_tag(tag: str, scheme: str) -> tuple[str, str]:
    """What a tag says: its place in an entity, in the letters of BIOES, and the entity's type.

    Args:
        tag: Such as ``"B-PER"``.
        scheme: One of `SCHEMES`, but not ``"none"``.

    Example:
        >>> split_tag("M-PER", "bmes")
        ('I', 'PER')
    """
    if tag == "O":
        return "O", ""
    return LETTERS[_ROLES[scheme]][tag[0]], tag[2:]


def _sentences(file: TextFile) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The number of the first line of each sentence, and its words with their tags."""
    sentence: list[tuple[str, str]] = []
    columns = number = 0
    for number, text in enumerate(file, start=1):
        cells = [cell for cell in _BLANKS.split(text) if cell]
        if cells and cells[0] != _DOCUMENT:
            if len(cells) < 2 or len(cells) != (columns or len(cells)):
                expected = f"{columns} columns as before" if columns else "a word and its tag"
                raise ArgumentError(f"{file.name}:{number}: expected {expected}, got {text.strip()!r}")
            columns = len(cells)
            sentence.append((cells[0], cells[-1]))
        elif sentence:
            yield number - len(sentence), sentence
            sentence = []
    if sentence:
        yield number + 1 - len(sentence), sentence


def _schemes(name: str, tags: Sequence[Sequence[str]], lines: Sequence[int]) -> list[str]:
    """The schemes that all tags fit, at least one."""
    found = {tag for sentence in tags for tag in sentence}
    marked = {tag for tag in found if tag[1:2] == "-" and tag[0] in "BIESMLU"}
    if not marked:
        return ["none"]

    def line(wanted: str) -> int:
        return next(n + s.index(wanted) for n, s in zip(lines, tags, strict=True) if wanted in s)

    for tag in sorted(found - marked - {"O"}):
        raise ArgumentError(f"{name}:{line(tag)}: expected O or a letter, a hyphen and a type, got {tag!r}")
    for tag in sorted(marked):
        if len(tag) == 2:
            raise ArgumentError(f"{name}:{line(tag)}: expected a type behind {tag!r}")
    letters = {tag[0] for tag in marked}
    candidates = [one for one, roles in _ROLES.items() if letters <= set(LETTERS[roles])]
    if not candidates:
        first = {letter: min(line(tag) for tag in marked if tag[0] == letter) for letter in letters}
        seen = ", ".join(f"{letter!r} in line {first[letter]}" for letter in sorted(letters))
        raise ArgumentError(f"{name}:{max(first.values())}: expected the letters of one scheme, found {seen}")
    if letters <= set("BI"):
        candidates = ["iob2", "iob1"]
    offences = {one: _offence(one, tags, lines) for one in candidates}
    fitting = [scheme for scheme, offence in offences.items() if offence is None]
    if fitting:
        return fitting
    problems = "; ".join(
        f"not {scheme.upper()}: {o[1]} in line {o[0]}" for scheme, o in offences.items() if o
    )
    # That of the scheme that they fit longest is most likely the mistake.
    last = max(offence[0] for offence in offences.values() if offence)
    raise ArgumentError(f"{name}:{last}: {problems}")


def _offence(scheme: str, tags: Sequence[Sequence[str]], lines: Sequence[int]) -> tuple[int, str] | None:
    """The first line whose tag may not stand there, and what is wrong."""
    for first, sentence in zip(lines, tags, strict=True):
        before = "O"
        for number, tag in enumerate([*sentence, "O"], start=first):
            if not _may_follow(scheme, before, tag):
                line = number if number < first + len(sentence) else number - 1
                return line, f"{tag} behind {before}" if line == number else f"{before} at the end"
            before = tag
    return None


def _may_follow(scheme: str, before: str, tag: str) -> bool:
    (role, kind), (earlier, other) = split_tag(tag, scheme), split_tag(before, scheme)
    if scheme == "iob1":
        return role != "B" or (earlier in ("B", "I") and kind == other)
    goes_on = role in ("I", "E")
    is_open = earlier in ("B", "I")
    if goes_on or (is_open and scheme != "iob2"):
        return goes_on and is_open and kind == other
    return True


def _as_iob2(tags: Sequence[str]) -> list[str]:
    """Every entity begins with B."""
    return [
        f"B{tag[1:]}" if tag[0] == "I" and before[1:] != tag[1:] else tag
        for before, tag in zip(["O", *tags], tags, strict=False)
    ]
