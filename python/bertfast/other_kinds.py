"""Tokenizers of other kinds than BERT's, opened by the `tokenizers` package (extra ``[tokenizers]``).

`OtherTokenizer` stands where the compiled tokenizer stands, behind `bertfast.Tokenizer`: the same methods,
options, arrays and errors. What a text becomes is the package's own work; what is decided here is what must
not depend on other threads, and what is an error.

The package cuts texts off by a setting of the tokenizer, not of the call. So a lock is held from setting it
until the texts are encoded, which the package does on all cores and without the interpreter's lock.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertfast import _bertfast
from bertfast._bertfast import Lines, Ragged
from bertfast.arguments import check_utf8
from bertfast.errors import ArgumentError, TokenizerError, TokenizerKindError
from bertfast.tokenizer_settings import TokenizerFiles
from bertfast.truncation import Truncation

if TYPE_CHECKING:
    import tokenizers

__all__ = ["AnyTokenizer", "OtherTokenizer"]

Int32 = npt.NDArray[np.int32]

# Characters that are encoded at once: between two such steps the interpreter looks for Ctrl-C, and other
# threads get their turn.
_STEP = 1 << 20
# Ids are int32 in every array.
_MAX_ID = 2**31 - 2


class OtherTokenizer:
    """A tokenizer of the `tokenizers` package, with the methods of ``bertfast._bertfast.Tokenizer``.

    Its users never see it change, so threads may share one; their calls take turns.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        settings: dict[str, Any],
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Take a tokenizer over: nobody else may use it then.

        Args:
            tokenizer: What it truncates and pads by itself is switched off.
            settings: What the property `settings` gives.
            files: To be saved in place of the folder's own.

        Raises:
            TokenizerError: It has ids that no int32 holds.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, self._settings, self.files = tokenizer, settings, dict(files or {})
        self._lock = threading.Lock()
        self._truncation: Truncation | None = None
        added = tokenizer.get_added_tokens_decoder()
        self._vocab = dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
        self._tokens = {index: token for token, index in self._vocab.items()}
        self._tokens |= {index: token.content for index, token in added.items()}
        self._added = {token.content: index for index, token in sorted(added.items())}
        self._special_ids = sorted(index for index, token in added.items() if token.special)
        self._special_counts = {pair: tokenizer.num_special_tokens_to_add(pair) for pair in (False, True)}
        self._size = tokenizer.get_vocab_size(with_added_tokens=False)
        self._normalizer, self._decoder = tokenizer.normalizer, tokenizer.decoder
        self.kind: str = type(tokenizer.model).__name__
        """What makes its tokens: ``"BPE"``, ``"Unigram"``, ``"WordLevel"`` or ``"WordPiece"``."""
        self.continuing_subword_prefix: str = (
            getattr(tokenizer.model, "continuing_subword_prefix", None) or ""
        )
        if max(self._tokens, default=0) > _MAX_ID:
            raise TokenizerError(
                f"vocabulary: expected ids from 0 to {_MAX_ID}, got {max(self._tokens)} for "
                f"{self._tokens[max(self._tokens)]!r}"
            )

    @classmethod
    def from_folder(cls, folder: Path, kind: TokenizerKindError) -> OtherTokenizer:
        """Open the ``tokenizer.json`` of a folder, and what lies beside it.

        Args:
            folder: Has been found to be none of BERT's kind.
            kind: The error that says of which kind it is.

        Raises:
            TokenizerKindError: The package is missing; the message names the extra.
            TokenizerError: The package cannot open the file, or another file is damaged.
        """
        try:
            import tokenizers
        except ImportError as error:
            raise TokenizerKindError(
                f'{kind}; other kinds need the tokenizers package: pip install "bertfast[tokenizers]"'
            ) from error
        text = (folder / "tokenizer.json").read_text("utf-8")
        try:
            tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the package has no class for it
            raise TokenizerError(f"{kind}, which the tokenizers package cannot open: {error}") from error
        files = TokenizerFiles(folder)
        files.configure(tokenizer)
        return cls(tokenizer, files.settings(type(tokenizer.model).__name__), files.to_save())

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes have a lock of their own."""
        with self._lock:
            state = pickle.dumps(self._tokenizer)
        return _unpickled, (state, self._settings, self.files)

    def encode_ragged(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]] | Lines,
        text_pairs: Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        add_special_tokens: bool = True,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        truncation_side: str | None = None,
        return_token_type_ids: bool = False,
        return_offsets_mapping: bool = False,
        return_word_ids: bool = False,
        return_sequence_ids: bool = False,
        return_overflowing_tokens: bool = False,
        is_split_into_words: bool = False,
    ) -> Ragged:
        """Tokenize; arguments, results and errors are those of `bertfast.Tokenizer.encode_ragged`.

        Raises:
            TokenizerError: The package failed, as it does where a character is unknown and the vocabulary has
                no token for that.
        """
        side = self._settings["truncation_side"] if truncation_side is None else truncation_side
        cut = Truncation.of(truncation, max_length, stride, side)
        check = _check_words if is_split_into_words else _check_texts
        first = check("texts", texts)
        second = None if text_pairs is None else check("text_pairs", text_pairs)
        if second is not None and len(second) != len(first):
            raise ArgumentError(
                f"text_pairs: expected {len(first)} texts, as many as texts, got {len(second)}"
            )
        call = _Call(
            self,
            cut,
            add_special_tokens=add_special_tokens,
            is_pretokenized=is_split_into_words,
            windows=return_overflowing_tokens,
            # The package follows words only together with offsets.
            fast=not (return_offsets_mapping or return_word_ids),
        )
        wanted = {
            "input_ids": True,
            "token_type_ids": return_token_type_ids,
            "offset_mapping": return_offsets_mapping,
            "word_ids": return_word_ids,
            "sequence_ids": return_sequence_ids,
        }
        # Each begins with nothing, so that there is something to put together when there is no text.
        columns = {name: [_COLUMNS[name]([])] for name in wanted if wanted[name]}
        lengths, samples, truncated = [0], list[int](), 0
        for start, stop in _steps(first, second):
            encodings = call.encode(first[start:stop], None if second is None else second[start:stop], start)
            if cut is not None:
                # Looking at what was cut off copies it; what does not fill `max_length` was not cut.
                truncated += sum(len(one) == cut.max_length and one.overflowing != [] for one in encodings)
            if return_overflowing_tokens:
                windows = [[one, *one.overflowing] for one in encodings]
                samples += (sample for sample, some in enumerate(windows, start) for _ in some)
                encodings = list(chain.from_iterable(windows))
            lengths += map(len, encodings)
            for name, parts in columns.items():
                parts.append(_COLUMNS[name](encodings))
        arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items()}
        return Ragged(
            cu_seqlens=np.cumsum(lengths, dtype=np.int64),
            overflow_to_sample=np.array(samples, np.int64) if return_overflowing_tokens else None,
            truncated=truncated,
            **arrays,
        )

    def encode_batch(
        self, inputs: list[Any], cut: Truncation | None, *, fast: bool, **options: bool
    ) -> list[tokenizers.Encoding]:
        """Encode by the package, cut off as `cut` says whatever other threads do at the same time."""
        with self._lock:
            if cut is None and self._truncation is not None:
                self._tokenizer.no_truncation()
            elif cut is not None and cut != self._truncation:
                self._tokenizer.enable_truncation(
                    cut.max_length, stride=cut.stride, strategy=cut.strategy, direction=cut.side
                )
            self._truncation = cut
            encode = self._tokenizer.encode_batch_fast if fast else self._tokenizer.encode_batch
            return encode(inputs, **options)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """The text of ids; those that no token has are left out."""
        known = [index for index in ids if index in self._tokens]
        with self._lock:
            return self._tokenizer.decode(known, skip_special_tokens=skip_special_tokens)

    def decode_tokens(self, tokens: Sequence[str]) -> str:
        """The text of tokens, as the decoder joins them."""
        return " ".join(tokens) if self._decoder is None else self._decoder.decode(list(tokens))

    def normalize(self, text: str) -> str:
        """The text as words are cut from it."""
        if not isinstance(text, str):
            raise TypeError(f"text: expected str, got {type(text).__name__}")
        check_utf8("text", text)
        return text if self._normalizer is None else self._normalizer.normalize_str(text)

    def vocab(self) -> dict[str, int]:
        """All tokens with their ids, in the order of these."""
        return dict(self._vocab)

    def added_vocab(self) -> dict[str, int]:
        """The added tokens with their ids, in the order of these."""
        return dict(self._added)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, added or the model's own."""
        return self._vocab.get(token)

    def id_to_token(self, id: int) -> str | None:
        """The token of an id."""
        return self._tokens.get(id)

    def num_special_tokens_to_add(self, pair: bool) -> int:
        """How many special tokens a text, or a pair, gets."""
        return self._special_counts[bool(pair)]

    @property
    def vocab_size(self) -> int:
        """Tokens of the model's vocabulary, the added ones left out."""
        return self._size

    @property
    def all_special_ids(self) -> list[int]:
        """Ids that `decode` leaves out with ``skip_special_tokens``, sorted."""
        return list(self._special_ids)

    @property
    def settings(self) -> dict[str, Any]:
        """What the folder says beside the vocabulary, by the names of ``tokenizer_config.json``."""
        return dict(self._settings)


AnyTokenizer = _bertfast.Tokenizer | OtherTokenizer
"""What `bertfast.Tokenizer` is a front of."""


class _Call:
    """One call of `OtherTokenizer.encode_ragged`: its options, and the checks that the package leaves out."""

    def __init__(
        self,
        tokenizer: OtherTokenizer,
        cut: Truncation | None,
        *,
        add_special_tokens: bool,
        is_pretokenized: bool,
        windows: bool,
        fast: bool,
    ) -> None:
        self._tokenizer, self._cut = tokenizer, cut
        self._add_special_tokens, self._is_pretokenized = add_special_tokens, is_pretokenized
        self._windows, self._fast = windows, fast

    def encode(self, first: list[Any], second: list[Any] | None, start: int) -> list[tokenizers.Encoding]:
        """Encode some texts or pairs, the first of which is number `start` of all.

        Raises:
            ArgumentError: A text has a lone surrogate, or cannot be cut off as asked for.
            TokenizerError: The package failed.
        """
        cut = self._cut
        try:
            if cut is not None:
                cut = self._possible(cut, first, second, start)
            inputs = first if second is None else list(zip(first, second, strict=True))
            return self._tokenizer.encode_batch(
                inputs,
                cut,
                fast=self._fast,
                add_special_tokens=self._add_special_tokens,
                is_pretokenized=self._is_pretokenized,
            )
        except (ArgumentError, OverflowError):
            raise
        except Exception as error:  # the package has no classes for what went wrong
            # Looked for only now: looking at every text beforehand would cost as much as a copy of them all.
            _check_utf8("texts", first, start)
            _check_utf8("text_pairs", second or [], start)
            if cut is not None and "Truncation error" in str(error):
                self._must_cut(cut, first, second, start)
            if cut is not None and "stride" in str(error):
                raise ArgumentError(f"stride: {error}") from error
            raise TokenizerError(f"the tokenizers package failed: {error}") from error

    def _possible(
        self, cut: Truncation, first: list[Any], second: list[Any] | None, start: int
    ) -> Truncation:
        """What the package is told: it ends the process where `stride` is too large for a text."""
        budget = self._budget(cut, second)
        if not self._windows or budget == 0:
            return cut._replace(stride=0)
        if second is None and cut.stride == 0:
            return cut
        return cut if self._must_cut(cut, first, second, start) else cut._replace(stride=0)

    def _budget(self, cut: Truncation, second: list[Any] | None) -> int:
        is_pair = second is not None
        return cut.budget(
            self._tokenizer.num_special_tokens_to_add(is_pair) if self._add_special_tokens else 0
        )

    def _must_cut(self, cut: Truncation, first: list[Any], second: list[Any] | None, start: int) -> bool:
        """Whether a text is too long; an error if one cannot be cut off as asked for.

        This encodes the texts once more than needed: only the lengths say, and the package does not.
        """
        budget = self._budget(cut, second)

        def count(texts: list[Any]) -> list[int]:
            options = {"add_special_tokens": False, "is_pretokenized": self._is_pretokenized}
            return [len(one) for one in self._tokenizer.encode_batch(texts, None, fast=True, **options)]

        counts = [count(texts) for texts in (first, second) if texts is not None]
        # All are looked at: any may be the one that cannot be cut.
        samples = enumerate(zip(*counts, strict=True), start)
        cuts = [cut.cuts(lengths, budget, sample, windows=self._windows) for sample, lengths in samples]
        return any(cuts)


def _unpickled(state: bytes, settings: dict[str, Any], files: dict[str, bytes]) -> OtherTokenizer:
    return OtherTokenizer(pickle.loads(state), settings, files)


def _check_texts(name: str, texts: Any, of: str = "str") -> list[Any]:
    if isinstance(texts, Lines) and of == "str":
        return texts.to_list()
    if isinstance(texts, (str, bytes, bytearray)) or not isinstance(texts, Sequence):
        raise TypeError(f"{name}: expected a list of {of}, got {type(texts).__name__}")
    for index, text in enumerate(texts if of == "str" else ()):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{index}]: expected str, got {type(text).__name__}")
    return list(texts)


def _check_words(name: str, texts: Any) -> list[Any]:
    texts = _check_texts(name, texts, of="lists of str")
    return [_check_texts(f"{name}[{index}]", words) for index, words in enumerate(texts)]


def _check_utf8(name: str, texts: list[Any], start: int) -> None:
    for index, text in enumerate(texts, start):
        if isinstance(text, str):
            check_utf8(f"{name}[{index}]", text)
        else:
            _check_utf8(f"{name}[{index}]", text, 0)


def _steps(first: list[Any], second: list[Any] | None) -> Iterator[tuple[int, int]]:
    """Where the texts that are encoded at once start and stop."""
    start = characters = 0
    for index, text in enumerate(first):
        if characters > _STEP:
            yield start, index
            start, characters = index, 0
        for part in (text,) if second is None else (text, second[index]):
            characters += len(part) if isinstance(part, str) else sum(map(len, part))
    if start < len(first):
        yield start, len(first)


def _int32(numbers: Iterable[int]) -> Int32:
    return np.fromiter(numbers, np.int32)


def _or_minus_one(numbers: Iterable[int | None]) -> Int32:
    return _int32(-1 if number is None else number for number in numbers)


def _flat(rows: Iterable[Iterable[Any]]) -> Iterable[Any]:
    return chain.from_iterable(rows)


_COLUMNS: dict[str, Callable[[list[tokenizers.Encoding]], Int32]] = {
    "input_ids": lambda encodings: _int32(_flat(one.ids for one in encodings)),
    "token_type_ids": lambda encodings: _int32(_flat(one.type_ids for one in encodings)),
    "offset_mapping": lambda encodings: _int32(_flat(_flat(one.offsets for one in encodings))).reshape(-1, 2),
    "word_ids": lambda encodings: _or_minus_one(_flat(one.word_ids for one in encodings)),
    "sequence_ids": lambda encodings: _or_minus_one(_flat(one.sequence_ids for one in encodings)),
}
