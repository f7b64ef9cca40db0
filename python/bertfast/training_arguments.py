"""The arguments that the commands share which train, and what becomes of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bertfast.command_options import add_num_threads, positive

if TYPE_CHECKING:
    from bertfast.training.options import TrainingOptions

_NAMES = (
    "learning_rate",
    "warmup",
    "decay",
    "power",
    "weight_decay",
    "max_grad_norm",
    "optimizer",
    "gradient_accumulation_steps",
    "dtype",
    "seed",
    "device",
    "gradient_checkpointing",
    "compile",
    "log_every",
    "eval_every",
    "save_every",
    "keep",
)


def add_training(
    parser: argparse.ArgumentParser, *, learning_rate: str = "1e-4", when: str = "at the end only"
) -> None:
    """Describes how a model is trained, on what, and what is written down of it.

    What is not given stays as `TrainingOptions` has it, or as the command has it in its place.

    Args:
        parser: Of the command.
        learning_rate: What it is if it is not given.
        when: When a model is evaluated and saved if that is not given.
    """
    group = parser.add_argument_group("how weights are moved")
    add = group.add_argument
    add("--optimizer", choices=("adamw", "lamb"), help="default: adamw")
    add("--learning-rate", metavar="X", type=float, help=f"the highest, default: {learning_rate}")
    add(
        "--warmup",
        metavar="X",
        type=float,
        help="how long it rises: steps, or below 1 a share of all, default: 0.1",
    )
    add("--decay", choices=("linear", "polynomial", "constant"), help="how it falls to 0, default: linear")
    add("--power", metavar="X", type=float, help="of polynomial, default: 1")
    add("--weight-decay", metavar="X", type=float, help="of all but biases and LayerNorm, default: 0.01")
    add("--max-grad-norm", metavar="X", type=float, help="longest gradient, 0 for any length, default: 1")
    add("--seed", metavar="N", type=int, help="of start values, dropout and samples, default: 0")
    group = parser.add_argument_group("what it runs on")
    add = group.add_argument
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1; default: auto, a GPU if there is one")
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of matrix products; weights are float32, default: float32",
    )
    add(
        "--gradient-accumulation-steps",
        metavar="N",
        type=positive,
        help="a batch goes through the model in N parts, to need less memory, default: 1",
    )
    add(
        "--gradient-checkpointing",
        action="store_true",
        default=None,
        help="compute layers twice, to need less memory",
    )
    add("--compile", action="store_true", default=None, help="translate the model with torch.compile")
    add_num_threads(parser)
    group = parser.add_argument_group("what is written")
    add = group.add_argument
    add("--log-every", metavar="N", type=positive, help="steps for a row of log.csv, default: 10")
    add("--eval-every", metavar="N", type=positive, help=f"steps, default: {when}")
    add("--save-every", metavar="N", type=positive, help=f"steps for a checkpoint, default: {when}")
    add("--keep", metavar="N", type=positive, help="how many checkpoints stay, default: 2")
    either = group.add_mutually_exclusive_group().add_argument
    either("--resume", action="store_true", help="go on from the newest checkpoint; begin if there is none")
    either("--overwrite", action="store_true", help="begin anew, and remove what is there of other training")
    add("--quiet", action="store_true", help="no progress and no summary")


def training_options(args: argparse.Namespace) -> TrainingOptions:
    """What was asked for.

    Raises:
        ArgumentError: A value that is not allowed.
    """
    from bertfast.training.options import TrainingOptions

    given: dict[str, Any] = {name: getattr(args, name) for name in _NAMES}
    return TrainingOptions(**{name: value for name, value in given.items() if value is not None})


@contextmanager
def training_processes(args: argparse.Namespace) -> Iterator[None]:
    """Within it the processes that ``torchrun`` started, if it did, are together, with the threads asked for.

    If something goes wrong, only one of them says what.
    """
    from bertfast.training.distributed import is_first_to_fail, processes

    if args.num_threads is not None:
        import torch

        torch.set_num_threads(args.num_threads)
    with processes(args.device or "auto"):
        try:
            yield
        except (Exception, KeyboardInterrupt):
            if not is_first_to_fail():
                sys.exit(2)
            raise
