"""What the core's ``truncation.rs`` says about lengths, for tokenizers that are not the core's.

Where the `tokenizers` package leaves a text uncut or aborts the process, there is an error here, in the
core's words.
"""

from __future__ import annotations

from typing import NamedTuple

from bertfast.errors import ArgumentError

_STRATEGIES = ("longest_first", "only_first", "only_second")
# Tokens that windows of one text or pair may make in all: far above any use, far below a full memory.
_MAX_WINDOW_TOKENS = 1 << 30


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

    def kept(self, lengths: tuple[int, ...], budget: int) -> tuple[int, ...]:
        """How many tokens are kept of one text, or of both of a pair, so that the sum is at most `budget`.

        Raises:
            ArgumentError: The strategy cannot reach it.
        """
        remove = sum(lengths) - budget
        if remove <= 0:
            return lengths
        if budget == 0:
            return tuple(0 for _ in lengths)
        if self.strategy == "longest_first":
            return (budget,) if len(lengths) == 1 else _longest_first(lengths, budget)
        shortened = 0 if self.strategy == "only_first" else 1
        if shortened == len(lengths):
            raise ArgumentError("truncation: only_second expected a pair of texts, got one text")
        length = lengths[shortened]
        if length <= remove:
            raise ArgumentError(
                f"truncation: expected a text of more than {remove} tokens to cut {remove} off for "
                f"max_length, got {length} tokens; use longest_first or a larger max_length"
            )
        return tuple(n - remove if at == shortened else n for at, n in enumerate(lengths))

    def check_windows(self, lengths: tuple[int, ...], kept: tuple[int, ...], sample: int) -> None:
        """That what is cut off fits into windows.

        Args:
            lengths: Of one text, or of both of a pair, in tokens.
            kept: How many of these are kept.
            sample: Number of the text, for the message.

        Raises:
            ArgumentError: They would share too many tokens, or be too many.
        """
        count, longest = 1, 0
        for length, keep in zip(lengths, kept, strict=True):
            longest += keep or length
            if keep == length:
                continue
            if 0 < keep <= self.stride:
                raise ArgumentError(
                    f"stride: expected less than the {keep} tokens that max_length leaves for the text, "
                    f"got {self.stride}"
                )
            count *= 2 if keep == 0 else 1 - (keep - length) // (keep - self.stride)
        if count * longest > _MAX_WINDOW_TOKENS:
            raise ArgumentError(
                f"texts[{sample}]: expected overflow windows of at most {_MAX_WINDOW_TOKENS} tokens in all, "
                f"got {count} windows of {longest} tokens"
            )


def _longest_first(lengths: tuple[int, ...], budget: int) -> tuple[int, ...]:
    first, second = lengths
    short = min(first, second)
    long = max(short, budget - short)
    if short + long > budget:
        short, long = budget // 2, budget // 2 + budget % 2
    return (long, short) if first > second else (short, long)
