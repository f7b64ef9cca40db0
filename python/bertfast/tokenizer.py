"""Text to token ids: WordPiece as Hugging Face's fast BERT tokenizer does it, in Rust.

The rules, the Unicode tables and the known traps are in ``docs/tokenization.md``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bertfast import arguments
from bertfast._bertfast import Lines, Ragged
from bertfast._bertfast import Tokenizer as RawTokenizer
from bertfast.batch_encoding import BatchEncoding, Origins, kind_of, plain, row_arrays, row_lists, tensors
from bertfast.errors import ArgumentError, TokenizerKindError
from bertfast.other_kinds import AnyTokenizer, OtherTokenizer
from bertfast.text_files import read_blocks
from bertfast.tokens import Tokens

__all__ = ["BatchEncoding", "Ragged", "Tokenizer"]

Padding = bool | Literal["longest", "max_length", "do_not_pad"]
Compat = Literal["huggingface", "google"]
Truncation = bool | Literal["longest_first", "only_first", "only_second", "do_not_truncate"] | None
Words = Sequence[str]
"""A text that is already split into words."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
)
"""The files of a folder that say what its tokenizer does."""

# What `pad` puts behind the values of an entry; None is the padding token.
_PAD_VALUES = {"input_ids": None, "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}
# What transformers says where a folder does not say how long an input may be.
_UNKNOWN_LENGTH = int(1e30)


class Tokenizer(Tokens):
    """A WordPiece tokenizer, equal to Hugging Face's fast BERT tokenizer in ids and offsets.

    With ``compat="google"`` it is equal in ids to the original tokenizer, with which BERT was trained.
    Tokenizers of other kinds (byte-level BPE, Unigram) are opened by the `tokenizers` package, behind the
    same methods. None ever changes after it is opened, so threads may share one; processes get copies.

    Example:
        >>> tokenizer = Tokenizer.from_pretrained("all-MiniLM-L6-v2/")
        >>> tokenizer("Hello world!")["input_ids"]
        [101, 7592, 2088, 999, 102]

    Source: ``BertTokenizerFast`` of transformers, on tokenizers 0.23.3; ``FullTokenizer`` of
    google-research/bert.
    """

    is_fast = True
    pad_token_type_id = 0

    def __init__(self, raw: AnyTokenizer, files: Mapping[str, bytes] | None = None) -> None:
        super().__init__(raw)
        self._files = dict(files or {})
        settings = raw.settings
        self.compat: Compat = settings["compat"]
        """Whose tokenizer it is equal to."""
        self.model_max_length: int = settings["model_max_length"] or _UNKNOWN_LENGTH
        """The longest input of the model in tokens, 10**30 if the folder does not say."""
        self.padding_side: str = settings["padding_side"]
        self.truncation_side: str = settings["truncation_side"]
        self.model_input_names: list[str] = settings["model_input_names"] or [
            "input_ids",
            "token_type_ids",
            "attention_mask",
        ]

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, compat: Compat = "huggingface") -> Tokenizer:
        """Open the tokenizer of a Hugging Face folder.

        ``tokenizer.json`` wins over ``vocab.txt``; its truncation and padding sections are ignored. With
        ``vocab.txt`` alone, ``tokenizer_config.json`` decides (``do_lower_case``, ``strip_accents``,
        ``tokenize_chinese_chars``, special tokens); ``never_split`` has no effect, as in the fast tokenizer.

        Args:
            folder: Has ``tokenizer.json`` or ``vocab.txt``.
            compat: Whose ids it gives where the two differ: ``"huggingface"``, the fast tokenizer's, or
                ``"google"``, those of ``tokenization.py`` in google-research/bert, run by Python 3.11: final
                sigma, words of up to 200 characters, no special tokens in texts, other classes of rare
                characters (``docs/tokenization.md`` lists all). The folder decides whether to lower-case.

        Raises:
            FileNotFoundError: It has neither.
            TokenizerKindError: The tokenizer is of another kind than BERT's, and the package `tokenizers`
                that opens it is missing, or ``compat="google"`` is asked for.
            TokenizerError: A file is damaged, or with ``compat="google"`` the folder asks for what the
                original does not have: only one of stripping accents and lower-casing, no cleaning,
                Chinese characters not taken apart, another prefix than ``##``, words of another length
                than 100 or 200.
            ArgumentError: `compat` is neither of the two.

        Example:
            >>> Tokenizer.from_pretrained("all-MiniLM-L6-v2/", compat="google").tokenize("[MASK]")
            ['[', 'mask', ']']

        Source: ``BertTokenizerFast`` of transformers; Devlin et al., https://github.com/google-research/bert.
        """
        raw: AnyTokenizer
        try:
            raw = RawTokenizer.from_folder(folder, compat)
        except TokenizerKindError as kind:
            if compat == "google":
                raise
            raw = OtherTokenizer.from_folder(Path(folder), kind)
        paths = (Path(folder, name) for name in TOKENIZER_FILES)
        files = {path.name: path.read_bytes() for path in paths if path.is_file()}
        return cls(raw, files | raw.files if isinstance(raw, OtherTokenizer) else files)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> tuple[str, ...]:
        """Write the files that this tokenizer was opened from: they open in transformers too.

        No file says `compat`: it is to be given again when they are opened.

        Args:
            folder: Made if it does not exist; files of these names in it are replaced.

        Returns:
            The paths of the files.

        Raises:
            ArgumentError: It was not opened from a folder.
        """
        if not self._files:
            raise ArgumentError("save_pretrained: expected a tokenizer that was opened from a folder")
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            Path(folder, name).write_bytes(content)
        return tuple(str(Path(folder, name)) for name in self._files)

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes open the files again, which are sent to them."""
        if isinstance(self._raw, OtherTokenizer):
            return Tokenizer, (self._raw, self._files)
        if not self._files:
            raise TypeError("cannot pickle a tokenizer that was not opened from a folder")
        return _reopened, (self._files, self.compat)

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files that it was opened from, by name; none if it was not opened from a folder."""
        return dict(self._files)

    @property
    def raw(self) -> AnyTokenizer:
        """What tokenizes; the compiled encoder calls it by itself if it is compiled too."""
        return self._raw

    def __repr__(self) -> str:
        compat = "" if self.compat == "huggingface" else f", compat={self.compat!r}"
        return f"Tokenizer(vocab_size={self.vocab_size}, model_max_length={self.model_max_length}{compat})"

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Words],
        text_pair: str | Sequence[str] | Sequence[Words] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: Truncation = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: Literal["left", "right"] | None = None,
        return_tensors: Literal["np", "pt"] | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Tokenize a text or a list of texts, as calling a transformers tokenizer does.

        Args:
            text: One text, or a list of them; with `is_split_into_words` a list of words, or a list of those.
            text_pair: The second text of each pair. For one text, ``""`` is no pair; in a list it is one.
            add_special_tokens: Put ``[CLS]`` and ``[SEP]`` around the texts.
            padding: ``True`` or ``"longest"``: to the longest of the batch; ``"max_length"``: to that.
            truncation: ``True`` is ``"longest_first"``; None truncates if `max_length` is given.
            max_length: In tokens; None is the model's, and no limit if that is not known.
            stride: Tokens that neighbouring overflow windows share.
            is_split_into_words: Texts are lists of words; word ids count these, and offsets count from their
                starts.
            pad_to_multiple_of: Round the length that is padded to up.
            padding_side: Where padding goes; None is the folder's choice.
            return_tensors: ``"np"`` or ``"pt"``: int64 arrays or tensors (B, S) instead of lists.
            return_token_type_ids: None: if the model wants them; so is `return_attention_mask`.
            return_attention_mask: 0 for padding.
            return_overflowing_tokens: Keep what truncation cuts off as further sequences, and say in
                ``overflow_to_sample_mapping`` (B,) from which text each is.
            return_special_tokens_mask: ``special_tokens_mask``: 1 for special tokens around the texts and for
                padding.
            return_offsets_mapping: ``offset_mapping``: (start, end) of each token in its text, in characters.
            return_length: ``length`` (B,): of each sequence in tokens, padding included.
            verbose: Has no effect: nothing is logged.

        Returns:
            ``input_ids``, ``token_type_ids`` and ``attention_mask``, as far as the model wants them, and what
            was asked for: lists of int for one text, lists of lists for a list of texts or for windows.

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
        texts, pairs, is_batch = _as_batch(text, text_pair, is_split_into_words)

        def encode(**wanted: Any) -> Ragged:
            return self.encode_ragged(
                texts,
                pairs,
                add_special_tokens=add_special_tokens,
                truncation=truncation,
                max_length=max_length,
                stride=stride,
                is_split_into_words=is_split_into_words,
                return_overflowing_tokens=return_overflowing_tokens,
                **wanted,
            )

        ragged = encode(
            return_token_type_ids=self._wants("token_type_ids", return_token_type_ids),
            return_offsets_mapping=return_offsets_mapping,
            return_sequence_ids=return_special_tokens_mask,
        )
        ends = ragged.cu_seqlens.tolist()
        lengths = [end - start for start, end in itertools.pairwise(ends)]
        is_cut = truncation not in (False, "do_not_truncate")
        self._check_multiple(padding, max_length, pad_to_multiple_of, is_cut)
        padded = self._padded_length(padding, max_length, max(lengths, default=0), pad_to_multiple_of)
        side = self._side(padding_side)
        arrange = row_lists if return_tensors is None else row_arrays

        def rows(values: npt.NDArray[Any], fill: int, arrange: Any = arrange) -> Any:
            return arrange(values, lengths, padded, side, fill)

        data: dict[str, Any] = {"input_ids": rows(ragged.input_ids, self.pad_token_id or 0)}
        if ragged.token_type_ids is not None:
            data["token_type_ids"] = rows(ragged.token_type_ids, self.pad_token_type_id)
        if self._wants("attention_mask", return_attention_mask):
            data["attention_mask"] = rows(np.ones_like(ragged.input_ids), 0)
        if ragged.sequence_ids is not None:
            data["special_tokens_mask"] = rows((ragged.sequence_ids < 0).astype(np.int32), 1)
        if ragged.offset_mapping is not None:
            data["offset_mapping"] = rows(ragged.offset_mapping, 0)
        if return_length:
            data["length"] = [max(length, padded) for length in lengths]
        if ragged.overflow_to_sample is not None:
            data["overflow_to_sample_mapping"] = ragged.overflow_to_sample.tolist()

        def origins() -> list[Origins]:
            ragged = encode(return_offsets_mapping=True, return_word_ids=True, return_sequence_ids=True)
            assert ragged.offset_mapping is not None
            assert ragged.word_ids is not None
            assert ragged.sequence_ids is not None
            every = zip(
                rows(ragged.input_ids, self.pad_token_id or 0, row_arrays),
                rows(ragged.offset_mapping, 0, row_arrays),
                rows(ragged.word_ids, -1, row_arrays),
                rows(ragged.sequence_ids, -1, row_arrays),
                strict=True,
            )
            return [Origins(self.convert_ids_to_tokens(ids), *rest) for ids, *rest in every]

        if return_tensors is not None:
            data = tensors(data, return_tensors)
        else:
            if "offset_mapping" in data:
                data["offset_mapping"] = [[tuple(span) for span in row] for row in data["offset_mapping"]]
            if not is_batch and not return_overflowing_tokens:
                # A length is a list all the same, as in transformers.
                data = {name: rows if name == "length" else rows[0] for name, rows in data.items()}
        return BatchEncoding(data, origins, n_sequences=1 if pairs is None else 2)

    def encode(
        self,
        text: str | Words,
        text_pair: str | Words | None = None,
        add_special_tokens: bool = True,
        **options: Any,
    ) -> list[int]:
        """The ids of one text or pair: ``input_ids`` of calling the tokenizer, with the same options.

        Example:
            >>> tokenizer.encode("Hello world!")
            [101, 7592, 2088, 999, 102]
        """
        ids: list[int] = self(text, text_pair, add_special_tokens=add_special_tokens, **options)["input_ids"]
        return ids

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text, or of a pair one after the other.

        Example:
            >>> tokenizer.tokenize("embeddings")
            ['em', '##bed', '##ding', '##s']
        """
        return self.convert_ids_to_tokens(self.encode(text, pair, add_special_tokens=add_special_tokens))

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: Padding = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: Literal["left", "right"] | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: Literal["np", "pt"] | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Bring what calling the tokenizer gave to one length, as the collators of transformers do.

        Args:
            encoded_inputs: One result, a batch, or a list of results. ``input_ids``, ``attention_mask``,
                ``token_type_ids`` and ``special_tokens_mask`` are padded; other entries stay as they are.
            padding: As in calling the tokenizer; so are the others.
            max_length: For ``padding="max_length"``.
            pad_to_multiple_of: Round the length up.
            padding_side: Where padding goes; None is the folder's choice.
            return_attention_mask: None: if the model wants it.
            return_tensors: Arrays or tensors instead of lists; None: as the ``input_ids`` are.
            verbose: Has no effect.

        Raises:
            ArgumentError: There are no ``input_ids``, or `return_tensors` and lengths that differ.

        Example:
            >>> tokenizer.pad([{"input_ids": [101, 102]}, {"input_ids": [101, 7592, 102]}])["input_ids"]
            [[101, 102, 0], [101, 7592, 102]]
        """
        if not isinstance(encoded_inputs, Mapping):
            names = encoded_inputs[0] if encoded_inputs else {}
            encoded_inputs = {name: [one[name] for one in encoded_inputs] for name in names}
        if "input_ids" not in encoded_inputs:
            raise ArgumentError(
                f"encoded_inputs: expected input_ids among the entries, got {list(encoded_inputs)}"
            )
        kind = return_tensors or kind_of(encoded_inputs["input_ids"])
        data = {name: plain(values) for name, values in encoded_inputs.items()}
        is_batch = not data["input_ids"] or isinstance(data["input_ids"][0], list)
        if not is_batch:
            data = {name: [values] for name, values in data.items()}
        if self._wants("attention_mask", return_attention_mask) and "attention_mask" not in data:
            data["attention_mask"] = [[1] * len(ids) for ids in data["input_ids"]]
        longest = max(map(len, data["input_ids"]), default=0)
        length = self._padded_length(padding, max_length, longest, pad_to_multiple_of)
        for name in _PAD_VALUES.keys() & data.keys():
            value = self.pad_token_id if name == "input_ids" else _PAD_VALUES[name]
            before = self._side(padding_side) == "left"
            for index, row in enumerate(data[name]):
                missing = [value] * (length - len(row))
                data[name][index] = missing + row if before else row + missing
        if kind is not None:
            data = tensors(data, kind)
        if not is_batch:
            data = {name: values[0] for name, values in data.items()}
        return BatchEncoding(data)

    def encode_ragged(
        self,
        texts: Sequence[str] | Sequence[Words] | Lines,
        text_pairs: Sequence[str] | Sequence[Words] | None = None,
        *,
        add_special_tokens: bool = True,
        truncation: Truncation = False,
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
        """Tokenize texts into arrays that lie end to end, without padding.

        Args:
            texts: B texts; or the lines of a file, as `encode_files` gives them.
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
            return_sequence_ids: Fill ``sequence_ids`` (T,) int32: 0 for tokens of the first text of a pair, 1
                for those of the second, -1 for special tokens.
            return_overflowing_tokens: Keep what truncation cuts off as further sequences, and fill
                ``overflow_to_sample`` (B,) int64.
            is_split_into_words: Each text is a list of words; word ids count these, offsets count from their
                starts.

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
            return_sequence_ids=return_sequence_ids,
            return_overflowing_tokens=return_overflowing_tokens,
            is_split_into_words=is_split_into_words,
        )

    def encode_files(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        field: str | None = None,
        chunk_bytes: int = 16 << 20,
        show_progress_bar: bool = False,
        **options: Any,
    ) -> Iterator[Ragged]:
        r"""Tokenize the lines of files, however large they are: a block at a time, no line a str.

        Text ``i`` is line ``i``, an empty one included. No more is in memory than a block of text (or a line
        that is longer) and its tokens, which take 4 bytes each, 16 with offsets and word ids; no text has
        more tokens than bytes, and English a third of that.

        Args:
            paths: Files, or one; ``-`` is standard input. Gzip and zstd are recognised by their first bytes.
            field: None for a text per line (UTF-8, lines end at ``\n`` or ``\r\n``); else every line is a
                JSON object and its string `field` is the text.
            chunk_bytes: Text in a block, uncompressed; a block never spans two files.
            show_progress_bar: Write to stderr how many megabytes of the files were read, and how fast.
            **options: As in `encode_ragged`, from ``add_special_tokens`` to ``return_overflowing_tokens``.

        Yields:
            The sequences of each block, as `encode_ragged` gives them; ``overflow_to_sample`` counts from the
            start of the block.

        Raises:
            OSError: A file cannot be opened; that it does not exist is said at once, as are wrong options.
            ArgumentError: A line is not UTF-8 or not such an object (the message starts with ``name:line:``),
                or compressed data is damaged. What came before has been yielded.

        Example:
            >>> tokens = 0
            >>> for ragged in tokenizer.encode_files(["a.txt", "b.txt.gz"]):
            ...     tokens += len(ragged.input_ids)
        """
        names = [os.fspath(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
        arguments.check_positive("chunk_bytes", chunk_bytes)
        self.encode_ragged([], **options)
        blocks = read_blocks(names, field, chunk_bytes, shown=show_progress_bar)
        return (self.encode_ragged(block, **options) for block in blocks)

    def _wants(self, name: str, asked: bool | None) -> bool:
        return name in self.model_input_names if asked is None else asked

    def _side(self, side: str | None) -> str:
        side = self.padding_side if side is None else side
        if side not in ("left", "right"):
            raise ArgumentError(f'padding_side: expected "left" or "right", got {side!r}')
        return side

    def _padded_length(
        self, padding: Padding, max_length: int | None, longest: int, multiple: int | None
    ) -> int:
        """The least length of every sequence; 0 without padding."""
        if padding is False or padding == "do_not_pad":
            return 0
        if self.pad_token_id is None:
            raise ArgumentError("padding: expected a tokenizer with a padding token, this one has none")
        if padding is True or padding == "longest":
            length = longest
        elif padding == "max_length":
            length = self._longest(max_length) or 0
        else:
            raise ArgumentError(
                f'padding: expected a bool, "longest", "max_length" or "do_not_pad", got {padding!r}'
            )
        return -(-length // multiple) * multiple if multiple else length

    def _check_multiple(
        self, padding: Padding, max_length: int | None, multiple: int | None, is_cut: bool
    ) -> None:
        """`ArgumentError` if what is cut off to a length would be padded to a greater one."""
        longest = self._longest(max_length)
        if is_cut and padding not in (False, "do_not_pad") and multiple and longest and longest % multiple:
            raise ArgumentError(
                f"pad_to_multiple_of: expected a divisor of the length {longest} that texts are cut off to, "
                f"got {multiple}"
            )

    def _longest(self, max_length: int | None) -> int | None:
        known = None if self.model_max_length == _UNKNOWN_LENGTH else self.model_max_length
        return known if max_length is None else max_length


def _reopened(files: Mapping[str, bytes], compat: Compat) -> Tokenizer:
    return Tokenizer(RawTokenizer.from_files(files, compat), files)


def _copied(texts: Any) -> Any:
    if not isinstance(texts, (list, tuple)):
        return texts
    return [list(words) if isinstance(words, (list, tuple)) else words for words in texts]


def _as_batch(
    text: Any, pair: Any, is_split_into_words: bool
) -> tuple[Sequence[Any], Sequence[Any] | None, bool]:
    """Texts, second texts, and whether the caller gave a batch."""
    if is_split_into_words:
        is_batch = not isinstance(text, str) and len(text) > 0 and not isinstance(text[0], str)
    else:
        is_batch = not isinstance(text, str)
    # Copies: what a result knows of its texts is looked up later, and lists are used again.
    if is_batch:
        return _copied(text), _copied(pair), True
    if not is_split_into_words and pair is not None and not isinstance(pair, str):
        raise TypeError(f"text_pair: expected str like text, got {type(pair).__name__}")
    return _copied([text]), _copied([pair]) if pair else None, False
