"""What the compiled module holds; `make stubs` compares this file with it."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from bertfast.pretraining.config import PretrainingConfig
from bertfast.pretraining.masking import Masking

__all__ = [
    "Encoder",
    "Linear",
    "Lines",
    "Masker",
    "Ragged",
    "Samples",
    "Store",
    "StoreWriter",
    "Tokenizer",
    "__version__",
    "attention",
    "dropout",
    "dtypes",
    "info",
    "kept_lengths",
    "measure_bandwidth",
    "measure_op",
    "measure_peak",
    "merge_stores",
    "normalize",
    "pack",
    "ragged_attention",
    "ragged_attention_backward",
    "read_tensors",
    "split_sentences",
]

__version__: str

def read_tensors(
    files: Sequence[str | os.PathLike[str]], wanted: Sequence[tuple[str, Sequence[int]]]
) -> list[npt.NDArray[np.float32]]: ...

@final
class Lines:
    r"""Texts as they lie in a file: one per line, or the string `field` of the JSON object on each line.

    Lines end at ``\n`` or ``\r\n``. Nothing is looked at before the texts are used; then a line that is not
    UTF-8 or no such object is an ``ArgumentError``, which starts with ``name:line:``.
    """

    def __new__(
        cls, data: bytes, *, field: str | None = None, name: str = "<bytes>", first_line: int = 1
    ) -> Lines: ...
    def __len__(self) -> int: ...
    def to_list(self) -> list[str]: ...

@final
class Masker:
    """A rule of masking for a vocabulary; `bertfast.pretraining.mask_tokens` is the front.

    ``kinds`` (V,) says of each id with bits whether it is special (1), padding (2), begins a word (4).
    ``mask`` takes rows that lie end to end, of one length or with boundaries (B + 1,), ``marks`` (T,) of the
    same bits for further tokens (word starts are then those of the marks alone), and the number of the first
    row or one for each; it returns ``(input_ids, labels)``.
    """

    def __new__(
        cls,
        kinds: npt.NDArray[np.uint8],
        mask_token_id: int,
        masking: Masking,
    ) -> Masker: ...
    def mask(
        self,
        input_ids: npt.NDArray[np.int32] | npt.NDArray[np.int64],
        boundaries: int | npt.NDArray[np.int64],
        marks: npt.NDArray[np.uint8] | None,
        seed: int,
        epoch: int,
        index: int | npt.NDArray[np.uint64],
        num_threads: int | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]: ...

@final
class Ragged:
    """Sequences of tokens end to end: sequence i is ``cu_seqlens[i]:cu_seqlens[i + 1]`` of each array."""

    def __new__(
        cls,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        *,
        token_type_ids: npt.NDArray[np.int32] | None = None,
        offset_mapping: npt.NDArray[np.int32] | None = None,
        overflow_to_sample: npt.NDArray[np.int64] | None = None,
        word_ids: npt.NDArray[np.int32] | None = None,
        sequence_ids: npt.NDArray[np.int32] | None = None,
        truncated: int = 0,
    ) -> Ragged: ...
    @property
    def input_ids(self) -> npt.NDArray[np.int32]: ...
    @property
    def cu_seqlens(self) -> npt.NDArray[np.int64]: ...
    @property
    def token_type_ids(self) -> npt.NDArray[np.int32] | None: ...
    @property
    def offset_mapping(self) -> npt.NDArray[np.int32] | None: ...
    @property
    def overflow_to_sample(self) -> npt.NDArray[np.int64] | None: ...
    @property
    def word_ids(self) -> npt.NDArray[np.int32] | None: ...
    @property
    def sequence_ids(self) -> npt.NDArray[np.int32] | None: ...
    @property
    def truncated(self) -> int: ...
    def __len__(self) -> int: ...

@final
class Tokenizer:
    """The compiled tokenizer: `bertfast.Tokenizer` is its front."""

    @staticmethod
    def from_folder(folder: str | os.PathLike[str], compat: str) -> Tokenizer: ...
    @staticmethod
    def from_files(files: Mapping[str, bytes], compat: str) -> Tokenizer: ...
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
    ) -> Ragged: ...
    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str: ...
    def decode_tokens(self, tokens: Sequence[str]) -> str: ...
    def added_vocab(self) -> dict[str, int]: ...
    def normalize(self, text: str) -> str: ...
    def vocab(self) -> dict[str, int]: ...
    def token_to_id(self, token: str) -> int | None: ...
    def id_to_token(self, id: int) -> str | None: ...
    def num_special_tokens_to_add(self, pair: bool) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def all_special_ids(self) -> list[int]: ...
    @property
    def settings(self) -> dict[str, Any]: ...

def split_sentences(text: str) -> list[str]: ...

@final
class StoreWriter:
    """Builds a token store; `bertfast.pretraining` has its front.

    ``folder`` is new, empty but for ``tokenizer/``, or one that a writer with the same arguments has not
    finished: what came after its last checkpoint is cut off, and ``position`` is that checkpoint's.
    ``word_starts`` (V,) says which ids begin a word. ``description`` is a JSON object: ``{"tokenizer":
    {"vocabulary_sha256", "vocab_size", "cls_token_id", "sep_token_id", "mask_token_id", "pad_token_id",
    "unk_token_id", "special_token_ids", "kind"}, "options": {...}}`` and, for one part of a corpus,
    ``"shard": [i, n]`` and ``"inputs"``, a name of what all parts are made from.

    ``append_lines``: ``documents`` is ``"blank_line"`` (a line without text ends a document), ``"line"``
    (each text is a document, and the line breaks in it separate paragraphs) or ``"file"`` (documents end
    by ``end_document`` alone). ``append_arrays``:
    ``document_ends`` (B,) says whether a document ends behind each sequence; sequences without tokens
    are left out, but their ends count; ``word_starts`` (T,) replaces the table. ``finish`` takes what is
    in ``tokenizer/`` into the manifest.

    A writer that failed in the middle of an append, or was interrupted there, refuses everything that
    follows: the folder is opened again, and goes on behind its last checkpoint. A mistake that was found
    before leaves it as it was.
    """

    def __new__(
        cls,
        folder: str | os.PathLike[str],
        *,
        token_bits: int,
        word_starts: npt.NDArray[np.bool_],
        description: str,
    ) -> StoreWriter: ...
    def append_lines(
        self,
        tokenizer: Tokenizer,
        lines: Lines,
        *,
        documents: str = "blank_line",
        split_sentences: bool = False,
        num_threads: int | None = None,
    ) -> None: ...
    def append_arrays(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        document_ends: npt.NDArray[np.bool_],
        word_starts: npt.NDArray[np.bool_] | None = None,
    ) -> None: ...
    def end_document(self) -> None: ...
    def checkpoint(self, position: str) -> None: ...
    def finish(self) -> None: ...
    @property
    def position(self) -> str | None: ...
    @property
    def num_documents(self) -> int: ...
    @property
    def num_sentences(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...

@final
class Store:
    """A token store, memory-mapped; `bertfast.pretraining` has its front.

    ``verify`` reads everything; ``progress`` is called with the bytes that are done and those that there are.
    ``check_split`` says whether ``split`` would have documents for both sides.
    """

    def __new__(cls, folder: str | os.PathLike[str]) -> Store: ...
    @property
    def num_documents(self) -> int: ...
    @property
    def num_sentences(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def manifest(self) -> str: ...
    def document(self, index: int) -> tuple[int, int]: ...
    def sentence(self, index: int) -> npt.NDArray[np.int32]: ...
    def word_starts_of(self, index: int) -> npt.NDArray[np.bool_]: ...
    def verify(self, progress: Callable[[int, int], object] | None = None) -> None: ...
    def check_split(
        self, held_out: float, seed: int, progress: Callable[[int, int], object] | None = None
    ) -> None: ...
    def split(
        self,
        train: str | os.PathLike[str],
        held_out_store: str | os.PathLike[str],
        held_out: float,
        seed: int,
        progress: Callable[[int, int], object] | None = None,
    ) -> None: ...

def merge_stores(
    shards: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    progress: Callable[[int, int], object] | None = None,
) -> None: ...

@final
class Samples:
    """The samples of an epoch: `bertfast.pretraining.PretrainingDataset` is its front."""

    def __new__(
        cls,
        folder: str | os.PathLike[str],
        config: PretrainingConfig,
        *,
        seed: int,
        epoch: int,
        plan_folder: str | os.PathLike[str],
        num_threads: int | None = None,
    ) -> Samples: ...
    def of_epoch(
        self, epoch: int, *, plan_folder: str | os.PathLike[str], num_threads: int | None = None
    ) -> Samples: ...
    def __len__(self) -> int: ...
    @property
    def tokens_sha256(self) -> str: ...
    def lengths(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]: ...
    def order(self, start: int, count: int) -> npt.NDArray[np.int64]: ...
    def batch_order(self, window: int, batches: int) -> npt.NDArray[np.int64]: ...
    def padded(
        self, indices: npt.NDArray[np.int64], *, max_length: bool, num_threads: int | None = None
    ) -> dict[str, npt.NDArray[np.int64]]: ...
    def ragged(
        self, indices: npt.NDArray[np.int64], *, num_threads: int | None = None
    ) -> dict[str, npt.NDArray[Any]]: ...

@final
class Encoder:
    """The engine: `bertfast.Encoder` is its front."""

    @staticmethod
    def load(
        config_json: str,
        weight_files: Sequence[str | os.PathLike[str]],
        dtype: str = "float32",
        num_threads: int | None = None,
        isa: str | None = None,
        layer_dtypes: list[str] | None = None,
        head: str | None = None,
    ) -> Encoder: ...
    @staticmethod
    def open_packed(
        config_json: str,
        file: str | os.PathLike[str],
        wanted: Sequence[str],
        num_threads: int | None = None,
        isa: str | None = None,
        head: str | None = None,
    ) -> Encoder: ...
    def forward(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None = None,
        position_ids: npt.NDArray[np.int32] | None = None,
        *,
        last_hidden_state: bool = True,
        pooler_output: bool = True,
        hidden_states: bool = False,
        attentions: bool = False,
        logits: bool = False,
        rows: npt.NDArray[np.int64] | None = None,
        num_threads: int | None = None,
    ) -> dict[str, npt.NDArray[np.float32] | None]: ...
    def top_k(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        rows: npt.NDArray[np.int64],
        k: int,
        num_threads: int | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]: ...
    def sparse(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        strategy: str,
        out: npt.NDArray[np.float32],
        num_threads: int | None = None,
    ) -> None: ...
    def pool(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        modes: Sequence[str],
        skip: int,
        normalize: bool,
        out: npt.NDArray[np.float32],
        num_threads: int | None = None,
    ) -> None: ...
    def encode(
        self,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        *,
        prefix: str,
        max_length: int,
        modes: Sequence[str],
        skip: int,
        normalize: bool,
        out: npt.NDArray[np.float32],
        num_threads: int | None = None,
    ) -> int: ...
    def info(self) -> dict[str, Any]: ...

@final
class Linear:
    """``x @ weight.T + bias`` with bits per row that do not depend on the other rows."""

    def __new__(
        cls, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32] | None = None
    ) -> Linear: ...
    def __call__(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...

def attention(
    query: npt.NDArray[np.float32],
    key: npt.NDArray[np.float32],
    value: npt.NDArray[np.float32],
    key_mask: npt.NDArray[np.bool_] | None,
    scale: float,
    num_threads: int | None = None,
) -> npt.NDArray[np.float32]: ...
def dropout(
    x: npt.NDArray[Any],
    out: npt.NDArray[Any],
    probability: float,
    seed: int,
    num_threads: int | None = None,
) -> None: ...
def ragged_attention(
    tensors: Sequence[npt.NDArray[Any]],
    out: npt.NDArray[Any],
    lse: npt.NDArray[np.float32],
    cu_seqlens: npt.NDArray[np.int64],
    how: tuple[float, float, int],
    num_threads: int | None = None,
) -> None: ...
def ragged_attention_backward(
    grad: npt.NDArray[Any],
    tensors: Sequence[npt.NDArray[Any]],
    lse: npt.NDArray[np.float32],
    grads: Sequence[npt.NDArray[Any]],
    cu_seqlens: npt.NDArray[np.int64],
    how: tuple[float, float, int],
    num_threads: int | None = None,
) -> None: ...
def pack(
    config_json: str,
    weight_files: Sequence[str | os.PathLike[str]],
    layer_dtypes: Sequence[str],
    output: str | os.PathLike[str],
    num_threads: int | None = None,
    head: str | None = None,
) -> None: ...
def normalize(x: npt.NDArray[np.float32]) -> None: ...
def info() -> dict[str, Any]: ...
def kept_lengths(
    first: int,
    second: int | None,
    budget: int,
    strategy: bool | str,
    stride: int | None = None,
    sample: int = 0,
) -> tuple[int, int | None]: ...
def dtypes(isa: str | None = None) -> list[str]: ...
def measure_peak(
    seconds: float, num_threads: int | None = None, dtype: str = "float32", isa: str | None = None
) -> float: ...
def measure_op(
    name: str, sizes: Sequence[int], seconds: float, dtype: str = "float32", isa: str | None = None
) -> float: ...
def measure_bandwidth(seconds: float, num_threads: int | None = None, bytes: int | None = None) -> float: ...
