"""The same fine-tuning by `transformers.Trainer` and by bertfast: how long it takes, how good the model is.

    python examples/chinese/beside_transformers.py bert

Reviews in batches of 32 in random order. `Trainer` pads each batch to its longest, in float32; bertfast pads
nothing, in float32 and bfloat16. Both evaluate after every epoch and keep the best; what is shown is measured
on the test, in `bertfast.pipeline`. Needs `transformers` and `accelerate`; what is done is not done again.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from common import OUTPUT, default_dtype, write_json
from families import FAMILIES
from finetune import record_of, record_path
from tasks import TASKS, Example

from bertfast import Tokenizer
from bertfast.training.finetuning import finetune_classifier
from bertfast.training.options import TrainingOptions

BATCH_SIZE, LENGTH = 32, 256
LEARNING_RATE, WARMUP, WEIGHT_DECAY = 3e-4, 0.1, 0.01

Run = Callable[[Path, Path, Path, int, int], None]
"""Trains a base model on the files of a folder into another, for so many epochs, with a seed."""


def share_of_text(tokenizer: Tokenizer, examples: Sequence[Example]) -> float:
    """What part of batches in random order is text when each is padded to its longest."""
    texts = [text for text, _ in examples]
    ids = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
    lengths = np.random.default_rng(0).permutation(list(map(len, ids)))
    batches = [lengths[start : start + BATCH_SIZE] for start in range(0, len(lengths), BATCH_SIZE)]
    return float(lengths.sum() / sum(batch.max() * len(batch) for batch in batches))


def by_bertfast(dtype: Any) -> Run:
    """With ragged batches."""

    def run(base: Path, data: Path, folder: Path, epochs: int, seed: int) -> None:
        finetune_classifier(
            base,
            data / "few.tsv",
            data / "validation.tsv",
            folder,
            options=TrainingOptions(
                learning_rate=LEARNING_RATE,
                warmup=WARMUP,
                weight_decay=WEIGHT_DECAY,
                betas=(0.9, 0.999),
                seed=seed,
                dtype=dtype,
                device="cpu",
            ),
            epochs=epochs,
            batch_size=BATCH_SIZE,
            max_seq_length=LENGTH,
            overwrite=True,
        )

    return run


def by_transformers(base: Path, data: Path, folder: Path, epochs: int, seed: int) -> None:
    """As its documentation trains a classifier."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    tokenizer = AutoTokenizer.from_pretrained(base)
    examples, evaluated = (TASKS["classify"].read(data / name) for name in ("few.tsv", "validation.tsv"))
    names = sorted({label for _, label in examples})

    def encoded(some: Sequence[Example]) -> list[dict[str, Any]]:
        return [
            {**tokenizer(text, truncation=True, max_length=LENGTH), "labels": names.index(label)}
            for text, label in some
        ]

    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, id2label=dict(enumerate(names)), label2id={name: place for place, name in enumerate(names)}
    )
    trainer = Trainer(
        model,
        TrainingArguments(
            str(folder),
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=BATCH_SIZE,
            num_train_epochs=epochs,
            learning_rate=LEARNING_RATE,
            warmup_steps=WARMUP,
            weight_decay=WEIGHT_DECAY,
            seed=seed,
            use_cpu=True,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            report_to="none",
            disable_tqdm=True,
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=encoded(examples),
        eval_dataset=encoded(evaluated),
        compute_metrics=lambda found: {
            "accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids))
        },
    )
    trainer.train()
    trainer.save_model()
    tokenizer.save_pretrained(folder)


def measured(run: Run, base: Path, data: Path, folder: Path, epochs: int, seed: int) -> dict[str, Any]:
    """Seconds of training, and the figure on the test; not again where they are known."""
    if not record_path(folder).exists():
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        run(base, data, folder, epochs, seed)
        seconds = time.perf_counter() - start
        task = TASKS["classify"]
        examples = task.read(data / "test.tsv")
        score = task.score(task.decisions(folder, examples), [label for _, label in examples])
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        write_json(record_path(folder), {"seconds": seconds, "test": score})
    return record_of(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with all, seed by seed, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="as for prepare.py (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(1 2 3)")
    parser.add_argument("--epochs", type=int, default=6, help="(%(default)s)")
    args = parser.parse_args(arguments)
    folder, data = args.output / args.family, args.output / "data/classify"
    base, runs = folder / "pretrained", folder / "beside_transformers"
    runs.mkdir(exist_ok=True)
    engines: dict[str, Run] = {
        "transformers-float32": by_transformers,
        **{f"bertfast-{dtype}": by_bertfast(dtype) for dtype in dict.fromkeys(("float32", default_dtype()))},
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    for seed in args.seeds:
        for name, run in engines.items():
            found[name].append(measured(run, base, data, runs / f"{name}-{seed}", args.epochs, seed))
            last = found[name][-1]
            print(f"{name}, seed {seed}: {last['seconds']:.0f} s, accuracy {last['test']:.1%}", flush=True)

    share = share_of_text(Tokenizer.from_pretrained(base), TASKS["classify"].read(data / "few.tsv"))
    theirs = found["transformers-float32"]
    lines = ["| | seconds | times | accuracy |", "| --- | ---: | ---: | ---: |"]
    for name, results in found.items():
        times = mean(a["seconds"] / b["seconds"] for a, b in zip(theirs, results, strict=True))
        scores = [one["test"] for one in results]
        lines.append(
            f"| {name} | {mean(one['seconds'] for one in results):.0f} | {times:.2f}x | "
            f"{mean(scores):.1%} ({min(scores):.1%} to {max(scores):.1%}) |"
        )
    text = "\n".join([*lines, "", f"Text is {share:.2f} of the padded batches."]) + "\n"
    folder.joinpath("beside_transformers.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
