"""Prepared models are made whole, kept, and made anew when what they depend on changes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bertfast.bench import prepare, random_model
from bertfast.bench.engines import Setup
from bertfast.errors import BertFastError

STEP = """
PACKAGES = {packages}
NEEDS = {needs}
CALIBRATED = {calibrated}

def main(setup, out):
    {body}
"""


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Adds steps to the package, for the processes that run them too."""
    folder = tmp_path / "steps"
    folder.mkdir()
    # A step is found where `bertfast.bench.prepare` looks for modules: `sitecustomize` adds a place.
    (folder / "sitecustomize.py").write_text(
        f"import bertfast.bench.prepare as p; p.__path__.append({str(folder)!r})"
    )
    monkeypatch.setattr(prepare, "__path__", [*prepare.__path__, str(folder)])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    def add(name: str, body: str, packages=("numpy",), needs=(), calibrated=False) -> str:
        code = STEP.format(packages=packages, needs=needs, calibrated=calibrated, body=body)
        (folder / f"{name}.py").write_text(code)
        return name

    return add


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(folder=tmp_path, prepared=tmp_path / "cache/model", threads=1, calibration=("a",))


COUNT = '(out / "made").write_text("x"); (setup.folder / "runs").open("a").write("x")'


def runs(setup: Setup) -> int:
    return len((setup.folder / "runs").read_text())


def test_a_result_is_kept(steps, setup: Setup):
    step = steps("kept_step", COUNT)
    for _ in range(3):
        prepare.ensure(setup, step)
        assert (prepare.folder(setup, step) / "made").exists()
    assert runs(setup) == 1
    prepare.ensure(replace(setup, calibration=("b",)), step)
    assert runs(setup) == 1
    assert os.listdir(setup.prepared) == [step]


def test_another_calibration_or_version_makes_it_anew(steps, setup: Setup):
    step = steps("calibrated_step", COUNT, calibrated=True)
    prepare.ensure(setup, step)
    prepare.ensure(replace(setup, calibration=("b",)), step)
    assert runs(setup) == 2
    record = prepare.folder(setup, step) / "made_by.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"numpy": "0.1"}))
    prepare.ensure(replace(setup, calibration=("b",)), step)
    assert runs(setup) == 3


def test_what_a_step_needs_is_made_first_and_its_versions_count(steps, setup: Setup):
    steps("first_step", COUNT)
    body = '(out / "copy").write_text((setup.prepared / "first_step" / "made").read_text())'
    step = steps("second_step", body, packages=(), needs=("first_step",))
    prepare.ensure(setup, step)
    assert (prepare.folder(setup, step) / "copy").read_text() == "x"
    assert "numpy" in json.loads((prepare.folder(setup, step) / "made_by.json").read_text())


def test_a_failure_is_one_line_and_leaves_nothing(steps, setup: Setup):
    step = steps("failing_step", '(out / "half").touch(); raise ValueError("no such\\nthing")')
    with pytest.raises(BertFastError, match=r"^failing_step: ValueError: no such thing$"):
        prepare.ensure(setup, step)
    assert os.listdir(setup.prepared) == []


def test_a_missing_package_is_not_installed(steps, setup: Setup):
    step = steps("import_step", "import no_such_library")
    with pytest.raises(BertFastError, match=r"^import_step: no_such_library is not installed$"):
        prepare.ensure(setup, step)
    with pytest.raises(ModuleNotFoundError) as caught:
        prepare.ensure(setup, steps("version_step", "pass", packages=("no-such-package",)))
    assert caught.value.name == "no-such-package"


def test_a_model_is_known_by_its_content(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        random_model.write(tmp_path / name, "1x64")
    cache = tmp_path / "cache"
    digests = [prepare.model_folder(cache, tmp_path / name).name.split("-")[-1] for name in ("a", "b")]
    assert digests[0] == digests[1]
    (tmp_path / "b" / "config.json").write_text("{}")
    assert prepare.model_folder(cache, tmp_path / "b").name.split("-")[-1] != digests[0]


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert prepare.default_cache() == tmp_path / "bertfast/bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare.default_cache() == tmp_path / ".cache/bertfast/bench"
