"""``bertfast bench --pretraining``: millions of tokens a second, from texts to masked samples.

Each work is done by our engine and by what people use for it, in turns, in this process. Where peers have one
thread, so have we: only what builds a store or reads texts takes all threads, and says so.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast.bench import google_script, machine
from bertfast.bench.tables import NONE, Row, captioned, page
from bertfast.errors import ArgumentError
from bertfast.pretraining import (
    Masking,
    PretrainingConfig,
    PretrainingDataset,
    Vocabulary,
    build_corpus,
    mask_tokens,
)
from bertfast.tokenizer import Tokenizer

Job = Callable[[], int]
"""Does the work once and says how many tokens came out."""

OURS = "bertfast"
TOKENS, WORDS, COLLATOR, COLLATOR_WORDS, SAMPLES, STORE, COLD = WORKS = (
    "mask arrays, tokens",
    "mask arrays, whole words",
    "collate lists, tokens",
    "collate lists, whole words",
    "samples from a store",
    "texts to a store",
    "texts to samples",
)
_LENGTH = 128
_BATCH = 256
_SEED = 1
_LINES_OF_A_DOCUMENT = 20
# Of these some are long enough.
_MOST_LINES = 10_000
# What reads two hundred thousand tokens a second gets every so many-th document.
_SLOW_SHARE = 50
# Shorter jobs are done again until this is reached, seconds.
_SLICE = 0.3


@dataclass
class WorkSeries:
    """One engine at one work.

    Attributes:
        work: one of `WORKS`.
        engine: who does it.
        threads: with how many.
        rates: tokens a second, of each round.
        failure: why it could not be measured.
    """

    work: str
    engine: str
    threads: int = 1
    rates: list[float] = field(default_factory=list)
    failure: str | None = None


@dataclass
class PretrainingReport:
    """Everything of one run."""

    model: str
    texts_from: str
    machine: dict[str, Any]
    tokens: int
    rounds: int
    series: list[WorkSeries]

    @property
    def measured(self) -> bool:
        """Whether there is any figure."""
        return any(series.rates for series in self.series)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: all rates."""
        return asdict(self)

    def render(self, markdown: bool = False) -> str:
        """Millions of tokens a second, and ours over the others'."""
        rows: list[Row] = [["", "engine", "threads", "M tokens/s", "times"]]
        ours = {series.work: series for series in self.series if series.engine == OURS}
        for series in self.series:
            best = ours.get(series.work)
            ratio = NONE
            if series is not best and best is not None and series.rates:
                # Rounds lie beside each other in time: what disturbs one disturbs both of its figures.
                pairs = zip(best.rates, series.rates, strict=False)
                ratio = f"{median(mine / other for mine, other in pairs):,.2f}x"
            rate = f"{median(series.rates) / 1e6:,.2f}" if series.rates else NONE
            rows.append([series.work, series.engine, str(series.threads), rate, ratio])
        head = (
            f"{self.model}, {self.tokens:,} tokens of {self.texts_from}, {self.rounds} rounds\n"
            f"{self.machine['cpu']}, {self.machine['cores']} cores"
        )
        caption = f"Millions of tokens a second, and how many times as fast {OURS} is"
        lines = [f"{s.work}, {s.engine}: not available: {s.failure}" for s in self.series if s.failure]
        return page([head, captioned(caption, rows, markdown)], lines)


def measure(
    folder: Path,
    name: str,
    texts: Sequence[str],
    texts_from: str,
    threads: int,
    rounds: int,
    log: Callable[[str], None],
) -> PretrainingReport:
    """Measures every work, engines in turns.

    Args:
        folder: of a model, with its tokenizer.
        name: what to call it.
        texts: sentences; twenty are a document.
        texts_from: where they are from.
        threads: for the works that take all.
        rounds: how often each engine does each work.
        log: gets a line at each step.
    """
    with tempfile.TemporaryDirectory(prefix="bertfast-bench-") as temporary:
        setup = _Setup(folder, texts, threads, Path(temporary))
        series = [
            (WorkSeries(work, engine, threads if all_threads else 1), job)
            for work, engine, all_threads, job in _jobs(setup)
        ]
        for round_ in range(rounds):
            for one, job in series:
                if one.failure is None:
                    log(f"round {round_ + 1} of {rounds}: {one.work}, {one.engine}")
                    _measure(one, job)
        return PretrainingReport(
            name,
            texts_from,
            machine.describe(threads),
            setup.tokens,
            rounds,
            [one for one, _ in series],
        )


def _measure(series: WorkSeries, job: Job) -> None:
    try:
        if not series.rates:
            job()  # The first time it finds caches cold and libraries not loaded.
        best = 0.0
        end = time.perf_counter() + _SLICE
        while best == 0.0 or time.perf_counter() < end:
            start = time.perf_counter()
            tokens = job()
            best = max(best, tokens / (time.perf_counter() - start))
        series.rates.append(best)
    except (ImportError, OSError, ValueError) as error:
        series.failure = str(error)


class _Setup:
    """What the jobs work on."""

    def __init__(self, folder: Path, texts: Sequence[str], threads: int, temporary: Path) -> None:
        self.folder, self.threads, self.temporary = folder, threads, temporary
        self.tokenizer = Tokenizer.from_pretrained(folder)
        self.vocabulary = Vocabulary.of(self.tokenizer)
        lines = [" ".join(text.split()) for text in texts if text.strip()]
        starts = range(0, len(lines), _LINES_OF_A_DOCUMENT)
        documents = ["\n".join(lines[start : start + _LINES_OF_A_DOCUMENT]) for start in starts]
        self.file, self.part = temporary / "texts.txt", temporary / "part.txt"
        self.file.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
        self.part.write_text("\n\n".join(documents[::_SLOW_SHARE]) + "\n", encoding="utf-8")
        self.store = temporary / "store"
        self.tokens = self.build(self.store)
        self.features = self._features(lines)
        self.arrays = self._full_rows()

    def _features(self, lines: Sequence[str]) -> list[dict[str, Any]]:
        """Samples of 128 tokens, as datasets have them: not all collators take different lengths."""
        rows = self.tokenizer(
            lines[:_MOST_LINES], truncation=True, max_length=_LENGTH, return_offsets_mapping=True
        )
        full = [number for number, ids in enumerate(rows["input_ids"]) if len(ids) == _LENGTH][:_BATCH]
        if not full:
            raise ArgumentError(f"--texts: expected some texts of {_LENGTH} tokens or more, got none")
        return [{name: rows[name][number] for name in rows} for number in full]

    def _full_rows(self) -> npt.NDArray[np.int64]:
        """(256, 128) ids of real samples, each filled to its end."""
        config = PretrainingConfig.preset("roberta", max_seq_length=_LENGTH)
        dataset = PretrainingDataset(self.store, config, seed=_SEED)
        full = np.flatnonzero(dataset.lengths(range(len(dataset))) == _LENGTH)[:_BATCH]
        batch = dataset.batch(full, padding="longest")
        ids = np.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
        return np.ascontiguousarray(ids, np.int64)

    def build(self, store: Path, file: Path | None = None) -> int:
        """Builds a store of all texts and says how many tokens it has."""
        corpus = build_corpus(
            [file or self.file], self.tokenizer, store, num_threads=self.threads, overwrite=True
        )
        return corpus.num_tokens


def _jobs(setup: _Setup) -> Iterator[tuple[str, str, bool, Job]]:
    """(work, engine, whether it takes all threads, job)."""
    yield from _masking(setup)
    yield from _collating(setup)
    yield SAMPLES, OURS, False, _samples(setup)
    yield STORE, OURS, True, lambda: setup.build(setup.temporary / "again")
    yield STORE, "our tokenizer alone", True, lambda: _tokenize(setup)
    yield COLD, OURS, True, lambda: _cold(setup)
    yield COLD, "google-research/bert", False, lambda: _google(setup)


def _masking(setup: _Setup) -> Iterator[tuple[str, str, bool, Job]]:
    ids = setup.arrays
    words = Masking(unit="whole_word")

    def ours(masking: Masking) -> Job:
        def job() -> int:
            mask_tokens(ids, setup.vocabulary, masking=masking, seed=_SEED, num_threads=1)
            return ids.size

        return job

    def with_numpy() -> int:
        _mask_with_numpy(ids, setup.vocabulary, generator)
        return ids.size

    generator = np.random.default_rng(_SEED)
    yield TOKENS, OURS, False, ours(Masking())
    yield TOKENS, "the rule in numpy", False, with_numpy
    yield WORDS, OURS, False, ours(words)


def _mask_with_numpy(
    ids: npt.NDArray[np.int64], vocabulary: Vocabulary, generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every token by itself, without a loop."""
    lots = generator.random(ids.shape, np.float32)
    chosen = (lots < 0.15) & ~np.isin(ids, vocabulary.special_token_ids)
    labels = np.where(chosen, ids, -100)
    inputs = np.where(chosen & (lots < 0.15 * 0.8), vocabulary.mask_token_id, ids)
    random = chosen & (lots >= 0.15 * 0.8) & (lots < 0.15 * 0.9)
    inputs[random] = generator.integers(0, vocabulary.size, int(random.sum()))
    return inputs, labels


def _collating(setup: _Setup) -> Iterator[tuple[str, str, bool, Job]]:
    tokens = sum(len(sample["input_ids"]) for sample in setup.features)
    plain = [{name: sample[name] for name in sample if name != "offset_mapping"} for sample in setup.features]

    def job(make: Callable[[], Any], samples: list[dict[str, Any]]) -> Job:
        made: list[Any] = []

        def collate() -> int:
            if not made:
                made.append(make())
            # Each batch of a loader is made of new dicts, and collators take them apart.
            made[0]([dict(sample) for sample in samples])
            return tokens

        return collate

    def ours(masking: Masking) -> Any:
        from bertfast.training import DataCollator

        return DataCollator(setup.tokenizer, masking, seed=_SEED)

    def theirs(whole_words: bool) -> Any:
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(setup.folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # That whole words all become [MASK].
            return transformers.DataCollatorForLanguageModeling(tokenizer, whole_word_mask=whole_words)

    yield COLLATOR, OURS, False, job(lambda: ours(Masking()), plain)
    yield COLLATOR, "transformers", False, job(lambda: theirs(False), plain)
    yield COLLATOR_WORDS, OURS, False, job(lambda: ours(Masking(unit="whole_word")), plain)
    yield COLLATOR_WORDS, "transformers", False, job(lambda: theirs(True), setup.features)


def _samples(setup: _Setup) -> Job:
    """NSP and masks, in shuffled order, padded."""
    dataset = PretrainingDataset(
        setup.store, PretrainingConfig.preset("bert", max_seq_length=_LENGTH), seed=_SEED, num_threads=1
    )

    def job() -> int:
        tokens = 0
        for start in range(0, len(dataset), _BATCH):
            indices = dataset.order(start, min(_BATCH, len(dataset) - start))
            tokens += len(dataset.batch(indices, padding=None)["input_ids"])
        return tokens

    return job


def _tokenize(setup: _Setup) -> int:
    blocks = setup.tokenizer.encode_files(str(setup.file), add_special_tokens=False)
    return sum(len(block.input_ids) for block in blocks)


def _cold(setup: _Setup) -> int:
    """All that the original script does, with nothing made before."""
    store = setup.temporary / "cold"
    setup.build(store)
    dataset = PretrainingDataset(
        store,
        PretrainingConfig.preset("bert", max_seq_length=_LENGTH),
        seed=_SEED,
        num_threads=setup.threads,
    )
    tokens = 0
    for start in range(0, len(dataset), 16 * _BATCH):
        indices = np.arange(start, min(start + 16 * _BATCH, len(dataset)))
        tokens += len(dataset.batch(indices, padding=None)["input_ids"])
    return tokens


def _google(setup: _Setup) -> int:
    found = google_script.instances([setup.part], setup.folder / "vocab.txt", max_seq_length=_LENGTH)
    return sum(len(instance.tokens) for instance in found)
