"""``bertfast pretrain``: from a token store and a ``config.json`` to a model's folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from bertfast.command_options import positive
from bertfast.errors import ArgumentError
from bertfast.training_arguments import add_training, training_options, training_processes

if TYPE_CHECKING:
    from bertfast.training.pretraining_task import Phase


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command to the parser."""
    parser.description = (
        "Trains a model on the samples of a store, from random weights or from those of a folder. The output "
        "opens in transformers and here. `torchrun --nproc-per-node N -m bertfast pretrain ...` trains one "
        "model with N processes. Several values for length, steps and batches: one phase after the other."
    )
    add = parser.add_argument
    add("--store", metavar="STORE", required=True, help="a folder of `bertfast corpus build`")
    add("--config", metavar="CONFIG", required=True, help="config.json of the model, or a folder with one")
    add("-o", "--output", metavar="DIR", required=True, help="the folder to make")
    add("--init-from", metavar="MODEL", help="whose weights to begin with: a folder or a name on the hub")
    add("--eval-store", metavar="STORE", help="what is evaluated on")
    add("--eval-samples", metavar="N", type=positive, default=1000, help="of it, default: 1000")
    group = parser.add_argument_group("samples and batches")
    add = group.add_argument
    add(
        "--preset",
        choices=("bert", "albert", "roberta", "spanbert"),
        help="whose samples, default: as CONFIG's model_type",
    )
    add(
        "--masked-lm-prob", metavar="P", type=float, help="share of the tokens that are masked, default: 0.15"
    )
    add(
        "--max-seq-length",
        metavar="N",
        type=positive,
        nargs="+",
        default=[128],
        help="tokens of a sample, default: 128",
    )
    add("--steps", metavar="N", type=positive, nargs="+", required=True, help="batches")
    size = group.add_mutually_exclusive_group(required=True)
    size.add_argument(
        "--batch-size", metavar="N", type=positive, nargs="+", help="samples of a batch, of all processes"
    )
    size.add_argument(
        "--batch-tokens",
        metavar="N",
        type=positive,
        nargs="+",
        help="instead of that: tokens of a batch, of all processes, if it were padded",
    )
    add_training(parser)
    parser.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Runs the command."""
    from bertfast.training.pretraining import pretrain

    with training_processes(args):
        pretrain(
            args.store,
            args.config,
            args.output,
            phases=_phases(args),
            options=training_options(args),
            samples=args.preset,
            masked_lm_prob=args.masked_lm_prob,
            eval_store=args.eval_store,
            eval_samples=args.eval_samples,
            init_from=args.init_from,
            num_threads=args.num_threads,
            resume=args.resume,
            overwrite=args.overwrite,
            quiet=args.quiet,
        )
    return 0


def _phases(args: argparse.Namespace) -> list[Phase]:
    """As many as there are values of ``--steps``; of the others there may be one for all."""
    from bertfast.training.pretraining_task import Phase

    def each(name: str, values: list[int]) -> list[int]:
        if len(values) not in (1, len(args.steps)):
            raise ArgumentError(
                f"--{name}: expected one value, or {len(args.steps)} as --steps has, got {len(values)}"
            )
        return values * (len(args.steps) // len(values))

    by = "batch_tokens" if args.batch_size is None else "batch_size"
    sizes = each(by.replace("_", "-"), getattr(args, by))
    lengths = each("max-seq-length", args.max_seq_length)
    triples: Any = zip(lengths, args.steps, sizes, strict=True)
    return [Phase(length, steps, **{by: size}) for length, steps, size in triples]
