"""The published rules of pretraining data, each as the shortest program that says what it is.

Written from the papers and from what the original programs do, to be compared with: nothing here is shared
with the engine, and nothing is fast. Every rule asks for its random numbers one by one, so that the same text
serves two ends: `Sampler` draws, and `distribution` goes through all draws and gives the exact probability of
every outcome.

Sources: google-research/bert and google-research/albert, ``create_pretraining_data.py`` (NSP, SOP, n-grams);
Liu et al., "RoBERTa", 2019, section 4.2 (FULL-SENTENCES, DOC-SENTENCES) and fairseq,
``mask_tokens_dataset.py``; Joshi et al., "SpanBERT", 2020, section 3.1. Where an original has a bug, or where
bertfast says that it differs on purpose, this is what docs/pretraining.md says.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain
from typing import Protocol

Sentence = list[int]
Document = list[Sentence]
PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = frozenset({PAD, CLS, SEP, MASK})


class Draws(Protocol):
    """Where random numbers come from."""

    def choose(self, weights: Sequence[float]) -> int: ...

    def below(self, n: int) -> int: ...

    def chance(self, p: float) -> bool: ...


class Sampler:
    """Draws, as Python's `random` does."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def choose(self, weights: Sequence[float]) -> int:
        return self.random.choices(range(len(weights)), weights)[0]

    def below(self, n: int) -> int:
        return self.random.randrange(n)

    def chance(self, p: float) -> bool:
        return self.random.random() < p


@dataclass
class Script:
    """Draws what is written, then 0 as long as it is possible; knows how probable that is."""

    written: tuple[int, ...]
    place: int = 0
    probability: float = 1.0
    others: list[tuple[int, ...]] = field(default_factory=list)

    def choose(self, weights: Sequence[float]) -> int:
        possible = [i for i, weight in enumerate(weights) if weight > 0]
        if self.place == len(self.written):
            self.others += [(*self.written, i) for i in possible[1:]]
            self.written += (possible[0],)
        self.place += 1
        self.probability *= weights[self.written[self.place - 1]] / sum(weights)
        return self.written[self.place - 1]

    def below(self, n: int) -> int:
        return self.choose([1.0] * n)

    def chance(self, p: float) -> bool:
        return self.choose([1 - p, p]) == 1


def distribution(rule: Callable[[Draws], Hashable]) -> dict[Hashable, float]:
    """The probability of everything that a rule can result in."""
    result: dict[Hashable, float] = {}
    scripts: list[tuple[int, ...]] = [()]
    while scripts:
        script = Script(scripts.pop())
        outcome = rule(script)
        result[outcome] = result.get(outcome, 0.0) + script.probability
        scripts += script.others
    return result


# Masking


@dataclass(frozen=True)
class MaskingRule:
    """What `bertfast.pretraining.Masking` calls the same."""

    unit: str = "token"
    masked_lm_prob: float = 0.15
    count: str = "round"
    max_predictions_per_seq: int | None = None
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    random_ids: Sequence[int] = range(30522)
    ngram_at_end: str = "renormalised"
    """The last words of a segment cannot begin every n-gram. "clipped" draws n, takes what is there."""
    merge_spans: bool = False
    """SpanBERT replaces spans that touch as one."""


PRESETS = {
    "bert": MaskingRule(),
    "albert": MaskingRule(unit="ngram"),
    "roberta": MaskingRule(count="stochastic"),
    "spanbert": MaskingRule(unit="span", count="ceil"),
}
NGRAM = [1 / n for n in (1, 2, 3)]
SPAN = [0.2 * 0.8**n for n in range(10)]


def words_of(ids: Sequence[int], starts: Sequence[bool] | None) -> list[list[list[int]]]:
    """The positions of the words of each segment, that is of what special tokens separate."""
    segments: list[list[list[int]]] = [[]]
    for position, token in enumerate(ids):
        if token in SPECIAL:
            segments.append([])
        elif starts is None or starts[position] or not segments[-1]:
            segments[-1].append([position])
        else:
            segments[-1][-1].append(position)
    return [words for words in segments if words]


def number_to_mask(ids: Sequence[int], rule: MaskingRule, draws: Draws) -> int:
    tokens = sum(token != PAD for token in ids)
    if rule.count == "round":
        number = max(1, round(tokens * rule.masked_lm_prob)) if rule.masked_lm_prob else 0
    elif rule.count == "stochastic":
        expected = tokens * rule.masked_lm_prob
        number = math.floor(expected) + draws.chance(expected % 1)
    else:
        number = math.ceil(sum(token not in SPECIAL for token in ids) * rule.masked_lm_prob)
    return number if rule.max_predictions_per_seq is None else min(number, rule.max_predictions_per_seq)


class Row:
    """The words of a row, and how they get masked."""

    def __init__(self, ids: Sequence[int], starts: Sequence[bool] | None, rule: MaskingRule):
        segments = words_of(ids, None if rule.unit == "token" else starts)
        self.words = list(chain.from_iterable(segments))
        ends = accumulate(len(segment) for segment in segments)
        self.ends = list(
            chain.from_iterable([end] * len(segment) for end, segment in zip(ends, segments, strict=True))
        )
        self.rule = rule

    def step(
        self, masked: Set[int], tried: Set[int], room: int, draws: Draws
    ) -> tuple[int, list[int]] | None:
        """A word that was not tried, and what is masked for its sake; None if nothing fits any more."""
        possible = [
            i
            for i, word in enumerate(self.words)
            if len(word) <= room and word[0] not in masked and i not in tried
        ]
        if not possible:
            return None
        # A span begins in the word of a random token, everything else at a random word.
        weights = [len(self.words[i]) if self.rule.unit == "span" else 1 for i in possible]
        first = possible[draws.choose(weights)]
        following = self.words[first : self.ends[first]]
        if self.rule.unit == "ngram":
            group = ngram(following, room, self.rule, draws)
        elif self.rule.unit == "span":
            group = span(following, masked, room, draws)
        else:
            group = following[0]
        return first, [] if masked.intersection(group) else group


Groups = list[list[int]]


def groups_to_mask(
    ids: Sequence[int], starts: Sequence[bool] | None, rule: MaskingRule, draws: Draws
) -> Groups:
    """Positions to mask, those together that were proposed together."""
    row = Row(ids, starts, rule)
    if rule.count == "bernoulli":
        return [word for word in row.words if draws.chance(rule.masked_lm_prob)]
    number = number_to_mask(ids, rule, draws)
    masked: set[int] = set()
    tried: set[int] = set()
    groups = []
    while len(masked) < number and (step := row.step(masked, tried, number - len(masked), draws)):
        tried.add(step[0])
        if step[1]:
            masked.update(step[1])
            groups.append(step[1])
    return groups


def law_of_groups(
    ids: Sequence[int], starts: Sequence[bool] | None, rule: MaskingRule, together: bool = False
) -> dict[frozenset[tuple[int, ...]], float]:
    """The exact probability of everything that `groups_to_mask` returns, in any order.

    Together: of the masked positions only, as one group, which is much less to go through.
    """
    row = Row(ids, starts, rule)
    result: dict[frozenset[tuple[int, ...]], float] = {}
    for number, share in distribution(lambda draws: number_to_mask(ids, rule, draws)).items():
        states = {(frozenset(), frozenset()): share}
        while states:
            later: dict[tuple[frozenset, frozenset], float] = {}
            for (groups, tried), before in states.items():
                masked = frozenset(chain.from_iterable(groups))
                step = partial(row.step, masked, tried, number - len(masked))
                for taken, probability in distribution(lambda draws, step=step: freeze(step(draws))).items():
                    if taken is None or len(masked) >= number:
                        result[groups] = result.get(groups, 0.0) + before * probability
                        continue
                    state = (groups | ({taken[1]} if taken[1] else set()), tried | {taken[0]})
                    if together and state[0]:
                        state = (frozenset([tuple(sorted(chain.from_iterable(state[0])))]), state[1])
                    later[state] = later.get(state, 0.0) + before * probability
            states = later
    return result


def freeze(step: tuple[int, list[int]] | None) -> tuple[int, tuple[int, ...]] | None:
    return step and (step[0], tuple(step[1]))


def ngram(following: list[list[int]], room: int, rule: MaskingRule, draws: Draws) -> list[int]:
    """One to three words, fewer if they are too long."""
    n = 1 + draws.choose(NGRAM if rule.ngram_at_end == "clipped" else NGRAM[: len(following)])
    n = min(n, len(following))
    while n > 1 and sum(map(len, following[:n])) > room:
        n -= 1
    return list(chain.from_iterable(following[:n]))


def span(following: list[list[int]], masked: Set[int], room: int, draws: Draws) -> list[int]:
    """One to ten words; those that are masked already count, the first that does not fit ends it."""
    most = min(len(SPAN), len(following))
    words = 1 + draws.choose([*SPAN[: most - 1], sum(SPAN[most - 1 :])])
    group: list[int] = []
    for word in following[:words]:
        if word[0] not in masked:
            if len(group) + len(word) > room:
                break
            group += word
    return group


def replacements(groups: Groups, rule: MaskingRule, draws: Draws) -> dict[int, int | None]:
    """For each masked position the id that it becomes, None if it stays as it is."""
    if rule.unit == "span" and rule.merge_spans:
        groups = runs(sorted(chain.from_iterable(groups)))
    result: dict[int, int | None] = {}
    kept = 1 - rule.mask_replace_prob - rule.random_replace_prob
    for group in groups:
        for i, position in enumerate(group):
            if rule.unit != "span" or i == 0:
                kind = draws.choose([rule.mask_replace_prob, kept, rule.random_replace_prob])
            if kind == 2:
                result[position] = rule.random_ids[draws.below(len(rule.random_ids))]
            else:
                result[position] = [MASK, None][kind]
    return result


def runs(positions: Sequence[int]) -> list[list[int]]:
    """Positions in groups of those that touch."""
    result: list[list[int]] = []
    for position in positions:
        if result and result[-1][-1] == position - 1:
            result[-1].append(position)
        else:
            result.append([position])
    return result


def mask_row(
    ids: Sequence[int], starts: Sequence[bool] | None, rule: MaskingRule, draws: Draws
) -> tuple[list[int], list[int]]:
    """What the model reads, and its labels: the original id where it is masked, -100 elsewhere."""
    inputs, labels = list(ids), [-100] * len(ids)
    groups = groups_to_mask(ids, starts, rule, draws)
    for position, replacement in replacements(groups, rule, draws).items():
        labels[position] = ids[position]
        inputs[position] = ids[position] if replacement is None else replacement
    return inputs, labels


# Samples


@dataclass(frozen=True)
class PairRule:
    max_seq_length: int = 128
    short_seq_prob: float = 0.1
    random_next_prob: float = 0.5
    """NSP: how often B is from another document where something follows A. SOP: how often swapped."""
    truncate_front_prob: float = 0.5


Pair = tuple[list[int], list[int], int]


def joined(sentences: list[Sentence]) -> list[int]:
    return list(chain.from_iterable(sentences))


def target_length(rule: PairRule, draws: Draws) -> int:
    """Tokens of both segments that a document and pass aims at."""
    most = rule.max_seq_length - 3
    return 2 + draws.below(most - 1) if draws.chance(rule.short_seq_prob) else most


def chunk_of(document: Document, start: int, target: int, least: int = 1) -> list[Sentence]:
    """Sentences until there are enough tokens (and at least so many sentences) or no more."""
    chunk: list[Sentence] = []
    for sentence in document[start:]:
        chunk.append(sentence)
        if sum(map(len, chunk)) >= target and len(chunk) >= least:
            break
    return chunk


def truncate(a: list[int], b: list[int], rule: PairRule, draws: Draws) -> None:
    """Take tokens one by one from either end of the longer segment, of B if both are as long."""
    while len(a) + len(b) > rule.max_seq_length - 3:
        longer = a if len(a) > len(b) else b
        longer.pop(0 if draws.chance(rule.truncate_front_prob) else -1)


def nsp_pairs(documents: list[Document], index: int, rule: PairRule, draws: Draws) -> Iterator[Pair]:
    """BERT's pairs of one document in one pass. Label 1: B is from another document."""
    document, start = documents[index], 0
    target = target_length(rule, draws)
    while start < len(document):
        chunk = chunk_of(document, start, target)
        first = 1 + draws.below(max(len(chunk) - 1, 1))
        a = joined(chunk[:first])
        label = int(len(chunk) == 1 or draws.chance(rule.random_next_prob))
        if label:
            other = draws.below(len(documents) - 1)
            source = documents[other + (other >= index)]
            b = joined(chunk_of(source, draws.below(len(source)), target - len(a)))
            start += first
        else:
            b = joined(chunk[first:])
            start += len(chunk)
        truncate(a, b, rule, draws)
        yield a, b, label


def sop_pairs(
    document: Document, starts: Callable[[int], bool], rule: PairRule, draws: Draws
) -> Iterator[Pair]:
    """ALBERT's pairs of one document in one pass. Label 1: A and B are swapped.

    The original pairs a sentence that is alone with another document. Here a chunk has two sentences where
    the document has them, and a lone one is cut before a word; one word alone is left out. `starts` says
    whether a token begins a word.
    """
    start = 0
    target = target_length(rule, draws)
    while start < len(document):
        chunk = chunk_of(document, start, target, least=2)
        start += len(chunk)
        if len(chunk) == 1:
            cuts = [i for i in range(1, len(chunk[0])) if starts(chunk[0][i])]
            if not cuts:
                continue
            cut = cuts[draws.below(len(cuts))]
            chunk = [chunk[0][:cut], chunk[0][cut:]]
        first = 1 + draws.below(len(chunk) - 1)
        a, b = joined(chunk[:first]), joined(chunk[first:])
        label = int(draws.chance(rule.random_next_prob))
        if label:
            a, b = b, a
        truncate(a, b, rule, draws)
        yield a, b, label


def blocks(documents: list[Document], max_seq_length: int, cross: bool) -> Iterator[list[int]]:
    """RoBERTa's samples without [CLS] and the last [SEP], of sentences that fit.

    FULL-SENTENCES goes on in the next document behind a [SEP], DOC-SENTENCES does not.
    """
    room = max_seq_length - 2
    block: list[int] = []
    for document in documents:
        for place, sentence in enumerate(document):
            separator = [SEP] if block and place == 0 else []
            if len(block) + len(separator) + len(sentence) > room or (separator and not cross):
                yield block
                block, separator = [], []
            block = block + separator + sentence
    yield block
