"""``bertfast bench --ray``: files and data sets on a Ray cluster of this machine, beside one process.

Every way of working takes some time to begin and then so much for each text. Both follow from two runs: one
on the texts and one on `MORE` times as many. A cluster takes seconds to begin, and its work takes hours, so
what counts is the second.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bertfast.bench import machine
from bertfast.bench.tables import NONE, Row, captioned, page
from bertfast.distributed import connect, encode_dataset
from bertfast.distributed.run import Options, run
from bertfast.encoder import Encoder
from bertfast.errors import BertFastError

ALONE, FILES, DATA_SET = "encode_iter", "bertfast encode --ray", "encode_dataset"
MORE = 4
_PIECES = 4
"""Of the texts, for each worker: the ends of a run are then as uneven with few texts as with many."""


@dataclass
class Way:
    """One way of working, and what it took.

    Attributes:
        name: one of the three above.
        workers: how many processes compute.
        threads: of each.
        few: seconds for the texts, round by round.
        many: seconds for `MORE` times as many.
        failure: why it could not be measured.
    """

    name: str
    workers: int
    threads: int
    few: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    failure: str | None = None

    def seconds(self) -> list[float]:
        """For the texts without the beginning, round by round."""
        return [(many - few) / (MORE - 1) for few, many in zip(self.few, self.many, strict=True)]


@dataclass
class ClusterReport:
    """Everything of one run."""

    model: str
    texts_from: str
    machine: dict[str, Any]
    dtype: str
    texts: int
    rounds: int
    ways: list[Way]

    @property
    def measured(self) -> bool:
        """Whether there is any figure."""
        return any(way.many for way in self.ways)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: all times."""
        return asdict(self)

    def render(self, markdown: bool = False) -> str:
        """Texts a second, and what part of one process's."""
        rows: list[Row] = [["", "workers", "threads of each", "s to begin", "texts/s", "of one process"]]
        alone = self.ways[0].seconds()
        for way in self.ways:
            row = [way.name, str(way.workers), str(way.threads), NONE, NONE, NONE]
            if way.many:
                begin = median(few - own for few, own in zip(way.few, way.seconds(), strict=True))
                row[3:5] = f"{max(begin, 0.0):.1f}", f"{self.texts / median(way.seconds()):,.0f}"
                if len(alone) == len(way.many):
                    # The same round.
                    shares = (own / other for own, other in zip(alone, way.seconds(), strict=True))
                    row[5] = f"{median(shares):.2f}"
            rows.append(row)
        head = (
            f"{self.model}, {self.dtype}, {self.texts:,} texts of {self.texts_from} and {MORE} times as "
            f"many; {self.rounds} rounds\n{self.machine['cpu']}, {self.machine['cores']} cores"
        )
        caption = "Vectors on a cluster of this machine, the same bits, beside one process"
        lines = [f"{way.name}: not available: {way.failure}" for way in self.ways if way.failure]
        return page([head, captioned(caption, rows, markdown)], lines)


def measure(
    folder: Path,
    name: str,
    texts: Sequence[str],
    texts_from: str,
    dtype: str,
    isa: str | None,
    threads: int,
    rounds: int,
    log: Callable[[str], None],
) -> ClusterReport:
    """Measures every way, in turns.

    Args:
        folder: of a model, with its tokenizer.
        name: what to call it.
        texts: what is encoded.
        texts_from: where they are from.
        dtype: of all.
        isa: of all, None for the best.
        threads: of all workers together.
        rounds: how often each way takes its two runs.
        log: gets a line at each step.

    Raises:
        ImportError: Ray is not installed.
        BertFastError: other bits came out.
    """
    ways = [
        Way(ALONE, 1, threads),
        *(Way(FILES, *each) for each in dict.fromkeys([(1, 1), (threads, 1), (1, threads)])),
        Way(DATA_SET, 1, threads),
    ]
    with tempfile.TemporaryDirectory(prefix="bertfast-bench-") as temporary, connect("local", quiet=True):
        bench = _Bench(folder, Path(temporary), texts, dtype, isa)
        for round_ in range(rounds):
            for way in ways:
                log(f"round {round_ + 1} of {rounds}: {way.name}, {way.workers} x {way.threads}")
                try:
                    way.few.append(bench.seconds(way, 1))
                    way.many.append(bench.seconds(way, MORE))
                except OSError as error:
                    way.few, way.many, way.failure = [], [], str(error)
    return ClusterReport(name, texts_from, machine.describe(threads), dtype, len(texts), rounds, ways)


class _Bench:
    """Texts in files, and the ways of encoding them."""

    def __init__(self, model: Path, folder: Path, texts: Sequence[str], dtype: str, isa: str | None) -> None:
        self._model, self._dtype, self._isa = model, dtype, isa
        self._output = folder / "out"
        # A text is a line.
        lines = [" ".join(text.split()) for text in texts]
        self._texts = len(lines)
        self._files = {}
        for times in (1, MORE):
            self._files[times] = folder / f"{times}.txt"
            self._files[times].write_text("".join(f"{line}\n" for line in lines * times), encoding="utf-8")
        with _quietly():
            self._expected = self._encoder(None).encode(lines, show_progress_bar=False)

    def seconds(self, way: Way, times: int) -> float:
        """How long so many times the texts take."""
        start = time.perf_counter()
        with _quietly():
            found = {ALONE: self._alone, FILES: self._through_files, DATA_SET: self._through_data_set}[
                way.name
            ](way, times)
        seconds = time.perf_counter() - start
        same = all(np.array_equal(self._expected, part) for part in np.split(found(), times))
        shutil.rmtree(self._output, ignore_errors=True)
        if not same:
            raise BertFastError(f"{way.name}: expected the bits of one process, got others")
        return seconds

    def _encoder(self, threads: int | None) -> Encoder:
        return Encoder.from_pretrained(self._model, dtype=self._dtype, isa=self._isa, num_threads=threads)

    def _alone(self, way: Way, times: int) -> Callable[[], Any]:
        with self._files[times].open(encoding="utf-8", newline="\n") as file:
            lines = (line.removesuffix("\n") for line in file)
            found = list(self._encoder(way.threads).encode_iter(lines))
        return lambda: np.concatenate(found)

    def _through_files(self, way: Way, times: int) -> Callable[[], Any]:
        size = self._files[1].stat().st_size // (_PIECES * way.workers) + 1
        run(
            Options(
                inputs=[str(self._files[times])],
                output=str(self._output),
                task="vectors",
                columns={"text": "text"},
                output_column="embedding",
                model=str(self._model),
                dtype=self._dtype,
                isa=self._isa,
                piece_size=size,
                num_threads=way.threads,
                workers=way.workers,
                quiet=True,
            )
        )
        return lambda: _vectors(sorted(self._output.glob("*.parquet")))

    def _through_data_set(self, way: Way, times: int) -> Callable[[], Any]:
        import ray

        ds = ray.data.read_text(str(self._files[times]))
        ds = encode_dataset(
            ds,
            self._model,
            dtype=self._dtype,
            isa=self._isa,
            num_cpus=way.threads,
            concurrency=way.workers,
            batch_size=max(self._texts // (_PIECES * way.workers), 1),
        )
        batches = list(ds.iter_batches(batch_format="pyarrow", batch_size=None))
        return lambda: np.concatenate([_array(batch) for batch in batches])


def _vectors(paths: Sequence[Path]) -> Any:
    import pyarrow.parquet as pq

    return np.concatenate([_array(pq.read_table(path)) for path in paths])


def _array(table: Any) -> Any:
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
