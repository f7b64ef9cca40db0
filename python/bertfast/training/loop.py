"""The loop that pretraining and fine-tuning share: from batches to weights, with a log and checkpoints.

A step has one batch, whatever processes and parts it is cut into: each loss is a sum, divided by how many
the whole batch has of what it is a mean of. Every number that is drawn in a step belongs to the key (seed,
step, rank), so that there is no state of a generator to keep, and evaluating in between changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer

from bertfast.arguments import check_positive, differences
from bertfast.errors import ArgumentError, TrainingError
from bertfast.models.pretrained import PretrainedModel
from bertfast.training import checkpoints
from bertfast.training.distributed import Ranks, all_gather, all_sum, wait_for_all
from bertfast.training.log import Log, Picture, ProgressLine, summary
from bertfast.training.optimizers import Lamb, learning_rate, parameter_groups
from bertfast.training.options import TrainingOptions
from bertfast.training.task import MicroBatch, Task, moved

if TYPE_CHECKING:
    from bertfast.tokenizer import Tokenizer


class Trainer:
    """Trains a model on a task.

    Args:
        model: On any device; it goes to that of `ranks`.
        options: How.
        task: What.
        output: The folder for checkpoints, the log, and at the end the model.
        ranks: Of `processes`, whose block this must be in.
        tokenizer: Its files go with the model.
        quiet: Show no progress.
        best_by: Name of the figure whose greatest value decides which weights `output` has at the end, of
            equal ones the first; None for the last weights.
        patience: End after so many evaluations without a greater one; None for never.

    Example:
        >>> with processes(options.device) as ranks:
        ...     Trainer(model, options, task, Path("out"), ranks=ranks).train(1000)
    """

    def __init__(
        self,
        model: PretrainedModel,
        options: TrainingOptions,
        task: Task,
        output: str | os.PathLike[str],
        *,
        ranks: Ranks,
        tokenizer: Tokenizer | None = None,
        quiet: bool = True,
        best_by: str | None = None,
        patience: int | None = None,
    ) -> None:
        if patience is not None:
            check_positive("patience", patience)
        _forget_shapes()
        self.model = model.to(ranks.device)
        self.options = options.with_learning_rate(1e-4)
        self.task = task
        self.output = Path(output)
        self.ranks = ranks
        self.tokenizer = tokenizer
        self.quiet = quiet or not ranks.is_first
        self.step = 0
        """How many steps are done."""
        self.best: dict[str, float] = {}
        """Of `best_by`: ``value``, ``step``, and ``since``, the evaluations since then; empty without one."""
        self._best_by, self._patience = best_by, patience
        self._highest_rate = cast(float, self.options.learning_rate)
        self.optimizer = _optimizer(model, options, self._highest_rate)
        self._window: dict[str, float] = {}
        self._tokens = 0
        self._seconds = 0.0
        self._is_cold = True

    # -------------------------------------------------------------------------------------------- the course

    def train(self, total_steps: int, *, resume: bool = False, overwrite: bool = False) -> dict[str, float]:
        """Trains until so many steps are done, those before a checkpoint included.

        Args:
            total_steps: How many.
            resume: Go on from the newest checkpoint of `output`; begin if there is none.
            overwrite: Remove what earlier training left in `output`.

        Returns:
            What was evaluated at the end.

        Raises:
            ArgumentError: A number that is not allowed, or `resume` and `overwrite` together.
            TrainingError: `output` has something of other training; a loss or a gradient is not finite;
                the memory of a GPU does not suffice; a checkpoint cannot be saved; processes do not find the
                same checkpoint.
            CheckpointError: The checkpoint is damaged.
            OSError: `output` cannot be written.
        """
        check_positive("total_steps", total_steps)
        if resume and overwrite:
            raise ArgumentError("resume, overwrite: expected one of them, got both")
        warmup_steps = self.options.warmup_steps(total_steps)
        cuda = [self.ranks.device] if self.ranks.device.type == "cuda" else []
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(cuda))
            if self.ranks.is_first:
                stack.enter_context(checkpoints.locked(self.output))
                checkpoints.prepare(self.output, resume=resume, overwrite=overwrite)
            wait_for_all()
            settings = {
                "total_steps": total_steps,
                "options": self.options.settings(),
                "task": dict(self.task.settings()),
                **({} if self._best_by is None else {"best_by": self._best_by}),
            }
            # As they are read again: numbers may be NumPy's, which JSON does not know.
            self._settings = json.loads(json.dumps(settings, default=int))
            if resume:
                self._go_on()
            return self._run(total_steps, warmup_steps)

    def _run(self, total_steps: int, warmup_steps: int) -> dict[str, float]:
        log = Log(self.output, self.step) if self.ranks.is_first else None
        picture = Picture(self.output, self.quiet)
        progress = ProgressLine(self.quiet, self.step, total_steps)
        trained = self._wrapped()
        metrics: dict[str, float] = {}
        batches = self.task.batches()
        self.model.train()
        while self.step < total_steps and not self._is_over():
            started = time.monotonic()
            micro_batches = next(batches)
            rate = self._highest_rate * learning_rate(
                self.step,
                warmup_steps=warmup_steps,
                total_steps=total_steps,
                decay=self.options.decay,
                power=self.options.power,
            )
            try:
                self._step(trained, micro_batches, rate)
            except torch.OutOfMemoryError as error:
                parts = self.options.gradient_accumulation_steps
                raise TrainingError(
                    f"step {self.step + 1}: the memory of {self.ranks.device} does not suffice: more "
                    f"gradient_accumulation_steps than {parts} or gradient_checkpointing need less; "
                    f"{self._last_good()}"
                ) from error
            self._seconds += time.monotonic() - started
            row = self._row(rate)
            progress.show(self.step, row)
            is_last = self.step == total_steps
            metrics = self._evaluate() if is_last or _is_due(self.step, self.options.eval_every) else {}
            is_best = self._compare(metrics)
            is_last = is_last or self._is_over()
            if metrics or is_last or _is_due(self.step, self.options.log_every):
                if log is not None:
                    self._write(log, row | {f"eval_{name}": value for name, value in metrics.items()})
                if metrics:
                    found = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
                    progress.say(f"step {self.step:,}, {summary(row)}; evaluation: {found}")
                self._window, self._seconds = {}, 0.0
            # The best weights are saved before they are published: so the newest checkpoint knows of all that
            # was published, wherever the process ends.
            if is_last or is_best or _is_due(self.step, self.options.save_every):
                self._save()
                if log is not None:
                    picture.draw(log.rows)
            if is_best:
                self._publish()
        self.model.eval()
        self.model.gradient_checkpointing_disable()
        if self._best_by is None:
            # There was no step if training went on from its end.
            metrics = metrics or self._evaluate()
            self._publish()
        if self.ranks.is_first:
            progress.say(f"{self.output}: {self.step:,} steps in {progress.elapsed:.1f} s")
        wait_for_all()
        return metrics

    def _wrapped(self) -> nn.Module:
        """The model as it is called in training."""
        if self.options.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        model: nn.Module = self.model
        if self.options.compile:
            model = cast(nn.Module, torch.compile(model, dynamic=True))
        if self.ranks.world_size > 1:
            # Without device_ids it leaves the inputs where they are.
            model = DistributedDataParallel(model)
        return model

    # ---------------------------------------------------------------------------------------------- one step

    def _step(self, model: nn.Module, micro_batches: Sequence[MicroBatch], rate: float) -> None:
        """Moves the weights once."""
        if self._is_cold and self.ranks.world_size > 2:
            # After its first pass DistributedDataParallel adds up gradients in another order, and sums of
            # more than two numbers are then rounded differently: a step that begins the process would not
            # be as it is in the middle of one.
            self._backward(model, micro_batches, dict.fromkeys(self.task.counts(micro_batches), 1))
            self.optimizer.zero_grad()
        self._is_cold = False
        counts = all_sum({**self.task.counts(micro_batches), **_sizes(micro_batches)})
        tokens, padded = int(counts.pop("tokens")), counts.pop("padded_tokens")
        sums = all_sum(self._backward(model, micro_batches, counts))
        losses = {name: value / max(counts[name], 1) for name, value in sums.items()}
        loss = sum(losses.values())
        norm = self._clip()
        for name, value in (("loss", loss), ("gradient", norm)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {self.step + 1}: the {name} is not finite ({value}); {self._last_good()}"
                )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._tokens += tokens
        found = {"steps": 1, "loss": loss, **losses, "grad_norm": norm, "tokens": tokens, "padded": padded}
        self._window = {name: self._window.get(name, 0) + value for name, value in found.items()}

    def _backward(
        self, model: nn.Module, micro_batches: Sequence[MicroBatch], counts: Mapping[str, float]
    ) -> dict[str, float]:
        """Adds the gradients of the whole batch's loss, and returns this process's sums of losses."""
        seed = _key(self.options.seed, self.step, self.ranks.rank)
        # `torch.manual_seed` would change those of other GPUs too.
        torch.default_generator.manual_seed(seed)
        if self.ranks.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        sums: dict[str, Tensor] = {}
        for number, micro_batch in enumerate(micro_batches, start=1):
            with contextlib.ExitStack() as stack:
                if isinstance(model, DistributedDataParallel) and number < len(micro_batches):
                    stack.enter_context(model.no_sync())
                with self._autocast():
                    losses = self.task.losses(model, moved(micro_batch, self.ranks.device))
                # The processes' gradients are averaged, and have to be added up.
                means = [value / max(counts[name], 1) for name, value in losses.items()]
                torch.autograd.backward(torch.stack(means).sum() * self.ranks.world_size)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach().double()
        return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))

    def _clip(self) -> float:
        """Shortens the gradient if it is too long, and returns how long it was."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        most = self.options.max_grad_norm or math.inf
        return float(nn.utils.clip_grad_norm_(parameters, most))

    def _autocast(self) -> Any:
        dtype = getattr(torch, self.options.dtype)
        return torch.autocast(self.ranks.device.type, dtype, enabled=dtype != torch.float32)

    def _evaluate(self) -> dict[str, float]:
        self.model.eval()
        with torch.no_grad(), self._autocast():
            metrics = dict(self.task.evaluate(self.model))
        self.model.train()
        return metrics

    def _compare(self, metrics: Mapping[str, float]) -> bool:
        """Whether no weights before were as good as these."""
        if self._best_by is None or not metrics:
            return False
        value = metrics[self._best_by]
        if self.best and not value > self.best["value"]:
            self.best["since"] += 1
            return False
        self.best = {"value": value, "step": self.step, "since": 0}
        return True

    def _is_over(self) -> bool:
        """Whether there was no better evaluation for long enough."""
        return self._patience is not None and self.best.get("since", 0) >= self._patience

    def _row(self, rate: float) -> dict[str, float]:
        """Means over the steps since the last row."""
        window = dict(self._window)
        steps, tokens, padded = (window.pop(name) for name in ("steps", "tokens", "padded"))
        return {
            "step": self.step,
            **self.task.columns(),
            **{name: value / steps for name, value in window.items()},
            "learning_rate": rate,
            "tokens": self._tokens,
            "tokens_per_second": tokens / max(self._seconds, 1e-9),
            "padding_efficiency": tokens / max(padded, 1),
        }

    def _write(self, log: Log, row: Mapping[str, float]) -> None:
        try:
            log.write(row)
        except OSError as error:
            raise TrainingError(
                f"{log.path}: could not be written: {error.strerror or error}; {self._last_good()}"
            ) from error

    # ------------------------------------------------------------------------------------------- checkpoints

    def _save(self) -> None:
        state = {
            "settings": self._settings,
            "world_size": self.ranks.world_size,
            "tokens": self._tokens,
            "window": self._window,
            "seconds": self._seconds,
            "task": dict(self.task.state_dict()),
            "best": self.best,
        }
        if self.ranks.is_first:
            checkpoints.save(
                self.output,
                self.step,
                self.model,
                self.optimizer,
                state,
                tokenizer=self.tokenizer,
                keep=self.options.keep,
            )
        wait_for_all()

    def _publish(self) -> None:
        """Writes the weights to where they are at the end."""
        if self.ranks.is_first:
            checkpoints.publish(self.output, self.model, self.tokenizer)
        wait_for_all()

    def _last_good(self) -> str:
        newest = checkpoints.latest(self.output)
        return f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"

    def _go_on(self) -> None:
        """From the newest checkpoint, if there is one."""
        newest = checkpoints.latest(self.output)
        seen = all_gather(newest.name if newest else "none")
        if len(set(seen)) > 1:
            found = ", ".join(f"{name} (rank {rank})" for rank, name in enumerate(seen))
            raise TrainingError(
                f"{self.output}: expected the same newest checkpoint in all processes, got {found}: "
                "they need one disk"
            )
        if newest is None:
            return
        state = checkpoints.load(newest, self.model, self.optimizer)
        try:
            differing = "; ".join(differences(state["settings"], self._settings))
            if differing:
                raise TrainingError(f"{newest}: expected training with {differing}")
            self.step, self._tokens = int(state["step"]), int(state["tokens"])
            self._window, self._seconds = dict(state["window"]), float(state["seconds"])
            self.task.load_state_dict(state["task"])
            self.best = dict(state["best"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{newest}: {checkpoints.STATE} is damaged: {error}") from error
        if self.best.get("step") == self.step:
            # They may have been saved only.
            self._publish()


def _forget_shapes() -> None:
    """Keeps memory from growing with every batch.

    In bfloat16 on a CPU, PyTorch and oneDNN under it keep what they made for the last thousand shapes of a
    product, with room for its operands; and no two ragged batches have the same. What a step needs for its
    layers is kept. These are read when the first product is computed.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def _optimizer(model: PretrainedModel, options: TrainingOptions, lr: float) -> Optimizer:
    groups = parameter_groups(model, options.weight_decay)
    if options.optimizer == "lamb":
        return Lamb(groups, lr=lr, betas=options.betas, eps=options.eps)
    # One pass over the memory: without it the optimizer takes a large part of a step on a CPU.
    return AdamW(groups, lr=lr, betas=options.betas, eps=options.eps, fused=True)


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _key(seed: int, step: int, rank: int) -> int:
    """A seed of PyTorch's generators: 63 bits of a hash."""
    digest = hashlib.blake2b(f"{seed},{step},{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _sizes(micro_batches: Sequence[MicroBatch]) -> dict[str, int]:
    """Tokens, and how many there would be with padding to the longest sequence of each part."""
    lengths = [micro_batch["cu_seqlens"].diff() for micro_batch in micro_batches]
    return {
        "tokens": sum(int(part.sum()) for part in lengths),
        "padded_tokens": sum(len(part) * int(part.max()) for part in lengths if len(part)),
    }
