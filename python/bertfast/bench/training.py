"""``bertfast bench --training``: steps of training on real texts, ragged beside padded.

Every engine has the same start weights, the same batches in the same order and the same optimizer, and takes
a step in turns. ``transformers`` pads a batch to its longest text and runs PyTorch's fused attention; a step
is forward, backward, clipping and the optimizer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertfast.bench import machine
from bertfast.bench.tables import NONE, Row, captioned, milliseconds, page
from bertfast.checkpoint import read_config
from bertfast.errors import ArgumentError
from bertfast.models.backend import model_class_of
from bertfast.models.backend_heads import class_for
from bertfast.pretraining import Vocabulary, mask_tokens
from bertfast.tokenizer import Tokenizer
from bertfast.training.optimizers import parameter_groups

OURS, THEIRS = "bertfast", "transformers"
# For each task our head, and the class of transformers.
TASKS = {
    "classification": ("sequence-classification", "AutoModelForSequenceClassification"),
    "masked tokens": ("masked-lm", "AutoModelForMaskedLM"),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BATCH_SIZE = 32
MAX_BATCHES = 8
# Texts are cut here: of real ones padded batches are then about two fifths text.
_LENGTH = 192
_SEED = 1
_LEARNING_RATE = 2e-5


@dataclass
class StepSeries:
    """One engine at one task.

    Attributes:
        task: one of `TASKS`.
        engine: who computes.
        dtype: in what (by autocast; weights are float32).
        seconds: of each step, rounds one after the other.
        losses: of each step.
        failure: why it could not be measured.
    """

    task: str
    engine: str
    dtype: str
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    failure: str | None = None


@dataclass
class TrainingReport:
    """Everything of one run; ``share`` is what part of the padded batches is text."""

    model: str
    texts_from: str
    machine: dict[str, Any]
    device: str
    batches: int
    tokens: int
    share: float
    rounds: int
    series: list[StepSeries]

    @property
    def measured(self) -> bool:
        """Whether there is any figure."""
        return any(series.seconds for series in self.series)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: all times."""
        return asdict(self)

    def render(self, markdown: bool = False) -> str:
        """Times of a step, and how many times as fast as transformers in float32 and in the same dtype."""
        rows: list[Row] = [
            ["", "engine", "dtype", "ms a step", "tokens/s", "times float32", "times its dtype", "last loss"]
        ]
        theirs = {(s.task, s.dtype): s for s in self.series if s.engine == THEIRS}
        for series in self.series:
            row = [series.task, series.engine, series.dtype, NONE, NONE, NONE, NONE, NONE]
            if series.seconds:
                step = median(series.seconds)
                row[3:5] = milliseconds(step), f"{self.tokens / self.batches / step:,.0f}"
                for column, dtype in ((5, "float32"), (6, series.dtype)):
                    row[column] = _times(series, theirs.get((series.task, dtype)))
                row[7] = f"{sum(series.losses[-self.batches :]) / self.batches:.3f}"
            rows.append(row)
        head = (
            f"{self.model}, {self.batches} batches of {BATCH_SIZE} texts of {self.texts_from}, "
            f"{self.tokens:,} tokens, {self.share:.2f} of the padded batches; {self.rounds} rounds\n"
            f"{self.machine['cpu']}, {self.machine['cores']} cores, on {self.device}"
        )
        caption = f"A step of training, and how many times as fast as that of {THEIRS}"
        lines = [f"{s.task}, {s.engine}: not available: {s.failure}" for s in self.series if s.failure]
        return page([head, captioned(caption, rows, markdown)], lines)


def _times(series: StepSeries, reference: StepSeries | None) -> str:
    """How many times as fast as another."""
    if reference is None or not reference.seconds:
        return NONE
    # The same batches lie beside each other in time.
    pairs = zip(reference.seconds, series.seconds, strict=False)
    return f"{median(theirs / own for theirs, own in pairs):.2f}x"


def measure(
    folder: Path,
    name: str,
    texts: Sequence[str],
    texts_from: str,
    dtypes: Sequence[str],
    device: str,
    threads: int,
    rounds: int,
    log: Callable[[str], None],
) -> TrainingReport:
    """Measures every task, engines in turns.

    Args:
        folder: of a model, with its tokenizer.
        name: what to call it.
        texts: what is trained on, in this order.
        texts_from: where they are from.
        dtypes: of `DTYPES`.
        device: as PyTorch names it.
        threads: of every engine.
        rounds: how often each engine sees all batches; one more comes before them.
        log: gets a line at each step.

    Raises:
        ArgumentError: fewer texts than a batch has.
    """
    batches = _batches(Tokenizer.from_pretrained(folder), texts)
    series = []
    with _threads(threads):
        for task in TASKS:
            of_task = list(_start(folder, task, dtypes, device))
            for round_ in range(rounds + 1):
                log(f"{task}: round {round_} of {rounds}")
                for batch in batches:
                    for one, step in of_task:
                        if step is not None:
                            _measure(one, step, batch, warm=round_ > 0)
            series += [one for one, _ in of_task]
    padded = sum(batch.padded["ids"].numel() for batch in batches)
    tokens = sum(len(batch.ragged["ids"]) for batch in batches)
    return TrainingReport(
        name,
        texts_from,
        machine.describe(threads),
        f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device,
        len(batches),
        tokens,
        tokens / padded,
        rounds,
        series,
    )


class _Batch:
    """Texts with what is asked of them, ragged and padded."""

    def __init__(
        self, ids: Tensor, cu_seqlens: Tensor, inputs: Tensor, labels: Tensor, classes: Tensor
    ) -> None:
        self.cu_seqlens, self.classes = cu_seqlens, classes
        lengths = cu_seqlens.diff()
        self.mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        self.positions = (labels != -100).nonzero()[:, 0]
        self.ragged = {"ids": ids, "inputs": inputs, "labels": labels}
        self.padded = {name: self._pad(x, -100 if name == "labels" else 0) for name, x in self.ragged.items()}

    def _pad(self, values: Tensor, fill: int) -> Tensor:
        return torch.full(self.mask.shape, fill).masked_scatter(self.mask, values)


def _batches(tokenizer: Tokenizer, texts: Sequence[str]) -> list[_Batch]:
    count = min(len(texts) // BATCH_SIZE, MAX_BATCHES)
    if count < 1:
        raise ArgumentError(f"--texts: expected at least {BATCH_SIZE} texts, got {len(texts)}")
    vocabulary = Vocabulary.of(tokenizer)
    found = []
    lengths = [len(text) for text in texts]
    for number in range(count):
        part = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
        ragged = tokenizer.encode_ragged(texts[part], truncation=True, max_length=_LENGTH)
        ids = np.asarray(ragged.input_ids).astype(np.int64)
        cu_seqlens = np.asarray(ragged.cu_seqlens)
        inputs, labels = mask_tokens(ids, vocabulary, cu_seqlens, seed=_SEED, epoch=number)
        # Something that can be learned: which texts are longer than most.
        classes = torch.tensor([int(length > median(lengths)) for length in lengths[part]])
        arrays = {"ids": ids, "cu_seqlens": cu_seqlens, "inputs": inputs, "labels": labels}
        found.append(_Batch(**{k: torch.from_numpy(v) for k, v in arrays.items()}, classes=classes))
    return found


_Step = Callable[[_Batch], float]


def _start(
    folder: Path, task: str, dtypes: Sequence[str], device: str
) -> Iterator[tuple[StepSeries, _Step | None]]:
    head, their_class = TASKS[task]
    for engine, model_of, name, loss in (
        (THEIRS, _their_model, their_class, _their_loss),
        (OURS, _our_model, head, _our_loss),
    ):
        for dtype in dtypes:
            series = StepSeries(task, engine, dtype)
            try:
                torch.manual_seed(_SEED)
                model = model_of(folder, name).to(device).train()
            except (ImportError, OSError, ValueError) as error:
                series.failure = str(error)
                yield series, None
                continue
            yield series, _step(model, loss, task, dtype, device)


def _step(
    model: nn.Module,
    loss: Callable[[nn.Module, _Batch, str, str], Tensor],
    task: str,
    dtype: str,
    device: str,
) -> _Step:
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=_LEARNING_RATE, fused=True)

    def step(batch: _Batch) -> float:
        with torch.autocast(torch.device(device).type, DTYPES[dtype], enabled=dtype != "float32"):
            value = loss(model, batch, task, device)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(value.detach())

    return step


def _measure(series: StepSeries, step: _Step, batch: _Batch, *, warm: bool) -> None:
    start = time.perf_counter()
    loss = step(batch)
    if warm:
        series.seconds.append(time.perf_counter() - start)
    series.losses.append(loss)


def _our_model(folder: Path, head: str) -> nn.Module:
    kind = class_for(model_class_of(read_config(folder)), head)
    return kind.from_pretrained(folder)


def _their_model(folder: Path, name: str) -> nn.Module:
    import transformers

    logging: Any = transformers.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model: nn.Module = getattr(transformers, name).from_pretrained(folder)
    return model


def _our_loss(model: nn.Module, batch: _Batch, task: str, device: str) -> Tensor:
    if task == "classification":
        output = model(
            batch.ragged["ids"].to(device), cu_seqlens=batch.cu_seqlens, labels=batch.classes.to(device)
        )
    else:
        output = model(
            batch.ragged["inputs"].to(device),
            cu_seqlens=batch.cu_seqlens,
            labels=batch.ragged["labels"].to(device),
            masked_positions=batch.positions.to(device),
        )
    loss: Tensor = output.loss
    return loss


def _their_loss(model: nn.Module, batch: _Batch, task: str, device: str) -> Tensor:
    classes = task == "classification"
    labels = batch.classes if classes else batch.padded["labels"]
    output = model(
        batch.padded["ids" if classes else "inputs"].to(device),
        attention_mask=batch.mask.long().to(device),
        labels=labels.to(device),
    )
    loss: Tensor = output.loss
    return loss


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
