"""How texts are cut off by tokenizers that are not the core's.

Where the `tokenizers` package leaves a text uncut or aborts the process, there is the core's own error.
"""

from __future__ import annotations

from typing import NamedTuple

from bertfast._bertfast import kept_lengths
from bertfast.errors import ArgumentError

_STRATEGIES = ("longest_first", "only_first", "only_second")


class Truncation(NamedTuple):
    """How texts are cut off, special tokens included."""

    strategy: str
    max_length: int
    stride: int
    side: str

    @classmethod
    def of(
        cls, truncation: bool | str | None, max_length: int | None, stride: int, side: str
    ) -> Truncation | None:
        """What the arguments of a call mean; None for not at all.

        Raises:
            TypeError: `truncation` is neither a bool nor a str.
            ArgumentError: One has a value that is not allowed.
        """
        if not isinstance(truncation, (bool, str, type(None))):
            raise TypeError(f"truncation: expected a bool or a str, got {type(truncation).__name__}")
        if isinstance(truncation, str) and truncation not in (*_STRATEGIES, "do_not_truncate"):
            raise ArgumentError(
                'truncation: expected a bool, "longest_first", "only_first", "only_second" or '
                f'"do_not_truncate", got "{truncation}"'
            )
        for name, number in (("max_length", max_length), ("stride", stride)):
            if number is not None and number < 0:
                raise ArgumentError(f"{name}: expected 0 or more, got {number}")
        if side not in ("left", "right"):
            raise ArgumentError(f'truncation_side: expected "left" or "right", got "{side}"')
        if truncation in (None, False, "do_not_truncate"):
            return None
        strategy = "longest_first" if truncation is True else str(truncation)
        # Without a length it is an error only where there is a text: as in the core, see `budget`.
        return cls(strategy, -1 if max_length is None else max_length, stride, side)

    def budget(self, added: int) -> int:
        """Tokens that are left for the texts beside `added` special ones.

        Raises:
            ArgumentError: There is no `max_length`, or the special tokens alone are more.
        """
        if self.max_length < 0:
            raise ArgumentError("max_length: expected a number with truncation, got None")
        if self.max_length < added:
            raise ArgumentError(
                f"max_length: expected at least {added} for the special tokens alone, got {self.max_length}"
            )
        return self.max_length - added

    def cuts(self, lengths: tuple[int, ...], budget: int, sample: int, *, windows: bool) -> bool:
        """Whether one text, or a pair, is cut off.

        Args:
            lengths: Of one text, or of both of a pair, in tokens.
            budget: Tokens that are left for them.
            sample: Number of the text, for the message.
            windows: Whether what is cut off is kept in windows.

        Raises:
            ArgumentError: The strategy cannot reach the budget, or the windows would share too many tokens or
                be too many.
        """
        first, second = lengths[0], lengths[1] if len(lengths) == 2 else None
        stride = self.stride if windows else None
        return kept_lengths(first, second, budget, self.strategy, stride, sample) != (first, second)
