"""What the scripts share: where things are, and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def write_json(path: Path, value: Any) -> Path:
    """Writes a file, which is there whole or not at all."""
    staged = path.with_name(f".{path.name}.tmp")
    staged.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return staged.replace(path)


def default_dtype() -> str:
    """What is fastest here: bfloat16 where the processor multiplies it."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
