"""What all pipelines share: one input, many or a stream of them, in bounded steps.

A subclass says what an input is (`Pipeline._check`), how long it is at most (`Pipeline._size`), which
options there are (`Pipeline.options_type`) and what a step's inputs become (`Pipeline._run`). Everything else
is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from bertfast import arguments
from bertfast.errors import ArgumentError
from bertfast.padding import Limits
from bertfast.progress import Progress, is_shown
from bertfast.steps import DEFAULT_BATCH_TOKENS

if TYPE_CHECKING:
    from bertfast.encoder import Encoder
    from bertfast.tokenizer import Ragged, Tokenizer

__all__ = ["Piece", "Pipeline", "Step", "pieces"]

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NoOptions:
    """The options of a task that has none."""


@dataclass(frozen=True)
class Step:
    """The inputs that are computed between two chances for Ctrl-C, and how."""

    items: list[Any]
    """What `Pipeline._check` returned for each input."""
    first: int | None
    """Place of the first of them among all inputs; None if there is only one, which came alone."""
    batch_tokens: int
    """Tokens per call of the engine at most, as far as a single sequence allows."""
    num_threads: int | None

    def name(self, index: int) -> str:
        """What messages call an input of this step."""
        return "inputs" if self.first is None else f"inputs[{self.first + index}]"


@dataclass(frozen=True)
class Piece:
    """Some of the sequences of a `Ragged`, for one call of the engine."""

    start: int
    """Number of the first sequence."""
    stop: int
    first_token: int
    """Number of the first token."""
    last_token: int
    """Number of the token after the last one."""
    input_ids: npt.NDArray[np.int32]
    cu_seqlens: npt.NDArray[np.int64]
    token_type_ids: npt.NDArray[np.int32] | None

    def sequences(self) -> Iterator[tuple[int, int]]:
        """Where each sequence starts and stops in this piece."""
        return pairwise(self.cu_seqlens.tolist())


def pieces(ragged: Ragged, most: int) -> Iterator[Piece]:
    """Cut sequences into pieces of at most ``most`` tokens; one that has more is a piece of its own.

    Args:
        ragged: B sequences of T tokens.
        most: Tokens of a piece.

    Yields:
        All B sequences, in order; nothing is copied.
    """
    ids, ends, types = ragged.input_ids, ragged.cu_seqlens, ragged.token_type_ids
    start, count = 0, len(ends) - 1
    while start < count:
        first = int(ends[start])
        stop = max(int(np.searchsorted(ends, first + most, side="right")) - 1, start + 1)
        last = int(ends[stop])
        yield Piece(
            start,
            stop,
            first,
            last,
            ids[first:last],
            ends[start : stop + 1] - first,
            None if types is None else types[first:last],
        )
        start = stop


class Pipeline:
    """A model with a head, its tokenizer, and what is done with the scores; `bertfast.pipeline` opens one.

    Calls share nothing but the model, so any number of threads may use a pipeline at the same time.
    """

    task: ClassVar[str]
    head: ClassVar[str | None] = None
    """What the encoder must have been opened with; None if it does not matter."""
    options_type: ClassVar[type[Any]] = NoOptions
    """A frozen dataclass, every field with a default; its ``__post_init__`` checks the values."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        tokenizer: Tokenizer | None = None,
        num_threads: int | None = None,
        **options: Any,
    ) -> None:
        """Put the parts together; `bertfast.pipeline` is the usual way.

        Args:
            encoder: Opened with the head of this task.
            tokenizer: None for the encoder's own.
            num_threads: Limit on the threads of every call.
            **options: For every call that does not say otherwise.

        Raises:
            ArgumentError: The encoder has another head, or an option has a value that is not allowed.
            TokenizerError: The encoder has no tokenizer.
        """
        if self.head is not None and encoder.head != self.head:
            raise ArgumentError(
                f"model: expected an encoder with head={self.head!r}, got one with head={encoder.head!r}"
            )
        self._encoder = encoder
        self._engine = encoder.engine
        self._tokenizer = encoder.tokenizer if tokenizer is None else tokenizer
        self._num_threads = arguments.check_num_threads(num_threads)
        limits = Limits.of(self._engine.info())
        self._longest = limits.longest
        self._max_length = min(limits.longest, self._tokenizer.model_max_length)
        self._wants_types = limits.type_vocab_size > 0 and (
            "token_type_ids" in self._tokenizer.model_input_names
        )
        self._defaults = options
        self._resolve(options)
        self.truncated_texts = 0
        """How many texts were too long and cut off although nobody asked for that."""

    @property
    def encoder(self) -> Encoder:
        """The model."""
        return self._encoder

    @property
    def tokenizer(self) -> Tokenizer:
        """What texts are tokenized with."""
        return self._tokenizer

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._tokenizer!r})"

    def __call__(
        self,
        inputs: Any,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        num_threads: int | None = None,
        batch_tokens: int | None = None,
        **options: Any,
    ) -> Any:
        """Compute results; with the Rust engine an input has the same alone and among others.

        Args:
            inputs: One input (what that is, the class of the task says), a sequence of them, or any other
                iterable, which is taken as results are asked for: a step's inputs are held at a time.
            batch_size: At most this many inputs per step. There is no padding, so on a CPU it hardly matters;
                a GPU wants more short texts at once.
            show_progress_bar: None shows it if the logger ``bertfast`` is at level INFO or DEBUG.
            num_threads: Limit on the threads of this call.
            batch_tokens: At most about this many tokens per step. Between steps the bar moves, and Ctrl-C is
                heard.
            **options: Options of the task, in place of those that the pipeline was opened with.

        Returns:
            The result of one input; for a sequence a list of results; for another iterable an iterator over
            them.

        Raises:
            TypeError: An input is none; the message says which.
            ArgumentError: An option has a value that is not allowed, or an input cannot be computed.
        """
        arguments.check_positive("batch_size", batch_size)
        most = arguments.check_positive(
            "batch_tokens", DEFAULT_BATCH_TOKENS if batch_tokens is None else batch_tokens
        )
        threads = arguments.check_num_threads(num_threads)
        threads = self._num_threads if threads is None else threads
        shown = is_shown(show_progress_bar)
        resolved = self._resolve(self._defaults | options)
        if isinstance(inputs, np.ndarray):
            inputs = inputs.tolist()  # Python's own str for its elements
        if self._is_one(inputs, resolved):
            step = Step([self._check(inputs, "inputs", resolved)], None, most, threads)
            return self._alone(self._computed(step, resolved)[0], resolved)
        if not isinstance(inputs, Iterable) and hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):
            inputs = map(inputs.__getitem__, range(len(inputs)))  # a data set of torch's kind
        if not isinstance(inputs, Iterable) or isinstance(inputs, (bytes, bytearray, Mapping)):
            raise TypeError(f"inputs: expected {self._expected(resolved)}, got {type(inputs).__name__}")
        if isinstance(inputs, Sequence):
            # All are looked at before anything is computed: the mistake in the last one is said at once.
            items = [self._check(item, f"inputs[{place}]", resolved) for place, item in enumerate(inputs)]
            steps = self._steps(items, resolved, batch_size, most, threads)
            return list(self._results(steps, resolved, len(items), shown))
        checked = (self._check(item, f"inputs[{place}]", resolved) for place, item in enumerate(inputs))
        steps = self._steps(checked, resolved, batch_size, most, threads)
        return self._results(steps, resolved, None, shown)

    # ----------------------------------------------------------------------------- what a subclass overrides

    def _resolve(self, given: Mapping[str, Any]) -> Any:
        """The options of a call, checked; what is not given has its default."""
        known = [field.name for field in fields(self.options_type)]
        for name in given:
            if name not in known:
                expected = f"one of {', '.join(known)}" if known else "none"
                raise ArgumentError(f"options of {self.task}: expected {expected}, got {name!r}")
        return self.options_type(**given)

    def _is_one(self, inputs: Any, options: Any) -> bool:
        """Whether it is one input and not several."""
        return isinstance(inputs, (str, Mapping))

    def _expected(self, options: Any) -> str:
        """What `inputs` may be, in the words of a message."""
        return "a text or texts"

    def _check(self, item: Any, name: str, options: Any) -> Any:
        """One input as `_run` gets it; ``name`` is what messages call it.

        Raises:
            TypeError: It is no input.
            ArgumentError: It is one that cannot be computed.
        """
        if not isinstance(item, str):
            raise TypeError(f"{name}: expected str, got {type(item).__name__}")
        return item

    def _alone(self, result: Any, options: Any) -> Any:
        """What is returned for one input that came alone."""
        return result

    def _size(self, item: Any, options: Any) -> int:
        """Tokens of an input, at most and roughly: a token is a character at least."""
        return len(item) + 2

    def _texts(self, item: Any) -> Iterator[tuple[str, str]]:
        """The texts of an input, each with what messages put behind the name of the input."""
        yield "", item

    def _run(self, step: Step, options: Any) -> list[Any]:
        """The results of a step, one for each input."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------- what a subclass may use

    def _encode(
        self,
        step: Step,
        texts: Sequence[Any],
        pairs: Sequence[Any] | None = None,
        *,
        places: Sequence[int] | None = None,
        hint: str = "",
        **options: Any,
    ) -> Ragged:
        """Texts to tokens that the engine takes.

        Args:
            step: Whose texts they are.
            texts: As `Tokenizer.encode_ragged` takes them.
            pairs: The second texts, if there are any.
            places: Places of the texts in the step; None if these are all, in order.
            hint: Put behind the message about an input that is too long.
            **options: Of `Tokenizer.encode_ragged`.

        Raises:
            ArgumentError: An input has no tokens, or more than the model takes.
        """
        ragged = self._tokenizer.encode_ragged(
            texts, pairs, return_token_type_ids=self._wants_types, **options
        )
        lengths = np.diff(ragged.cu_seqlens)
        for bad in np.flatnonzero((lengths == 0) | (lengths > self._longest))[:1].tolist():
            sample = bad if ragged.overflow_to_sample is None else int(ragged.overflow_to_sample[bad])
            name = step.name(sample if places is None else places[sample])
            raise ArgumentError(
                f"{name}: expected at least one token, got none"
                if lengths[bad] == 0
                else f"{name}: expected at most {self._longest} tokens, got {lengths[bad]}{hint}"
            )
        return ragged

    def _logits(self, ragged: Ragged, step: Step) -> Float32Array:
        """What the head says: (B, K) or (T, K)."""
        parts = [
            self._engine.forward(
                piece.input_ids,
                piece.cu_seqlens,
                piece.token_type_ids,
                last_hidden_state=False,
                pooler_output=False,
                logits=True,
                num_threads=step.num_threads,
            )["logits"]
            for piece in pieces(ragged, step.batch_tokens)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    # ----------------------------------------------------------------------------------------------- private

    def _steps(
        self, items: Iterable[Any], options: Any, batch_size: int, most: int, threads: int | None
    ) -> Iterator[Step]:
        step: list[Any] = []
        first = tokens = 0
        mistake: Exception | None = None
        source = iter(items)
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:
                # What came before it is computed first.
                mistake = error
                break
            size = self._size(item, options)
            if step and tokens + size > most:
                yield Step(step, first, most, threads)
                first, step, tokens = first + len(step), [], 0
            step.append(item)
            tokens += size
            if len(step) == batch_size:
                yield Step(step, first, most, threads)
                first, step, tokens = first + len(step), [], 0
        if step:
            yield Step(step, first, most, threads)
        if mistake is not None:
            raise mistake

    def _results(self, steps: Iterator[Step], options: Any, total: int | None, shown: bool) -> Iterator[Any]:
        with Progress(total=total, unit="text", shown=shown) as progress:
            for step in steps:
                results = self._computed(step, options)
                progress.update(len(results))
                yield from results

    def _computed(self, step: Step, options: Any) -> list[Any]:
        with self._naming_bad_text(step):
            return self._run(step, options)

    @contextmanager
    def _naming_bad_text(self, step: Step) -> Iterator[None]:
        """An error about a lone surrogate names the input by its place among all, not in its step."""
        try:
            yield
        except ArgumentError:
            # Looked for only now: looking at every text beforehand would cost as much as a copy of them all.
            for index, item in enumerate(step.items):
                for suffix, text in self._texts(item):
                    arguments.check_utf8(f"{step.name(index)}{suffix}", text)
            raise
