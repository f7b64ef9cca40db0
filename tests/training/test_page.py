"""The examples of docs/training.md run, and what it says of options is so."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from bertfast import cli
from bertfast.training import Phase
from tiny_finetuning import make_model, write_moods
from tiny_pretraining import TINY, write_config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/training.md").read_text()
PRETRAINING = PAGE.partition("## Fine-tuning")[0]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PRETRAINING, re.M | re.S)
COMMANDS = [
    line.replace("\\\n", "")
    for block in re.findall(r"^```sh\n(.*?)^```", PRETRAINING, re.M | re.S)
    for line in re.split(r"(?<!\\)\n", block.strip())
]


@pytest.fixture
def folder(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """With all that examples name."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(store.parent / "texts.txt", tmp_path)
    (tmp_path / "STORE").symlink_to(store)
    (tmp_path / "FOLDER").symlink_to(store.parent / "tokenizer")
    write_config(tmp_path / "config.json")
    return tmp_path


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(folder: Path, number: int):
    exec(compile(EXAMPLES[number], "docs/training.md", "exec"), {})
    assert (folder / "MODEL/model.safetensors").exists()


def test_the_first_commands_run(folder: Path):
    (folder / "STORE").unlink()
    for command in COMMANDS[:2]:
        program, *arguments = shlex.split(command)
        assert program == "bertfast"
        assert cli.main([*arguments, "--quiet"]) == 0
    assert json.loads((folder / "MODEL/config.json").read_text())["hidden_size"] == TINY["hidden_size"]


def test_the_other_commands_are_understood(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("bertfast.training.pretraining.pretrain", lambda *_, **options: asked.append(options))
    for command in COMMANDS[2:]:
        arguments = shlex.split(command)
        if "pretrain" in arguments:
            assert cli.main(arguments[arguments.index("pretrain") :]) == 0
    two_phases, adapted, several_processes = asked
    assert two_phases["phases"] == [Phase(128, 900_000, 256), Phase(512, 100_000, 256)]
    assert adapted["init_from"] == "MODEL"
    assert several_processes["options"].optimizer == "lamb"


def test_the_commands_for_texts_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With smaller numbers, as they stand there one behind the other."""
    section = PRETRAINING.partition("### Texts of one's own")[2].partition("###")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    make_model(tmp_path / "MODEL")
    texts = [line.split("\t")[1] for line in write_moods(tmp_path / "train.tsv", 40).read_text().splitlines()]
    write_moods(tmp_path / "dev.tsv", 10, seed=1)
    (tmp_path / "reviews.txt").write_text("\n\n".join(texts[1:]) + "\n")
    monkeypatch.chdir(tmp_path)
    for long, short in {"32 128": "16 32", "1500 1500": "2 2", "64 16": "4 4"}.items():
        assert long in block
        block = block.replace(long, short)
    for command in block.replace("\\\n", " ").strip().splitlines():
        assert cli.main([*shlex.split(command)[1:], "--quiet"]) == 0, command
    assert json.loads((tmp_path / "REVIEWS/config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]


def test_every_option_is_in_the_table(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    # torchrun's own is in the description.
    options = {name for name in options_in(capsys.readouterr().out) if not name.startswith("--nproc")}
    named = options_in(PRETRAINING.partition("### Options")[2].partition("### Two")[0])
    assert named == options - {"--help", "--store", "--config", "--output"}


def options_in(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]*[a-z]", text))


def test_checkpoints_are_as_the_page_shows_them(folder: Path):
    exec(compile(EXAMPLES[0], "docs/training.md", "exec"), {})
    shown = PRETRAINING.partition("### Going on")[2]
    for file in (folder / "MODEL").rglob("*"):
        if file.is_file() and file.name != "vocab.txt":
            assert file.name in shown
