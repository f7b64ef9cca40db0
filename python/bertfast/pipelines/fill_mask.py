"""Texts with a hidden token to the tokens that may be there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast import arguments
from bertfast.errors import ArgumentError
from bertfast.pipelines.base import Pipeline, Step, pieces
from bertfast.pipelines.scores import softmax
from bertfast.pipelines.truncation_options import TruncationOptions
from bertfast.tokenizer import Ragged

__all__ = ["FillMaskPipeline"]

Int64Array = npt.NDArray[np.int64]

# The scores of the whole vocabulary are held for the masks of a call of the engine. Where a step has more
# than these, a call gets this many tokens, which may all be masks.
_MASKS_AT_ONCE = 512


@dataclass(frozen=True)
class FillMaskOptions:
    """The options of `FillMaskPipeline`."""

    top_k: int | None = None
    targets: str | Sequence[str] | None = None
    tokenizer_kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Resolved:
    top_k: int
    targets: Int64Array | None
    """Ids, rising."""
    tokenizing: TruncationOptions


class FillMaskPipeline(Pipeline):
    """The most probable tokens in place of each mask token of a text.

    The result of a text is a list of dicts, the best first: ``score``, ``token`` (its id), ``token_str`` and
    ``sequence``, the text with the token in place. With several masks in a text it is a list of such lists;
    each mask is filled by itself, and the others stay. A list of one text gives the result of that text, as
    in transformers.

    Options:
        top_k (int): How many tokens, 5 by default.
        targets (str or list of str): Only these tokens; of a text that is no token the first one, with a
            warning. Scores are those among all tokens all the same.
        tokenizer_kwargs (dict): ``truncation``, ``max_length``, ``add_special_tokens``. Without truncation
            texts that the model is too short for are an error.

    Example:
        >>> fill = bertfast.pipeline("fill-mask", "bert-base-uncased/")  # doctest: +SKIP
        >>> fill("Paris is the [MASK].", top_k=1)  # doctest: +SKIP
        [{'score': 0.94, 'token': 3007, 'token_str': 'capital', 'sequence': 'paris is the capital.'}]

    Source: ``FillMaskPipeline`` of transformers.
    """

    task = "fill-mask"
    head = "masked-lm"
    options_type = FillMaskOptions

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """As `Pipeline.__call__`."""
        results = super().__call__(inputs, **options)
        return results[0] if isinstance(inputs, list) and len(inputs) == 1 else results

    def _resolve(self, given: Mapping[str, Any]) -> _Resolved:
        options: FillMaskOptions = super()._resolve(given)
        if self._tokenizer.mask_token_id is None:
            raise ArgumentError("tokenizer: expected one with a mask token, this one has none")
        most: int = self._engine.info()["num_labels"]
        top_k = 5 if options.top_k is None else arguments.check_positive("top_k", options.top_k)
        if options.top_k is not None and top_k > most:
            raise ArgumentError(f"top_k: expected at most {most}, the tokens that there are, got {top_k}")
        return _Resolved(
            min(top_k, most),
            None if options.targets is None else self._target_ids(options.targets, most),
            TruncationOptions.of("tokenizer_kwargs", options.tokenizer_kwargs),
        )

    def _target_ids(self, targets: str | Sequence[str], most: int) -> Int64Array:
        targets = [targets] if isinstance(targets, str) else list(targets)
        vocab = self._tokenizer.get_vocab()
        ids: set[int] = set()
        for place, target in enumerate(targets):
            if not isinstance(target, str):
                raise TypeError(f"targets[{place}]: expected str, got {type(target).__name__}")
            if target in vocab:
                ids.add(vocab[target])
                continue
            found = self._tokenizer.encode(target, add_special_tokens=False)
            if not found:
                warnings.warn(f"targets[{place}]: {target!r} is no token and is left out", stacklevel=5)
                continue
            first = self._tokenizer.convert_ids_to_tokens(found[0])
            warnings.warn(f"targets[{place}]: {target!r} is no token, {first!r} is taken", stacklevel=5)
            ids.add(found[0])
        if not ids:
            raise ArgumentError("targets: expected at least one that is a token, got none")
        if max(ids) >= most:
            raise ArgumentError(f"targets: expected tokens that the model knows, got id {max(ids)} of {most}")
        return np.array(sorted(ids), np.int64)

    def _size(self, item: str, options: _Resolved) -> int:
        return options.tokenizing.most_tokens(len(item), self._max_length)

    def _run(self, step: Step, options: _Resolved) -> list[Any]:
        ragged = self._encode(
            step,
            step.items,
            hint="; tokenizer_kwargs={'truncation': True} cuts it off",
            **options.tokenizing.for_tokenizer(self._max_length),
        )
        rows = np.flatnonzero(ragged.input_ids == self._tokenizer.mask_token_id)
        # Where the masks of each text begin.
        ends = np.searchsorted(rows, ragged.cu_seqlens)
        without = np.flatnonzero(ends[1:] == ends[:-1])
        if len(without):
            name = step.name(int(without[0]))
            raise ArgumentError(
                f"{name}: expected a text with the mask token, got no {self._tokenizer.mask_token}"
            )
        scores, tokens = self._best(ragged, rows, ends, step, options)
        results: list[Any] = []
        for sample, (first, last) in enumerate(pairwise(ends.tolist())):
            start, stop = ragged.cu_seqlens[sample : sample + 2]
            ids = ragged.input_ids[start:stop]
            filled = [
                self._filled(
                    ids, int(rows[mask] - start), scores[mask], tokens[mask], alone=last - first == 1
                )
                for mask in range(first, last)
            ]
            results.append(filled[0] if len(filled) == 1 else filled)
        return results

    def _best(
        self, ragged: Ragged, rows: Int64Array, ends: Int64Array, step: Step, options: _Resolved
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Scores and ids (R, k) of the best tokens of each mask, falling."""
        most = step.batch_tokens if len(rows) <= _MASKS_AT_ONCE else min(step.batch_tokens, _MASKS_AT_ONCE)
        best: npt.NDArray[Any]
        ids: npt.NDArray[Any]
        scores: list[npt.NDArray[Any]] = []
        tokens: list[npt.NDArray[Any]] = []
        for piece in pieces(ragged, most):
            masks = rows[ends[piece.start] : ends[piece.stop]] - piece.first_token
            arrays = piece.input_ids, piece.cu_seqlens, piece.token_type_ids
            if options.targets is None:
                best, ids = self._engine.top_k(*arrays, masks, options.top_k, num_threads=step.num_threads)
            else:
                logits = self._engine.forward(
                    *arrays,
                    last_hidden_state=False,
                    pooler_output=False,
                    logits=True,
                    rows=masks,
                    num_threads=step.num_threads,
                )["logits"]
                among = softmax(logits)[:, options.targets]
                order = np.argsort(-among, axis=1, kind="stable")[:, : options.top_k]
                best, ids = np.take_along_axis(among, order, axis=1), options.targets[order]
            scores.append(best)
            tokens.append(ids)
        return np.concatenate(scores), np.concatenate(tokens)

    def _filled(
        self,
        ids: npt.NDArray[Any],
        place: int,
        scores: npt.NDArray[Any],
        tokens: npt.NDArray[Any],
        *,
        alone: bool,
    ) -> list[dict[str, Any]]:
        """What may be in the place of one mask, the best first; ``alone`` if the text has no other."""
        ids, found = ids.copy(), []
        for score, token in zip(scores.tolist(), tokens.tolist(), strict=True):
            ids[place] = token
            # Other masks are special tokens too, and are to be seen.
            sequence = self._tokenizer.decode(
                ids[ids != self._tokenizer.pad_token_id], skip_special_tokens=alone
            )
            found.append(
                {
                    "score": score,
                    "token": token,
                    "token_str": self._tokenizer.decode([token]),
                    "sequence": sequence,
                }
            )
        return found
