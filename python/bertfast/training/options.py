"""What training is asked for: the same for pretraining and for fine-tuning."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from bertfast.arguments import check_choice, check_from_0, check_positive
from bertfast.errors import ArgumentError

OptimizerName = Literal["adamw", "lamb"]
DtypeName = Literal["float32", "bfloat16"]

# What may be another one when training goes on: the numbers are the same, or are rounded in another order.
_FREE = (
    "gradient_accumulation_steps",
    "device",
    "gradient_checkpointing",
    "compile",
    "log_every",
    "eval_every",
    "save_every",
    "keep",
)


@dataclass(frozen=True)
class TrainingOptions:
    """How weights are moved, on what, and what is written down of it.

    Attributes:
        learning_rate: The highest one; None for 1e-4, in fine-tuning for 5e-5 or what its function says.
        warmup: How long it rises: so many steps, or below 1 a share of all steps.
        decay: How it falls from there to 0: ``"linear"``, ``"polynomial"``, or not at all (``"constant"``).
        power: Of ``"polynomial"``.
        weight_decay: Of all parameters but biases and LayerNorm.
        max_grad_norm: Longest gradient: a longer one is made as long as this. 0 leaves all as they are.
        optimizer: ``"adamw"`` or ``"lamb"``.
        betas: Of the optimizer.
        eps: Of the optimizer.
        gradient_accumulation_steps: In how many parts a batch goes through the model, to need less memory.
            The gradients are those of the whole batch.
        dtype: ``"bfloat16"`` for the matrix products (autocast); the weights stay float32.
        seed: Of start values, dropout and samples.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; ``"auto"`` is a GPU if there is one.
        gradient_checkpointing: Compute the layers twice, to need less memory.
        compile: Let ``torch.compile`` translate the model.
        log_every: A row of the log for so many steps.
        eval_every: Evaluate after so many steps; None for the end only.
        save_every: A checkpoint after so many steps; None for the end only. Fine-tuning has one of the best
            weights besides.
        keep: How many checkpoints stay.

    Raises:
        ArgumentError: A value that is not allowed.

    Example:
        >>> TrainingOptions(learning_rate=1e-4, warmup=0.1).warmup_steps(1000)
        100

    Source: Devlin et al. 2018, appendix A.2, for the optimizer.
    """

    learning_rate: float | None = None
    warmup: float = 0.1
    decay: Literal["linear", "polynomial", "constant"] = "linear"
    power: float = 1.0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    optimizer: OptimizerName = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    gradient_accumulation_steps: int = 1
    dtype: DtypeName = "float32"
    seed: int = 0
    device: str = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    log_every: int = 10
    eval_every: int | None = None
    save_every: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("learning_rate", "power", "eps"):
            if name != "learning_rate" or self.learning_rate is not None:
                _check_number(name, getattr(self, name), "a positive number", lambda value: value > 0)
        for name in ("warmup", "weight_decay", "max_grad_norm"):
            _check_number(name, getattr(self, name), "a number from 0 on", lambda value: value >= 0)
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise ArgumentError(
                f"warmup: expected a share below 1 or a whole number of steps, got {self.warmup!r}"
            )
        check_choice("decay", self.decay, ("linear", "polynomial", "constant"))
        check_choice("optimizer", self.optimizer, ("adamw", "lamb"))
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ArgumentError(f"betas: expected two numbers in [0, 1), got {self.betas!r}")
        check_from_0("seed", self.seed, 2**63 - 1)
        for name in ("gradient_checkpointing", "compile"):
            check_choice(name, getattr(self, name), (False, True))
        for name in ("gradient_accumulation_steps", "log_every", "eval_every", "save_every", "keep"):
            value = getattr(self, name)
            if value is not None or name not in ("eval_every", "save_every"):
                check_positive(name, value)

    def with_learning_rate(self, usual: float) -> TrainingOptions:
        """The same, with a learning rate where none was asked for."""
        return self if self.learning_rate is not None else replace(self, learning_rate=usual)

    def warmup_steps(self, total_steps: int) -> int:
        """How many steps the learning rate rises.

        Raises:
            ArgumentError: More than there are.
        """
        steps = int(self.warmup) if self.warmup >= 1 else round(self.warmup * total_steps)
        if steps > total_steps:
            raise ArgumentError(f"warmup: expected at most {total_steps} steps, all of them, got {steps}")
        return steps

    def settings(self) -> dict[str, Any]:
        """What has to be the same for training to go on."""
        values = {name: value for name, value in asdict(self).items() if name not in _FREE}
        return {**values, "betas": list(self.betas)}


def _check_number(name: str, value: Any, expected: str, allowed: Any) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (math.isfinite(value) and allowed(value))
    ):
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
