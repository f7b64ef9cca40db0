"""What a worker computes: texts in, an Arrow column out. Data sets and files of pieces share it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bertfast import arguments
from bertfast.distributed.model import Model, open_model
from bertfast.errors import ArgumentError
from bertfast.pipelines import TASKS, pipeline

if TYPE_CHECKING:
    import pyarrow as pa

VECTORS = "vectors"
"""The work that is no task of a pipeline."""

Input = tuple[str, ...]
"""The texts of a row, in the order of `Work.columns`."""

_OF_AN_INPUT = re.compile(r"^(inputs|sentences)(\[(\d+)\])?")


class RowError(ArgumentError):
    """A row cannot be computed.

    Attributes:
        index: Its place among the inputs.
        reason: What is wrong with it.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"row {index}: {reason}")
        self.index, self.reason = index, reason

    def __reduce__(self) -> Any:
        return type(self), (self.index, self.reason)


@dataclass(frozen=True)
class Work:
    """What is to be computed, in plain data that travels to the workers."""

    task: str
    """`VECTORS`, or one of `bertfast.pipelines.TASKS`."""
    model: Model
    columns: Mapping[str, str]
    """What the parts of an input are called, and the columns that they are in."""
    output_column: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `Encoder.encode` or of the pipeline."""
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.task != VECTORS:
            arguments.check_choice("task", self.task, tuple(TASKS))
        for name in (*self.columns.values(), self.output_column):
            if not isinstance(name, str):
                raise TypeError(f"column: expected str, got {type(name).__name__}")
        if self.batch_tokens is not None:
            arguments.check_positive("batch_tokens", self.batch_tokens)

    def identity(self) -> dict[str, Any]:
        """What decides about the bits of a result."""
        return {
            "task": self.task,
            "columns": dict(self.columns),
            "output_column": self.output_column,
            "options": dict(self.options),
            **self.model.identity(),
        }

    def open(self, num_threads: int) -> Computer:
        """What computes it, with the weights mapped: once in the process of a worker."""
        # Ray limits the threads of a process to the CPUs that it reserves, which may be fewer.
        os.environ["BERTFAST_NUM_THREADS"] = str(num_threads)
        encoder = open_model(self.model, num_threads)
        if self.task == VECTORS:
            return Vectors(encoder, self)
        return Predictions(pipeline(self.task, encoder, **self.options), self)


class Computer:
    """What computes some work on a worker.

    Attributes:
        type: Of the column that comes out.
    """

    type: pa.DataType

    def compute(self, inputs: Sequence[Input]) -> pa.Array:
        """The results of n inputs, n rows of `type`.

        Raises:
            RowError: One of them cannot be computed.
        """
        column, errors = self.compute_what_can_be(inputs, most=1)
        for error in errors:
            raise error
        return column

    def compute_what_can_be(
        self, inputs: Sequence[Input], most: int | None = None
    ) -> tuple[pa.Array, list[RowError]]:
        """The results of the inputs that can be computed, and what is wrong with the others.

        Args:
            inputs: n inputs.
            most: Stop after so many errors; there are fewer results then.

        Raises:
            BertFastError: An error that is not about an input.
        """
        try:
            return self._compute(inputs), []
        except (ArgumentError, TypeError) as error:
            if not _names_an_input(error):
                raise
            if len(inputs) == 1:
                return self._nothing(), [RowError(0, _reason(error))]
            failed = error
        # Which ones it were is found by halves: what is computed again has the same bits.
        half = len(inputs) // 2
        first, errors = self.compute_what_can_be(inputs[:half], most)
        if most is not None and len(errors) >= most:
            return first, errors
        second, more = self.compute_what_can_be(inputs[half:], None if most is None else most - len(errors))
        errors += [RowError(half + error.index, error.reason) for error in more]
        if not errors:
            raise failed
        return _joined(first, second), errors

    def _nothing(self) -> pa.Array:
        import pyarrow as pa

        return pa.array([], self.type)

    def _compute(self, inputs: Sequence[Input]) -> pa.Array:
        raise NotImplementedError

    @property
    def truncated(self) -> int:
        """How many texts were cut off so far."""
        return 0


class Vectors(Computer):
    """One vector a text: a column of lists of fixed size, not copied from numpy."""

    def __init__(self, encoder: Any, work: Work) -> None:
        import pyarrow as pa

        self._encoder = encoder
        self._options = dict(work.options) | {"batch_tokens": work.batch_tokens}
        # Wrong options come to light at once, and what they make of the length of a vector.
        empty = encoder.encode([], **self._options)
        self._dimension = int(empty.shape[1])
        self.type = pa.list_(pa.float32(), self._dimension)

    def _compute(self, inputs: Sequence[Input]) -> pa.Array:
        import pyarrow as pa

        texts = [text for (text,) in inputs]
        vectors = self._encoder.encode(texts, show_progress_bar=False, **self._options)
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, type=self.type)

    @property
    def truncated(self) -> int:
        """As the encoder counts."""
        return int(self._encoder.info()["truncated_texts"])


class Predictions(Computer):
    """One prediction a row, in a type that depends on the task and its options only."""

    def __init__(self, predict: Any, work: Work) -> None:
        self._predict = predict
        self._batch_tokens = work.batch_tokens
        self._keys = tuple(work.columns)
        self._alone = self._keys == ("text",)
        self.type, self._shape = _result(work)

    def _compute(self, inputs: Sequence[Input]) -> pa.Array:
        import pyarrow as pa

        results = self._predict(self._items(inputs), show_progress_bar=False, batch_tokens=self._batch_tokens)
        return pa.array([self._shape(result) for result in results], self.type)

    @property
    def truncated(self) -> int:
        """As the pipeline counts."""
        return int(self._predict.truncated_texts)

    def _items(self, inputs: Iterable[Input]) -> Iterable[Any]:
        for texts in inputs:
            yield texts[0] if self._alone else dict(zip(self._keys, texts, strict=True))


def _result(work: Work) -> tuple[pa.DataType, Callable[[Any], Any]]:
    """The type of a task's results, and what makes a result one of that type.

    Pipelines, as in transformers, leave out a list of one entry here and there. A column has one type.
    """
    import pyarrow as pa

    real, whole, text = pa.float64(), pa.int64(), pa.string()
    options = work.options
    if work.task == "text-classification":
        label = pa.struct([("label", text), ("score", real)])
        return (pa.list_(label) if "top_k" in options else label), _as_it_is
    if work.task == "token-classification":
        grouped = options.get("aggregation_strategy", "none") != "none"
        names = [("entity_group", text)] if grouped else [("entity", text)]
        names += [("score", real), *([] if grouped else [("index", whole)]), ("word", text)]
        return pa.list_(pa.struct([*names, ("start", whole), ("end", whole)])), _as_it_is
    if work.task == "fill-mask":
        token = pa.struct([("score", real), ("token", whole), ("token_str", text), ("sequence", text)])
        return pa.list_(pa.list_(token)), lambda found: found if isinstance(found[0], list) else [found]
    if work.task == "question-answering":
        answer = pa.struct([("score", real), ("start", whole), ("end", whole), ("answer", text)])
        if options.get("top_k", 1) == 1:
            return answer, _as_it_is
        return pa.list_(answer), lambda found: found if isinstance(found, list) else [found]
    # feature-extraction: the pipeline puts one list around.
    return pa.list_(pa.list_(pa.float32())), lambda found: found[0]


def _joined(first: pa.Array, second: pa.Array) -> pa.Array:
    import pyarrow as pa

    return pa.concat_arrays([first, second])


def _as_it_is(found: Any) -> Any:
    return found


def _names_an_input(error: Exception) -> bool:
    return _OF_AN_INPUT.match(str(error)) is not None or "inputs[" in str(error)


def _reason(error: Exception) -> str:
    return _OF_AN_INPUT.sub("", str(error)).removeprefix(": ")


def texts_of(column: Any, name: str) -> list[str | None]:
    """The texts of an Arrow column.

    Args:
        column: An array, or one of chunks.
        name: What messages call it.

    Returns:
        The texts, None where one is missing.

    Raises:
        ArgumentError: Its type is none of texts.
    """
    import pyarrow as pa

    check_text_type(column.type, name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    texts: list[str | None] = column.to_pylist()
    return texts


def check_text_type(kind: Any, name: str) -> None:
    """An `ArgumentError` about a column if its type is none of texts."""
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    views = getattr(pa.types, "is_string_view", lambda _: False)
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or views(inner)):
        raise ArgumentError(f"{name}: expected strings, got {kind}")
