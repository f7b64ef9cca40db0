"""What the scripts share: where things are, and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / ".data"
"""What `make data` has fetched."""
OUTPUT = DATA / "chinese-example"
"""Where everything goes if nothing else is said."""


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` if all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    staged.chmod(0o755)
    try:
        yield staged
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
