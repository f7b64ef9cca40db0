"""``bertfast bench --tokenizer``: megabytes of text a second, of our tokenizer and of its peers.

Every engine gets the same list of str in turns, in this process, with all threads. A round opens each anew:
its first pass is what a program pays that reads its texts once, the next ones are with what it has learned.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bertfast.bench import machine
from bertfast.bench.tables import NONE, Row, captioned, number, page

Job = Callable[[Sequence[str]], Any]
Open = Callable[[Path], dict[str, Job]]
"""Opens a tokenizer anew: what it does, by the names of `WORKS`."""

IDS, OFFSETS, PAIRS = "ids", "ids, offsets, word ids", "pairs, truncated to 64"
WORKS = (IDS, OFFSETS, PAIRS)
_AGAIN = 3
_PAIR_LENGTH = 64
# An engine that reads 2 MB a second gets every so many-th text: that is enough to know it.
_SLOW_SHARE = 20


def _second(texts: Sequence[str]) -> list[str]:
    return [*texts[1:], *texts[:1]]


def _open_bertfast(folder: Path) -> dict[str, Job]:
    from bertfast import Tokenizer

    encode = Tokenizer.from_pretrained(folder).encode_ragged
    return {
        IDS: encode,
        OFFSETS: lambda texts: encode(texts, return_offsets_mapping=True, return_word_ids=True),
        PAIRS: lambda texts: encode(texts, _second(texts), truncation=True, max_length=_PAIR_LENGTH),
    }


def _open_nanotoken(folder: Path) -> dict[str, Job]:
    import nanotoken

    json = (folder / "tokenizer.json").read_text(encoding="utf-8")
    return {IDS: nanotoken.Tokenizer.from_json(json).encode_batch}


def _open_tokenizers(folder: Path) -> dict[str, Job]:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import tokenizers

    json = (folder / "tokenizer.json").read_text(encoding="utf-8")

    def opened() -> tokenizers.Tokenizer:
        tokenizer = tokenizers.Tokenizer.from_str(json)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    whole, cut = opened(), opened()
    cut.enable_truncation(_PAIR_LENGTH)
    return {
        IDS: whole.encode_batch_fast,
        OFFSETS: whole.encode_batch,
        PAIRS: lambda texts: cut.encode_batch_fast(list(zip(texts, _second(texts), strict=True))),
    }


ENGINES: dict[str, tuple[Open, int]] = {
    "bertfast": (_open_bertfast, 1),
    "nanotoken": (_open_nanotoken, 1),
    "tokenizers": (_open_tokenizers, _SLOW_SHARE),
}


@dataclass
class TokenizerSeries:
    """One engine.

    Attributes:
        name: of the engine and its package.
        version: of the package.
        texts: how many it got.
        megabytes: of UTF-8 in them; pairs are twice as much.
        first: per work the seconds of the first pass of each round.
        again: per work the median of the passes after it, of each round.
        failure: why it could not be measured.
    """

    name: str
    version: str | None = None
    texts: int = 0
    megabytes: float = 0.0
    first: dict[str, list[float]] = field(default_factory=dict)
    again: dict[str, list[float]] = field(default_factory=dict)
    failure: str | None = None

    def speeds(self, work: str) -> tuple[float, float] | None:
        """Megabytes a second, the first time and again: medians over the rounds."""
        if work not in self.first:
            return None
        size = self.megabytes * (2 if work == PAIRS else 1)
        return size / median(self.first[work]), size / median(self.again[work])


@dataclass
class TokenizerReport:
    """Everything of one run; the first engine is compared with the others."""

    model: str
    texts_from: str
    machine: dict[str, Any]
    rounds: int
    differing: int | None
    series: list[TokenizerSeries]

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: all seconds."""
        return asdict(self)

    def render(self, markdown: bool = False) -> str:
        """Megabytes a second, and ours over the others'."""
        ours = self.series[0]
        head: Row = ["", *WORKS, "version"]
        speeds: list[Row] = [head]
        ratios: list[Row] = [["times", *WORKS]]
        for series in self.series:
            cells, times = [], []
            for work in WORKS:
                mine, own = ours.speeds(work), series.speeds(work)
                cells.append(NONE if own is None else f"{own[0]:,.1f} / {own[1]:,.1f}")
                both = mine is not None and own is not None
                times.append(f"{mine[0] / own[0]:.2f}x / {mine[1] / own[1]:.2f}x" if both else NONE)  # type: ignore[index]
            speeds.append([series.name, *cells, series.version or NONE])
            ratios.append([series.name, *times])
        blocks = [
            f"{self.model}, {ours.texts:,} texts of {self.texts_from}, {ours.megabytes:,.1f} MB, "
            f"{self.rounds} rounds\n{self.machine['cpu']}, {self.machine['cores']} cores",
            captioned("Megabytes of UTF-8 a second, the first time / again", speeds, markdown),
            captioned(f"Speed of {ours.name} divided by that of", [ratios[0], *ratios[2:]], markdown),
        ]
        lines = [
            f"{series.name}: not available: {series.failure}" for series in self.series if series.failure
        ]
        lines += [
            f"{series.name}: one text of {round(ours.texts / series.texts)}"
            for series in self.series
            if 0 < series.texts < ours.texts
        ]
        lines.append(f"texts whose ids differ from those of tokenizers: {number(self.differing, '{}')}")
        return page(blocks, lines)


def measure(
    folder: Path,
    name: str,
    texts: Sequence[str],
    texts_from: str,
    engines: Sequence[str],
    rounds: int,
    log: Callable[[str], None],
) -> TokenizerReport:
    """Measures every engine on everything that it can do, in turns.

    Args:
        folder: has ``tokenizer.json``.
        name: what to call the model.
        texts: what is tokenized.
        texts_from: where they are from.
        engines: names of `ENGINES`; the first is compared with the others.
        rounds: how often each engine is opened and measured.
        log: gets a line at each step.
    """
    series = {engine: TokenizerSeries(engine) for engine in engines}
    parts = {engine: texts[:: ENGINES[engine][1]] for engine in engines}
    for round_ in range(rounds):
        for engine, one in series.items():
            if one.failure is None:
                log(f"{engine}: round {round_ + 1} of {rounds}")
                _pass(one, folder, parts[engine])
    return TokenizerReport(
        name,
        texts_from,
        machine.describe(machine.default_threads()),
        rounds,
        _differing(folder, texts),
        list(series.values()),
    )


def _pass(one: TokenizerSeries, folder: Path, texts: Sequence[str]) -> None:
    try:
        one.version = version(one.name)
        works = list(ENGINES[one.name][0](folder))
        for work in works:
            # Opened anew for each: what was learned in another work would not be a first time.
            job = ENGINES[one.name][0](folder)[work]
            seconds = []
            for _ in range(1 + _AGAIN):
                start = time.perf_counter()
                job(texts)
                seconds.append(time.perf_counter() - start)
            one.first.setdefault(work, []).append(seconds[0])
            one.again.setdefault(work, []).append(median(seconds[1:]))
    except (ImportError, OSError, ValueError) as error:
        one.failure = str(error)
    one.texts, one.megabytes = len(texts), sum(len(text.encode()) for text in texts) / 1e6


def _differing(folder: Path, texts: Sequence[str]) -> int | None:
    """In how many texts of a sample our ids are not those of the reference; None if it cannot be opened."""
    try:
        reference = _open_tokenizers(folder)[IDS]
    except (ImportError, OSError):
        return None
    sample = texts[::_SLOW_SHARE]
    ours = _open_bertfast(folder)[IDS](sample)
    rows = zip(ours.cu_seqlens[:-1].tolist(), ours.cu_seqlens[1:].tolist(), reference(sample), strict=True)
    return sum(int(ours.input_ids[start:end].tolist() != encoding.ids) for start, end, encoding in rows)
