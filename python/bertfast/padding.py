"""Between padded batches (B, S) with a mask and the ragged tokens (T,) that the engine computes.

Letters: B batch, S columns, T tokens that are not masked, D hidden size, N heads, L layers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.errors import ArgumentError, DtypeError, ShapeError, TokenIdError
from bertfast.heads import OF_TOKENS
from bertfast.outputs import ModelOutput

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Limits:
    """Sizes of the tables that ids are looked up in.

    Attributes:
        vocab_size: rows of the word embeddings.
        type_vocab_size: rows of the token type embeddings, 0 if there are none.
        max_position_embeddings: rows of the position embeddings.
        first_position: position of a sequence's first token: 0, or as in RoBERTa behind the id of the padding
            token, which is the position of padding tokens.
    """

    vocab_size: int
    type_vocab_size: int
    max_position_embeddings: int
    first_position: int = 0

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Limits:
        """From what an engine says of itself."""
        return cls(
            info["vocab_size"],
            info["type_vocab_size"],
            info["max_position_embeddings"],
            info.get("first_position", 0),
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.max_position_embeddings - self.first_position


@dataclass(frozen=True)
class Ragged:
    """What the engine takes: sequence b is ``input_ids[cu_seqlens[b] : cu_seqlens[b + 1]]``."""

    input_ids: npt.NDArray[np.int32]
    cu_seqlens: npt.NDArray[np.int64]
    token_type_ids: npt.NDArray[np.int32] | None
    position_ids: npt.NDArray[np.int32] | None


@dataclass(frozen=True)
class Batch(Ragged):
    """The tokens of a padded batch that are not masked, row after row."""

    mask: npt.NDArray[np.bool_]
    """(B, S), true where a token is."""

    def scatter(self, tokens: Array) -> Array:
        """(T, D) to (B, S, D), zero where the mask is false."""
        shape = self.mask.shape + tokens.shape[1:]
        if len(tokens) == self.mask.size:
            return tokens.reshape(shape)
        padded = np.zeros(shape, tokens.dtype)
        padded[self.mask] = tokens
        return padded

    def scatter_attention(self, flat: Array, heads: int) -> Array:
        """The N*s*s weights of each sequence, concatenated, to (B, N, S, S)."""
        rows, columns = self.mask.shape
        padded = np.zeros((rows, heads, columns, columns), flat.dtype)
        for row, block in enumerate(split_attention(flat, self.cu_seqlens, heads)):
            at = np.flatnonzero(self.mask[row])
            padded[row][:, at[:, None], at] = block
        return padded


def split_attention(flat: Array, cu_seqlens: Array, heads: int) -> list[Array]:
    """The weights of each sequence, (N, s, s), as views of their concatenation."""
    blocks, start = [], 0
    for length in np.diff(cu_seqlens).tolist():
        stop = start + heads * length * length
        blocks.append(flat[start:stop].reshape(heads, length, length))
        start = stop
    return blocks


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def integers(name: str, value: Any, shape: str, rank: int, kinds: str = "iu") -> Array:
    """An array of integers that the caller gave, as numpy, without a copy where possible.

    Args:
        name: The argument, for messages.
        value: A numpy array, a torch tensor on the CPU, or nested lists.
        shape: The expected shape, for messages.
        rank: How many dimensions it must have.
        kinds: Allowed kinds of numpy dtypes.

    Raises:
        ShapeError: Not of this rank.
        DtypeError: Not integers.
        ArgumentError: A tensor on another device.
    """
    if is_tensor(value):
        if value.device.type != "cpu":
            raise ArgumentError(f"{name}: expected a tensor on the CPU, got one on {value.device}")
        if value.is_floating_point() or value.is_complex():
            raise DtypeError(f"{name}: expected integers, got {value.dtype}")
        value = value.numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"{name}: expected shape {shape}: {error}") from error
    if array.ndim != rank:
        raise ShapeError(f"{name}: expected shape {shape}, got {array.shape}")
    if array.dtype.kind not in kinds and array.size:
        raise DtypeError(f"{name}: expected integers, got {array.dtype}")
    return array


def table_ids(name: str, values: Array, size: int, where: Array | None = None) -> npt.NDArray[np.int32]:
    """Ids as C-contiguous int32, checked against the table they index.

    Args:
        name: The argument, for messages.
        values: Ids in any integer dtype, (T,) or (B, S).
        size: Rows of the table.
        where: Mask (B, S) of the ids that count, the others may be anything; None if all count.

    Returns:
        (T,), row after row.

    Raises:
        TokenIdError: One is outside; the first is named.
    """
    used = values if where is None else values[where]
    if used.size and (used.min() < 0 or used.max() >= size):
        outside = (values < 0) | (values >= size)
        at = np.argwhere(outside if where is None else outside & where)[0].tolist()
        raise TokenIdError(f"{name}{at}: expected 0 to {size - 1}, got {values[tuple(at)]}")
    return np.ascontiguousarray(used, dtype=np.int32).ravel()


def pack(
    input_ids: Any, attention_mask: Any, token_type_ids: Any, position_ids: Any, limits: Limits
) -> Batch:
    """Check a padded batch and leave out what is masked.

    Args:
        input_ids: (B, S) integers.
        attention_mask: (B, S) integers or booleans, nonzero for tokens, in any pattern; None: all are tokens.
        token_type_ids: (B, S) integers or None.
        position_ids: (B, S) or (1, S) integers; None: the column, or as in RoBERTa the number of the token
            among those of its row that are no padding tokens, counted on from the padding token's id.
        limits: Sizes of the model's tables.

    Raises:
        ShapeError: A shape does not fit, or there are more columns than positions.
        DtypeError: Not integers.
        TokenIdError: An id that counts is outside its table.
        ArgumentError: A row masks every token.
    """
    ids = integers("input_ids", input_ids, "(B, S)", 2)
    rows, columns = ids.shape
    if columns == 0 and rows:
        raise ShapeError(f"input_ids: expected at least one column, got {ids.shape}")
    if columns > limits.longest:
        most = limits.longest
        raise ShapeError(
            f"input_ids: expected at most {most} columns (the model's positions), got {ids.shape}"
        )

    def beside(name: str, value: Any, kinds: str = "iu", *, broadcast: bool = False) -> Array:
        expected = f"{ids.shape} like input_ids"
        array = integers(name, value, expected, 2, kinds)
        if broadcast and array.shape == (1, columns):
            return np.broadcast_to(array, ids.shape)
        if array.shape != ids.shape:
            raise ShapeError(f"{name}: expected shape {expected}, got {array.shape}")
        return array

    if attention_mask is None:
        mask = np.ones(ids.shape, np.bool_)
    else:
        mask = beside("attention_mask", attention_mask, "iub").astype(np.bool_)
    # Most calls mask nothing: then there is nothing to look for.
    where = None if mask.all() else mask
    if where is None:
        cu_seqlens = np.arange(rows + 1, dtype=np.int64) * columns
    else:
        lengths = mask.sum(axis=1)
        if not lengths.all():
            raise ArgumentError(f"attention_mask: row {int(np.argmin(lengths))} masks every token")
        cu_seqlens = np.zeros(rows + 1, np.int64)
        np.cumsum(lengths, out=cu_seqlens[1:])
    flat_ids = table_ids("input_ids", ids, limits.vocab_size, where)
    flat_types = None
    if token_type_ids is not None:
        _check_types(limits)
        types = beside("token_type_ids", token_type_ids)
        flat_types = table_ids("token_type_ids", types, limits.type_vocab_size, where)
    flat_positions = None
    if position_ids is not None:
        positions = beside("position_ids", position_ids, broadcast=True)
        flat_positions = table_ids("position_ids", positions, limits.max_position_embeddings, where)
    elif limits.first_position:
        flat_positions = _behind_padding(ids, limits.first_position - 1)[mask]
    elif where is not None and not _padded_right(mask, np.diff(cu_seqlens)):
        flat_positions = np.nonzero(mask)[1].astype(np.int32)
    return Batch(flat_ids, cu_seqlens, flat_types, flat_positions, mask)


def _behind_padding(ids: Array, padding: int) -> npt.NDArray[np.int32]:
    """RoBERTa's positions (B, S): padding tokens have their id's, others count on from there."""
    counts = ids != padding
    positions: npt.NDArray[np.int32] = (np.cumsum(counts, axis=1) * counts + padding).astype(np.int32)
    return positions


def _check_types(limits: Limits) -> None:
    if limits.type_vocab_size == 0:
        raise ArgumentError("token_type_ids: expected None, this model has no token types")


def _padded_right(mask: npt.NDArray[np.bool_], lengths: Array) -> bool:
    """Whether every row's tokens are its first ones: then a token's column is its place in the sequence."""
    return bool((mask == (np.arange(mask.shape[1]) < lengths[:, None])).all())


def check_ragged(
    input_ids: Any, cu_seqlens: Any, token_type_ids: Any, position_ids: Any, limits: Limits
) -> Ragged:
    """Check sequences that lie one after the other.

    Args:
        input_ids: (T,) integers.
        cu_seqlens: (B + 1,) integers.
        token_type_ids: (T,) integers or None.
        position_ids: (T,) integers or None: the place in the sequence.
        limits: Sizes of the model's tables.

    Raises:
        ShapeError: Shapes or boundaries do not fit, or a sequence is longer than the positions.
        DtypeError: Not integers.
        TokenIdError: An id is outside its table.
    """
    ids = integers("input_ids", input_ids, "(T,)", 1)
    if token_type_ids is not None:
        _check_types(limits)

    def beside(name: str, value: Any, size: int) -> npt.NDArray[np.int32] | None:
        if value is None:
            return None
        expected = f"{ids.shape} like input_ids"
        array = integers(name, value, expected, 1)
        if array.shape != ids.shape:
            raise ShapeError(f"{name}: expected shape {expected}, got {array.shape}")
        return table_ids(name, array, size)

    return Ragged(
        table_ids("input_ids", ids, limits.vocab_size),
        _check_boundaries(cu_seqlens, len(ids), limits.longest),
        beside("token_type_ids", token_type_ids, limits.type_vocab_size),
        beside("position_ids", position_ids, limits.max_position_embeddings),
    )


def _check_boundaries(cu_seqlens: Any, tokens: int, longest: int) -> npt.NDArray[np.int64]:
    ends = np.ascontiguousarray(integers("cu_seqlens", cu_seqlens, "(B + 1,)", 1), dtype=np.int64)
    if len(ends) == 0 or ends[0] != 0 or ends[-1] != tokens:
        got = f"{ends[0]} to {ends[-1]}" if len(ends) else "nothing"
        raise ShapeError(f"cu_seqlens: expected 0 to {tokens}, the tokens of input_ids, got {got}")
    lengths = np.diff(ends)
    if (lengths <= 0).any():
        at = int(np.argmax(lengths <= 0))
        raise ShapeError(f"cu_seqlens: expected strictly increasing, got {ends[at]}, {ends[at + 1]} at {at}")
    if (lengths > longest).any():
        at = int(np.argmax(lengths > longest))
        raise ShapeError(
            f"cu_seqlens: expected at most {longest} tokens in a sequence, got {lengths[at]} at {at}"
        )
    return ends


def unpack(raw: Mapping[str, Any], batch: Batch, heads: int, head: str | None = None) -> ModelOutput:
    """The engine's ragged outputs as padded ones.

    Args:
        raw: The outputs.
        batch: What went in.
        heads: Heads of a layer's attention.
        head: The head that the engine was opened with.
    """
    return _output(
        raw,
        head,
        tokens=batch.scatter,
        attention=lambda flat: batch.scatter_attention(flat, heads),
    )


def ragged(raw: Mapping[str, Any], cu_seqlens: Array, heads: int, head: str | None = None) -> ModelOutput:
    """The engine's ragged outputs; ``attentions`` per layer as a tuple of (N, s, s)."""
    return _output(
        raw,
        head,
        tokens=lambda rows: rows,
        attention=lambda flat: tuple(split_attention(flat, cu_seqlens, heads)),
    )


def _output(raw: Mapping[str, Any], head: str | None, tokens: Any, attention: Any) -> ModelOutput:
    def each(name: str, change: Any) -> tuple[Any, ...] | None:
        layers: Sequence[Array] | None = raw.get(name)
        return None if layers is None else tuple(change(layer) for layer in layers)

    states, weights = each("hidden_states", tokens), each("attentions", attention)
    if head is None:
        return ModelOutput(
            last_hidden_state=tokens(raw["last_hidden_state"]),
            pooler_output=raw.get("pooler_output"),
            hidden_states=states,
            attentions=weights,
        )
    logits = tokens(raw["logits"]) if head in OF_TOKENS else raw["logits"]
    if head == "question-answering":
        return ModelOutput(
            start_logits=logits[..., 0],
            end_logits=logits[..., 1],
            hidden_states=states,
            attentions=weights,
        )
    return ModelOutput(logits=logits, hidden_states=states, attentions=weights)


def to_tensors(output: ModelOutput) -> ModelOutput:
    """The same with torch tensors that share the memory of the arrays."""
    import torch

    def convert(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(convert(item) for item in value)
        return None if value is None else torch.from_numpy(value)

    return replace(output, **{name: convert(output[name]) for name in output})
