"""The fine-tuned models in `bertfast.pipeline`: in float32, bfloat16 and int8, and beside other engines.

    python examples/chinese/run_on_cpu.py bert

Shows that float32 has the figure that training reported, how often the narrow types decide the same, and how
many items a second each has. Other engines that are installed are measured by `bertfast bench --task`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import OUTPUT, write_json
from families import FAMILIES
from finetune import record_of
from tasks import TASKS, Task, agreement

import bertfast

DTYPES = ("float32", "bfloat16", "int8")
SAME_FIGURE = 1e-6
"""How far the figure may be from the one that training reported."""


def measure(task: Task, folder: Path, data: Path, most: int | None) -> dict[str, Any]:
    """Figures, agreement and speed of our pipeline in every type that this processor has."""
    validation, test = (task.read(data / name) for name in task.files[1:])
    test = test[:most]
    right = [answer for _, answer in test]
    exact = task.decisions(folder, validation)
    reported = record_of(folder)["validation"]
    again = task.score(exact, [answer for _, answer in validation])
    found: dict[str, Any] = {"reported": reported, "measured_again": again, "dtypes": {}}
    if abs(again - reported) > SAME_FIGURE:
        print(f"  expected the reported {task.metric} {reported:.4f}, got {again:.4f}", file=sys.stderr)
    wanted = None
    for dtype in DTYPES:
        try:
            pipeline = bertfast.pipeline(task.pipeline, str(folder), dtype=dtype)
        except bertfast.errors.ArgumentError as error:
            print(f"  {dtype}: {error}")
            continue
        task.decided(pipeline, test[:8])
        start = time.perf_counter()
        decisions = task.decided(pipeline, test)
        seconds = time.perf_counter() - start
        wanted = decisions if wanted is None else wanted
        same = agreement(decisions, wanted)
        score, speed = task.score(decisions, right), len(test) / seconds
        found["dtypes"][dtype] = {task.metric: score, "same_as_float32": same, "items_per_second": speed}
        print(f"  {dtype:9} {task.metric} {score:.4f}, {same:.2%} as float32, {speed:,.0f} items/s")
    return found


def compare(task: Task, folder: Path, texts: Sequence[str], report: Path) -> dict[str, Any]:
    """What `bertfast bench` measures of all engines on these texts."""
    with_texts = report.with_suffix(".txt")
    with_texts.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    command = [sys.executable, "-m", "bertfast", "bench", str(folder), "--task", task.pipeline]
    command += ["--texts", str(with_texts), "--dtype", *DTYPES, "--json", str(report)]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def texts_of(name: str, task: Task, data: Path) -> list[str]:
    """The inputs of the test as plain texts, each on one line."""
    given = [given for given, _ in task.read(data / task.files[2])]
    if name == "qa":
        return [one["context"].replace("\n", "") for one in given]
    return ["".join(one) for one in given]


def main(arguments: Sequence[str] | None = None) -> None:
    """Each task with the pretrained model of one seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="as for prepare.py (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="(all)")
    parser.add_argument("--seed", type=int, default=1, help="of the models (1)")
    parser.add_argument("--most", type=int, metavar="N", help="only N items of each test")
    parser.add_argument("--no-bench", action="store_true", help="do not measure other engines")
    args = parser.parse_args(arguments)
    folder, data = args.output / args.family, args.output / "data"
    results = {}
    for name in args.tasks:
        task = TASKS[name]
        print(f"{args.family}, {name}:", flush=True)
        model = folder / f"finetuned/{name}-pretrained-{args.seed}"
        results[name] = measure(task, model, data, args.most)
        if not args.no_bench:
            texts = texts_of(name, task, data)[: args.most]
            results[name]["engines"] = compare(task, model, texts, folder / f"bench-{name}.json")
    write_json(folder / "run_on_cpu.json", results)


if __name__ == "__main__":
    main()
