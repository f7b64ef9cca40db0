"""From the scores of tokens to entities: functions on arrays, for all tokens of a step at once.

A label such as ``B-PER`` says two things: the kind of an entity (its *tag*), and where in the entity the
token is. Which letters there are is the *scheme* of the labels. A *window* is what the model saw at once: a
text, or a part of a long one; nothing reaches from one into another.

Letters: n tokens (special ones left out), W words, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.errors import ArgumentError

__all__ = ["SCHEMES", "Scheme", "decode", "group_starts", "merge_windows", "word_scores", "word_starts"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

# What the letters of each scheme mean, in those of BIOES: begin, inside, end, single.
SCHEMES: dict[str, dict[str, str]] = {
    "bio": {"B": "B", "I": "I"},
    "bioes": {"B": "B", "I": "I", "E": "E", "S": "S"},
    "bmes": {"B": "B", "M": "I", "E": "E", "S": "S"},
    "bilou": {"B": "B", "I": "I", "L": "E", "U": "S"},
}
"""The schemes, by name; ``"bio"`` is IOB2 too."""

# A transition that is not allowed costs more than any number of improbable labels, and is still finite: there
# is always a best path.
_FORBIDDEN = -1e9
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Scheme:
    """What K labels say about entities."""

    name: str
    tags: Ints
    """(K,): number of the tag of each label."""
    opens: Bools
    """(K,): labels at which an entity begins even where one of the same tag came before."""
    closes: Bools
    """(K,): labels at which one ends, whatever follows."""
    names: tuple[str, ...]
    """(K,): how results call an entity that begins with this label."""
    transitions: Floats
    """(K, K): 0 where the second label may follow the first, else a large negative number."""
    may_start: Floats
    """(K,): the same for the first token of a text."""
    may_end: Floats
    """(K,): the same for the last one."""

    @classmethod
    def of(cls, labels: Sequence[str], name: str = "bio") -> Scheme:
        """Read labels.

        Args:
            labels: K labels.
            name: One of `SCHEMES`; or ``"auto"`` for the first of them that all labels but ``O`` belong to,
                and ``"bio"`` if there is none.

        Raises:
            ArgumentError: There is no such scheme.

        Example:
            >>> Scheme.of(["O", "B-PER", "I-PER", "E-PER", "S-PER"], "auto").name
            'bioes'
        """
        # Without a tag, B and I mean nothing to transformers, which knows "bio" only.
        bare = name != "bio"
        if name == "auto":
            name = next((one for one, roles in SCHEMES.items() if _fits(labels, roles)), "bio")
        if name not in SCHEMES:
            known = ", ".join(map(repr, ["auto", *SCHEMES]))
            raise ArgumentError(f"scheme: expected one of {known}, got {name!r}")
        read = [_read(label, SCHEMES[name], bare=bare) for label in labels]
        numbers = {tag: number for number, tag in enumerate(dict.fromkeys(tag for _, tag in read))}
        roles = {tag: {role for role, other in read if other == tag} for tag in numbers}
        # A tag without a label to begin with may begin with any of its labels; so with the end.
        starts = np.array([role in "OBS" or "B" not in roles[tag] for role, tag in read], bool)
        ends = np.array([role in "OES" or "E" not in roles[tag] for role, tag in read], bool)
        goes_on = np.array(
            [
                [before in "BI" and after in "IE" and tag == other for after, other in read]
                for before, tag in read
            ],
            bool,
        ).reshape(len(read), len(read))
        allowed = goes_on | (ends[:, None] & starts[None, :])
        return cls(
            name,
            tags=np.array([numbers[tag] for _, tag in read], np.intp),
            opens=np.array([role in "BS" for role, _ in read], bool),
            closes=np.array([role in "ES" for role, _ in read], bool),
            names=tuple(
                label.split("-", 1)[-1] if role == "O" else tag
                for label, (role, tag) in zip(labels, read, strict=True)
            ),
            transitions=np.where(allowed, 0.0, _FORBIDDEN),
            may_start=np.where(starts, 0.0, _FORBIDDEN),
            may_end=np.where(ends, 0.0, _FORBIDDEN),
        )


def _read(label: str, roles: Mapping[str, str], *, bare: bool) -> tuple[str, str]:
    """Role and tag of a label; one that is not of the scheme is outside, and its own tag."""
    if label[:1] in roles and (label[1:2] == "-" or (bare and len(label) == 1)):
        return roles[label[0]], label[2:]
    return "O", label


def _fits(labels: Sequence[str], roles: Mapping[str, str]) -> bool:
    read = [_read(label, roles, bare=True)[0] for label in labels if label != "O"]
    return bool(read) and "O" not in read


def word_starts(is_subword: Bools, windows: Ints) -> Ints:
    """Numbers of the tokens that words begin with.

    Args:
        is_subword: (n,): whether a token goes on with the word of the one before it.
        windows: (n,): which window each is in; rising.

    Returns:
        (W,), rising.
    """
    return np.flatnonzero(~is_subword | _first_of(windows))


def word_scores(scores: Floats, starts: Ints, strategy: str) -> Floats:
    """The scores of words, from those of their tokens.

    Args:
        scores: (n, K).
        starts: (W,), as `word_starts` gives them.
        strategy: ``"first"``: those of the first token; ``"max"``: of the token whose best score is the
            highest, the first of equal ones; ``"average"``: the mean of all tokens.

    Returns:
        (W, K).
    """
    if strategy == "first" or not len(starts):
        return scores[starts]
    if strategy == "average":
        counts = np.diff(starts, append=len(scores))
        means: Floats = np.add.reduceat(scores, starts, axis=0) / counts[:, None]
        return means
    words = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(scores)))
    # By word, the best first; sorting is stable.
    order = np.lexsort((-scores.max(axis=1), words))
    return scores[order[starts]]


def group_starts(labels: Ints, windows: Ints, scheme: Scheme) -> Ints:
    """Numbers of the tokens (or words) that groups of one tag begin with; what is outside is grouped too.

    Args:
        labels: (n,).
        windows: (n,); rising.
        scheme: What the labels say.

    Returns:
        (G,), rising.
    """
    starts = _first_of(windows) | scheme.opens[labels]
    tags = scheme.tags[labels]
    starts[1:] |= (tags[1:] != tags[:-1]) | scheme.closes[labels[:-1]]
    return np.flatnonzero(starts)


def _first_of(windows: Ints) -> Bools:
    first = np.ones(len(windows), bool)
    first[1:] = windows[1:] != windows[:-1]
    return first


def decode(scores: Floats, windows: Ints, scheme: Scheme, begins: Bools, stops: Bools) -> Ints:
    """The most probable labels of which each may follow the one before it.

    It is Viterbi's algorithm, for all windows side by side: with probabilities p, the path of the largest
    sum of log(p). Where labels leave no way at all, the path with the fewest offences is taken.

    Args:
        scores: (n, K) probabilities.
        windows: (n,), rising.
        scheme: Says what may follow what.
        begins: For each window number, whether its text begins there; if not, an entity may have begun
            before.
        stops: The same for the end.

    Returns:
        (n,) labels.

    Source: Viterbi, "Error bounds for convolutional codes and an asymptotically optimum decoding algorithm",
    IEEE Transactions on Information Theory 13 (1967).
    """
    best = np.empty(len(scores), np.intp)
    if not len(scores):
        return best
    firsts = np.flatnonzero(_first_of(windows))
    lengths = np.diff(firsts, append=len(scores))
    # The longest first: the windows that still have a token at a place are then the first so many.
    order = np.argsort(-lengths, kind="stable")
    firsts, lengths = firsts[order], lengths[order]
    numbers = windows[firsts]
    logs = np.log(np.maximum(scores, _SMALLEST))
    sums = logs[firsts] + np.where(begins[numbers, None], scheme.may_start, 0.0)
    longest = int(lengths[0])
    came_from = np.empty((longest, len(firsts), scores.shape[1]), np.intp)
    for place in range(1, longest):
        active = int(np.searchsorted(-lengths, -place, side="left"))
        paths = sums[:active, :, None] + scheme.transitions
        came_from[place, :active] = paths.argmax(axis=1)
        sums[:active] = paths.max(axis=1) + logs[firsts[:active] + place]
    sums += np.where(stops[numbers, None], scheme.may_end, 0.0)
    label = sums.argmax(axis=1)
    for place in range(longest - 1, -1, -1):
        active = int(np.searchsorted(-lengths, -place, side="left"))
        best[firsts[:active] + place] = label[:active]
        if place:
            label[:active] = came_from[place, np.arange(active), label[:active]]
    return best


def merge_windows(entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entities of a text that several windows have seen: of those that overlap, one.

    The longer one stays, of equally long ones that with the higher score.

    Args:
        entities: With ``start``, ``end`` and ``score``, in the order of the windows.

    Returns:
        Those that stay, in the order of the text.
    """
    kept: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda entity: int(entity["start"])):
        if not kept or not kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept.append(entity)
        elif _rank(entity) > _rank(kept[-1]):
            kept[-1] = entity
    return kept


def _rank(entity: dict[str, Any]) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]
