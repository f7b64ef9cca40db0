"""Which text belongs to which part: functions of the texts alone, so that they are the same everywhere."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
Parts = dict[str, list[T]]

# Of a hundred texts: these for the test, these for validation, all others for training.
_TEST, _VALIDATION = range(10), range(10, 20)

RUN = 30
"""If two texts have so many characters in common, one behind the other, one was made of the other."""


def normalize(text: str) -> str:
    """Letters and digits alone, so that texts are the same whatever their punctuation is."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).lower()))


def number(text: str, purpose: str = "") -> int:
    """The random number of 64 bits that belongs to a text; another one for each purpose."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{normalize(text)}".encode()).digest()[:8], "big")


def split(items: Iterable[T], text: Callable[[T], str]) -> Parts[T]:
    """Items as test, validation and train (in this order), by their texts."""
    parts: Parts[T] = {"test": [], "validation": [], "train": []}
    for item in items:
        place = number(text(item)) % 100
        parts["test" if place in _TEST else "validation" if place in _VALIDATION else "train"].append(item)
    return parts


def sample(items: Sequence[T], text: Callable[[T], str], count: int) -> list[T]:
    """`count` of the items, in an order that their texts decide."""
    return sorted(items, key=lambda item: number(text(item), "sample"))[:count]


def runs(text: str) -> set[str]:
    """All runs of `RUN` letters and digits; of a text that is shorter, the whole of it."""
    text = normalize(text)
    return {text[start : start + RUN] for start in range(max(len(text) - RUN, 0) + 1)} - {""}


def separate(parts: Parts[T], text: Callable[[T], str]) -> Parts[T]:
    """The same parts without what is made of a text of an earlier one."""
    seen: set[str] = set()
    separated: Parts[T] = {}
    for part, items in parts.items():
        separated[part] = [item for item in items if seen.isdisjoint(runs(text(item)))]
        seen.update(*(runs(text(item)) for item in separated[part]))
        print(f"  {part}: {len(items):,}, {len(items) - len(separated[part]):,} of them left out")
    return separated
