"""How samples for pretraining are made from a corpus."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from bertfast.arguments import check_choice, check_positive
from bertfast.errors import ArgumentError
from bertfast.pretraining.masking import DEFAULT, MAX_SEQ_LENGTH, Masking, Preset

Format = Literal["nsp", "sop", "full_sentences", "doc_sentences"]

FORMATS: tuple[Format, ...] = ("nsp", "sop", "full_sentences", "doc_sentences")
PAIRS: tuple[Format, ...] = ("nsp", "sop")

# Of the plan: see rust/core/src/pretraining/sampling/mod.rs.
_MAX_DUPE_FACTOR = 2**8


@dataclass(frozen=True)
class PretrainingConfig:
    """What samples are; the default is BERT's.

    Attributes:
        format: ``"nsp"``: two segments, the second from another document or the one that follows (BERT);
            ``"sop"``: two segments that follow each other, half of them swapped (ALBERT);
            ``"full_sentences"``: as many sentences as fit, also across the ends of documents;
            ``"doc_sentences"``: the same within a document (both RoBERTa).
        masking: What is masked.
        max_seq_length: Most tokens of a sample, special ones with them: 5 (pairs) or 3 to 65535.
        short_seq_prob: Share of the documents whose samples are made shorter: their length without special
            tokens is drawn from 2 up to the most that fits. With ``"full_sentences"`` the document that a
            sample begins in counts.
        dupe_factor: How often an epoch goes through the corpus, with other pairs and masks each time; 1 to
            256. Masks are new in every epoch, so that 1 is enough.
        static: All epochs are the same, as those of files that were written once.

    Raises:
        ArgumentError: A value that is not allowed.

    Example:
        >>> PretrainingConfig.preset("roberta", max_seq_length=256).format
        'full_sentences'

    Source: ``create_pretraining_data.py`` of google-research/bert and of google-research/albert; Liu et al.,
    "RoBERTa", 2019, section 4.2.
    """

    format: Format = "nsp"
    masking: Masking = DEFAULT
    max_seq_length: int = 128
    short_seq_prob: float = 0.1
    dupe_factor: int = 1
    static: bool = False

    def __post_init__(self) -> None:
        check_choice("format", self.format, FORMATS)
        if not isinstance(self.masking, Masking):
            raise TypeError(f"masking: expected Masking, got {type(self.masking).__name__}")
        for name, least, most in (
            ("max_seq_length", 5 if self.is_pair else 3, MAX_SEQ_LENGTH),
            ("dupe_factor", 1, _MAX_DUPE_FACTOR),
        ):
            value = check_positive(name, getattr(self, name))
            if not least <= value <= most:
                raise ArgumentError(f"{name}: expected an integer from {least} to {most}, got {value}")
        p = self.short_seq_prob
        if not isinstance(p, (int, float)) or not 0 <= p <= 1:
            raise ArgumentError(f"short_seq_prob: expected a probability in [0, 1], got {p!r}")
        check_choice("static", self.static, (False, True))

    @property
    def is_pair(self) -> bool:
        """Whether a sample has two segments."""
        return self.format in PAIRS

    @property
    def _expected_predictions(self) -> int:
        """How many tokens of a sample of full length are masked on average, rounded up."""
        return math.ceil(self.max_seq_length * self.masking.masked_lm_prob)

    @classmethod
    def preset(cls, name: Preset, **changes: Any) -> PretrainingConfig:
        """The samples of a published model, with changes.

        ``"bert"``: 128 tokens; ``"albert"``: 512; ``"roberta"`` and ``"spanbert"``: 512, no short ones.
        For BERT and ALBERT ``max_predictions_per_seq`` is the expected number at full length, rounded up,
        unless it is given: ``max_seq_length`` times ``masked_lm_prob``, 20 of 128 tokens, as published.

        Args:
            name: ``"bert"``, ``"albert"``, ``"roberta"`` or ``"spanbert"``.
            changes: Attributes that are to be different, of it or of its `masking`. A whole `masking` is
                taken as it is.

        Raises:
            ArgumentError: There is no such preset, or a value is not allowed.

        Example:
            >>> PretrainingConfig.preset("bert", masked_lm_prob=0.3).masking.max_predictions_per_seq
            39
        """
        check_choice("preset", name, tuple(_PRESETS))
        of_masking = {
            field.name: changes.pop(field.name) for field in fields(Masking) if field.name in changes
        }
        if "masking" in changes:
            if of_masking:
                raise ArgumentError(f"masking: expected it alone, got it with {', '.join(of_masking)}")
            return cls(**{**_PRESETS[name], **changes})
        config = cls(**{"masking": Masking.preset(name, **of_masking), **_PRESETS[name], **changes})
        masking = config.masking
        if not config.is_pair or masking.count == "bernoulli" or "max_predictions_per_seq" in of_masking:
            return config
        return replace(config, masking=replace(masking, max_predictions_per_seq=config._expected_predictions))


_PRESETS: dict[str, dict[str, Any]] = {
    "bert": {},
    "albert": {"format": "sop", "max_seq_length": 512},
    "roberta": {"format": "full_sentences", "max_seq_length": 512, "short_seq_prob": 0.0},
    "spanbert": {"format": "full_sentences", "max_seq_length": 512, "short_seq_prob": 0.0},
}
