"""Texts to the hidden states of their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertfast.errors import ArgumentError
from bertfast.pipelines.base import Pipeline, Step, pieces
from bertfast.pipelines.truncation_options import TruncationOptions

__all__ = ["FeatureExtractionPipeline"]

TOO_LONG = "; truncation=True cuts it off"
"""What to do about a text that is too long."""


@dataclass(frozen=True)
class FeatureExtractionOptions:
    """The options of `FeatureExtractionPipeline`."""

    truncation: bool | str | None = None
    tokenize_kwargs: Mapping[str, Any] | None = None
    return_tensors: bool = False

    def __post_init__(self) -> None:
        options = TruncationOptions.of("tokenize_kwargs", self.tokenize_kwargs)
        if self.truncation is not None and options.truncation is not None:
            raise ArgumentError("truncation: expected once, got it here and in tokenize_kwargs")
        _ = self.tokenizing  # is checked when it is made

    @property
    def tokenizing(self) -> TruncationOptions:
        """How texts are tokenized."""
        options = TruncationOptions.of("tokenize_kwargs", self.tokenize_kwargs)
        return (
            options
            if self.truncation is None
            else TruncationOptions(
                self.truncation, options.max_length, options.add_special_tokens, options.padding
            )
        )


class FeatureExtractionPipeline(Pipeline):
    """The last hidden state of every token of a text, special tokens included.

    One vector for a whole text is what `bertfast.Encoder.encode` gives.

    Options:
        truncation (bool or str): True cuts off texts that the model is too short for, which are an error
            otherwise.
        tokenize_kwargs (dict): ``truncation``, ``max_length``, ``add_special_tokens``.
        return_tensors (bool): Give torch tensors (1, s, D) float32 and not nested lists of the same shape.

    Example:
        >>> extract = bertfast.pipeline("feature-extraction", "all-MiniLM-L6-v2/")  # doctest: +SKIP
        >>> len(extract("Hello world!")[0])  # doctest: +SKIP
        5

    Source: ``FeatureExtractionPipeline`` of transformers.
    """

    task = "feature-extraction"
    options_type = FeatureExtractionOptions

    def _size(self, item: str, options: FeatureExtractionOptions) -> int:
        return options.tokenizing.most_tokens(len(item), self._max_length)

    def _run(self, step: Step, options: FeatureExtractionOptions) -> list[Any]:
        tokenizing = options.tokenizing.for_tokenizer(self._max_length)
        ragged = self._encode(step, step.items, hint=TOO_LONG, **tokenizing)
        results: list[Any] = []
        for piece in pieces(ragged, step.batch_tokens):
            states = self._engine.forward(
                piece.input_ids,
                piece.cu_seqlens,
                piece.token_type_ids,
                pooler_output=False,
                num_threads=step.num_threads,
            )["last_hidden_state"]
            for start, stop in piece.sequences():
                # A copy: a view would keep the hidden states of the whole step alive.
                hidden = states[None, start:stop]
                results.append(_tensor(hidden.copy()) if options.return_tensors else hidden.tolist())
        return results


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)
