"""Texts, or pairs of texts, to labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast import arguments
from bertfast.errors import ArgumentError
from bertfast.pipelines.base import Pipeline, Step
from bertfast.pipelines.scores import sigmoid, softmax
from bertfast.pipelines.truncation_options import TruncationOptions

__all__ = ["TextClassificationPipeline"]

_FUNCTIONS = (None, "default", "sigmoid", "softmax", "none")
# Not None, which means all. As in transformers, results have another nesting if nothing is given.
_NOT_GIVEN = ""


@dataclass(frozen=True)
class TextClassificationOptions(TruncationOptions):
    """The options of `TextClassificationPipeline`."""

    top_k: int | str | None = _NOT_GIVEN
    function_to_apply: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.function_to_apply
        # Also `ClassificationFunction.SOFTMAX` of transformers, whose value is a str, and "SOFTMAX".
        name = getattr(name, "value", name)
        object.__setattr__(self, "function_to_apply", name.lower() if isinstance(name, str) else name)
        arguments.check_choice("function_to_apply", self.function_to_apply, _FUNCTIONS)
        if self.top_k is not None and self.top_k != _NOT_GIVEN:
            arguments.check_positive("top_k", self.top_k)  # type: ignore[arg-type]


class TextClassificationPipeline(Pipeline):
    """The labels of a text or of a pair of texts, with their scores.

    An input is a str, or a dict ``{"text": ..., "text_pair": ...}``. Its result is a dict with ``label`` and
    ``score``; with ``top_k`` given, a list of these with the best first. One str alone gives a list in any
    case, as in transformers.

    Options:
        top_k (int or None): How many labels; None for all.
        function_to_apply (str): ``"sigmoid"``, ``"softmax"`` or ``"none"`` from logits to scores. By default
            nothing for a regression, sigmoid where there is one label or ``problem_type`` is
            ``"multi_label_classification"``, else softmax.
        truncation (bool or str): True cuts off texts that are longer than the model takes, or than
            ``max_length``. Without it they are an error that says which input it is.
        max_length (int): In tokens.
        add_special_tokens (bool): Put ``[CLS]`` and ``[SEP]`` around a text.

    Example:
        >>> classify = bertfast.pipeline("text-classification", "a-folder/")  # doctest: +SKIP
        >>> classify([{"text": "It rains.", "text_pair": "The sun shines."}], top_k=2)  # doctest: +SKIP
        [[{'label': 'contradiction', 'score': 0.99}, {'label': 'neutral', 'score': 0.01}]]

    Source: ``TextClassificationPipeline`` of transformers.
    """

    task = "text-classification"
    head = "sequence-classification"
    options_type = TextClassificationOptions

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """As `Pipeline.__call__`."""
        result = super().__call__(inputs, **options)
        return [result] if isinstance(inputs, str) and "top_k" not in options else result

    def _expected(self, options: TextClassificationOptions) -> str:
        return 'a text, a dict {"text", "text_pair"} or several of these'

    def _check(self, item: Any, name: str, options: TextClassificationOptions) -> tuple[str, str | None]:
        if isinstance(item, str):
            return item, None
        if not isinstance(item, Mapping):
            raise TypeError(
                f'{name}: expected str or a dict {{"text", "text_pair"}}, got {type(item).__name__}'
            )
        if "text" not in item or not item.keys() <= {"text", "text_pair"}:
            raise ArgumentError(f'{name}: expected the keys "text" and "text_pair", got {list(item)}')
        text, pair = item["text"], item.get("text_pair")
        for key, value in (("text", text), ("text_pair", "" if pair is None else pair)):
            if not isinstance(value, str):
                raise TypeError(f"{name}[{key!r}]: expected str, got {type(value).__name__}")
        # An empty second text is none, as in calling a tokenizer of transformers.
        return text, pair or None

    def _size(self, item: tuple[str, str | None], options: TextClassificationOptions) -> int:
        return options.most_tokens(len(item[0]) + len(item[1] or ""), self._max_length)

    def _texts(self, item: tuple[str, str | None]) -> Iterator[tuple[str, str]]:
        text, pair = item
        yield ("" if pair is None else "['text']"), text
        if pair is not None:
            yield "['text_pair']", pair

    def _run(self, step: Step, options: TextClassificationOptions) -> list[Any]:
        results: list[Any] = []
        # The tokenizer takes texts or pairs.
        for is_pair, group in groupby(enumerate(step.items), lambda item: item[1][1] is not None):
            places, items = zip(*group, strict=True)
            ragged = self._encode(
                step,
                [text for text, _ in items],
                [pair for _, pair in items] if is_pair else None,
                places=places,
                hint="; truncation=True cuts it off",
                **options.for_tokenizer(self._max_length),
            )
            scores = self._scores(self._logits(ragged, step), options)
            results += self._labelled(scores, options.top_k)
        return results

    def _scores(self, logits: npt.NDArray[np.float32], options: TextClassificationOptions) -> Any:
        """(B, K) of the same."""
        function, kind = options.function_to_apply, self._encoder.config.get("problem_type")
        if function in (None, "default"):
            if kind == "regression":
                function = "none"
            elif kind == "multi_label_classification" or logits.shape[1] == 1:
                function = "sigmoid"
            else:
                function = "softmax"
        return {"sigmoid": sigmoid, "softmax": softmax}.get(str(function), np.asarray)(logits)

    def _labelled(self, scores: Any, top_k: int | str | None) -> list[Any]:
        labels = self._encoder.labels
        best = np.argsort(-scores, axis=1, kind="stable")
        if top_k == _NOT_GIVEN:
            return [
                {"label": labels[first], "score": float(row[first])}
                for first, row in zip(best[:, 0].tolist(), scores, strict=True)
            ]
        return [
            [{"label": labels[index], "score": float(row[index])} for index in order]
            for order, row in zip(
                best[:, : top_k if isinstance(top_k, int) else None].tolist(), scores, strict=True
            )
        ]
