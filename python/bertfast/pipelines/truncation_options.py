"""The options of a pipeline that say how texts are tokenized, by the names of transformers' tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bertfast import arguments
from bertfast.errors import ArgumentError

__all__ = ["TruncationOptions"]

_STRATEGIES = (None, True, False, "longest_first", "only_first", "only_second", "do_not_truncate")
# One text has no other to be padded to, so these change nothing.
_NO_PADDING = (None, True, False, "longest", "do_not_pad")


@dataclass(frozen=True)
class TruncationOptions:
    """How long texts may be."""

    truncation: bool | str | None = None
    """True or ``"longest_first"``, ``"only_first"``, ``"only_second"``: cut texts off at ``max_length``."""
    max_length: int | None = None
    """In tokens; None for the model's. Given alone it means truncation."""
    add_special_tokens: bool = True
    """Put ``[CLS]`` and ``[SEP]`` around a text."""
    padding: bool | str | None = None
    """Accepted where it changes nothing: a text is never padded here."""

    def __post_init__(self) -> None:
        arguments.check_choice("truncation", self.truncation, _STRATEGIES)
        arguments.check_choice("padding", self.padding, _NO_PADDING)
        if self.max_length is not None:
            arguments.check_positive("max_length", self.max_length)

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any] | None) -> TruncationOptions:
        """From a mapping of options; ``name`` is what messages call it.

        Raises:
            TypeError: It is no mapping.
            ArgumentError: There is no such option, or it has a value that is not allowed.
        """
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise TypeError(f"{name}: expected a dict, got {type(given).__name__}")
        known = [field.name for field in fields(TruncationOptions)]
        for key in given:
            if key not in known:
                raise ArgumentError(f"{name}: expected some of {', '.join(known)}, got {key!r}")
        return cls(**given)

    @property
    def cuts(self) -> bool:
        """Whether texts are cut off at all."""
        if self.truncation is None:
            return self.max_length is not None
        return self.truncation not in (False, "do_not_truncate")

    def for_tokenizer(self, longest: int) -> dict[str, Any]:
        """Arguments of `Tokenizer.encode_ragged`; ``longest`` is the model's length."""
        return {
            "truncation": (self.truncation or True) if self.cuts else False,
            "max_length": longest if self.max_length is None else self.max_length,
            "add_special_tokens": self.add_special_tokens,
        }

    def most_tokens(self, characters: int, longest: int) -> int:
        """Tokens of a text, at most and roughly: a token is a character at least."""
        most = characters + 2
        return min(most, longest if self.max_length is None else self.max_length) if self.cuts else most
