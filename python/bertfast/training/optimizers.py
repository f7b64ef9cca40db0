"""What moves the weights: BERT's groups of parameters, LAMB, and the course of the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bertfast.errors import ArgumentError

Decay = Literal["linear", "polynomial", "constant"]

_NORMS = (nn.LayerNorm,)


def parameter_groups(model: nn.Module, weight_decay: float = 0.01) -> list[dict[str, Any]]:
    """A model's parameters as optimizers take them: biases and LayerNorm are neither decayed nor adapted.

    Args:
        model: Parameters that need no gradient are left out; one that has several names is there once.
        weight_decay: Of the others.

    Returns:
        Two groups with ``params``, ``weight_decay`` and ``layer_adaptation``, without those that are empty.

    Source: ``AdamWeightDecayOptimizer`` of google-research/bert, ``LAMBOptimizer`` of google-research/albert.
    """
    plain: dict[Tensor, None] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and (isinstance(module, _NORMS) or name.endswith("bias")):
                plain[parameter] = None
    decayed = [p for p in model.parameters() if p.requires_grad and p not in plain]
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "layer_adaptation": True},
        {"params": list(plain), "weight_decay": 0.0, "layer_adaptation": False},
    ]
    return [group for group in groups if group["params"]]


class Lamb(Optimizer):
    """Adam whose step has for each tensor the length of the tensor itself: for large batches.

    ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g^2``, ``u = m / (sqrt(v) + eps) + decay w``,
    ``w -= lr (|w| / |u|) u``; the ratio is 1 where one of the lengths is 0, and in groups without
    ``layer_adaptation``. As in ALBERT's original, ``m`` and ``v`` are not corrected for their start at 0
    unless `bias_correction` says so, as the paper does.

    Args:
        params: Parameters, or groups such as `parameter_groups` makes.
        lr: Learning rate.
        betas: b1 and b2.
        eps: See above.
        weight_decay: Of groups that do not have their own.
        layer_adaptation: The same.
        bias_correction: Divide ``m`` by ``1 - b1^t`` and ``v`` by ``1 - b2^t``.

    Raises:
        ArgumentError: A value that is negative, or a beta that is not in [0, 1).

    Example:
        >>> optimizer = Lamb(parameter_groups(model), lr=1.76e-3)

    Source: You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020;
    ``LAMBOptimizer`` of google-research/albert.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        layer_adaptation: bool = True,
        bias_correction: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ArgumentError(f"{name}: expected a number from 0 on, got {value}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ArgumentError(f"betas: expected two numbers in [0, 1), got {betas}")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "layer_adaptation": layer_adaptation,
            "bias_correction": bias_correction,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves all parameters that have a gradient.

        Args:
            closure: Computes the loss anew.

        Returns:
            What the closure returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._step(group, parameters)
        return loss

    def _step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """All tensors of a group at once: a GPU gets a few calls, not a few for each tensor."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        states = [self._state(parameter) for parameter in parameters]
        first, second = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        for state in states:
            state["step"] += 1
        updates, roots = [moment.clone() for moment in first], torch._foreach_sqrt(second)
        if group["bias_correction"]:
            steps = [float(state["step"]) for state in states]
            torch._foreach_div_(updates, [1 - beta1**step for step in steps])
            torch._foreach_div_(roots, [(1 - beta2**step) ** 0.5 for step in steps])
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_div_(updates, roots)
        if group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        if group["layer_adaptation"]:
            weights, lengths = torch._foreach_norm(parameters), torch._foreach_norm(updates)
            ratios = [
                torch.where((weight > 0) & (length > 0), weight / length, 1.0)
                for weight, length in zip(weights, lengths, strict=True)
            ]
            torch._foreach_mul_(updates, ratios)
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _state(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def learning_rate(
    step: int,
    *,
    warmup_steps: int,
    total_steps: int,
    decay: Decay = "linear",
    power: float = 1.0,
    end: float = 0.0,
) -> float:
    """The share of the highest learning rate that a step has.

    It rises in a line from 0 at step 0 to 1 at `warmup_steps`, and falls from there to `end` at
    `total_steps`.

    Args:
        step: From 0 on.
        warmup_steps: How long it rises.
        total_steps: When it has fallen.
        decay: In a line, as ``(1 - x) ** power``, or not at all.
        power: Of ``"polynomial"``.
        end: What it falls to.

    Source: Devlin et al. 2018, appendix A.2; ``get_linear_schedule_with_warmup`` of ``transformers``.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if decay == "constant":
        return 1.0
    done = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return float(end + (1 - end) * (1 - done) ** (power if decay == "polynomial" else 1.0))


def schedule(
    optimizer: Optimizer,
    *,
    warmup_steps: int,
    total_steps: int,
    decay: Decay = "linear",
    power: float = 1.0,
    end: float = 0.0,
) -> LambdaLR:
    """`learning_rate` for the groups of an optimizer, one step for each of its own.

    Raises:
        ArgumentError: Steps that are no positive number, a warm-up that is longer than all, or another decay.

    Example:
        >>> scheduler = schedule(optimizer, warmup_steps=10_000, total_steps=1_000_000)
    """
    if total_steps < 1 or not 0 <= warmup_steps <= total_steps:
        raise ArgumentError(
            f"warmup_steps, total_steps: expected 0 <= warm-up <= total, got {warmup_steps} and {total_steps}"
        )
    if decay not in ("linear", "polynomial", "constant"):
        raise ArgumentError(f"decay: expected 'linear', 'polynomial' or 'constant', got {decay!r}")
    if not power > 0 or not 0 <= end <= 1:
        raise ArgumentError(
            f"power, end: expected a positive number and one in [0, 1], got {power} and {end}"
        )

    def share(step: int) -> float:
        return learning_rate(
            step, warmup_steps=warmup_steps, total_steps=total_steps, decay=decay, power=power, end=end
        )

    return LambdaLR(optimizer, share)
