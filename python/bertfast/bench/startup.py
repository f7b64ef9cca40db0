"""Import time, first vector and memory of our engine, each in fresh interpreters, medians of ten."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bertfast.bench import machine
from bertfast.bench.dtypes import FLOAT32
from bertfast.bench.engines import Setup
from bertfast.bench.tables import table
from bertfast.bench.worker import FIRST_TEXT, worker_environment
from bertfast.errors import BertFastError

REPEATS = 10
IMPORT_LIMIT = 0.03
FIRST_VECTOR_LIMIT = 0.12
ANON_FACTOR = 1.3
ANON_MIB = 40.0
_SAMPLE_SECONDS = 0.002

_IMPORT = """
import time, numpy
start = time.perf_counter()
import bertfast
print(time.perf_counter() - start)
"""

_FIRST_VECTOR = """
import sys, time, numpy
start = time.perf_counter()
import bertfast
encoder = bertfast.Encoder.from_pretrained(sys.argv[1], num_threads=int(sys.argv[2]), dtype=sys.argv[4])
encoder.encode(sys.argv[3], show_progress_bar=False)
print(time.perf_counter() - start)
"""

# A text longer than any model takes, alone and in a batch: the largest steps that the encoder makes.
_LONG_WORK = """
import sys, bertfast
encoder = bertfast.Encoder.from_pretrained(sys.argv[1], num_threads=int(sys.argv[2]), dtype=sys.argv[4])
encoder.encode(sys.argv[3], show_progress_bar=False)
encoder.encode([sys.argv[3] * 100] * 256, show_progress_bar=False)
print(encoder.info()["packed_bytes"])
"""


@dataclass(frozen=True)
class StartupReport:
    """How our engine starts.

    Attributes:
        model: its name.
        threads: threads of the encoder.
        import_seconds: what ``import bertfast`` adds to ``import numpy``, median.
        first_vector_seconds: from there to the vector of a short text, import included, median.
        anon_mib: peak resident anonymous memory of a process that encodes one short and 256 longest texts.
        packed_mib: the packed weights.
        dtype: what the encoder computes in.
    """

    model: str
    threads: int
    import_seconds: float
    first_vector_seconds: float
    anon_mib: float
    packed_mib: float
    dtype: str = FLOAT32

    @property
    def anon_limit_mib(self) -> float:
        """What the memory should stay under."""
        return ANON_FACTOR * self.packed_mib + ANON_MIB

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "anon_limit_mib": self.anon_limit_mib}

    def render(self, markdown: bool = False) -> str:
        """A table of the figures and what they should stay under."""
        rows = [
            ["", "measured", "limit"],
            ["import bertfast, after numpy", f"{self.import_seconds:.3f} s", f"{IMPORT_LIMIT:.2f} s"],
            [
                "first vector, after numpy",
                f"{self.first_vector_seconds:.3f} s",
                f"{FIRST_VECTOR_LIMIT:.2f} s",
            ],
            ["peak anonymous memory", f"{self.anon_mib:.1f} MiB", f"{self.anon_limit_mib:.1f} MiB"],
        ]
        title = (
            f"{self.model}, {self.dtype}, {self.threads} threads, medians of {REPEATS} fresh interpreters; "
            f"packed weights {self.packed_mib:.1f} MiB"
        )
        return f"{title}\n\n{table(rows, markdown)}\n"


def measure(setup: Setup, name: str, log: Callable[[str], None]) -> StartupReport:
    """Measures all of it; the first process of each kind is not counted (it fills the page cache).

    Raises:
        BertFastError: a process failed; the message is the last line of its output.
    """
    model = [str(setup.folder), str(setup.threads), FIRST_TEXT, setup.dtype]
    log("import")
    imports = [_run(_IMPORT, [], setup)[0] for _ in range(REPEATS + 1)]
    log("first vector")
    vectors = [_run(_FIRST_VECTOR, model, setup)[0] for _ in range(REPEATS + 1)]
    log("memory")
    packed, anon = _run(_LONG_WORK, model, setup)
    return StartupReport(
        model=name,
        threads=setup.threads,
        import_seconds=median(imports[1:]),
        first_vector_seconds=median(vectors[1:]),
        anon_mib=anon,
        packed_mib=packed / 2**20,
        dtype=setup.dtype,
    )


def _run(code: str, arguments: list[str], setup: Setup) -> tuple[float, float]:
    """Runs code in a fresh interpreter: the number that it prints, and its peak anonymous memory in MiB."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=worker_environment(setup),
    )
    anon = 0.0
    while process.poll() is None:
        anon = max(anon, machine.memory_mib(process.pid).get("anon", 0.0))
        time.sleep(_SAMPLE_SECONDS)
    out, err = process.communicate()
    if process.returncode != 0:
        lines = err.strip().splitlines() or [f"exit status {process.returncode}"]
        raise BertFastError(f"bertfast failed in a fresh interpreter: {lines[-1]}")
    return float(out), anon
