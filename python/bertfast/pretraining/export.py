"""Samples as files, with the columns of Google's original: for programs that read those."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from bertfast.arguments import check_choice
from bertfast.progress import Progress, is_shown
from bertfast.whole_file import JsonLinesWriter, WholeFile

if TYPE_CHECKING:
    from bertfast.pretraining.dataset import PretrainingDataset

Format = Literal["parquet", "jsonl"]

# Of a batch: so many, but not more tokens.
_ROWS, _TOKENS = 1 << 10, 1 << 22
_PAIR_LABELS = ("next_sentence_label", "sentence_order_label")


def export_samples(
    dataset: PretrainingDataset,
    output: str,
    *,
    format: Format = "parquet",
    show_progress: bool | None = None,
) -> int:
    """Write all samples of a dataset's epoch into a file, which appears whole or not at all.

    The columns are those of ``create_pretraining_data.py``, padded as there, ids with the padding token and
    all else with 0: ``input_ids``, ``input_mask`` and ``segment_ids`` to ``max_seq_length``,
    ``masked_lm_positions``, ``masked_lm_ids`` and ``masked_lm_weights`` (1.0, and 0.0 for padding) to
    ``max_predictions_per_seq``, or not at all if the masking has no such limit. Samples of two texts have
    ``next_sentence_labels``, a list of one number; as in ALBERT's original it is the label of the order of
    sentences where that is what is asked. Samples of one text have neither ``segment_ids`` nor a label.

    Args:
        dataset: Its epoch is written; `dupe_factor` of its configuration says how often each text is sampled.
        output: The file.
        format: ``"parquet"`` (needs pyarrow: ``bertfast[corpus]``) or ``"jsonl"``.
        show_progress: Whether there is a bar; None asks the logger.

    Returns:
        The number of samples.

    Raises:
        OSError: The file cannot be written.
        ImportError: There is no pyarrow.

    Example:
        >>> dataset = PretrainingDataset("corpus/", PretrainingConfig.preset("bert", dupe_factor=10), seed=1)
        >>> export_samples(dataset, "samples.parquet")

    Source: ``write_instance_to_example_files`` of google-research/bert.
    """
    check_choice("format", format, ("parquet", "jsonl"))
    write = _write_parquet if format == "parquet" else _write_jsonl
    with Progress(total=len(dataset), unit="sample", shown=is_shown(show_progress)) as progress:
        write(output, _columns(dataset, progress))
    return len(dataset)


def _columns(dataset: PretrainingDataset, progress: Progress) -> Iterator[dict[str, Any]]:
    """The columns of some rows after the other; at least once, so that they are known."""
    width = dataset.config.masking.max_predictions_per_seq
    count = max(min(_ROWS, _TOKENS // max(dataset.config.max_seq_length, width or 0)), 1)
    for start in range(0, max(len(dataset), 1), count):
        rows = np.arange(start, min(start + count, len(dataset)))
        batch = dataset.batch(rows, padding="max_length")
        columns: dict[str, Any] = {
            "input_ids": batch["input_ids"],
            "input_mask": batch["attention_mask"],
        }
        if "token_type_ids" in batch:
            columns["segment_ids"] = batch["token_type_ids"]
        columns |= _predictions(batch["labels"], width)
        for name in _PAIR_LABELS:
            if name in batch:
                columns["next_sentence_labels"] = batch[name][:, None]
        yield columns
        progress.update(len(rows))


def _predictions(labels: npt.NDArray[np.int64], width: int | None) -> dict[str, Any]:
    """``masked_lm_*`` of rows: arrays (B, width), or lists if there is no width."""
    rows, positions = np.nonzero(labels != -100)
    ids = labels[rows, positions]
    counts = np.bincount(rows, minlength=len(labels))
    weights = np.ones(len(rows), np.float32)
    flat: dict[str, npt.NDArray[Any]] = {
        "masked_lm_positions": positions,
        "masked_lm_ids": ids,
        "masked_lm_weights": weights,
    }
    if width is None:
        return {name: np.split(values, counts.cumsum()[:-1]) for name, values in flat.items()}
    columns: dict[str, Any] = {}
    places = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    for name, values in flat.items():
        column = np.zeros((len(labels), width), values.dtype)
        column[rows, places] = values
        columns[name] = column
    return columns


def _write_jsonl(output: str, batches: Iterator[dict[str, Any]]) -> None:
    with JsonLinesWriter(output) as writer:
        for columns in batches:
            names = list(columns)
            for values in zip(*columns.values(), strict=True):
                writer.write({name: value.tolist() for name, value in zip(names, values, strict=True)})
        writer.commit()


def _write_parquet(output: str, batches: Iterator[dict[str, Any]]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'bertfast[corpus]'") from error

    def table(columns: dict[str, Any]) -> Any:
        arrays = {}
        for name, rows in columns.items():
            kind = pa.list_(pa.float32() if name == "masked_lm_weights" else pa.int32())
            arrays[name] = pa.array(list(rows), type=kind)
        return pa.table(arrays)

    with WholeFile(output) as file, contextlib.ExitStack() as stack:
        writer = None
        for columns in batches:
            rows = table(columns)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(file.file, rows.schema))
            writer.write_table(rows)
        stack.close()
        file.commit()
