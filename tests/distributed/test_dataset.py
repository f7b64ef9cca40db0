"""`encode_dataset` and `predict_dataset` beside one process, on three nodes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import transformers

import bertfast
from bertfast.distributed import encode_dataset, predict_dataset
from bertfast.distributed.cluster import cause_of
from bertfast.errors import ArgumentError
from bertfast.quantize import quantize
from sentence_folder import TEXTS
from task_folder import make_task_folder

LINES = [f"{text} {index}" for index in range(20) for text in TEXTS]


def dataset(texts: list[Any], **columns: list[Any]) -> Any:
    table = pa.table({"n": list(range(len(texts))), "text": texts, **columns})
    return ray.data.from_arrow([table.slice(start, 25) for start in range(0, len(texts), 25)])


def vectors_of(ds: Any, column: str = "embedding") -> np.ndarray:
    rows = sorted(ds.take_all(), key=lambda row: row["n"])
    assert [row["n"] for row in rows] == list(range(len(rows)))
    return np.array([row[column] for row in rows], np.float32)


def message_of(ds: Any) -> str:
    """What the error says that consuming it raises."""
    with pytest.raises(ray.exceptions.RayError) as found:
        ds.take_all()
    cause = cause_of(found.value)
    assert isinstance(cause, ArgumentError), cause
    # A user who catches nothing sees it too.
    assert str(cause) in str(found.value)
    return str(cause)


@pytest.mark.parametrize("dtype", ["float32", "int8", "auto"])
def test_vectors_have_the_bits_of_one_process(three_nodes: Any, tiny: Path, cache: Path, dtype: str) -> None:
    ds = encode_dataset(
        dataset(LINES, other=[[index] for index in range(120)]), tiny, dtype=dtype, cache_dir=cache
    )
    tables = list(ds.iter_batches(batch_format="pyarrow", batch_size=None))
    table = pa.concat_tables(tables).sort_by("n")
    assert table.column_names == ["n", "text", "other", "embedding"]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    assert table["text"].to_pylist() == LINES
    assert table["other"].to_pylist() == [[index] for index in range(120)]
    found = np.array(table["embedding"].to_pylist(), np.float32)
    assert np.array_equal(found, bertfast.Encoder.from_pretrained(tiny, dtype=dtype).encode(LINES))


def test_options_of_encode(three_nodes: Any, tiny: Path, cache: Path) -> None:
    ds = dataset(LINES).rename_columns({"text": "body"})
    options: dict[str, Any] = {
        "pooling": "max",
        "truncate_dim": 7,
        "normalize_embeddings": True,
        "prompt": "x ",
    }
    ds = encode_dataset(
        ds,
        tiny,
        text_column="body",
        output_column="v",
        batch_tokens=50,
        batch_size=7,
        num_cpus=1,
        concurrency=2,
        cache_dir=cache,
        **options,
    )
    expected = bertfast.Encoder.from_pretrained(tiny).encode(LINES, **options)
    assert np.array_equal(vectors_of(ds, "v"), expected)


def test_a_packed_folder_is_taken_as_it_is(three_nodes: Any, tiny: Path, tmp_path: Path) -> None:
    quantize(tiny, tmp_path / "packed", texts=LINES, mean_cosine=0, min_cosine=0)
    ds = encode_dataset(dataset(LINES), tmp_path / "packed", cache_dir=tmp_path / "cache")
    expected = bertfast.Encoder.from_pretrained(tmp_path / "packed").encode(LINES)
    assert np.array_equal(vectors_of(ds), expected)
    assert not (tmp_path / "cache").exists()


def test_weights_are_packed_once_and_shared(three_nodes: Any, tiny: Path, tmp_path: Path) -> None:
    ds = encode_dataset(dataset(LINES), tiny, cache_dir=tmp_path / "cache", concurrency=2, batch_size=10)
    expected = bertfast.Encoder.from_pretrained(tiny).encode(LINES)
    assert np.array_equal(vectors_of(ds), expected)
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    made = (folder / "bertfast.safetensors").stat()
    assert np.array_equal(vectors_of(ds), expected)
    again = (folder / "bertfast.safetensors").stat()
    assert (made.st_ino, made.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)
    # Without room for it the weights are opened as they are.
    (tmp_path / "file").touch()
    ds = encode_dataset(dataset(LINES), tiny, cache_dir=tmp_path / "file" / "cache")
    assert np.array_equal(vectors_of(ds), expected)


def test_another_model_of_the_same_name_is_packed_anew(three_nodes: Any, tmp_path: Path) -> None:
    from sentence_folder import make_sentence_folder

    for seed in (0, 1):
        make_sentence_folder(tmp_path / "model", seed=seed)
        ds = encode_dataset(dataset(LINES[:30]), tmp_path / "model", cache_dir=tmp_path / "cache")
        expected = bertfast.Encoder.from_pretrained(tmp_path / "model").encode(LINES[:30])
        assert np.array_equal(vectors_of(ds), expected)


def test_a_lesser_instruction_set(three_nodes: Any, tiny: Path, cache: Path) -> None:
    ds = encode_dataset(dataset(LINES), tiny, isa="scalar", cache_dir=cache)
    expected = bertfast.Encoder.from_pretrained(tiny, isa="scalar").encode(LINES)
    assert np.array_equal(vectors_of(ds), expected)


@pytest.mark.parametrize(
    ("task", "model", "options"),
    [
        ("sentiment-analysis", transformers.BertForSequenceClassification, {}),
        ("text-classification", transformers.BertForSequenceClassification, {"top_k": None}),
        ("ner", transformers.BertForTokenClassification, {}),
        ("ner", transformers.BertForTokenClassification, {"aggregation_strategy": "simple", "stride": 4}),
        ("fill-mask", transformers.BertForMaskedLM, {"top_k": 2}),
        ("question-answering", transformers.BertForQuestionAnswering, {}),
        ("question-answering", transformers.BertForQuestionAnswering, {"top_k": 3}),
        ("feature-extraction", transformers.BertModel, {"truncation": True}),
    ],
)
def test_predictions_are_those_of_a_pipeline(
    three_nodes: Any,
    minilm: Path,
    cache: Path,
    tmp_path: Path,
    task: str,
    model: Any,
    options: dict[str, Any],
) -> None:
    folder = make_task_folder(tmp_path / "model", model, minilm)
    texts = ["Ada was born in London.", "", "It rains 😀 [MASK] today.", "no end of words"] * 3
    expected = bertfast.pipeline(task, folder, **options)
    columns: dict[str, Any] = {}
    inputs: list[Any] = texts
    if task == "fill-mask":
        inputs = texts = ["the [MASK] is", "[MASK] and [MASK]"] * 3
    elif task == "question-answering":
        texts = [f"{text} and a context" for text in texts]
        inputs = [{"question": "Who was it?", "context": text} for text in texts]
        columns = {"pair_column": "text", "text_column": "question"}
    ds = dataset(texts, question=["Who was it?"] * len(texts))
    ds = predict_dataset(task, ds, folder, cache_dir=cache, batch_size=5, **columns, **options)
    found = [row["prediction"] for row in sorted(ds.take_all(), key=lambda row: row["n"])]
    wanted = list(expected(iter(inputs)))
    if task == "fill-mask":
        wanted = [one if isinstance(one[0], list) else [one] for one in wanted]
    elif "top_k" in options and task == "question-answering":
        wanted = [one if isinstance(one, list) else [one] for one in wanted]
    elif task == "feature-extraction":
        found, wanted = [np.array(list(one)).tolist() for one in found], [one[0] for one in wanted]
    assert found == wanted


def test_pairs_of_texts(three_nodes: Any, minilm: Path, cache: Path, tmp_path: Path) -> None:
    folder = make_task_folder(tmp_path / "model", transformers.BertForSequenceClassification, minilm)
    ds = dataset(TEXTS, pair=TEXTS[::-1])
    ds = predict_dataset(
        "text-classification", ds, folder, pair_column="pair", cache_dir=cache, truncation=True
    )
    found = [row["prediction"] for row in sorted(ds.take_all(), key=lambda row: row["n"])]
    pairs = [{"text": one, "text_pair": other} for one, other in zip(TEXTS, TEXTS[::-1], strict=True)]
    assert found == bertfast.pipeline("text-classification", folder)(pairs, truncation=True)


def test_a_node_is_killed_in_the_middle(
    three_nodes: Any, minilm: Path, cache: Path, tmp_path: Path, real_texts: list[str]
) -> None:
    texts = real_texts[:240]
    ds = encode_dataset(dataset(texts), minilm, num_cpus=1, concurrency=3, batch_size=8, cache_dir=cache)
    found: dict[int, list[float]] = {}
    killed = False
    for batch in ds.iter_batches(batch_format="pyarrow", batch_size=None):
        numbers = batch["n"].to_pylist()
        assert not found.keys() & set(numbers)
        found |= dict(zip(numbers, batch["embedding"].to_pylist(), strict=True))
        if not killed and three_nodes.all_work():
            three_nodes.kill_one()
            killed = True
    assert killed
    vectors = np.array([found[number] for number in range(len(texts))], np.float32)
    assert np.array_equal(vectors, bertfast.Encoder.from_pretrained(minilm).encode(texts))


def test_more_than_the_object_store_holds(three_nodes: Any, tiny: Path, cache: Path) -> None:
    rows, size = 400, 2 << 20
    ds = ray.data.range(rows, override_num_blocks=rows // 4).map_batches(
        lambda batch: {
            "n": batch["id"],
            "text": [f"text {one}" for one in batch["id"]],
            "blob": [os.urandom(size) for _ in batch["id"]],
        },
        batch_size=4,
    )
    ds = encode_dataset(ds, tiny, num_cpus=1, concurrency=1, batch_size=8, cache_dir=cache)
    seen = {}
    for batch in ds.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=1):
        assert all(one.as_buffer().size == size for one in batch["blob"])
        seen |= dict(zip(batch["n"].to_pylist(), batch["embedding"].to_pylist(), strict=True))
    assert "pilled" not in ds.stats()
    expected = bertfast.Encoder.from_pretrained(tiny).encode([f"text {one}" for one in range(rows)])
    assert np.array_equal(np.array([seen[n] for n in range(rows)], np.float32), expected)


def test_workers_that_leave_no_cpu_for_reading(three_nodes: Any, tiny: Path, cache: Path) -> None:
    read = ray.data.range(3).map_batches(lambda batch: {"text": list(map(str, batch["id"]))})
    with pytest.warns(UserWarning, match="concurrency: 3 workers with a num_cpus of 1 leave none of 3 CPUs"):
        encode_dataset(read, tiny, num_cpus=1, concurrency=3, cache_dir=cache)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_dataset(read, tiny, num_cpus=1, concurrency=(1, 3), cache_dir=cache)
        encode_dataset(dataset(TEXTS), tiny, num_cpus=1, concurrency=3, cache_dir=cache)


class TestBadInput:
    def test_a_missing_column(self, three_nodes: Any, tiny: Path, cache: Path) -> None:
        ds = encode_dataset(dataset(LINES), tiny, text_column="body", cache_dir=cache)
        assert message_of(ds) == "column: expected 'body', got 'n', 'text'"

    def test_a_column_that_is_there_already(self, three_nodes: Any, tiny: Path, cache: Path) -> None:
        ds = encode_dataset(dataset(LINES), tiny, output_column="n", cache_dir=cache)
        assert message_of(ds) == "output_column: expected a new name, got 'n', which is there already"

    def test_another_type(self, three_nodes: Any, tiny: Path, cache: Path) -> None:
        ds = encode_dataset(dataset(LINES), tiny, text_column="n", cache_dir=cache)
        assert message_of(ds) == "column 'n': expected strings, got int64"

    def test_a_null_is_named_by_its_row(self, three_nodes: Any, tiny: Path, cache: Path) -> None:
        ds = encode_dataset(dataset(["a", None, "b"]), tiny, cache_dir=cache)
        assert message_of(ds) == "row 1 of a batch of 3 (n='1'): column 'text': expected str, got null"

    def test_a_null_is_named_by_its_file(
        self, three_nodes: Any, tiny: Path, cache: Path, tmp_path: Path
    ) -> None:
        pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
        pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "b.parquet")
        ds = ray.data.read_parquet(str(tmp_path), include_paths=True)
        message = message_of(encode_dataset(ds, tiny, num_cpus=1, concurrency=1, cache_dir=cache))
        assert message.startswith(f"{tmp_path}/b.parquet: row ")
        assert message.endswith("column 'text': expected str, got null")

    def test_a_text_that_is_too_long_for_a_task(
        self, three_nodes: Any, minilm: Path, cache: Path, tmp_path: Path
    ) -> None:
        folder = make_task_folder(tmp_path / "model", transformers.BertForSequenceClassification, minilm)
        ds = predict_dataset(
            "text-classification", dataset(["a", "b", "long " * 60]), folder, cache_dir=cache
        )
        message = message_of(ds)
        assert message.startswith("row 2 of a batch of 3 (n='2', text='long ")
        assert message.endswith("expected at most 48 tokens, got 62; truncation=True cuts it off")

    def test_arguments_are_looked_at_before_anything_runs(
        self, three_nodes: Any, tiny: Path, tmp_path: Path
    ) -> None:
        ds = dataset(LINES)
        with pytest.raises(FileNotFoundError, match=f"^.*node [0-9.]+: {tmp_path}/none: no such folder"):
            encode_dataset(ds, tmp_path / "none")
        with pytest.raises(ArgumentError, match="dtype: expected 'auto', one of"):
            encode_dataset(ds, tiny, dtype="float16")
        with pytest.raises(ArgumentError, match=r"isa: expected one of scalar, .* got 'sse9'"):
            encode_dataset(ds, tiny, isa="sse9")
        with pytest.raises(ArgumentError, match="options: expected one of 'prompt_name'"):
            encode_dataset(ds, tiny, precision="int8")
        with pytest.raises(ArgumentError, match="num_cpus: expected a positive integer, got 0"):
            encode_dataset(ds, tiny, num_cpus=0)
        with pytest.raises(ArgumentError, match=r"concurrency: expected the least first, got \(3, 1\)"):
            encode_dataset(ds, tiny, concurrency=(3, 1))
        with pytest.raises(ArgumentError, match="task: expected one of"):
            predict_dataset("summarize", ds, tiny)
        with pytest.raises(ArgumentError, match="pair_column: expected None for fill-mask, got 'x'"):
            predict_dataset("fill-mask", ds, tiny, pair_column="x")
        with pytest.raises(TypeError, match=r"ds: expected a ray.data.Dataset, got list"):
            encode_dataset(TEXTS, tiny)  # type: ignore[arg-type]

    def test_options_of_a_task_are_named(
        self, three_nodes: Any, minilm: Path, cache: Path, tmp_path: Path
    ) -> None:
        folder = make_task_folder(tmp_path / "model", transformers.BertForSequenceClassification, minilm)
        ds = predict_dataset("text-classification", dataset(["a"]), folder, cache_dir=cache, stride=3)
        assert message_of(ds).startswith("options of text-classification: expected one of ")
        ds = encode_dataset(dataset(["a"]), folder, cache_dir=cache, prompt_name="nope")
        assert message_of(ds) == "prompt_name: expected one of query, document, got 'nope'"
