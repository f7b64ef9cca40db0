"""`encode_dataset` and `predict_dataset`: a column more for a `ray.data.Dataset`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bertfast import arguments
from bertfast.distributed.cluster import fitting, import_ray, nodes
from bertfast.distributed.model import find_model
from bertfast.distributed.work import VECTORS, RowError, Work, texts_of
from bertfast.errors import ArgumentError
from bertfast.pipelines import TASKS, task_of

if TYPE_CHECKING:
    import pyarrow as pa
    import ray

_MOST_CPUS = 4
"""Of a worker by default: one process a CPU would cost memory, one a node would not fit every node."""


def encode_dataset(
    ds: ray.data.Dataset,
    model: str | os.PathLike[str],
    *,
    text_column: str = "text",
    output_column: str = "embedding",
    dtype: str | Sequence[str] = "auto",
    isa: str | None = None,
    num_cpus: int | None = None,
    concurrency: int | tuple[int, int] | None = None,
    batch_size: int = 1024,
    batch_tokens: int | None = None,
    path_column: str = "path",
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> ray.data.Dataset:
    """A data set with one vector more a row, computed on the cluster when the data set is consumed.

    A vector has the bits that `Encoder.encode` gives on one machine, on whatever node it was computed and
    however often a node failed meanwhile. Other columns stay as they are, and rows in the order in which Ray
    keeps them.

    Args:
        ds: With a column of strings.
        model: A folder that every node sees under this name, or a name on the Hugging Face hub. One made by
            ``bertfast quantize`` is mapped as it is; of any other each node packs a copy once, into its
            cache, that its workers share.
        text_column: The column with the texts.
        output_column: The new column: lists of float32 of fixed size.
        dtype: As in `Encoder.from_pretrained`.
        isa: The instruction set level of all workers; None for the best that all nodes have now.
        num_cpus: CPUs that a worker reserves, and threads that it computes with; None for 4, or fewer where
            nodes are small: a node must have a CPU left for what comes before, such as reading.
        concurrency: How many workers, or from how many to how many; None for one up to what fits.
        batch_size: Rows that a worker gets at once.
        batch_tokens: As in `Encoder.encode`.
        path_column: A column that messages name a row's file by, if there is one
            (``read_parquet(..., include_paths=True)`` makes it).
        cache_dir: Folder on each node for packed weights; None for ``~/.cache/bertfast/packed``.
        **options: ``prompt_name``, ``prompt``, ``normalize_embeddings``, ``truncate_dim`` and ``pooling`` as
            in `Encoder.encode`.

    Returns:
        A lazy data set, as all of Ray's are.

    Raises:
        ArgumentError: An argument has a value that is not allowed. When the data set is consumed: the column
            is missing, has another type or a null; the message names the row, and the file where it is known.
        ClusterError: Nodes have different files under the model's name, or different versions of bertfast.
        FileNotFoundError: A node does not see the model; the message names the node.
        ImportError: Ray is not installed.

    Example:
        >>> ds = ray.data.read_parquet("s3://bucket/texts")  # doctest: +SKIP
        >>> encode_dataset(ds, "all-MiniLM-L6-v2").write_parquet("s3://bucket/vectors")  # doctest: +SKIP

    Source: ``ray.data.Dataset.map_batches``.
    """
    _check_dataset(ds)
    known = ("prompt_name", "prompt", "normalize_embeddings", "truncate_dim", "pooling")
    for name in options:
        arguments.check_choice("options", name, known)
    work = Work(
        VECTORS,
        find_model(model, dtype=dtype, isa=isa, cache=cache_dir),
        {"text": text_column},
        output_column,
        options,
        batch_tokens,
    )
    return _mapped(ds, work, num_cpus, concurrency, batch_size, path_column)


def predict_dataset(
    task: str,
    ds: ray.data.Dataset,
    model: str | os.PathLike[str],
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    output_column: str = "prediction",
    dtype: str | Sequence[str] = "auto",
    isa: str | None = None,
    num_cpus: int | None = None,
    concurrency: int | tuple[int, int] | None = None,
    batch_size: int = 1024,
    batch_tokens: int | None = None,
    path_column: str = "path",
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> ray.data.Dataset:
    """A data set with one prediction more a row, computed on the cluster when the data set is consumed.

    A prediction is what `bertfast.pipeline` gives on one machine, to the last bit of its scores. A column has
    one type: where pipelines leave out a list with one entry, it is there: ``fill-mask`` gives a list a mask,
    ``question-answering`` with ``top_k`` above 1 a list a row; and ``feature-extraction`` a list a token.

    Args:
        task: As in `bertfast.pipeline`.
        ds: With one or two columns of strings.
        model: As in `encode_dataset`; so are the arguments not listed here.
        text_column: The column with the texts; None for ``"text"``, or ``"question"`` for question answering.
        pair_column: The column with the second texts of text classification, or with the contexts of question
            answering, where None is ``"context"``.
        output_column: The new column: structs, or lists of them.
        dtype: See `encode_dataset`.
        isa: See there.
        num_cpus: See there.
        concurrency: See there.
        batch_size: See there.
        batch_tokens: See there.
        path_column: See there.
        cache_dir: See there.
        **options: Options of the task, as in `bertfast.pipeline`.

    Returns:
        A lazy data set.

    Raises:
        ArgumentError: As `encode_dataset`; so are the other errors.

    Example:
        >>> ds = ray.data.from_items([{"text": "I like it."}])  # doctest: +SKIP
        >>> predict_dataset("sentiment-analysis", ds, "a-folder/").take()  # doctest: +SKIP
        [{'text': 'I like it.', 'prediction': {'label': 'POSITIVE', 'score': 0.9998}}]

    Source: ``ray.data.Dataset.map_batches``.
    """
    _check_dataset(ds)
    task = task_of(task)
    work = Work(
        task,
        find_model(model, dtype=dtype, isa=isa, cache=cache_dir, head=TASKS[task].head),
        input_columns(task, text_column, pair_column),
        output_column,
        options,
        batch_tokens,
    )
    return _mapped(ds, work, num_cpus, concurrency, batch_size, path_column)


def input_columns(task: str, text_column: str | None, pair_column: str | None) -> dict[str, str]:
    """What the parts of a task's input are called, and the columns that they are in.

    Raises:
        ArgumentError: The task has no second text.
    """
    if task == "question-answering":
        return {"question": text_column or "question", "context": pair_column or "context"}
    if pair_column is None:
        return {"text": text_column or "text"}
    if task != "text-classification":
        raise ArgumentError(f"pair_column: expected None for {task}, got {pair_column!r}")
    return {"text": text_column or "text", "text_pair": pair_column}


def _check_dataset(ds: Any) -> None:
    data = import_ray().data
    if not isinstance(ds, data.Dataset):
        raise TypeError(f"ds: expected a ray.data.Dataset, got {type(ds).__name__}")


def _mapped(
    ds: Any,
    work: Work,
    num_cpus: int | None,
    concurrency: int | tuple[int, int] | None,
    batch_size: int,
    path_column: str,
) -> Any:
    cpus = default_cpus(spare=1) if num_cpus is None else arguments.check_positive("num_cpus", num_cpus)
    fit = fitting(cpus, "num_cpus")
    strategy = pool((1, fit) if concurrency is None else concurrency)
    there = sum(node.cpus for node in nodes())
    # All CPUs for one worker, and whatever comes before it would wait for ever.
    reserved = max(min(cpus, there - 1), 0)
    least = concurrency[0] if isinstance(concurrency, tuple) else concurrency or 1
    is_in_memory = isinstance(ds, import_ray().data.dataset.MaterializedDataset)
    if least > 1 and least * reserved > there - 1 and not is_in_memory:
        warnings.warn(
            f"concurrency: {least} workers with a num_cpus of {cpus} leave none of {there:g} CPUs for what "
            "comes before them, such as reading: unless the cluster grows, that waits for ever",
            stacklevel=3,
        )
    return ds.map_batches(
        Batches,
        fn_constructor_args=(work, cpus, path_column),
        compute=strategy,
        batch_size=arguments.check_positive("batch_size", batch_size),
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=reserved,
    )


def default_cpus(spare: int) -> int:
    """CPUs of a worker, so that a node of this cluster has so many left."""
    smallest = int(min(node.cpus for node in nodes()))
    return max(min(_MOST_CPUS, smallest - spare), 1)


def pool(concurrency: int | tuple[int, int], **options: Any) -> Any:
    """That many actors, for Ray."""
    strategy = import_ray().data.ActorPoolStrategy
    numbers = concurrency if isinstance(concurrency, tuple) else (concurrency,)
    if len(numbers) not in (1, 2) or not all(arguments.is_int(one) and one > 0 for one in numbers):
        raise ArgumentError(f"concurrency: expected a positive integer or two, got {concurrency!r}")
    if len(numbers) == 1:
        return strategy(size=numbers[0], **options)
    if numbers[0] > numbers[1]:
        raise ArgumentError(f"concurrency: expected the least first, got {concurrency!r}")
    return strategy(min_size=numbers[0], max_size=numbers[1], **options)


class Batches:
    """An actor of a data set: tables in, tables with a column more out."""

    def __init__(self, work: Work, num_threads: int, path_column: str) -> None:
        self._work, self._threads, self._path = work, num_threads, path_column
        # Opened with the first batch: an error is raised as it is then, and not as one of the actor.
        self._computer: Any = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """(n, c) to (n, c + 1)."""
        if self._computer is None:
            self._computer = self._work.open(self._threads)
        columns = list(self._work.columns.values())
        for name in columns:
            if name not in table.column_names:
                found = ", ".join(map(repr, table.column_names))
                raise ArgumentError(f"{self._where(table)}column: expected {name!r}, got {found}")
        if self._work.output_column in table.column_names:
            name = self._work.output_column
            raise ArgumentError(f"output_column: expected a new name, got {name!r}, which is there already")
        where = self._where(table)
        texts = [texts_of(table[name], f"{where}column {name!r}") for name in columns]
        for name, column in zip(columns, texts, strict=True):
            if None in column:
                row = column.index(None)
                raise ArgumentError(f"{self._row(table, row)}: column {name!r}: expected str, got null")
        inputs: Any = list(zip(*texts, strict=True))
        try:
            results = self._computer.compute(inputs)
        except RowError as error:
            raise ArgumentError(f"{self._row(table, error.index)}: {error.reason}") from error
        return table.append_column(self._work.output_column, results)

    def _where(self, table: pa.Table) -> str:
        """The file of a batch, for messages, if it has only one."""
        if self._path not in table.column_names or self._path in self._work.columns.values():
            return ""
        paths = table[self._path].unique().to_pylist()
        return f"{paths[0]}: " if len(paths) == 1 else ""

    def _row(self, table: pa.Table, row: int) -> str:
        """A row for messages: by its file, and by what else it has."""
        entry = {
            name: value
            for name, value in table.slice(row, 1).to_pylist()[0].items()
            if isinstance(value, (str, int, float)) and name != self._path
        }
        shown = ", ".join(f"{name}={str(value)[:40]!r}" for name, value in list(entry.items())[:4])
        place = f"row {row} of a batch of {len(table)}"
        if self._path in table.column_names and self._path not in self._work.columns.values():
            place = f"{table[self._path][row].as_py()}: {place}"
        return f"{place} ({shown})" if shown else place
