"""Connecting to a cluster, and what is said when that fails; no cluster."""

from __future__ import annotations

import socket
import sys
import threading
from typing import Any

import pytest

from bertfast.distributed import connect
from bertfast.distributed.cluster import cause_of, import_ray, renamed
from bertfast.errors import ArgumentError
from command_line import error_of, run_bertfast


@pytest.mark.parametrize("address", ["nonsense", "host", "host:", "host:x", ":6379", "host:70000", "host:0"])
def test_what_is_no_address(address: str) -> None:
    with (
        pytest.raises(ArgumentError, match=r"^address: expected host:port, 'auto' or 'local', got "),
        connect(address),
    ):
        pass


def test_a_remote_driver() -> None:
    with (
        pytest.raises(ArgumentError, match=r"^address: expected host:port, got 'ray://host:1'"),
        connect("ray://host:1"),
    ):
        pass
    with pytest.raises(TypeError, match=r"^address: expected str or None, got int"), connect(6379):  # type: ignore[arg-type]
        pass


def test_the_command_says_so(tmp_path: Any) -> None:
    (tmp_path / "in").write_text("a\n")
    done = run_bertfast("encode", tmp_path, tmp_path / "in", "-o", tmp_path / "out", "--ray", "127.0.0.1:1")
    assert error_of(done).startswith("address: expected a Ray cluster at 127.0.0.1:1, got no answer: ")
    assert not (tmp_path / "out").exists()


def test_what_answers_is_no_cluster(tmp_path: Any) -> None:
    (tmp_path / "in").write_text("a\n")
    arguments = ["encode", tmp_path, tmp_path / "in", "-o", tmp_path / "out", "--ray"]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        message = error_of(run_bertfast(*arguments, address))
        thread.join()
        assert message == f"address: expected a Ray cluster at {address}, got another answer"
        # And one that says nothing.
        message = error_of(run_bertfast(*arguments, address))
        assert message == f"address: expected a Ray cluster at {address}, got no answer: timed out"


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"needs Ray: pip install 'bertfast\[ray\]'"):
        import_ray()


def test_the_error_inside() -> None:
    error = ValueError("no")
    assert cause_of(error) is error
    assert (
        str(renamed(FileNotFoundError(2, "No such file", "x"), "node 1"))
        == "[Errno 2] No such file: 'node 1: x'"
    )
    assert isinstance(renamed(ArgumentError("x"), "node 1"), ArgumentError)
    assert renamed(KeyError("x"), "node 1").args == ("x",)
