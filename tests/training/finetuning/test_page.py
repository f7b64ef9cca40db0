"""The examples of docs/finetuning.md run, and its tables say what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bertfast.cli import main
from tiny_finetuning import write_moods, write_questions, write_tags

PAGE = (Path(__file__).resolve().parents[3] / "docs/finetuning.md").read_text()


@pytest.fixture
def here(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "BERT").symlink_to(models["bert"])
    for name in ("train", "dev"):
        write_moods(tmp_path / f"{name}.tsv", 40)
        write_tags(tmp_path / f"{name}.conll", 20)
        write_questions(tmp_path / f"{name}.json", 20)
    return tmp_path


def test_the_python_example_runs(here: Path, capsys: pytest.CaptureFixture[str]):
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    exec(compile(example, "docs/finetuning.md", "exec"), {})
    assert re.fullmatch(r"[01]\.\d+ [12]\.0\n", capsys.readouterr().out)


def test_the_commands_run(here: Path, capsys: pytest.CaptureFixture[str]):
    (commands,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    found: set[str] = set()
    for line in commands.splitlines():
        arguments = shlex.split(line)[1:]
        small = ["--max-query-length", "8"] if "qa" in arguments else []
        assert main([*arguments, *small, "--epochs", "1", "--quiet"]) == 0
        folder = here / arguments[-1]
        found |= {path.name for path in folder.iterdir()}
        figures = re.findall(r"(\w+) -?\d", capsys.readouterr().out.partition(": ")[2].partition(" (")[0])
        assert figures
        for name in figures:
            assert f"`{name}`" in PAGE, name
    for name in found - {"vocab.txt", "tokenizer_config.json"}:
        assert f"`{re.sub('checkpoint-.*', 'checkpoint-*', name)}`" in PAGE, name
