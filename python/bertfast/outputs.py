"""What a model returns."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ModelOutput:
    """The outputs of a BERT, by name, key or position, as ``transformers.utils.ModelOutput`` offers them.

    Only what was computed counts: a field that is None is no key and has no position. Arrays are of the
    kind that went in, numpy or torch. B batch, S sequence, D hidden size, N heads; ragged calls give (T, D)
    in place of (B, S, D), T the tokens of all sequences.

    Example:
        >>> output.last_hidden_state is output["last_hidden_state"] is output[0]
        True
    """

    last_hidden_state: Any = None
    """(B, S, D); None for a model with a head."""
    logits: Any = None
    """(B, K) or (B, S, K) for the K labels of a head."""
    start_logits: Any = None
    """(B, S), for question answering; so is `end_logits`."""
    end_logits: Any = None
    pooler_output: Any = None
    """(B, D); None if the model has no pooler."""
    hidden_states: tuple[Any, ...] | None = None
    """The embeddings and the output of every layer, each (B, S, D)."""
    attentions: tuple[Any, ...] | None = None
    """The attention weights of every layer, each (B, N, S, S)."""

    def keys(self) -> list[str]:
        """The names of the fields that are not None, in order."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values of the fields that are not None, in order."""
        return tuple(getattr(self, name) for name in self.keys())

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())
