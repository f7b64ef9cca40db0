"""The wheel that users install: what is in it, what it asks for, and that it works alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["The engine is in the wheel.", "In the beginning God created the heaven and the earth."]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree; `BERTFAST_WHEEL` names one built already, such as the portable one."""
    if given := os.environ.get("BERTFAST_WHEEL"):
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("dist")
    maturin = shutil.which("maturin", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert maturin is not None, "maturin is part of the extra `dev`"
    command = [maturin, "build", "--release", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_one_wheel_serves_every_python_from_3_10(wheel: Path) -> None:
    platform = r"(manylinux_\d+_\d+|manylinux2014|linux)_(x86_64|aarch64)"
    assert re.fullmatch(rf"bertfast-[\d.]+-cp310-abi3-{platform}(\.{platform})*\.whl", wheel.name)


def test_it_is_small_and_holds_the_package_only(wheel: Path) -> None:
    assert wheel.stat().st_size < 5_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"bertfast"}
    assert [name for name in names if name.endswith(".so")] == ["bertfast/_bertfast.abi3.so"]
    assert {"bertfast/py.typed", "bertfast/_bertfast.pyi"} <= set(names)
    python_files = {str(path.relative_to(ROOT / "python")) for path in (ROOT / "python").rglob("*.py")}
    assert python_files <= set(names)


def test_it_requires_numpy_and_nothing_else(metadata: Message) -> None:
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert [re.split(r"[^\w-]", line)[0] for line in required] == ["numpy"]
    assert metadata["Requires-Python"] == ">=3.10"


def test_it_encodes_in_an_empty_environment(wheel: Path, minilm: Path, tmp_path: Path) -> None:
    environment = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin/python"
    # Neither Rust, nor this tree, nor anything of the environment that runs the tests is in reach.
    clean = {"PATH": str(environment / "bin"), "HOME": str(tmp_path)}
    assert shutil.which("cargo", path=clean["PATH"]) is None
    assert shutil.which("rustc", path=clean["PATH"]) is None
    pip = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_")) or "proxy" in name
    }
    install = [str(python), "-m", "pip", "install", "--quiet", str(wheel)]
    subprocess.run(install, check=True, env=clean | pip, cwd=tmp_path)

    code = """if True:
        import json, sys, bertfast
        vectors = bertfast.Encoder.from_pretrained(sys.argv[1]).encode(json.loads(sys.argv[2]))
        assert bertfast.__file__.startswith(sys.prefix), bertfast.__file__
        print(json.dumps([vectors.dtype.name, vectors.tolist()]))
    """
    command = [str(python), "-c", code, str(minilm), json.dumps(TEXTS)]
    done = subprocess.run(command, check=True, env=clean, cwd=tmp_path, capture_output=True, text=True)
    dtype, vectors = json.loads(done.stdout)
    assert dtype == "float32"
    expected = SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=0)
