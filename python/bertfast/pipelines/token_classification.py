"""Texts to the entities in them, or to the label of every token."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast import arguments
from bertfast.errors import ArgumentError, TruncationWarning
from bertfast.pipelines import tagging
from bertfast.pipelines.base import Pipeline, Step
from bertfast.pipelines.scores import softmax
from bertfast.tokenizer import Ragged

__all__ = ["TokenClassificationPipeline"]

_STRATEGIES = ("none", "simple", "first", "average", "max")
_WORD_STRATEGIES = ("first", "average", "max")


@dataclass(frozen=True)
class TokenClassificationOptions:
    """The options of `TokenClassificationPipeline`."""

    aggregation_strategy: str | None = "none"
    ignore_labels: Collection[str] | None = None
    stride: int | None = None
    is_split_into_words: bool = False
    delimiter: str | None = None
    scheme: str = "bio"
    constrained: bool = False
    max_length: int | None = None

    def __post_init__(self) -> None:
        # An enum of transformers has its name as value.
        strategy = getattr(self.aggregation_strategy, "value", self.aggregation_strategy)
        strategy = "none" if strategy is None else strategy.lower() if isinstance(strategy, str) else strategy
        object.__setattr__(self, "aggregation_strategy", strategy)
        arguments.check_choice("aggregation_strategy", strategy, _STRATEGIES)
        arguments.check_choice("scheme", self.scheme, ("auto", *tagging.SCHEMES))
        if isinstance(self.ignore_labels, str) or not isinstance(self.ignore_labels, Collection | None):
            raise TypeError(
                f"ignore_labels: expected a list of labels, got {type(self.ignore_labels).__name__}"
            )
        object.__setattr__(self, "ignore_labels", ["O"] if self.ignore_labels is None else self.ignore_labels)
        if not isinstance(self.delimiter, str | None):
            raise TypeError(f"delimiter: expected str, got {type(self.delimiter).__name__}")
        object.__setattr__(self, "delimiter", " " if self.delimiter is None else self.delimiter)
        if self.max_length is not None:
            arguments.check_positive("max_length", self.max_length)
        if self.stride is not None:
            if not arguments.is_int(self.stride) or self.stride < 0:
                raise ArgumentError(f"stride: expected 0 or more, or None, got {self.stride!r}")
            if strategy == "none":
                raise ArgumentError(
                    "stride: expected None with aggregation_strategy='none', as only entities can be merged"
                )


@dataclass(frozen=True)
class _Tokens:
    """The n tokens of a step that are no special ones."""

    ids: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float64]
    """(n, K)."""
    windows: npt.NDArray[np.intp]
    places: npt.NDArray[np.intp]
    """In the window, special tokens counted."""
    starts: npt.NDArray[np.intp]
    """In the text, in characters."""
    ends: npt.NDArray[np.intp]


class TokenClassificationPipeline(Pipeline):
    """The entities in a text; without an ``aggregation_strategy`` the label of each of its tokens.

    The result of a text is a list of dicts: ``entity``, ``score``, ``index`` (of the token), ``word``,
    ``start`` and ``end`` (in the text as it was given, in characters); with an ``aggregation_strategy``,
    ``entity_group`` in place of ``entity``, and no ``index``.

    A text that is longer than the model takes, or than ``max_length``, is cut off, with a
    `TruncationWarning` the first time; ``stride`` reads all of it.

    Options:
        aggregation_strategy (str): ``"none"``; ``"simple"``: neighbouring tokens of one tag are an entity;
            and so are words whose label is that of their first token (``"first"``), of the mean of their
            tokens' scores (``"average"``), or of their token with the best score (``"max"``). What a word
            is, only WordPiece tokenizers know; others take what is between spaces.
        ignore_labels (list of str): Left out; ``["O"]`` by default.
        stride (int): Read long texts in windows that share so many tokens; of entities that overlap the
            longest stays.
        is_split_into_words (bool): Inputs are lists of words. ``start`` and ``end`` count in the text that
            they give with ``delimiter`` between them, a space by default. An ``aggregation_strategy`` finds
            its own words in that text, as in transformers: one that was given may be several to it
            (``don't``).
        scheme (str): What labels say about where an entity begins and ends: ``"bio"`` as transformers reads
            them all, ``"bioes"``, ``"bmes"``, ``"bilou"``, or ``"auto"`` for what they look like.
        constrained (bool): Take the most probable labels of which each may follow the one before it in this
            scheme (no ``I-PER`` behind ``O``), not the best of every token or word by itself. ``score`` is
            the probability of the label all the same.
        max_length (int): Tokens of a text, or of a window, at most; None for what the model takes. Neither
            this nor the two before are in transformers.

    Example:
        >>> find = bertfast.pipeline("ner", "a-folder/", aggregation_strategy="simple")  # doctest: +SKIP
        >>> find("Ada Lovelace lived in London.")  # doctest: +SKIP
        [{'entity_group': 'PER', 'score': 0.99, 'word': 'Ada Lovelace', 'start': 0, 'end': 12}, ...]

    Source: ``TokenClassificationPipeline`` of transformers.
    """

    task = "token-classification"
    head = "token-classification"
    options_type = TokenClassificationOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As `Pipeline.__init__`."""
        super().__init__(*arguments, **options)
        self._lock = threading.Lock()

    def _resolve(self, given: Mapping[str, Any]) -> TokenClassificationOptions:
        options: TokenClassificationOptions = super()._resolve(given)
        most = self._most_tokens(options) - self._tokenizer.num_special_tokens_to_add(pair=False)
        if most < 1:
            raise ArgumentError(
                f"max_length: expected more than the special tokens, got {options.max_length}"
            )
        if options.stride is not None and options.stride >= most:
            raise ArgumentError(
                f"stride: expected less than {most}, the tokens of a text that the model sees at once, "
                f"got {options.stride}"
            )
        return options

    def _most_tokens(self, options: TokenClassificationOptions) -> int:
        """Tokens that the model sees at once."""
        return min(options.max_length or self._max_length, self._max_length)

    def _is_one(self, inputs: Any, options: TokenClassificationOptions) -> bool:
        if not options.is_split_into_words:
            return super()._is_one(inputs, options)
        return isinstance(inputs, Sequence) and len(inputs) > 0 and isinstance(inputs[0], str)

    def _expected(self, options: TokenClassificationOptions) -> str:
        return "a list of words or several" if options.is_split_into_words else "a text or texts"

    def _check(self, item: Any, name: str, options: TokenClassificationOptions) -> str | list[str]:
        if not options.is_split_into_words:
            text: str = super()._check(item, name, options)
            return text
        if isinstance(item, np.ndarray):
            item = item.tolist()
        if isinstance(item, (str, bytes)) or not isinstance(item, Sequence):
            raise TypeError(f"{name}: expected a list of words, got {type(item).__name__}")
        for place, word in enumerate(item):
            if not isinstance(word, str):
                raise TypeError(f"{name}[{place}]: expected str, got {type(word).__name__}")
        return list(item)

    def _alone(self, result: Any, options: TokenClassificationOptions) -> Any:
        # One list of words gives a list of one result, as in transformers.
        return [result] if options.is_split_into_words else result

    def _size(self, item: str | list[str], options: TokenClassificationOptions) -> int:
        most = 2 + (len(item) if isinstance(item, str) else sum(map(len, item)))
        return min(most, self._most_tokens(options)) if options.stride is None else most

    def _texts(self, item: str | list[str]) -> Iterator[tuple[str, str]]:
        if isinstance(item, str):
            yield "", item
        else:
            yield from ((f"[{place}]", word) for place, word in enumerate(item))

    # ------------------------------------------------------------------------------------------------ a step

    def _run(self, step: Step, options: TokenClassificationOptions) -> list[Any]:
        split = options.is_split_into_words
        ragged = self._encode(
            step,
            step.items,
            truncation=True,
            max_length=self._most_tokens(options),
            stride=options.stride or 0,
            return_overflowing_tokens=options.stride is not None,
            return_offsets_mapping=True,
            return_sequence_ids=True,
            return_word_ids=split,
            is_split_into_words=split,
        )
        if options.stride is None:
            self._warn_of_truncation(ragged.truncated, len(step.items), self._most_tokens(options))
        # Which text each window is of.
        samples = np.arange(len(ragged)) if ragged.overflow_to_sample is None else ragged.overflow_to_sample
        tokens = self._tokens(ragged, samples, step, options)
        texts = [item if isinstance(item, str) else str(options.delimiter).join(item) for item in step.items]
        found = self._entities(tokens, samples, texts, options)
        windows = np.bincount(samples, minlength=len(texts))
        return [
            tagging.merge_windows(some) if count > 1 else some
            for some, count in zip(found, windows.tolist(), strict=True)
        ]

    def _warn_of_truncation(self, truncated: int, texts: int, longest: int) -> None:
        if not truncated:
            return
        with self._lock:
            first = self.truncated_texts == 0
            self.truncated_texts += truncated
        if first:
            warnings.warn(
                f"{truncated} of {texts} texts are longer than {longest} tokens and were cut off; "
                "the option stride reads all of a text (this warning comes once per pipeline; "
                "its truncated_texts counts on)",
                TruncationWarning,
                stacklevel=6,
            )

    def _tokens(
        self, ragged: Ragged, samples: npt.NDArray[Any], step: Step, options: TokenClassificationOptions
    ) -> _Tokens:
        assert ragged.offset_mapping is not None
        assert ragged.sequence_ids is not None
        kept = np.flatnonzero(ragged.sequence_ids >= 0)
        windows = np.repeat(np.arange(len(ragged)), np.diff(ragged.cu_seqlens))[kept]
        offsets = ragged.offset_mapping[kept].astype(np.intp)
        if ragged.word_ids is not None:
            # Offsets count from the start of a word: where the words of all texts begin, end to end.
            between = len(str(options.delimiter))
            begins = [
                place
                for words in step.items
                for place in accumulate((len(word) + between for word in words[:-1]), initial=0)
            ]
            # An empty list of words has a place too, which no token asks for.
            firsts = np.cumsum([0, *(max(len(words), 1) for words in step.items)])
            offsets += np.array(begins, np.intp)[firsts[samples[windows]] + ragged.word_ids[kept]][:, None]
        return _Tokens(
            ids=ragged.input_ids[kept],
            scores=softmax(self._logits(ragged, step)[kept]),
            windows=windows,
            places=kept - ragged.cu_seqlens[windows],
            starts=offsets[:, 0],
            ends=offsets[:, 1],
        )

    def _entities(
        self,
        tokens: _Tokens,
        samples: npt.NDArray[Any],
        texts: list[str],
        options: TokenClassificationOptions,
    ) -> list[list[dict[str, Any]]]:
        """The entities of each text, window after window."""
        scheme = _scheme(tuple(self._encoder.labels), options.scheme)
        strategy, scores, windows = options.aggregation_strategy, tokens.scores, tokens.windows
        words = np.arange(len(windows))
        if strategy in _WORD_STRATEGIES:
            words = tagging.word_starts(self._subwords(tokens, samples, texts), windows)
            scores, windows = tagging.word_scores(scores, words, str(strategy)), windows[words]
        if options.constrained:
            is_first = np.diff(samples, prepend=-1) != 0
            is_last = np.diff(samples, append=-1) != 0
            labels = tagging.decode(scores, windows, scheme, is_first, is_last)
        else:
            labels = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.intp)
        best = scores[np.arange(len(labels)), labels]
        names: Sequence[str] = self._encoder.labels if strategy == "none" else scheme.names
        groups = (
            np.arange(len(labels)) if strategy == "none" else tagging.group_starts(labels, windows, scheme)
        )
        ends = np.append(groups[1:], len(labels))
        ignored = np.array([name in (options.ignore_labels or ()) for name in names], bool)
        kept = ~ignored[labels[groups]] if len(groups) else np.zeros(0, bool)
        found: list[list[dict[str, Any]]] = [[] for _ in texts]
        # Where the tokens of each word end.
        stops = np.append(words[1:], len(tokens.windows))
        for group, end in zip(groups[kept].tolist(), ends[kept].tolist(), strict=True):
            first, last = int(words[group]), int(stops[end - 1])
            sample = int(samples[tokens.windows[first]])
            entity: dict[str, Any]
            if strategy == "none":
                entity = {
                    "entity": names[labels[group]],
                    "score": float(best[group]),
                    "index": int(tokens.places[first]),
                    "word": self._pieces(tokens, first, last, texts[sample])[0],
                }
            else:
                parts = [
                    self._pieces(tokens, int(words[word]), int(stops[word]), texts[sample])
                    for word in range(group, end)
                ]
                entity = {
                    "entity_group": names[labels[group]],
                    "score": float(np.nanmean(best[group:end])),
                    "word": self._word(parts, joined=strategy in _WORD_STRATEGIES),
                }
            entity |= {"start": int(tokens.starts[first]), "end": int(tokens.ends[last - 1])}
            found[sample].append(entity)
        return found

    def _pieces(self, tokens: _Tokens, first: int, last: int, text: str) -> list[str]:
        """Some tokens as they are in the vocabulary; in place of the unknown token what it stands for."""
        unknown = self._tokenizer.unk_token_id
        return [
            text[tokens.starts[number] : tokens.ends[number]]
            if token_id == unknown
            else str(self._tokenizer.convert_ids_to_tokens(token_id))
            for number, token_id in enumerate(tokens.ids[first:last].tolist(), start=first)
        ]

    def _word(self, parts: list[list[str]], *, joined: bool) -> str:
        """The text of the tokens of some words, as transformers puts it together."""
        text = self._tokenizer.convert_tokens_to_string
        return text(
            [text(tokens) for tokens in parts] if joined else [token for one in parts for token in one]
        )

    def _subwords(
        self, tokens: _Tokens, samples: npt.NDArray[Any], texts: list[str]
    ) -> npt.NDArray[np.bool_]:
        """Whether each token goes on with the word of the one before it."""
        if self._prefix:
            # As transformers decides it: a piece is longer than its text by the prefix.
            found = self._token_lengths[tokens.ids] != tokens.ends - tokens.starts
        else:
            warnings.warn(
                "this tokenizer knows no words: what is between spaces is taken for one", stacklevel=7
            )
            # Which characters are spaces, in all texts end to end, with one character more behind each.
            spaces = np.frombuffer("\0".join([*texts, ""]).encode("utf-32-le"), np.uint32) == ord(" ")
            bases = np.cumsum([0, *(len(text) + 1 for text in texts)])[samples[tokens.windows]]
            here = bases + tokens.starts
            found = (tokens.starts > 0) & ~spaces[here] & ~spaces[np.maximum(here - 1, 0)]
        result: npt.NDArray[np.bool_] = found & (tokens.ids != self._unknown)
        return result

    @property
    def _unknown(self) -> int:
        unknown = self._tokenizer.unk_token_id
        return -1 if unknown is None else unknown

    @property
    def _prefix(self) -> str:
        """What the tokens have before them that go on with a word; empty if nothing says that they do."""
        return str(getattr(self._tokenizer.raw, "continuing_subword_prefix", "##"))

    @cached_property
    def _token_lengths(self) -> npt.NDArray[np.intp]:
        """Of every token, in characters, by its id."""
        vocab = self._tokenizer.get_vocab()
        lengths = np.zeros(max(vocab.values(), default=-1) + 1, np.intp)
        lengths[list(vocab.values())] = [len(token) for token in vocab]
        return lengths


# Every step asks for the one of its model.
_scheme = lru_cache(maxsize=8)(tagging.Scheme.of)
