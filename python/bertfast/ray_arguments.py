"""What the commands that can run on a cluster take for that."""

from __future__ import annotations

import argparse
import os

from bertfast.errors import ArgumentError

DECIDE = ""
"""`--ray` without an address: Ray decides."""


def add_address(parser: argparse._ActionsContainer) -> None:
    """``--ray [ADDRESS]``."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const=DECIDE,
        help="on the Ray cluster at host:port, `auto` (the one of this machine) or `local` (a new one here); "
        "without ADDRESS: that of RAY_ADDRESS, else one on this machine, else a new one; needs bertfast[ray]",
    )


def address_of(args: argparse.Namespace) -> str | None:
    """The address for `bertfast.distributed.connect`.

    Raises:
        ArgumentError: It is the name of a file, which was to be an input.
    """
    address: str = args.ray
    if ":" not in address and os.path.exists(address) and address not in ("auto", "local"):
        raise ArgumentError(f"--ray: expected an address, got the file {address}: write --ray behind it")
    return address or None
