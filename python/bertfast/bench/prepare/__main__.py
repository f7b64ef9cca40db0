"""Runs one step: ``python -m bertfast.bench.prepare STEP OUT``, the setup pickled on standard input."""

from __future__ import annotations

import logging
import pickle
import sys
import traceback
import warnings
from pathlib import Path

from bertfast.bench.failure import reason
from bertfast.bench.prepare import load_step


def main(step: str, out: Path) -> int:
    """Runs it; the last line of standard error is the reason if it fails."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        load_step(step).main(pickle.load(sys.stdin.buffer), out)
    except Exception as error:
        traceback.print_exc()
        print(reason(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
