"""Fine-tuning moves weights as `transformers.Trainer` does, step for step, on the same batches."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from bertfast.training.finetuning import finetune_classifier
from bertfast.training.options import TrainingOptions
from tiny_finetuning import make_model, write_moods

EXAMPLES, BATCH_SIZE, EPOCHS, SEED = 70, 16, 4, 3
STEPS = EPOCHS * -(-EXAMPLES // BATCH_SIZE)


class OurOrder(torch.utils.data.Sampler[int]):
    """The order of each epoch in ours."""

    def __init__(self) -> None:
        self._epoch = 0

    def __len__(self) -> int:
        return EXAMPLES

    def __iter__(self) -> Any:
        yield from np.random.RandomState([SEED, 0, self._epoch]).permutation(EXAMPLES).tolist()
        self._epoch += 1


class Trainer(transformers.Trainer):
    def _get_train_sampler(self, *_: Any) -> Any:
        return OurOrder()


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A classifier of which both have all weights."""
    folder = make_model(tmp_path / "start", classifier_dropout=0.0)
    torch.manual_seed(1)
    labels = ["between", "down", "up"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, id2label=dict(enumerate(labels)), label2id={name: place for place, name in enumerate(labels)}
    )
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("max_grad_norm", [0.05, 1e9])
def test_the_weights_of_a_classifier(start: Path, tmp_path: Path, max_grad_norm: float) -> None:
    train = write_moods(tmp_path / "train.tsv", EXAMPLES)
    finetune_classifier(
        start,
        train,
        write_moods(tmp_path / "eval.tsv", 10, seed=1),
        tmp_path / "ours",
        options=TrainingOptions(
            learning_rate=2e-3,
            warmup=0.1,
            weight_decay=0.1,
            eps=1e-8,
            max_grad_norm=max_grad_norm,
            seed=SEED,
            log_every=1,
            device="cpu",
        ),
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
    )

    tokenizer = transformers.AutoTokenizer.from_pretrained(start)
    rows = list(csv.DictReader(train.open(), delimiter="\t"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(start)
    trainer = Trainer(
        model,
        transformers.TrainingArguments(
            str(tmp_path / "theirs"),
            per_device_train_batch_size=BATCH_SIZE,
            num_train_epochs=EPOCHS,
            learning_rate=2e-3,
            warmup_steps=0.1,
            weight_decay=0.1,
            adam_epsilon=1e-8,
            max_grad_norm=max_grad_norm,
            use_cpu=True,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
        ),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        train_dataset=[
            {**tokenizer(row["text"]), "labels": model.config.label2id[row["label"]]} for row in rows
        ],
    )
    trainer.train()

    with (tmp_path / "ours/log.csv").open() as file:
        ours = list(csv.DictReader(file))
    theirs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(ours) == len(theirs) == STEPS
    for name in ("learning_rate", "loss", "grad_norm"):
        np.testing.assert_allclose(
            [float(entry[name]) for entry in ours],
            [float(entry[name]) for entry in theirs],
            rtol=1e-3,
            err_msg=name,
        )
    found = load_file(tmp_path / f"ours/checkpoint-{STEPS:06}/model.safetensors")
    expected = model.state_dict()
    begun = load_file(start / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if name.endswith("key.bias"):
            # The softmax does not see it: its gradient is rounding alone, which Adam makes steps of.
            continue
        moved = (tensor - begun[name]).norm()
        assert (found[name] - tensor).norm() <= 1e-3 * moved + 1e-6, name
