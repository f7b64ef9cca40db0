"""Samples as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bertfast.pretraining.masking import vocabulary_of

if TYPE_CHECKING:
    from bertfast.tokenizer import Tokenizer

_PAIR_LABELS = {
    "next_sentence_label": ("the next sentences", "sentences of another document"),
    "sentence_order_label": ("in order", "swapped"),
}


class _Style(NamedTuple):
    """What is put around a masked token: on a terminal its colour, elsewhere brackets."""

    start: str
    end: str


_COLOURS = {
    "mask": _Style("\x1b[1;31m", "\x1b[0m"),
    "random": _Style("\x1b[1;35m", "\x1b[0m"),
    "kept": _Style("\x1b[1;32m", "\x1b[0m"),
    "label": _Style("\x1b[32m", "\x1b[0m"),
}
_BRACKETS = {
    "mask": _Style("", ""),
    "random": _Style("{", "}"),
    "kept": _Style("<", ">"),
    "label": _Style("(", ")"),
}


def render(sample: Mapping[str, Any], tokenizer: Tokenizer, *, color: bool = False) -> str:
    """A sample of `bertfast.pretraining.PretrainingDataset` in one paragraph.

    Every token that is asked for is followed by its label. With colours ``[MASK]`` is red, a random token
    magenta, a token that was kept green, and labels are green; without, labels are in parentheses, random
    tokens in braces and kept tokens between angles.

    Args:
        sample: ``input_ids`` and ``labels`` (S,), and the label of a pair if it has one.
        tokenizer: Of the store that the sample is from.
        color: Whether to use a terminal's colours.

    Example:
        >>> print(render(dataset[0], Corpus.open("corpus/").tokenizer))
        [CLS] the [MASK](cat) sat on the {idea}(mat) [SEP]
    """
    styles = _COLOURS if color else _BRACKETS
    vocabulary = vocabulary_of(tokenizer)
    special = set(tokenizer.all_special_ids)

    def begins(index: int) -> bool:
        return index in special or vocabulary.word_starts is None or bool(vocabulary.word_starts[index])

    words: list[str] = []
    after_special = True
    for index, label in zip(sample["input_ids"].tolist(), sample["labels"].tolist(), strict=True):
        text, original = _text(index, tokenizer), index
        if label != -100:
            kind = "kept" if index == label else "mask" if index == tokenizer.mask_token_id else "random"
            text = _around(text, styles[kind]) + _around(_text(label, tokenizer), styles["label"])
            original = label
        # Spaces are where the original has them, not where random tokens would.
        words.append((" " if after_special or begins(original) else "") + text)
        after_special = original in special
    lines = ["".join(words).strip()]
    for name, meanings in _PAIR_LABELS.items():
        if name in sample:
            lines.append(f"{name} {int(sample[name])}: {meanings[int(sample[name])]}")
    return "\n".join(lines)


def _text(index: int, tokenizer: Tokenizer) -> str:
    """What is seen of a token."""
    return tokenizer.decode([index]).strip().removeprefix("##") or str(tokenizer.convert_ids_to_tokens(index))


def _around(text: str, style: _Style) -> str:
    return f"{style.start}{text}{style.end}"
