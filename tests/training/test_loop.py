"""The loop: gradients whatever a batch is cut into, the learning rate, and when all is not well."""

from __future__ import annotations

import json
import math

import pytest
import torch

from bertfast.errors import ArgumentError, TrainingError
from bertfast.training import log
from bertfast.training.loop import Trainer
from bertfast.training.optimizers import learning_rate
from bertfast.training.pretraining_task import Phase, PretrainingTask
from tiny_pretraining import assert_same, trainer, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Of the first batch."""
    parts = next(trainer.task.batches())
    assert len(parts) == trainer.options.gradient_accumulation_steps
    trainer._backward(trainer.model.train(), parts, trainer.task.counts(parts))
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("parts", [2, 5])
def test_gradients_do_not_depend_on_the_parts(store, tmp_path, parts):
    # Short samples: parts have different numbers of tokens and of masks, so a mean of means would be wrong.
    phases = (Phase(48, 1, batch_size=7),)
    whole = gradients(trainer(store, tmp_path, phases=phases, dropout=False))
    cut = gradients(trainer(store, tmp_path, phases=phases, dropout=False, gradient_accumulation_steps=parts))
    assert whole.keys() == cut.keys()
    largest = max(float(value.abs().max()) for value in whole.values())
    for name, value in whole.items():
        # float32 sums of the same numbers in another order; wrong weights are off by percents.
        assert float((value - cut[name]).abs().max()) <= 1e-6 * largest, name


def test_gradients_are_those_of_the_models_own_loss(store, tmp_path):
    own = trainer(store, tmp_path, dropout=False)
    found = gradients(own)
    (part,) = next(trainer(store, tmp_path).task.batches())
    own.optimizer.zero_grad()
    labels = torch.full((len(part["input_ids"]),), -100)
    labels[part["masked_positions"]] = part["labels"]
    names = ("input_ids", "token_type_ids", "cu_seqlens", "next_sentence_label")
    own.model(**{name: part[name] for name in names}, labels=labels).loss.backward()
    for name, parameter in own.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_samples_that_repeat_do_not_count(store, tmp_path):
    task = trainer(store, tmp_path).task
    dataset = task._sampler.dataset
    part = task._part(dataset, [3, 5], repeats=True)
    assert task.counts([part]) == {"mlm_loss": 0, "nsp_loss": 0}
    assert all(
        float(loss.detach()) == 0 for loss in task.losses(trainer(store, tmp_path).model, part).values()
    )
    once = task.counts([task._part(dataset, [3, 5])])
    assert once["nsp_loss"] == 2
    assert once["mlm_loss"] > 2


@pytest.mark.parametrize(
    "options",
    [
        {"warmup": 4},
        {"warmup": 0.25, "decay": "polynomial", "power": 2.0},
        {"warmup": 0, "decay": "constant", "optimizer": "lamb"},
    ],
)
def test_the_learning_rate_is_as_computed(store, tmp_path, options):
    one = trainer(store, tmp_path, learning_rate=2e-3, log_every=1, **options)
    one.train(12)
    warmup = one.options.warmup_steps(12)
    for step, row in enumerate(log.read(tmp_path)):
        share = learning_rate(
            step, warmup_steps=warmup, total_steps=12, decay=one.options.decay, power=one.options.power
        )
        assert int(row["step"]) == step + 1
        assert float(row["learning_rate"]) == pytest.approx(2e-3 * share, rel=1e-8)
    assert {group["lr"] for group in one.optimizer.param_groups} == {2e-3 * share}
    if options["warmup"]:
        # As in BERT's original the first step has the learning rate 0.
        assert float(log.read(tmp_path)[0]["learning_rate"]) == 0


def test_the_log_has_means_of_the_steps_between_rows(store, tmp_path):
    trainer(store, tmp_path / "every", log_every=1).train(12)
    trainer(store, tmp_path / "third", log_every=3).train(12)
    every, third = log.read(tmp_path / "every"), log.read(tmp_path / "third")
    assert [row["step"] for row in third] == ["3", "6", "9", "12"]
    for number, row in enumerate(third):
        rows = every[3 * number : 3 * number + 3]
        for name in ("loss", "mlm_loss", "nsp_loss", "grad_norm"):
            mean = sum(float(one[name]) for one in rows) / 3
            assert float(row[name]) == pytest.approx(mean, rel=1e-7), name
        assert float(row["loss"]) == pytest.approx(float(row["mlm_loss"]) + float(row["nsp_loss"]), rel=1e-7)
        assert row["tokens"] == rows[-1]["tokens"]
        assert 0.3 < float(row["padding_efficiency"]) <= 1
        assert float(row["tokens_per_second"]) > 0


def test_long_gradients_are_made_shorter(store, tmp_path):
    one = trainer(store, tmp_path, max_grad_norm=0.01)
    gradients(one)
    norm = one._clip()
    parameters = [p.grad for p in one.model.parameters() if p.grad is not None]
    assert norm > 0.1
    assert float(torch.stack([g.norm() for g in parameters]).norm()) == pytest.approx(0.01, rel=1e-3)
    free = trainer(store, tmp_path, max_grad_norm=0)
    gradients(free)
    assert free._clip() == pytest.approx(norm, rel=1e-6)
    kept = [p.grad for p in free.model.parameters() if p.grad is not None]
    assert float(torch.stack([g.norm() for g in kept]).norm()) == pytest.approx(norm, rel=1e-5)


def test_evaluating_changes_nothing(store, eval_store, tmp_path):
    with_it = trainer(store, tmp_path / "with", eval_store=eval_store, eval_every=1, log_every=1)
    without = trainer(store, tmp_path / "without", log_every=1)
    metrics = with_it.train(12)
    assert without.train(12) == {}
    assert_same(weights(with_it.model), weights(without.model))
    rows = log.read(tmp_path / "with")
    names = [name for name in rows[0] if not name.startswith("eval_") and name != "tokens_per_second"]
    assert [[row[name] for name in names] for row in rows] == [
        [row[name] for name in names] for row in log.read(tmp_path / "without")
    ]
    assert set(metrics) == {"loss", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"}
    assert {f"eval_{name}": f"{value:.9g}" for name, value in metrics.items()}.items() <= rows[-1].items()


def test_what_is_evaluated_is_always_the_same(store, eval_store, tmp_path):
    one = trainer(store, tmp_path, eval_store=eval_store)
    first = one._evaluate()
    other = trainer(
        store,
        tmp_path,
        phases=(Phase(64, 2, batch_size=9), Phase(32, 1, batch_tokens=256)),
        eval_store=eval_store,
        seed=5,
        gradient_accumulation_steps=3,
    )
    next(other.task.batches())
    torch.manual_seed(99)
    assert other._evaluate() == first == one._evaluate()
    assert one.model.training


def test_training_leaves_the_generators_of_the_program_alone(store, tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = trainer(store, tmp_path)
    torch.set_rng_state(before)
    one.train(12)
    assert torch.equal(torch.get_rng_state(), before)


class Spoiled(PretrainingTask):
    """Its loss is not a number in step 8."""

    steps = 0

    def losses(self, model, micro_batch):
        self.steps += 1
        losses = super().losses(model, micro_batch)
        return losses if self.steps < 8 else {name: loss * math.nan for name, loss in losses.items()}


@pytest.mark.parametrize("save_every", [5, None])
def test_a_loss_that_is_no_number_stops(store, tmp_path, save_every):
    one = trainer(store, tmp_path, task=Spoiled, save_every=save_every)
    good = tmp_path / "checkpoint-000005"
    where = f"the last good checkpoint is {good}" if save_every else "there is no checkpoint yet"
    with pytest.raises(TrainingError, match=rf"^step 8: the loss is not finite \(nan\); {where}$"):
        one.train(12)
    assert all(bool(value.isfinite().all()) for value in one.model.state_dict().values())
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ([good.name] if save_every else [])
    assert not (tmp_path / "model.safetensors").exists()
    # The step is not in the log, and the good checkpoint can be gone on from.
    assert [row["step"] for row in log.read(tmp_path)] == ["3", "6"]
    again = trainer(store, tmp_path)
    again.train(12, resume=True)
    assert [row["step"] for row in log.read(tmp_path)] == ["3", "6", "9", "12"]


def test_a_gradient_that_is_not_finite_stops(store, tmp_path, monkeypatch):
    one = trainer(store, tmp_path)
    before = weights(one.model)
    weight = one.model.get_parameter("bert.encoder.layer.0.output.dense.weight")
    weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        TrainingError, match=r"^step 1: the gradient is not finite \((nan|inf)\); there is no"
    ):
        one.train(12)
    assert_same(before, weights(one.model))


class Greedy(PretrainingTask):
    """Its model asks for more memory than there is, in step 8."""

    steps = 0

    def losses(self, model, micro_batch):
        self.steps += 1
        model.forward = self.refused if self.steps == 8 else type(model).forward.__get__(model)
        return super().losses(model, micro_batch)

    def refused(self, *arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


@pytest.mark.parametrize("save_every", [5, None])
def test_too_little_memory_is_said_in_one_line(store, tmp_path, save_every):
    one = trainer(store, tmp_path, task=Greedy, save_every=save_every)
    good = tmp_path / "checkpoint-000005"
    where = f"the last good checkpoint is {good}" if save_every else "there is no checkpoint yet"
    with pytest.raises(TrainingError) as caught:
        one.train(12)
    assert str(caught.value) == (
        "step 8: the memory of cpu does not suffice: more gradient_accumulation_steps than 1 or "
        f"gradient_checkpointing need less; {where}"
    )
    again = trainer(store, tmp_path, gradient_accumulation_steps=2, gradient_checkpointing=True)
    again.train(12, resume=True)


def test_the_loss_falls(store, eval_store, tmp_path):
    phases = (Phase(32, 300, batch_size=24),)
    one = trainer(store, tmp_path, phases=phases, eval_store=eval_store, learning_rate=5e-3, dropout=False)
    before = one._evaluate()
    after = one.train(300)
    # Twelve words follow each other in one order: a word says which is beside it.
    assert before["mlm_loss"] > math.log(12) > 2 * after["mlm_loss"]
    assert before["mlm_accuracy"] < 0.2 < 0.6 < after["mlm_accuracy"]
    rows = log.read(tmp_path)
    assert float(rows[-1]["mlm_loss"]) < 0.5 * float(rows[0]["mlm_loss"])


def test_numbers_of_steps_that_are_not_allowed(store, tmp_path):
    for steps in (0, -1, 2.0, None):
        with pytest.raises(ArgumentError, match="total_steps: expected a positive integer"):
            trainer(store, tmp_path / "new").train(steps)
    with pytest.raises(ArgumentError, match="resume, overwrite: expected one of them, got both"):
        trainer(store, tmp_path / "new").train(12, resume=True, overwrite=True)
    with pytest.raises(ArgumentError, match="warmup: expected at most 12 steps"):
        trainer(store, tmp_path / "new", warmup=13).train(12)
    assert not (tmp_path / "new").exists()


def test_bfloat16_keeps_its_weights_in_float32(store, tmp_path):
    half, full = trainer(store, tmp_path / "a", dtype="bfloat16"), trainer(store, tmp_path / "b")
    half.train(12)
    full.train(12)
    assert {value.dtype for value in half.model.state_dict().values()} == {torch.float32}
    losses = [float(log.read(tmp_path / name)[-1]["loss"]) for name in "ab"]
    # bfloat16 has eight bits: another number, but not far from it.
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_layers_computed_twice_give_the_same_weights(store, tmp_path):
    twice = trainer(store, tmp_path / "a", gradient_checkpointing=True)
    once = trainer(store, tmp_path / "b")
    twice.train(12)
    once.train(12)
    assert_same(weights(twice.model), weights(once.model))


def test_settings_are_what_json_has(store, tmp_path):
    one = trainer(store, tmp_path)
    for value in (one.task.settings(), one.task.state_dict(), one.options.settings()):
        assert json.loads(json.dumps(value)) == value
