"""The examples of docs/pretraining.md run."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/pretraining.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, data_dir: Path, minilm: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from bertfast.pretraining import build_corpus

    text = (data_dir / "bible-chapters.txt").read_text(encoding="utf-8")[:200_000]
    (tmp_path / "texts.txt").write_text(text, encoding="utf-8")
    (tmp_path / "FOLDER").symlink_to(minilm)
    build_corpus(["texts.txt"], "FOLDER", "STORE")
    names: dict[str, object] = {}
    exec(compile(EXAMPLES[number], "docs/pretraining.md", "exec"), names)
    arrays = [value for value in names.values() if isinstance(value, np.ndarray)]
    assert all(array.size for array in arrays)


def test_there_are_examples():
    assert EXAMPLES
