"""What calling a tokenizer gives: arrays or lists, and where each token came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast.errors import ArgumentError

__all__ = ["BatchEncoding", "CharSpan", "Origins", "TokenSpan", "plain", "row_arrays", "row_lists", "tensors"]

Int32 = npt.NDArray[np.int32]


class CharSpan(NamedTuple):
    """Characters ``start`` to ``end``, the last one left out."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens ``start`` to ``end``, the last one left out."""

    start: int
    end: int


@dataclass(frozen=True)
class Origins:
    """Where the tokens of one sequence came from, padding included; all (S,), `offsets` (S, 2).

    Attributes:
        tokens: as they are in the vocabulary.
        offsets: start and end in the text, in characters; in its word if the text came split.
        words: number of the word in its text, -1 for special tokens and padding.
        sequences: 0 for the first text of a pair, 1 for the second, -1 for special tokens and padding.
    """

    tokens: list[str]
    offsets: Int32
    words: Int32
    sequences: Int32


class BatchEncoding(dict[str, Any]):
    """A dict whose entries are attributes too, and which knows where each token came from.

    The methods take the number of a sequence in the batch and then that of a token, word or character; with
    one number they mean the first sequence. A word is counted in its text, as is a character, and
    `sequence_index` says in which text of a pair. What is not from a text (special tokens, padding) is None.

    Source: ``BatchEncoding`` of transformers.
    """

    is_fast = True

    def __init__(
        self,
        data: dict[str, Any],
        origins: Callable[[], list[Origins]] | None = None,
        n_sequences: int | None = None,
    ) -> None:
        super().__init__(data)
        self._origins = origins
        self._found: list[Origins] | None = None
        self._n_sequences = n_sequences

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (dict(self), self._all() if self._origins else None, self._n_sequences))

    @property
    def n_sequences(self) -> int | None:
        """1, or 2 for pairs."""
        return self._n_sequences

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a sequence, (S,)."""
        return self._at(batch_index).tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """The number of each token's word in its text, (S,)."""
        return _or_none(self._at(batch_index).words)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Which text of a pair each token is from, (S,)."""
        return _or_none(self._at(batch_index).sequences)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Which text of a pair a token is from."""
        origins, token = self._token(batch_or_token_index, token_index)
        return None if token is None else _or_none(origins.sequences)[token]

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The number of a token's word."""
        origins, token = self._token(batch_or_token_index, token_index)
        return None if token is None else _or_none(origins.words)[token]

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """The characters of a token."""
        origins, token = self._token(batch_or_token_index, token_index)
        if token is None or origins.sequences[token] < 0:
            return None
        return CharSpan(*origins.offsets[token].tolist())

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word."""
        _, found = self._of_word(batch_or_word_index, word_index, sequence_index)
        return TokenSpan(int(found[0]), int(found[-1]) + 1) if found.size else None

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """The characters of a word."""
        origins, found = self._of_word(batch_or_word_index, word_index, sequence_index)
        if not found.size:
            return None
        return CharSpan(int(origins.offsets[found[0], 0]), int(origins.offsets[found[-1], 1]))

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that a character is in."""
        batch, char = _in_batch(batch_or_char_index, char_index)
        origins = self._at(batch)
        start, end = origins.offsets.T
        found = np.flatnonzero((origins.sequences == sequence_index) & (start <= char) & (char < end))
        return int(found[0]) if found.size else None

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The number of the word that a character is in."""
        token = self.char_to_token(batch_or_char_index, char_index, sequence_index)
        batch, _ = _in_batch(batch_or_char_index, char_index)
        return None if token is None else int(self._at(batch).words[token])

    def convert_to_tensors(self, tensor_type: Literal["np", "pt"] | None = None) -> BatchEncoding:
        """Make arrays or tensors of the lists, here and now.

        Raises:
            ArgumentError: The sequences differ in length.
        """
        if tensor_type is not None:
            self.update(tensors(self, tensor_type))
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Move the tensors to a device, here and now; what is not a tensor stays."""
        for name, value in self.items():
            if hasattr(value, "to"):
                self[name] = value.to(device=device, non_blocking=non_blocking)
        return self

    def _all(self) -> list[Origins]:
        if self._found is None:
            if self._origins is None:
                raise ArgumentError(
                    "expected what a tokenizer returned for texts: here nothing says where tokens came from"
                )
            self._found = self._origins()
        return self._found

    def _at(self, batch_index: int) -> Origins:
        return self._all()[batch_index]

    def _token(self, first: int, second: int | None) -> tuple[Origins, int | None]:
        batch, token = _in_batch(first, second)
        origins = self._at(batch)
        length = len(origins.tokens)
        token = token + length if token < 0 else token
        return origins, token if 0 <= token < length else None

    def _of_word(
        self, first: int, second: int | None, sequence_index: int
    ) -> tuple[Origins, npt.NDArray[np.intp]]:
        batch, word = _in_batch(first, second)
        origins = self._at(batch)
        return origins, np.flatnonzero((origins.sequences == sequence_index) & (origins.words == word))


def _in_batch(first: int, second: int | None) -> tuple[int, int]:
    """Number of the sequence and what is in it: one number alone is in the first."""
    return (0, first) if second is None else (first, second)


def _restored(data: dict[str, Any], found: list[Origins] | None, n_sequences: int | None) -> BatchEncoding:
    return BatchEncoding(data, None if found is None else lambda: found, n_sequences)


def _or_none(numbers: Int32) -> list[int | None]:
    return [None if number < 0 else number for number in numbers.tolist()]


def row_lists(
    values: npt.NDArray[Any], lengths: list[int], padded: int, side: str, fill: int
) -> list[list[Any]]:
    """Values that lie end to end as sequences, each of `padded` at least."""
    flat, start, rows = values.tolist(), 0, []
    filling = fill if values.ndim == 1 else [fill] * values.shape[1]
    for length in lengths:
        row, missing = flat[start : start + length], [filling] * (padded - length)
        rows.append((missing + row if side == "left" else row + missing) if missing else row)
        start += length
    return rows


def row_arrays(
    values: npt.NDArray[Any], lengths: list[int], padded: int, side: str, fill: int
) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
    """The same as one array, or as a list of arrays if they differ in length."""
    widths = {max(length, padded) for length in lengths} or {padded}
    if len(widths) > 1:
        return [np.array(row, values.dtype) for row in row_lists(values, lengths, padded, side, fill)]
    width = widths.pop()
    columns, ends = np.arange(width), np.array(lengths, dtype=np.int64)[:, None]
    mask = columns < ends if side == "right" else columns >= width - ends
    rows = np.full((len(lengths), width, *values.shape[1:]), fill, np.int64)
    rows[mask] = values
    return rows


def kind_of(values: Any) -> Literal["np", "pt"] | None:
    """Whether these are arrays or tensors, or a list of such."""
    first = values if hasattr(values, "dtype") or not len(values) else values[0]
    if isinstance(first, np.ndarray):
        return "np"
    return "pt" if hasattr(first, "dtype") and type(first).__module__.startswith("torch") else None


def plain(values: Any) -> Any:
    """Lists of what may be arrays or tensors, or lists of them."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return [plain(value) if hasattr(value, "tolist") else value for value in values]


def tensors(rows: dict[str, Any], kind: Literal["np", "pt"]) -> dict[str, Any]:
    """Int64 arrays or tensors of lists of numbers (or of lists of them, of one length).

    Raises:
        ArgumentError: The sequences differ in length.
    """
    arrays: dict[str, Any] = {}
    for name, values in rows.items():
        if hasattr(values, "dtype"):
            arrays[name] = values
            continue
        lengths = {len(sequence) for sequence in values if hasattr(sequence, "__len__")}
        if len(lengths) > 1:
            raise ArgumentError(
                f"return_tensors: expected texts of one length, got lengths of {name} from "
                f"{min(lengths)} to {max(lengths)}; use padding=True"
            )
        array = np.asarray(values)
        arrays[name] = array.astype(np.int64) if array.size == 0 or array.dtype.kind in "iub" else array
    if kind == "np":
        return arrays
    import torch

    return {name: torch.as_tensor(array) for name, array in arrays.items()}
