"""How well entities were found: whole ones, by their type, as the shared tasks of CoNLL count them.

Tags are those of one of the schemes of ``conll.py``, whose letters mean begin, inside, end and single.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bertfast.training.finetuning.conll import split_tag
from bertfast.training.finetuning.metrics import Scores


class Entity(NamedTuple):
    """Some words of one type."""

    type: str
    first: int
    """The number of its first word."""
    last: int
    """Of its last one, which is part of it."""


def entities(tags: Sequence[str], scheme: str = "iob2") -> list[Entity]:
    """The entities of a sentence, read kindly: whatever the letters say, a word with a type is in one.

    An entity also begins with a word that should be inside of one, and ends where the type changes.

    Args:
        tags: One for each word.
        scheme: See ``conll.py``.

    Example:
        >>> entities(["I-PER", "I-PER", "B-LOC"])
        [Entity(type='PER', first=0, last=1), Entity(type='LOC', first=2, last=2)]

    Source: the script conlleval of CoNLL 2000; ``get_entities`` of seqeval 1.2, its default.
    """
    found = []
    first, before, kind = 0, "O", ""
    for number, tag in enumerate([*tags, "O"]):
        role, own = split_tag(tag, scheme)
        goes_on = role in ("I", "E") and before in ("B", "I") and own == kind
        if not goes_on:
            if before != "O":
                found.append(Entity(kind, first, number - 1))
            first = number
        before, kind = role, own
    return found


def strict_entities(tags: Sequence[str], scheme: str = "iob2") -> list[Entity]:
    """The entities of a sentence that are written as the scheme says; what else there is counts for nothing.

    Source: ``classification_report(mode="strict")`` of seqeval 1.2.
    """
    found: list[Entity] = []
    first: int | None = None
    kind = ""
    for number, tag in enumerate([*tags, "O"]):
        role, own = split_tag(tag, scheme)
        is_inside = first is not None and own == kind and role in ("I", "E")
        if first is not None and not is_inside:
            if scheme == "iob2":
                found.append(Entity(kind, first, number - 1))
            first = None
        if role == "S":
            found.append(Entity(own, number, number))
        elif role == "B":
            first, kind = number, own
        elif role == "E" and first is not None:
            found.append(Entity(own, first, number))
            first = None
    return found


class EntityScores(NamedTuple):
    """Precision, recall and F1 of entities."""

    micro: Scores
    """Of all of them."""
    types: dict[str, Scores]
    """By type, in sorted order."""

    @property
    def macro_f1(self) -> float:
        """The mean over the types."""
        return sum(one.f1 for one in self.types.values()) / max(len(self.types), 1)


def entity_scores(
    labels: Iterable[Sequence[str]],
    predictions: Iterable[Sequence[str]],
    scheme: str = "iob2",
    *,
    strict: bool = False,
) -> EntityScores:
    """Compares the entities of sentences: one is right if both its ends and its type are.

    Args:
        labels: The tags of each sentence.
        predictions: As many.
        scheme: See ``conll.py``.
        strict: Count only entities that are written as the scheme says.

    Example:
        >>> entity_scores([["B-PER", "O"]], [["B-PER", "O"]]).micro.f1
        1.0

    Source: seqeval 1.2, of which all figures are; Tjong Kim Sang and De Meulder 2003,
    https://arxiv.org/abs/cs/0306050.
    """
    read = strict_entities if strict else entities
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("both", "found", "there")}
    for right, guessed in zip(labels, predictions, strict=True):
        there, found = set(read(right, scheme)), set(read(guessed, scheme))
        for name, some in (("both", there & found), ("found", found), ("there", there)):
            counts[name].update(entity.type for entity in some)
    both, found_, there_ = (counts[name] for name in ("both", "found", "there"))
    types = sorted({*found_, *there_})
    return EntityScores(
        Scores.of(both.total(), found_.total(), there_.total()),
        {kind: Scores.of(both[kind], found_[kind], there_[kind]) for kind in types},
    )
