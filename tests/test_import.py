"""`import bertfast` and what it offers are light: what they may not import, they do not."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "sentence_transformers",
    "onnxruntime",
    "openvino",
    "safetensors",
    "scipy",
    "sklearn",
    "matplotlib",
    "psutil",
    "tqdm",
    "requests",
    "asyncio",
    "multiprocessing",
    "unittest",
}


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module", params=["", "from bertfast import *"])
def imported(request: pytest.FixtureRequest) -> set[str]:
    """What `import bertfast`, alone and with every class that it then loads, adds to `import numpy`."""
    return modules_after(f"import numpy, bertfast\n{request.param}") - modules_after("import numpy")


def test_import_loads_the_extension(imported: set[str]) -> None:
    assert "bertfast" in imported


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_import_leaves_out(imported: set[str], name: str) -> None:
    assert name not in imported


def test_the_check_can_fail() -> None:
    # Were an import no longer seen, every test above would pass for nothing.
    assert "unittest" in modules_after("import unittest")


def test_only_the_standard_library_and_numpy_are_imported(imported: set[str]) -> None:
    others = {name for name in imported if name not in sys.stdlib_module_names}
    assert others == {"bertfast"}
