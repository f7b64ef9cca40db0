"""The steps of ``Encoder.encode``: bounded pieces of the texts, one call of the engine each.

Between two steps the interpreter runs: that is where Ctrl-C works and the progress bar moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bertfast import _bertfast
from bertfast.arguments import check_text, check_utf8
from bertfast.errors import ArgumentError
from bertfast.other_kinds import AnyTokenizer
from bertfast.sentence import LowerCase, Normalize, VectorModule

Float32Array = npt.NDArray[np.float32]

DEFAULT_BATCH_TOKENS = 32768
"""Tokens per step: some MB of hidden states, and seconds at most between two chances for Ctrl-C."""


class Engine(Protocol):
    """What computes: ``bertfast._bertfast.Encoder``, or ``bertfast.models.backend.TorchEngine``."""

    def forward(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None = None,
        position_ids: npt.NDArray[np.int32] | None = None,
        *,
        last_hidden_state: bool = True,
        pooler_output: bool = True,
        hidden_states: bool = False,
        attentions: bool = False,
        logits: bool = False,
        rows: npt.NDArray[np.int64] | None = None,
        num_threads: int | None = None,
    ) -> dict[str, Any]:
        """Ragged ids (T,) to a dict of (T, D) and (B, D), and of a head's logits (B, K), (T, K) or (R, K)."""
        ...

    def top_k(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        rows: npt.NDArray[np.int64],
        k: int,
        num_threads: int | None = None,
    ) -> tuple[Float32Array, npt.NDArray[np.int32]]:
        """The k likeliest labels of the tokens ``rows``: probabilities and labels (R, k)."""
        ...

    def sparse(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        strategy: str,
        out: Float32Array,
        num_threads: int | None = None,
    ) -> None:
        """SPLADE's vectors (B, V) into ``out``."""
        ...

    def encode(
        self,
        tokenizer: _bertfast.Tokenizer,
        texts: list[str],
        *,
        prefix: str,
        max_length: int,
        modes: list[str],
        skip: int,
        normalize: bool,
        out: Float32Array,
        num_threads: int | None,
    ) -> int:
        """Texts to vectors in ``out``; how many texts were truncated."""
        ...

    def pool(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        modes: list[str],
        skip: int,
        normalize: bool,
        out: Float32Array,
        num_threads: int | None = None,
    ) -> None:
        """Ragged ids (T,) to vectors in ``out``."""
        ...

    def info(self) -> dict[str, Any]:
        """What runs."""
        ...


@dataclass(frozen=True)
class Job:
    """One call of `Encoder.encode`, its arguments resolved."""

    prefix: str
    """Put before each text."""
    lower: LowerCase | None
    """Applied to each text with its prefix."""
    skip: int
    """Leading tokens that pooling leaves out."""
    modes: tuple[str, ...]
    modules: tuple[VectorModule, ...]
    """What follows the pooling."""
    truncate_dim: int | None
    """None if nothing is cut off."""
    normalize: bool
    pooled_dimension: int
    """Length of a vector after pooling."""
    dimension: int
    """Length of a vector in the end."""
    max_length: int
    batch_size: int
    """Texts per step at most."""
    batch_tokens: int
    """Tokens per step at most, roughly."""
    num_threads: int | None


def plan(texts: list[str], job: Job) -> Iterator[tuple[int, int]]:
    """Where each step starts and stops."""
    return cut((_tokens_at_most(text, job) for text in texts), job)


def cut(costs: Iterable[int], job: Job) -> Iterator[tuple[int, int]]:
    """Where each step starts and stops, of inputs that cost so many tokens at most."""
    start = stop = tokens = 0
    for cost in costs:
        if stop > start and (tokens + cost > job.batch_tokens or stop - start >= job.batch_size):
            yield start, stop
            start, tokens = stop, 0
        stop += 1
        tokens += cost
    if start < stop:
        yield start, stop


def stream(texts: Iterable[str], job: Job) -> Iterator[list[str]]:
    """The texts of each step, taken as they are needed."""
    step: list[str] = []
    tokens = 0
    for index, text in enumerate(texts):
        cost = _tokens_at_most(check_text(text, index), job)
        if step and (tokens + cost > job.batch_tokens or len(step) >= job.batch_size):
            yield step
            step, tokens = [], 0
        step.append(text)
        tokens += cost
    if step:
        yield step


def _tokens_at_most(text: str, job: Job) -> int:
    # A token is at least one character (where it is of bytes, about one), and there are two special ones.
    # Tokenizing happens in the step itself.
    return min(len(text) + len(job.prefix) + 2, job.max_length)


@contextmanager
def naming_bad_text(texts: list[str], first: int) -> Iterator[None]:
    """An error about a lone surrogate names the text by its place among all texts, not in its step.

    Args:
        texts: The texts of the step.
        first: Place of the first of them.
    """
    try:
        yield
    except ArgumentError:
        # Looked for only now: looking at every text beforehand would cost as much as a copy of them all.
        for index, text in enumerate(texts, start=first):
            check_utf8(f"sentences[{index}]", text)
        raise


def run(engine: Engine, tokenizer: AnyTokenizer, texts: list[str], job: Job, out: Float32Array) -> int:
    """Encode the texts of one step.

    Args:
        engine: What computes.
        tokenizer: The engine's, not its wrapper.
        texts: The B texts of the step.
        job: What to do with them.
        out: (B, job.dimension), filled.

    Returns:
        How many texts were truncated.
    """
    last = job.truncate_dim is None and all(isinstance(module, Normalize) for module in job.modules)
    pooled = out if last else np.empty((len(texts), job.pooled_dimension), np.float32)
    prefix = job.prefix
    if job.lower is not None:
        texts, prefix = [job.lower(prefix + text) for text in texts], ""
    modes, normalize = list(job.modes), last and (job.normalize or bool(job.modules))
    if isinstance(tokenizer, _bertfast.Tokenizer):
        truncated = engine.encode(
            tokenizer,
            texts,
            prefix=prefix,
            max_length=job.max_length,
            modes=modes,
            skip=job.skip,
            normalize=normalize,
            out=pooled,
            num_threads=job.num_threads,
        )
    else:  # no engine can call it without the interpreter
        ragged = tokenizer.encode_ragged(
            [prefix + text for text in texts], truncation=True, max_length=job.max_length
        )
        ids, ends, truncated = ragged.input_ids, ragged.cu_seqlens, ragged.truncated
        engine.pool(ids, ends, None, modes, job.skip, normalize, pooled, job.num_threads)
    if not last:
        for module in job.modules:
            pooled = module(pooled)
        out[...] = pooled[:, : job.truncate_dim]
        if job.normalize:
            _bertfast.normalize(out)
    return truncated


def tokenize(tokenizer: AnyTokenizer, texts: list[str], job: Job) -> _bertfast.Ragged:
    """The tokens of the texts of one step, with their prefix, cut off where they are too long."""
    texts = [job.prefix + text for text in texts]
    if job.lower is not None:
        texts = [job.lower(text) for text in texts]
    return tokenizer.encode_ragged(texts, truncation=True, max_length=job.max_length)


def tokens(
    engine: Engine, tokenizer: AnyTokenizer, texts: list[str], job: Job
) -> tuple[list[dict[str, Any]], int]:
    """The hidden states of the texts of one step.

    Returns:
        One dict per text: ``input_ids``, ``token_type_ids``, ``attention_mask`` (s,) int64 and
        ``token_embeddings`` (s, D) float32, as torch tensors without padding; and how many texts were
        truncated.
    """
    import torch

    ragged = tokenize(tokenizer, texts, job)
    states = engine.forward(
        ragged.input_ids, ragged.cu_seqlens, pooler_output=False, num_threads=job.num_threads
    )
    hidden = torch.from_numpy(states["last_hidden_state"])
    ids = torch.from_numpy(ragged.input_ids.astype(np.int64))
    ends = ragged.cu_seqlens.tolist()
    results = [
        {
            "input_ids": ids[start:stop],
            "token_type_ids": torch.zeros(stop - start, dtype=torch.int64),
            "attention_mask": torch.ones(stop - start, dtype=torch.int64),
            "token_embeddings": hidden[start:stop],
        }
        for start, stop in pairwise(ends)
    ]
    return results, ragged.truncated
