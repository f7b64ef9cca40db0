"""The cluster: connecting to it, what its nodes are, and the error inside Ray's."""

from __future__ import annotations

import builtins
import contextlib
import logging
import math
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from bertfast import errors
from bertfast.errors import ArgumentError, BertFastError, ClusterError

T = TypeVar("T")

_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4

_SECONDS = 5.0
"""How long an address may take to answer at all."""

_TRACE_END = re.compile(r"(bertfast\.(?:\w+\.)*)?(\w+): (.+)")


def import_ray() -> Any:
    """The package ``ray``.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("work on a cluster needs Ray: pip install 'bertfast[ray]'") from error
    return ray


@contextlib.contextmanager
def connect(address: str | None = None, *, quiet: bool = False) -> Iterator[None]:
    """Within it the process is connected to a cluster; one that is connected already stays so.

    Args:
        address: ``"host:port"`` of a cluster; ``"auto"`` for the one that runs on this machine; ``"local"``
            for one that is started here and ends with the block; None as Ray itself decides: that of
            ``RAY_ADDRESS``, else the one on this machine, else a new one here.
        quiet: Hide Ray's own messages and progress.

    Raises:
        ArgumentError: The address has none of these forms.
        ClusterError: Nothing answers there, or what answers is no cluster of this version of Ray.
        ImportError: Ray is not installed.

    Example:
        >>> with connect("10.0.0.5:6379"):  # doctest: +SKIP
        ...     encode_dataset(ds, "all-MiniLM-L6-v2").write_parquet("s3://bucket/vectors")

    Source: ``ray.init``.
    """
    ray = import_ray()
    _check_form(address)
    given = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", "local") and not _is_same(address, here):
            raise ArgumentError(f"address: expected {here!r}, to which Ray is connected, got {address!r}")
        with _said(quiet):
            yield
        return
    if given is not None and ":" in given:
        _check_answer(given)
    with _said(quiet):
        _init(ray, address, given, quiet)
        try:
            yield
        finally:
            ray.shutdown()


def _check_form(address: str | None) -> None:
    if address is None or address in ("auto", "local"):
        return
    if not isinstance(address, str):
        raise TypeError(f"address: expected str or None, got {type(address).__name__}")
    if address.startswith("ray://"):
        raise ArgumentError(
            f"address: expected host:port, got {address!r}: a remote driver does not see the files of the "
            "cluster; run the command on one of its nodes, or by `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ArgumentError(f"address: expected host:port, 'auto' or 'local', got {address!r}")


def _is_same(address: str, here: str) -> bool:
    host, _, port = address.rpartition(":")
    host_here, _, port_here = here.rpartition(":")
    try:
        # Ray has a name of its own for what a user may call localhost.
        found = socket.gethostbyname(host)
    except OSError:
        return False
    return port == port_here and (found == host_here or found.startswith("127."))


def _check_answer(address: str) -> None:
    # Ray itself would try for minutes, with a trace in the end.
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            # Ray speaks HTTP/2 (RFC 9113, 3.4): to this a server answers with its settings.
            connection.sendall(_HTTP2)
            answer = connection.recv(9)
    except (OSError, ValueError) as error:
        raise ClusterError(f"address: expected a Ray cluster at {address}, got no answer: {error}") from error
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise ClusterError(f"address: expected a Ray cluster at {address}, got another answer")


def _init(ray: Any, address: str | None, given: str | None, quiet: bool) -> None:
    level = logging.ERROR if quiet else logging.WARNING
    # A cluster that is started here tells nobody that it was, unless the user wants that.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ended = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, logging_level=level, log_to_driver=not quiet, include_dashboard=None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(f"address: expected a Ray cluster at {given}, got: {error}") from error
    finally:
        # Ray takes the signal for itself: it would end the process with a trace, and half-written files stay.
        if ended is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ended)


@contextlib.contextmanager
def _said(quiet: bool) -> Iterator[None]:
    """Within it Ray's data sets show their progress, or nothing."""
    if not quiet:
        yield
        return
    context = import_ray().data.DataContext.get_current()
    names = ("enable_progress_bars", "enable_operator_progress_bars", "print_on_execution_start")
    before = {name: getattr(context, name) for name in names if hasattr(context, name)}
    logger = logging.getLogger("ray.data")
    level = logger.level
    for name in before:
        setattr(context, name, False)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


@dataclass(frozen=True)
class Node:
    """A node that is alive."""

    id: str
    name: str
    """As messages call it: its address."""
    cpus: float


def nodes() -> list[Node]:
    """The nodes that are alive and compute, in the order of their ids.

    Raises:
        ClusterError: There is none.
    """
    ray = import_ray()
    found = [
        Node(entry["NodeID"], entry["NodeManagerAddress"], entry["Resources"].get("CPU", 0.0))
        for entry in ray.nodes()
        if entry["Alive"]
    ]
    found = sorted((node for node in found if node.cpus > 0), key=lambda node: node.id)
    if not found:
        raise ClusterError("cluster: expected a node with CPUs, got none")
    return found


def fitting(cpus: int, name: str) -> int:
    """How many workers with so many CPUs the nodes have room for.

    Raises:
        ArgumentError: None: Ray would wait for a larger node; ``name`` is what the message calls the number.
    """
    found = nodes()
    fit = sum(math.floor(node.cpus / cpus) for node in found)
    if not fit:
        most = int(max(node.cpus for node in found))
        raise ArgumentError(f"{name}: expected at most {most}, the CPUs of the largest node, got {cpus}")
    return fit


def on_every_node(function: Callable[..., T], *args: Any) -> dict[Node, T]:
    """Calls a function once on every node, at the same time.

    Args:
        function: One of a module, so that every node must have it.
        *args: Its arguments.

    Raises:
        ClusterError: A node lacks bertfast, or died.
        Exception: What the function raised; the message begins with the name of the node.
    """
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Without a CPU of its own: it must not wait for the work of others.
    remote = ray.remote(num_cpus=0, max_retries=1)(function)
    calls = {
        node: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            *args
        )
        for node in nodes()
    }
    results: dict[Node, T] = {}
    failed: BaseException | None = None
    # All are waited for: of an error that nobody fetches Ray complains by itself.
    for node, call in calls.items():
        try:
            results[node] = ray.get(call)
        except ray.exceptions.RayError as error:
            failed = failed or renamed(cause_of(error), f"node {node.name}")
    if failed is not None:
        raise failed
    return results


def cause_of(error: BaseException) -> BaseException:
    """What a worker raised, of an error that Ray raised for it; one about Ray itself as `ClusterError`.

    Example:
        >>> try:  # doctest: +SKIP
        ...     ray.get(task)
        ... except ray.exceptions.RayError as error:
        ...     raise cause_of(error) from error
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, ModuleNotFoundError) and (found.name or "").split(".")[0] == "bertfast":
            return ClusterError("expected bertfast on every node, found none")
        if not type(found).__module__.startswith("ray."):
            return found
        inner = getattr(found, "cause", None)
        found = inner if isinstance(inner, BaseException) else found.__cause__
    return _told(str(error)) or ClusterError(f"Ray: {_first_lines(str(error))}")


def _told(text: str) -> BaseException | None:
    """The error that a trace ends with: of what a worker of a data set raised only the text is left."""
    for line in reversed(text.splitlines()):
        if (found := _TRACE_END.match(line)) is None:
            continue
        kind = getattr(errors, found[2], None) if found[1] else getattr(builtins, found[2], None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind(found[3])
    return None


def renamed(error: BaseException, where: str) -> BaseException:
    """The same error with a message that begins with the place.

    Args:
        error: Of any class.
        where: Such as the name of a node or of a file.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return type(error)(error.errno, error.strerror, f"{where}: {error.filename}")
    if isinstance(error, (BertFastError, TypeError, ValueError, ImportError, OSError)):
        with contextlib.suppress(TypeError):
            return type(error)(f"{where}: {error}")
    return error


def _first_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])
