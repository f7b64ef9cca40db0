"""Masked language modelling on ids that one has: which tokens are asked for, and what stands there.

Every random number is a function of (seed, epoch, index of the row): a row is masked in the same way in
any batch, by any number of threads or processes, and in another way in the next epoch.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from bertfast import _bertfast
from bertfast.arguments import as_array, check_choice, check_from_0, check_num_threads, is_int
from bertfast.errors import ArgumentError, DtypeError, ShapeError
from bertfast.pretraining.word_starts import word_start_table
from bertfast.tokens import Tokens

Unit = Literal["token", "whole_word", "ngram", "span"]
Count = Literal["round", "stochastic", "ceil", "bernoulli"]
Preset = Literal["bert", "albert", "roberta", "spanbert"]

UNITS: tuple[Unit, ...] = ("token", "whole_word", "ngram", "span")
COUNTS: tuple[Count, ...] = ("round", "stochastic", "ceil", "bernoulli")
MAX_EPOCH = 2**28 - 1
MAX_SEQ_LENGTH = 2**16 - 1
"""Of samples: see rust/core/src/pretraining/sampling/mod.rs."""

# Of the compiled masker: see rust/core/src/pretraining/masking/vocabulary.rs.
_SPECIAL, _PADDING, _WORD_START = 1, 2, 4


@dataclass(frozen=True)
class Masking:
    """A rule of masking; the default is BERT's.

    Attributes:
        unit: What is masked together: ``"token"``; ``"whole_word"``: all tokens of a word, and a word that is
            longer than what the row may still lose is left out; ``"ngram"``: one to three words, n of them
            with a probability in proportion to 1/n (ALBERT); ``"span"``: one to ten words, geometric with
            p = 0.2 (SpanBERT). Words and groups end at special tokens.
        masked_lm_prob: Share p of the tokens that are masked, in [0, 1].
        count: How many that are. ``"round"``: max(1, round(p n)), halves to even, but none if p is 0; n the
            tokens of the row with [CLS] and [SEP], without padding (BERT, ALBERT); ``"stochastic"``:
            floor(p n + u), u uniform in [0, 1) (RoBERTa); ``"ceil"``: ceil(p n), n without special tokens
            (SpanBERT);
            ``"bernoulli"``: every token or word by itself with probability p (the collators of transformers).
        max_predictions_per_seq: Most tokens of a row that are masked, up to 65535; None for no limit.
        mask_replace_prob: Share of the masked that become ``[MASK]``: drawn for each token, for ``"span"``
            once for the span.
        random_replace_prob: Share that become a random token; the others stay as they are.
        random_special: Whether a random token may be a special one, as in BERT.

    Raises:
        ArgumentError: A value that is not allowed.

    Example:
        >>> Masking.preset("roberta", masked_lm_prob=0.4).count
        'stochastic'

    Source: ``create_pretraining_data.py`` of google-research/bert and of google-research/albert, ``masking``
    of fairseq and of SpanBERT.
    """

    unit: Unit = "token"
    masked_lm_prob: float = 0.15
    count: Count = "round"
    max_predictions_per_seq: int | None = None
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    random_special: bool = True

    def __post_init__(self) -> None:
        check_choice("unit", self.unit, UNITS)
        check_choice("count", self.count, COUNTS)
        most = self.max_predictions_per_seq
        if most is not None:
            check_from_0("max_predictions_per_seq", most, MAX_SEQ_LENGTH)
        # The rest is checked by the compiled masker, with a vocabulary that has nothing wrong.
        Vocabulary(1, 0).masker(self)

    @classmethod
    def preset(cls, name: Preset, **changes: Any) -> Masking:
        """The rule of a published model, with changes.

        Args:
            name: ``"bert"``, ``"albert"`` (n-grams), ``"roberta"`` (count, random tokens) or ``"spanbert"``.
            changes: Attributes that are to be different.

        Raises:
            ArgumentError: There is no such preset, or a value is not allowed.
        """
        check_choice("preset", name, tuple(_PRESETS))
        return cls(**{**_PRESETS[name], **changes})


_PRESETS: dict[str, dict[str, Any]] = {
    "bert": {},
    "albert": {"unit": "ngram"},
    "roberta": {"count": "stochastic", "random_special": False},
    "spanbert": {"unit": "span", "count": "ceil", "random_special": False},
}


class TokenizerLike(Protocol):
    """What `Vocabulary.of` needs of a tokenizer: bertfast's and those of transformers have it."""

    @property
    def mask_token_id(self) -> Any:
        """Id of the mask token."""

    @property
    def pad_token_id(self) -> Any:
        """Id of the padding token."""

    @property
    def all_special_ids(self) -> Any:
        """Ids of all special tokens."""

    def get_vocab(self) -> dict[str, int]:
        """Tokens with their ids."""

    def __len__(self) -> int:
        """How many tokens there are."""


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokenizer.

    Attributes:
        size: Ids are below it.
        mask_token_id: What masked tokens become.
        special_token_ids: Never masked, and no group of words reaches across one. The unknown token is none
            of them in `of`: it stands for a word, and BERT masks it.
        pad_token_id: Does not even count; None if there is none.
        word_starts: (V,) whether a token begins a word, as bytes 0 and 1; None: every token is a word.

    Raises:
        ArgumentError: The size is no positive number below 2^31, or `word_starts` is of another length.
        TokenIdError: The vocabulary does not have `mask_token_id`.

    Example:
        >>> Vocabulary(size=30522, mask_token_id=103, special_token_ids=(101, 102), pad_token_id=0).size
        30522
    """

    size: int
    mask_token_id: int
    special_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    word_starts: bytes | None = None
    _maskers: dict[Masking, _bertfast.Masker] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not is_int(self.size) or not 0 < self.size < 2**31:
            raise ArgumentError(f"size: expected a positive number below 2**31, got {self.size!r}")
        if self.word_starts is not None and len(self.word_starts) != self.size:
            raise ArgumentError(f"word_starts: expected {self.size} bytes, got {len(self.word_starts)}")

    @classmethod
    def of(cls, tokenizer: TokenizerLike) -> Vocabulary:
        """The vocabulary of a `bertfast.Tokenizer` or of a tokenizer of transformers.

        Raises:
            ArgumentError: It has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise ArgumentError("tokenizer: expected one with a mask token, got one without")
        vocab = tokenizer.get_vocab()
        table = word_start_table(vocab)
        special = set(tokenizer.all_special_ids) - {getattr(tokenizer, "unk_token_id", None)}
        pad = tokenizer.pad_token_id
        return cls(
            size=len(table),
            mask_token_id=int(tokenizer.mask_token_id),
            special_token_ids=tuple(sorted(map(int, special))),
            pad_token_id=None if pad is None else int(pad),
            word_starts=table.tobytes(),
        )

    def kinds(self) -> npt.NDArray[np.uint8]:
        """(V,): what each token is, as the compiled masker has it."""
        kinds = np.full(self.size, _WORD_START, np.uint8)
        if self.word_starts is not None:
            kinds = np.frombuffer(self.word_starts, np.uint8) * np.uint8(_WORD_START)
        kinds[[index for index in self.special_token_ids if 0 <= index < self.size]] |= _SPECIAL
        if self.pad_token_id is not None and 0 <= self.pad_token_id < self.size:
            kinds[self.pad_token_id] |= _PADDING
        return kinds

    def masker(self, masking: Masking) -> _bertfast.Masker:
        """The compiled masker of a rule, made once."""
        known = self._maskers.get(masking)
        if known is None:
            known = self._maskers[masking] = _bertfast.Masker(self.kinds(), self.mask_token_id, masking)
        return known

    def __reduce__(self) -> tuple[Any, ...]:
        return Vocabulary, (
            self.size,
            self.mask_token_id,
            self.special_token_ids,
            self.pad_token_id,
            self.word_starts,
        )


# A tokenizer's vocabulary is read once: that takes longer than masking a batch.
_VOCABULARIES: weakref.WeakKeyDictionary[Any, tuple[Any, Vocabulary]] = weakref.WeakKeyDictionary()


def vocabulary_of(tokenizer: TokenizerLike | Vocabulary) -> Vocabulary:
    """`Vocabulary.of`, remembered as long as the tokenizer lives and has the same tokens."""
    if isinstance(tokenizer, Vocabulary):
        return tokenizer
    # Ours never changes; those of transformers do when tokens are added.
    state = None if isinstance(tokenizer, Tokens) else (len(tokenizer), tuple(tokenizer.all_special_ids))
    known = _VOCABULARIES.get(tokenizer)
    if known is None or known[0] != state:
        known = _VOCABULARIES[tokenizer] = (state, Vocabulary.of(tokenizer))
    return known[1]


DEFAULT = Masking()


def mask_tokens(
    input_ids: npt.ArrayLike,
    tokenizer: TokenizerLike | Vocabulary,
    cu_seqlens: npt.ArrayLike | None = None,
    *,
    masking: Masking = DEFAULT,
    attention_mask: npt.ArrayLike | None = None,
    special_tokens_mask: npt.ArrayLike | None = None,
    word_starts: npt.ArrayLike | None = None,
    seed: int,
    epoch: int = 0,
    index: int | Sequence[int] | npt.NDArray[np.integer[Any]] = 0,
    num_threads: int | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Mask the rows of a batch, padded or ragged, for masked language modelling.

    Row ``i`` gets the random numbers of (``seed``, ``epoch``, ``index + i``), from the counter-based
    generator Philox4x32-10: masking rows alone, in other batches or on other threads gives the same bytes.

    Args:
        input_ids: Integers: (B, S), (S,) for one row, or (T,) with `cu_seqlens`. They are not changed.
        tokenizer: A tokenizer of bertfast or transformers, or a `Vocabulary`.
        cu_seqlens: (B + 1,) where the rows of a ragged batch begin, and T at the end.
        masking: The rule; BERT's if it is left out.
        attention_mask: Like `input_ids`, 0 for padding; the tokenizer's padding token is that anyway.
        special_tokens_mask: Like `input_ids`, 1 for further tokens that are not to be masked.
        word_starts: Like `input_ids`, true where a word begins; if left out the vocabulary says so.
        seed: From 0 to 2^64 - 1.
        epoch: From 0 to 2^28 - 1.
        index: The number of the first row, or (B,) one for each, from 0 to 2^64 - 1.
        num_threads: At most; None for all cores that may be used. Small batches take one.

    Returns:
        ``(input_ids, labels)``, shaped like the input, int32 if that is int32, else int64. ``labels`` has the
        original ids of the masked tokens and -100 elsewhere.

    Raises:
        ShapeError: Arrays that do not fit together.
        DtypeError: Ids that are no integers.
        TokenIdError: An id that the vocabulary does not have.
        ArgumentError: Anything else that is not as above.

    Example:
        >>> batch = tokenizer(texts, padding=True, return_tensors="np")
        >>> inputs, labels = mask_tokens(batch["input_ids"], tokenizer, seed=1, epoch=3, index=64)

    Source: see `Masking`; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    ids = as_array("input_ids", input_ids)
    if ids.dtype.kind not in "iu" and ids.size:
        raise DtypeError(f"input_ids: expected integers, got {ids.dtype}")
    if ids.dtype == np.uint64:
        # Too large for 63 bits is too large for any vocabulary: it becomes an id that there is not.
        ids = np.minimum(ids, np.uint64(np.iinfo(np.int64).max))
    if ids.dtype != np.int32:
        ids = ids.astype(np.int64, copy=False)
    rows, boundaries = _rows(ids, cu_seqlens)
    marks = _marks(ids.shape, attention_mask, special_tokens_mask, word_starts)
    vocabulary = vocabulary_of(tokenizer)
    if marks is not None and word_starts is None and masking.unit != "token":
        table = vocabulary.kinds() & np.uint8(_WORD_START)
        marks |= table.take(ids.ravel(), mode="clip")
    check_from_0("seed", seed, 2**64 - 1)
    check_from_0("epoch", epoch, MAX_EPOCH)
    check_num_threads(num_threads)
    keys = _index(index, rows)
    if not ids.size:
        return ids.copy(), ids.copy()
    inputs, labels = vocabulary.masker(masking).mask(
        np.ascontiguousarray(ids).reshape(-1), boundaries, marks, seed, epoch, keys, num_threads
    )
    return inputs.reshape(ids.shape), labels.reshape(ids.shape)


def _rows(ids: npt.NDArray[Any], cu_seqlens: npt.ArrayLike | None) -> tuple[int, int | npt.NDArray[np.int64]]:
    """How many rows there are, and their length or boundaries."""
    if cu_seqlens is None:
        if ids.ndim not in (1, 2):
            raise ShapeError(f"input_ids: expected shape (B, S) or (S,), got {ids.shape}")
        return (ids.shape[0] if ids.ndim == 2 else 1), ids.shape[-1]
    if ids.ndim != 1:
        raise ShapeError(f"input_ids: expected shape (T,) with cu_seqlens, got {ids.shape}")
    ends = as_array("cu_seqlens", cu_seqlens)
    if ends.ndim != 1 or not ends.size:
        raise ShapeError(f"cu_seqlens: expected shape (B + 1,), got {ends.shape}")
    if ends.dtype.kind not in "iu":
        raise DtypeError(f"cu_seqlens: expected integers, got {ends.dtype}")
    ends = np.ascontiguousarray(ends, np.int64)
    if ends[0] != 0 or ends[-1] != ids.size or (np.diff(ends) < 0).any():
        raise ShapeError(f"cu_seqlens: expected boundaries that rise from 0 to {ids.size}, the number of ids")
    return ends.size - 1, ends


def _marks(
    shape: tuple[int, ...],
    attention_mask: npt.ArrayLike | None,
    special_tokens_mask: npt.ArrayLike | None,
    word_starts: npt.ArrayLike | None,
) -> npt.NDArray[np.uint8] | None:
    """What the caller says of each token, (T,) as the compiled masker wants it; None if nothing."""
    marks: npt.NDArray[np.uint8] | None = None
    for name, given, mark, value in (
        ("attention_mask", attention_mask, _PADDING, False),
        ("special_tokens_mask", special_tokens_mask, _SPECIAL, True),
        ("word_starts", word_starts, _WORD_START, True),
    ):
        if given is None:
            continue
        array = as_array(name, given)
        if array.shape != shape:
            raise ShapeError(f"{name}: expected shape {shape} like input_ids, got {array.shape}")
        bits = ((array != 0) == value).reshape(-1).view(np.uint8) * np.uint8(mark)
        marks = bits if marks is None else marks | bits
    return marks


def _index(index: Any, rows: int) -> int | npt.NDArray[np.uint64]:
    if is_int(index):
        return check_from_0("index", index, 2**64 - 1)
    keys = as_array("index", index)
    if keys.dtype.kind not in "iu" and keys.size:
        raise DtypeError(f"index: expected an integer or integers, got {keys.dtype}")
    if keys.shape != (rows,):
        raise ShapeError(f"index: expected shape ({rows},), one for each row, got {keys.shape}")
    if keys.size and keys.min() < 0:
        raise ArgumentError(f"index: expected numbers from 0 on, got {keys.min()}")
    return np.ascontiguousarray(keys, np.uint64)
