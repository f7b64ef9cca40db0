"""Text to token ids: WordPiece as Hugging Face's fast BERT tokenizer does it, in Rust.

The rules, the Unicode tables and the known traps are in ``docs/tokenization.md``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bertfast._bertfast import Ragged
from bertfast._bertfast import Tokenizer as RawTokenizer
from bertfast.errors import ArgumentError, TokenIdError

__all__ = ["BatchEncoding", "Ragged", "Tokenizer"]

Padding = bool | Literal["longest", "max_length", "do_not_pad"]
Truncation = bool | Literal["longest_first", "only_first", "only_second", "do_not_truncate"] | None

# What transformers says where a folder does not say how long an input may be.
_UNKNOWN_LENGTH = int(1e30)
# Each of these loses its first space, and `" ' "` its last one too.
_CLEAN_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class BatchEncoding(dict[str, Any]):
    """What calling a tokenizer gives: a dict whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Tokenizer:
    """A WordPiece tokenizer, equal to Hugging Face's fast BERT tokenizer in ids and offsets.

    It never changes after it is opened, so threads may share one.

    Example:
        >>> tokenizer = Tokenizer.from_pretrained("all-MiniLM-L6-v2/")
        >>> tokenizer("Hello world!")["input_ids"]
        [101, 7592, 2088, 999, 102]

    Source: ``BertTokenizerFast`` of transformers, on tokenizers 0.23.3.
    """

    def __init__(self, raw: RawTokenizer) -> None:
        self._raw = raw
        settings = raw.settings
        self.unk_token: str | None = settings["unk_token"]
        self.sep_token: str | None = settings["sep_token"]
        self.pad_token: str | None = settings["pad_token"]
        self.cls_token: str | None = settings["cls_token"]
        self.mask_token: str | None = settings["mask_token"]
        self.model_max_length: int = settings["model_max_length"] or _UNKNOWN_LENGTH
        """The longest input of the model in tokens, 10**30 if the folder does not say."""
        self.padding_side: str = settings["padding_side"]
        self.truncation_side: str = settings["truncation_side"]
        self.clean_up_tokenization_spaces: bool = settings["clean_up_tokenization_spaces"]
        self.model_input_names: list[str] = settings["model_input_names"] or [
            "input_ids",
            "token_type_ids",
            "attention_mask",
        ]

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Tokenizer:
        """Open the tokenizer of a Hugging Face folder.

        ``tokenizer.json`` wins over ``vocab.txt``; its truncation and padding sections are ignored. With
        ``vocab.txt`` alone, ``tokenizer_config.json`` decides (``do_lower_case``, ``strip_accents``,
        ``tokenize_chinese_chars``, special tokens); ``never_split`` has no effect, as in the fast tokenizer.

        Args:
            folder: Has ``tokenizer.json`` or ``vocab.txt``.

        Raises:
            FileNotFoundError: It has neither.
            TokenizerError: A file is damaged, or the tokenizer is of another kind than BERT's.
        """
        return cls(RawTokenizer.from_folder(folder))

    @property
    def raw(self) -> RawTokenizer:
        """The compiled tokenizer, for the compiled encoder."""
        return self._raw

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, model_max_length={self.model_max_length})"

    def __len__(self) -> int:
        """Number of tokens, the added ones included."""
        return len(self.get_vocab())

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: Truncation = None,
        max_length: int | None = None,
        return_tensors: Literal["np", "pt"] | None = None,
    ) -> BatchEncoding:
        """Tokenize a text or a list of texts, as calling a transformers tokenizer does.

        Args:
            text: One text, or a list of them.
            text_pair: The second text of each pair. For one text, ``""`` is no pair; in a list it is one.
            add_special_tokens: Put ``[CLS]`` and ``[SEP]`` around the texts.
            padding: ``True`` or ``"longest"``: to the longest of the batch; ``"max_length"``: to that.
            truncation: ``True`` is ``"longest_first"``; None truncates if `max_length` is given.
            max_length: In tokens; None is the model's, and no limit if that is not known.
            return_tensors: ``"np"`` or ``"pt"``: int64 arrays or tensors (B, S) instead of lists.

        Returns:
            ``input_ids``, ``token_type_ids`` and ``attention_mask``, as far as the model wants them: lists of
            int for one text, lists of lists for a list.

        Raises:
            TypeError: A text is not a str.
            ArgumentError: A text has a lone surrogate, `max_length` has no room for the special tokens, the
                truncation cannot reach it, or the texts differ in length and `return_tensors` has no padding.

        Example:
            >>> tokenizer(["one", "two words"], padding=True, return_tensors="np").input_ids.shape
            (2, 4)
        """
        if return_tensors not in (None, "np", "pt"):
            raise ArgumentError(f'return_tensors: expected None, "np" or "pt", got {return_tensors!r}')
        if truncation is None:
            truncation = max_length is not None and padding is False
        is_batch = not isinstance(text, str)
        if isinstance(text, str):
            if text_pair is not None and not isinstance(text_pair, str):
                raise TypeError(f"text_pair: expected str like text, got {type(text_pair).__name__}")
            texts: Sequence[str] = [text]
            pairs: Sequence[str] | None = [text_pair] if text_pair else None
        else:
            texts, pairs = text, text_pair
        ragged = self.encode_ragged(
            texts,
            pairs,
            add_special_tokens=add_special_tokens,
            truncation=truncation,
            max_length=max_length,
            return_token_type_ids="token_type_ids" in self.model_input_names,
        )
        arrays = self._rows(ragged, self._padded_length(padding, max_length, ragged))
        if return_tensors is not None:
            return BatchEncoding(_tensors(arrays, return_tensors))
        return BatchEncoding(arrays if is_batch else {name: rows[0] for name, rows in arrays.items()})

    def encode_ragged(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        truncation: Truncation = False,
        max_length: int | None = None,
        stride: int = 0,
        truncation_side: str | None = None,
        return_token_type_ids: bool = False,
        return_offsets_mapping: bool = False,
        return_word_ids: bool = False,
        return_overflowing_tokens: bool = False,
    ) -> Ragged:
        """Tokenize texts into arrays that lie end to end, without padding.

        Args:
            texts: B texts.
            text_pairs: As many second texts, or None; ``""`` is a text of no tokens.
            add_special_tokens: Put ``[CLS]`` and ``[SEP]`` around the texts.
            truncation: ``True`` is ``"longest_first"``.
            max_length: In tokens, for truncation; None is the model's, and no limit if that is not known.
            stride: Tokens that neighbouring overflow windows share.
            truncation_side: ``"left"`` or ``"right"``; None is the folder's.
            return_token_type_ids: Fill ``token_type_ids`` (T,) int32.
            return_offsets_mapping: Fill ``offset_mapping`` (T, 2) int32: start and end in the text, in
                characters; (0, 0) for special tokens.
            return_word_ids: Fill ``word_ids`` (T,) int32: number of the word in its text, -1 for special
                tokens.
            return_overflowing_tokens: Keep what truncation cuts off as further sequences, and fill
                ``overflow_to_sample`` (B,) int64.

        Returns:
            ``input_ids`` (T,) int32, ``cu_seqlens`` (B + 1,) int64, what was asked for (else None), and
            ``truncated``, the number of texts that lost tokens.

        Raises:
            TypeError: A text is not a str.
            ArgumentError: As in calling the tokenizer; or not as many pairs as texts, or `stride` too large.

        Example:
            >>> ragged = tokenizer.encode_ragged(["one", "two words"])
            >>> ragged.cu_seqlens
            array([0, 3, 7])
        """
        if truncation not in (None, False) and max_length is None:
            if self.model_max_length == _UNKNOWN_LENGTH:
                truncation = False
            else:
                max_length = self.model_max_length
        return self._raw.encode_ragged(
            texts,
            text_pairs,
            add_special_tokens=add_special_tokens,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            truncation_side=self.truncation_side if truncation_side is None else truncation_side,
            return_token_type_ids=return_token_type_ids,
            return_offsets_mapping=return_offsets_mapping,
            return_word_ids=return_word_ids,
            return_overflowing_tokens=return_overflowing_tokens,
        )

    def decode(
        self,
        token_ids: int | Sequence[int] | npt.NDArray[np.integer[Any]],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """Text of token ids.

        Args:
            token_ids: One id or (S,) of them, also as an array or a CPU tensor; unknown ids are left out.
            skip_special_tokens: Leave special tokens out.
            clean_up_tokenization_spaces: Also take out the spaces before punctuation that the decoder of the
                folder has left; None is the folder's choice.

        Raises:
            ArgumentError: `token_ids` is a batch.
            TokenIdError: An id is negative.

        Example:
            >>> tokenizer.decode([101, 7592, 2088, 999, 102], skip_special_tokens=True)
            'hello world!'
        """
        ids = np.atleast_1d(np.asarray(token_ids))
        if ids.ndim != 1:
            raise ArgumentError(f"token_ids: expected one sequence, got shape {ids.shape}")
        if ids.size and (not np.issubdtype(ids.dtype, np.integer)):
            raise TypeError(f"token_ids: expected integers, got {ids.dtype}")
        if ids.size and ids.min() < 0:
            raise TokenIdError(f"token_ids: expected ids from 0 on, got {ids.min()}")
        text = self._raw.decode(ids.tolist(), skip_special_tokens)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        if clean_up_tokenization_spaces:
            for spaced in _CLEAN_UP:
                text = text.replace(spaced, spaced.strip())
        return text

    def normalize(self, text: str) -> str:
        """The text as words are cut from it: cleaned, without accents, lower-cased, as the folder says."""
        return self._raw.normalize(text)

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the model, without the added ones that it does not have."""
        return self._raw.vocab_size

    def get_vocab(self) -> dict[str, int]:
        """All tokens with their ids, the added ones included."""
        return self._raw.vocab()

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of a token; the unknown token's for one that does not exist."""
        token_id = self._raw.token_to_id(token)
        return self.unk_token_id if token_id is None else token_id

    def convert_ids_to_tokens(self, token_id: int) -> str | None:
        """The token of an id."""
        return self._raw.id_to_token(token_id)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text, or a pair, gets."""
        return self._raw.num_special_tokens_to_add(pair)

    @property
    def unk_token_id(self) -> int | None:
        """Id of the token for words that are not in the vocabulary."""
        return self._id(self.unk_token)

    @property
    def sep_token_id(self) -> int | None:
        """Id of the token after each text."""
        return self._id(self.sep_token)

    @property
    def pad_token_id(self) -> int | None:
        """Id that rows are padded with."""
        return self._id(self.pad_token)

    @property
    def cls_token_id(self) -> int | None:
        """Id of the token before the first text."""
        return self._id(self.cls_token)

    @property
    def mask_token_id(self) -> int | None:
        """Id of the token that stands for a hidden one."""
        return self._id(self.mask_token)

    @property
    def all_special_ids(self) -> list[int]:
        """Ids that `decode` leaves out with ``skip_special_tokens``."""
        return self._raw.all_special_ids

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self._raw.token_to_id(token)

    def _padded_length(self, padding: Padding, max_length: int | None, ragged: Ragged) -> int | None:
        if padding is False or padding == "do_not_pad":
            return None
        if self.pad_token_id is None:
            raise ArgumentError("padding: expected a tokenizer with a padding token, this one has none")
        if padding is True or padding == "longest":
            return int(np.diff(ragged.cu_seqlens).max(initial=0))
        if padding == "max_length":
            if max_length is not None:
                return max_length
            return None if self.model_max_length == _UNKNOWN_LENGTH else self.model_max_length
        raise ArgumentError(
            f'padding: expected a bool, "longest", "max_length" or "do_not_pad", got {padding!r}'
        )

    def _rows(self, ragged: Ragged, length: int | None) -> dict[str, list[list[int]]]:
        """The sequences as lists, each padded to `length`, under the names that the model wants."""
        sequences = {
            "input_ids": (ragged.input_ids.tolist(), self.pad_token_id or 0),
            "attention_mask": ([1] * len(ragged.input_ids), 0),
        }
        if ragged.token_type_ids is not None:
            sequences["token_type_ids"] = (ragged.token_type_ids.tolist(), 0)
        ends = ragged.cu_seqlens.tolist()
        rows: dict[str, list[list[int]]] = {}
        for name in self.model_input_names:
            if name in sequences:
                values, fill = sequences[name]
                rows[name] = [values[start:stop] for start, stop in itertools.pairwise(ends)]
                for row in rows[name]:
                    missing = [fill] * ((length or 0) - len(row))
                    row[:] = missing + row if self.padding_side == "left" else row + missing
        return rows


def _tensors(rows: dict[str, list[list[int]]], kind: str) -> dict[str, Any]:
    arrays = {}
    for name, sequences in rows.items():
        lengths = {len(sequence) for sequence in sequences}
        if len(lengths) > 1:
            raise ArgumentError(
                "return_tensors: expected texts of one length, got lengths from "
                f"{min(lengths)} to {max(lengths)}; use padding=True"
            )
        shape = (len(sequences), max(lengths, default=0))
        arrays[name] = np.array(sequences, dtype=np.int64).reshape(shape)
    if kind == "np":
        return arrays
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}
