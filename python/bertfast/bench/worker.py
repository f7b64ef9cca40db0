"""One process per engine, and the pipe between it and the benchmark.

Engines in one process slow each other down (their thread pools spin, their arenas share caches), so each
gets its own, and it is stopped by ``SIGSTOP`` except while it answers a request. A request is a pickled
``(method, arguments)``, the answer a pickled ``("ok", value)`` or ``("error", reason)``.

`Worker` is the benchmark's end, `main` the engine's; what can be asked for are the methods of `Service`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from statistics import median
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from bertfast.bench.engines import Engine, Setup, load_module, module_name
from bertfast.bench.failure import reason
from bertfast.bench.machine import memory_mib
from bertfast.bench.open_loop import Arrival, answer
from bertfast.errors import BertFastError

FIRST_TEXT = "How long does the first vector take?"
_POLL_SECONDS = 0.05
_MOST_CALLS = 200
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


class EngineError(BertFastError):
    """An engine could not do what it was asked for; the message is the reason, in one line."""


class Worker:
    """The process of one engine, as the benchmark sees it.

    Attributes:
        engine: its name.
        pid: id of the process.
        peak_mib: highest resident memory of the process (VmHWM), file pages included, MiB.
        anon_mib: highest resident anonymous memory seen (RssAnon, sampled every 50 ms during requests), MiB.

    Args:
        engine: name of the engine, or dotted name of a module.
        setup: what the engine gets to know.
        timeout: seconds after which a request is given up and the process killed.
        verbose: let the engine write to our standard error.

    Raises:
        ArgumentError: no such engine.
    """

    def __init__(self, engine: str, setup: Setup, timeout: float = 1800.0, verbose: bool = False) -> None:
        module_name(engine)
        self.engine = engine
        self.peak_mib = 0.0
        self.anon_mib = 0.0
        self._timeout = timeout
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else subprocess.DEVNULL,
            env=worker_environment(setup),
            start_new_session=True,  # Ctrl-C is for the benchmark, which then closes its workers.
        )
        self.pid = self._process.pid
        self._stopped = False
        self._setup = setup

    def build(self) -> None:
        """Makes what the engine needs beforehand (untimed)."""
        self._ask("build", self._setup)

    def load(self) -> tuple[str, float]:
        """Loads the engine; its version, and the seconds from its first import to the first vector."""
        return cast("tuple[str, float]", self._ask("load", self._setup))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text after truncation."""
        return cast("list[int]", self._ask("count_tokens", texts))

    def run_ids(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32] | None:
        """Last hidden state (B, S, D), or None from an engine for texts only."""
        return cast("NDArray[np.float32] | None", self._ask("run_ids", input_ids, attention_mask))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, D)."""
        return cast("NDArray[np.float32]", self._ask("encode", texts))

    def time_ids(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], slice_seconds: float
    ) -> float | None:
        """Seconds of one call on these ids: the median over the calls that fit into ``slice_seconds``."""
        return cast("float | None", self._ask("time_ids", input_ids, attention_mask, slice_seconds))

    def time_encode(self, texts: Sequence[str]) -> float:
        """Seconds of one ``encode`` of all texts."""
        return cast("float", self._ask("time_encode", texts))

    def predict(self, items: Sequence[Any]) -> list[Any]:
        """What an engine of a task makes of its items."""
        return cast("list[Any]", self._ask("predict", items))

    def time_predict(self, items: Sequence[Any]) -> float:
        """Seconds of one ``predict`` of all items."""
        return cast("float", self._ask("time_predict", items))

    def latencies(self, arrivals: Sequence[Arrival], callers: int) -> list[float]:
        """Seconds from each arrival to its vector, with this many threads calling the engine."""
        return cast("list[float]", self._ask("latencies", arrivals, callers))

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        if self._process.poll() is None:
            self._process.kill()  # Works on a stopped process, too.
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, *arguments: object) -> object:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            self._resume()
            pickle.dump((method, arguments), process.stdin)
            process.stdin.flush()
            self._await(process.stdout)
            status, value = pickle.load(process.stdout)
        except (BrokenPipeError, EOFError) as error:
            raise EngineError(self._death()) from error
        self._pause()
        if status != "ok":
            raise EngineError(str(value))
        return value

    def _await(self, pipe: IO[bytes]) -> None:
        """Waits for an answer and samples the memory meanwhile."""
        end = time.monotonic() + self._timeout
        while True:
            ready = select.select([pipe], [], [], _POLL_SECONDS)[0]
            memory = memory_mib(self.pid)
            self.peak_mib = max(self.peak_mib, memory.get("peak", 0.0))
            self.anon_mib = max(self.anon_mib, memory.get("anon", 0.0))
            if ready:
                return
            if time.monotonic() > end:
                self.close()
                raise EngineError(f"no answer within {self._timeout:g} s")

    def _pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        self._stopped = True

    def _resume(self) -> None:
        if self._stopped:
            self._process.send_signal(signal.SIGCONT)
            self._stopped = False

    def _death(self) -> str:
        self.close()
        status = self._process.returncode
        if status < 0:
            return f"the process was ended by {signal.Signals(-status).name}"
        return f"the process ended with status {status}"


class Service:
    """What a worker answers."""

    def __init__(self, engine: str) -> None:
        self._name = engine
        self._engine: Engine | None = None

    def build(self, setup: Setup) -> None:
        """Runs the module's ``build``, if it has one."""
        build = getattr(load_module(self._name), "build", None)
        if build is not None:
            build(setup)

    def load(self, setup: Setup) -> tuple[str, float]:
        """Imports the library, opens the model, makes one vector."""
        module = load_module(self._name)
        start = time.perf_counter()
        self._engine = module.prepare(setup)
        self._engine.encode([FIRST_TEXT])
        return self._engine.version, time.perf_counter() - start

    def time_ids(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], slice_seconds: float
    ) -> float | None:
        """Median seconds of a call; the first one finds the caches cold and is left out."""
        run_ids = self._loaded().run_ids
        start = time.perf_counter()
        if run_ids(input_ids, attention_mask) is None:
            return None
        first = time.perf_counter() - start
        # One call that fills the slice by itself is warm for most of its time: not worth another.
        calls = min(_MOST_CALLS, int(slice_seconds / first))
        times = [_seconds(lambda: run_ids(input_ids, attention_mask)) for _ in range(calls)] or [first]
        return median(times)

    def time_encode(self, texts: Sequence[str]) -> float:
        """Seconds of one ``encode``."""
        engine = self._loaded()
        return _seconds(lambda: engine.encode(texts))

    def time_predict(self, items: Sequence[Any]) -> float:
        """Seconds of one ``predict``, which only the engines of tasks have."""
        predict = cast(Any, self._loaded()).predict
        return _seconds(lambda: predict(items))

    def latencies(self, arrivals: Sequence[Arrival], callers: int) -> list[float]:
        """Seconds from each arrival to its vector."""
        engine = self._loaded()
        return answer(arrivals, callers, lambda text: engine.encode([text]))

    def __getattr__(self, method: str) -> Any:
        # run_ids, encode, predict and count_tokens go to the engine as they are.
        if method.startswith("_"):
            raise AttributeError(method)
        return getattr(self._loaded(), method)

    def _loaded(self) -> Engine:
        if self._engine is None:
            raise EngineError("the engine is not loaded")
        return self._engine


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def worker_environment(setup: Setup) -> dict[str, str]:
    """The environment of a worker: the same threads for every library, our import path, no network."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    environment.update(dict.fromkeys(_THREAD_VARIABLES, str(setup.threads)))
    # Our pool serves all calls of the process; the encoder is told how much of it a call may take.
    environment["BERTFAST_NUM_THREADS"] = str(setup.threads * setup.calls)
    if setup.isa is not None:
        environment["BERTFAST_ISA"] = setup.isa
    environment.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    # Bytecode is cached, as it is in an installed package: compiling is no part of anyone's load time.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _die_with_parent() -> None:
    """Asks Linux to kill this process when the benchmark dies: a stopped one would never notice."""
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main(engine: str) -> None:
    """Answers requests on standard input until it is closed."""
    _die_with_parent()
    requests = sys.stdin.buffer
    # What a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    service = Service(engine)
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            reply = ("ok", getattr(service, method)(*arguments))
        except Exception as error:
            traceback.print_exc()
            reply = ("error", reason(error))
        pickle.dump(reply, answers)
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
