"""The model in CTranslate2's own format, its weights in int8."""

from __future__ import annotations

from pathlib import Path

from bertfast.bench.engines import Setup
from bertfast.bench.prepare.ctranslate2_float32 import CALIBRATED, NEEDS, PACKAGES, convert

__all__ = ["CALIBRATED", "NEEDS", "PACKAGES", "main"]


def main(setup: Setup, out: Path) -> None:
    """Writes the folder that CTranslate2 opens."""
    convert(setup, out, "int8")
