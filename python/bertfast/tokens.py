"""The tokens of a tokenizer: their ids, what special ones there are, and the way back from ids to text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from bertfast._bertfast import Ragged
from bertfast.errors import ArgumentError, TokenIdError
from bertfast.other_kinds import AnyTokenizer
from bertfast.tokenizer_settings import SPECIAL_TOKENS

__all__ = ["Tokens"]

# Each of these loses its first space, and `" ' "` its last one too.
_CLEAN_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class Tokens:
    """What is known of a tokenizer's tokens, by the names of transformers; `bertfast.Tokenizer` is one.

    Special tokens that there are not are None, and so are their ids.
    """

    def __init__(self, raw: AnyTokenizer) -> None:
        self._raw = raw
        settings = raw.settings
        self.bos_token: str | None = settings.get("bos_token")
        self.eos_token: str | None = settings.get("eos_token")
        self.unk_token: str | None = settings["unk_token"]
        self.sep_token: str | None = settings["sep_token"]
        self.pad_token: str | None = settings["pad_token"]
        self.cls_token: str | None = settings["cls_token"]
        self.mask_token: str | None = settings["mask_token"]
        self.clean_up_tokenization_spaces: bool = settings["clean_up_tokenization_spaces"]
        self._cleans_up: bool = settings.get("cleans_up", True)

    def __len__(self) -> int:
        """Number of tokens, the added ones included."""
        return len(self.get_vocab())

    def decode(
        self,
        token_ids: int | Sequence[int] | npt.NDArray[np.integer[Any]],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """Text of token ids; `batch_decode` takes several sequences.

        Args:
            token_ids: One id or (S,) of them, also as an array or a CPU tensor; unknown ids are left out.
            skip_special_tokens: Leave special tokens out.
            clean_up_tokenization_spaces: Also take out the spaces before punctuation that the decoder of the
                folder has left (BPE leaves none that were not in the text); None is the folder's choice.

        Raises:
            ArgumentError: `token_ids` is a batch.
            TokenIdError: An id is negative.

        Example:
            >>> tokenizer.decode([101, 7592, 2088, 999, 102], skip_special_tokens=True)
            'hello world!'
        """
        try:
            ids = np.atleast_1d(np.asarray(token_ids))
        except ValueError:  # of numpy, about sequences of several lengths
            raise ArgumentError("token_ids: expected one sequence, got several") from None
        if ids.ndim != 1:
            raise ArgumentError(f"token_ids: expected one sequence, got shape {ids.shape}")
        if ids.size and (not np.issubdtype(ids.dtype, np.integer)):
            raise TypeError(f"token_ids: expected integers, got {ids.dtype}")
        if ids.size and ids.min() < 0:
            raise TokenIdError(f"token_ids: expected ids from 0 on, got {ids.min()}")
        text = self._raw.decode(ids.tolist(), skip_special_tokens)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        if clean_up_tokenization_spaces and self._cleans_up:
            for spaced in _CLEAN_UP:
                text = text.replace(spaced, spaced.strip())
        return text

    def batch_decode(
        self,
        sequences: Sequence[Sequence[int]] | npt.NDArray[np.integer[Any]] | Ragged,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """The text of each sequence of token ids; options and errors as in `decode`.

        Example:
            >>> tokenizer.batch_decode(tokenizer(["one", "two"])["input_ids"], skip_special_tokens=True)
            ['one', 'two']
        """
        rows: Any = sequences
        if isinstance(sequences, Ragged):
            rows = np.split(sequences.input_ids, sequences.cu_seqlens[1:-1]) if len(sequences) else []
        return [self.decode(ids, skip_special_tokens, clean_up_tokenization_spaces) for ids in rows]

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

    @property
    def vocab(self) -> dict[str, int]:
        """All tokens with their ids, the added ones included."""
        return self.get_vocab()

    def get_added_vocab(self) -> dict[str, int]:
        """The added tokens with their ids: special ones, and what the folder adds to the vocabulary."""
        return self._raw.added_vocab()

    @overload
    # A str is a sequence of str too; the first signature is meant for it.
    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...  # type: ignore[overload-overlap]
    @overload
    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int | None]: ...
    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int | None] | None:
        """The id of a token, or of each; the unknown token's for one that does not exist."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        token_id = self._raw.token_to_id(tokens)
        return self.unk_token_id if token_id is None else token_id

    @overload
    def convert_ids_to_tokens(self, ids: int, skip_special_tokens: bool = False) -> str | None: ...
    @overload
    def convert_ids_to_tokens(self, ids: Sequence[int], skip_special_tokens: bool = False) -> list[str]: ...
    def convert_ids_to_tokens(
        self, ids: int | Sequence[int], skip_special_tokens: bool = False
    ) -> str | list[str] | None:
        """The token of an id, or of each; None for one id that no token has.

        Raises:
            TokenIdError: In a list, an id that no token has.
        """
        if isinstance(ids, (int, np.integer)):
            return self._raw.id_to_token(int(ids))
        left_out = set(self.all_special_ids) if skip_special_tokens else set()
        tokens = []
        for token_id in ids:
            token = self._raw.id_to_token(int(token_id))
            if token is None:
                raise TokenIdError(f"ids: expected ids of tokens, got {int(token_id)}")
            if int(token_id) not in left_out:
                tokens.append(token)
        return tokens

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens, continuing pieces glued to what precedes them."""
        return self._raw.decode_tokens(tokens)

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = True,
    ) -> list[int]:
        """1 for each id that is a special token's, else 0; what collators mask nothing of.

        Raises:
            ArgumentError: Ids without the special tokens around them, or of two texts, for which calling the
                tokenizer with ``return_special_tokens_mask=True`` is the way.
        """
        if not already_has_special_tokens or token_ids_1 is not None:
            raise ArgumentError(
                "get_special_tokens_mask: expected one list of ids with special tokens; "
                "call the tokenizer with return_special_tokens_mask=True"
            )
        special = set(self.all_special_ids)
        return [int(token_id in special) for token_id in token_ids_0]

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens by the names of their attributes."""
        return {name: getattr(self, name) for name in SPECIAL_TOKENS if getattr(self, name) is not None}

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens, each once."""
        return list(dict.fromkeys(self.special_tokens_map.values()))

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text, or a pair, gets."""
        return self._raw.num_special_tokens_to_add(pair)

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text; None for BERT, which has none."""
        return self._id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text; None for BERT, which has none."""
        return self._id(self.eos_token)

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
