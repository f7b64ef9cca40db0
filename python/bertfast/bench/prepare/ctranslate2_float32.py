"""The model in CTranslate2's own format."""

from __future__ import annotations

from pathlib import Path

from bertfast.bench.engines import Setup

PACKAGES: tuple[str, ...] = ("ctranslate2", "torch", "transformers")
NEEDS: tuple[str, ...] = ()
CALIBRATED = False


def main(setup: Setup, out: Path) -> None:
    """Writes the folder that CTranslate2 opens."""
    convert(setup, out, "float32")


def convert(setup: Setup, out: Path, dtype: str) -> None:
    """The same in any dtype."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(setup.folder)).convert(str(out), quantization=dtype, force=True)
