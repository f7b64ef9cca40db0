"""``bertfast bench --task``: items a second of whole pipelines, and whether they decide alike.

As everywhere, each engine has a process of its own, and a round is every engine once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from bertfast.bench import machine, prepare
from bertfast.bench.dtypes import FLOAT32
from bertfast.bench.engines import REFERENCE, Contender, Setup
from bertfast.bench.prepare import task_model
from bertfast.bench.tables import Row, captioned, number, page
from bertfast.bench.task_engines import TASK_ENGINES, TASKS, decision, items_of
from bertfast.bench.worker import EngineError, Worker
from bertfast.bench.workloads import rotated
from bertfast.checkpoint import read_config
from bertfast.heads import head_of
from bertfast.tokenizer import Tokenizer

_MOST_COMPARED = 200


@dataclass
class TaskSeries:
    """One engine on one task.

    Attributes:
        name: of the engine and its dtype.
        version: of its library.
        seconds: of each round, for all items.
        agreement: share of the items on which it decides as transformers does in float32.
        failure: why it could not be measured.
    """

    name: str
    version: str | None = None
    seconds: list[float] = field(default_factory=list)
    agreement: float | None = None
    failure: str | None = None


@dataclass
class TaskReport:
    """Everything of one run; the first engine is compared with the others."""

    model: str
    texts_from: str
    machine: dict[str, Any]
    items: int
    rounds: int
    head_is_random: dict[str, bool]
    tasks: dict[str, list[TaskSeries]]

    @property
    def measured(self) -> bool:
        """Whether there is any figure."""
        return any(series.seconds for all_ in self.tasks.values() for series in all_)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: all seconds."""
        return asdict(self)

    def render(self, markdown: bool = False) -> str:
        """Items a second, ours over the others', and agreement."""
        names = [series.name for series in next(iter(self.tasks.values()))]
        head: Row = ["", *names]
        speeds, ratios, agreements = [head], [head], [head]
        for task, all_ in self.tasks.items():
            medians = [median(one.seconds) if one.seconds else None for one in all_]
            speeds.append(
                [task, *(number(None if s is None else self.items / s, "{:,.1f}") for s in medians)]
            )
            ratios.append([task, *(number(_ratio(all_[0], one), "{:.2f}x") for one in all_)])
            agreements.append([task, *(number(one.agreement, "{:.1%}") for one in all_)])
        ours = names[0]
        blocks = [
            f"{self.model}, {self.items:,} texts of {self.texts_from}, {self.rounds} rounds\n"
            f"{self.machine['cpu']}, {self.machine['threads']} threads",
            captioned("Items a second", speeds, markdown),
            captioned(f"Speed of {ours} divided by that of", ratios, markdown),
            captioned("Items decided as transformers does in float32", agreements, markdown),
        ]
        lines = [f"{task}: the head is random" for task, random in self.head_is_random.items() if random]
        versions = {one.name: one.version for all_ in self.tasks.values() for one in all_ if one.version}
        lines += [f"{name}: {version}" for name, version in versions.items()]
        lines += [
            f"{task}: {one.name}: not available: {one.failure}"
            for task, all_ in self.tasks.items()
            for one in all_
            if one.failure
        ]
        return page(blocks, lines)


def _ratio(ours: TaskSeries, theirs: TaskSeries) -> float | None:
    """The median over the rounds of their seconds by ours."""
    pairs = list(zip(ours.seconds, theirs.seconds, strict=False))
    return median(b / a for a, b in pairs) if pairs else None


@dataclass(frozen=True)
class TaskPlan:
    """What to run.

    Attributes:
        name: what to call the model.
        tasks: of `TASKS`.
        engines: of `TASK_ENGINES`; the first one is compared with the others.
        dtypes: each engine is measured in those that it knows.
        texts: what items are made of.
        texts_from: where they are from.
        rounds: how often each engine is measured.
        verbose: let the engines write to standard error.
    """

    name: str
    tasks: Sequence[str]
    engines: Sequence[str]
    dtypes: Sequence[str]
    texts: Sequence[str]
    texts_from: str
    rounds: int
    verbose: bool = False


def run(plan: TaskPlan, setup: Setup, log: Callable[[str], None]) -> TaskReport:
    """Measures every engine on every task.

    Args:
        plan: what to run.
        setup: model, threads, work folder; a head that the model lacks is made of random weights.
        log: gets a line at each step.

    Raises:
        BertFastError: a model with a random head could not be made.
    """
    report = TaskReport(
        plan.name, plan.texts_from, machine.describe(setup.threads), len(plan.texts), plan.rounds, {}, {}
    )
    has = head_of(json.loads(read_config(setup.folder)))
    for task in plan.tasks:
        own = replace(setup, task=task, prepared=setup.prepared / task)
        report.head_is_random[task] = has != TASKS[task]
        if has != TASKS[task]:
            log(f"{task}: making a head")
            prepare.ensure(own, "task_model")
            own = replace(own, folder=task_model.path(own))
        report.tasks[task] = _measure(plan, own, task, log)
    return report


def _measure(plan: TaskPlan, setup: Setup, task: str, log: Callable[[str], None]) -> list[TaskSeries]:
    contenders = [
        Contender(engine, dtype)
        for engine in plan.engines
        for dtype in plan.dtypes
        if dtype in TASK_ENGINES[engine]
    ]
    series = {contender.name: TaskSeries(contender.name) for contender in contenders}
    items = items_of(task, plan.texts, Tokenizer.from_pretrained(setup.folder).mask_token or "")
    some = items[:_MOST_COMPARED]
    workers: dict[str, Worker] = {}

    @contextmanager
    def survive(name: str) -> Iterator[None]:
        """An engine that fails is closed and named with the reason; the others go on."""
        try:
            yield
        except EngineError as error:
            log(f"{task}: {name} failed: {error}")
            series[name].failure = str(error)
            if name in workers:
                workers.pop(name).close()

    with ExitStack() as stack:
        for contender in contenders:
            log(f"{task}: loading {contender.name}")
            with survive(contender.name):
                worker = stack.enter_context(_worker(plan, setup, contender))
                worker.build()
                series[contender.name].version, _ = worker.load()
                workers[contender.name] = worker
        log(f"{task}: comparing the results")
        wanted = _reference(plan, setup, workers, task, some)
        if wanted is not None:
            for name in list(workers):
                with survive(name):
                    found = [decision(task, result) for result in workers[name].predict(some)]
                    equal = sum(a == b for a, b in zip(found, wanted, strict=True))
                    series[name].agreement = equal / len(some)
        for number_ in range(plan.rounds):
            log(f"{task}: round {number_ + 1} of {plan.rounds}")
            for name in rotated(list(workers), number_):
                with survive(name):
                    series[name].seconds.append(workers[name].time_predict(items))
    return list(series.values())


def _worker(plan: TaskPlan, setup: Setup, contender: Contender) -> Worker:
    name = f"bertfast.bench.task_engines.{contender.engine}"
    return Worker(name, replace(setup, dtype=contender.dtype), verbose=plan.verbose)


def _reference(
    plan: TaskPlan, setup: Setup, workers: dict[str, Worker], task: str, items: list[Any]
) -> list[Any] | None:
    """What transformers decides in float32; None if it is not there."""
    try:
        if REFERENCE in workers:
            results = workers[REFERENCE].predict(items)
        else:
            with _worker(plan, setup, Contender(REFERENCE, FLOAT32)) as worker:
                worker.load()
                results = worker.predict(items)
    except EngineError:
        return None
    return [decision(task, result) for result in results]
