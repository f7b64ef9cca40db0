"""The machine that a figure belongs to: its name, its peak, and the memory of a process."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from bertfast import _bertfast

CACHE_BYTES = 256 << 10
"""What a core reads to measure its second-level cache: too much for the first, and fits into any second."""

_BANDWIDTH_SECONDS = 0.2


def describe(threads: int) -> dict[str, object]:
    """CPU, cores, instruction set in use, versions."""
    info = _bertfast.info()
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "isa": info["isa"],
        "system": f"{platform.system()} {platform.machine()}",
        "python": ".".join(map(str, sys.version_info[:3])),
        "bertfast": info["version"],
    }


def default_threads() -> int:
    """As many threads as our engine would take by itself: one per physical core that may be used."""
    return int(_bertfast.info()["num_threads"])


def measure_peak(seconds: float, threads: int, dtype: str) -> float | None:
    """FLOP/s of nothing but multiply-adds of this dtype in registers on all threads; None if it has none."""
    try:
        return _bertfast.measure_peak(seconds, threads, dtype)
    except ValueError:
        return None


def measure_bandwidths(threads: int) -> dict[str, float]:
    """Bytes/s that all threads together read, each out of its own second-level cache, and from memory."""
    return {
        "cache": _bertfast.measure_bandwidth(_BANDWIDTH_SECONDS, threads, CACHE_BYTES * threads),
        "memory": _bertfast.measure_bandwidth(_BANDWIDTH_SECONDS, threads),
    }


def memory_mib(pid: int | str = "self") -> dict[str, float]:
    """MiB of one process: ``peak`` (VmHWM, file pages included) and ``anon`` (RssAnon, now).

    Empty where there is no ``/proc`` or the process is gone.

    Source: proc_pid_status(5).
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    wanted = {"VmHWM": "peak", "RssAnon": "anon"}
    rows = (line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {wanted[key]: int(value.split()[0]) / 1024 for key, value in rows if key in wanted}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
