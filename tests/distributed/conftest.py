"""A cluster of three nodes on this machine, for all tests that need one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

import bertfast
from bertfast import pretraining
from bertfast.distributed import connect
from bertfast.distributed.shard_folder import ShardFolder
from cluster_corpora import work_of
from sentence_folder import make_sentence_folder
from token_store import files

_STORE = 100 << 20
"""Bytes of a node's object store: little, so that what is kept there for long does not fit."""


class ThreeNodes:
    """A head and two nodes with one CPU each; the two may be killed."""

    def __init__(self) -> None:
        facts = {"num_cpus": 1, "object_store_memory": _STORE}
        # Without a dashboard, which nobody looks at.
        self.cluster = Cluster(initialize_head=True, head_node_args={**facts, "include_dashboard": False})
        self._facts = facts
        self._others: list[Any] = []
        self.repair()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_one(self) -> None:
        """Ends a node and all its workers at once, as a power cut does."""
        self.cluster.remove_node(self._others.pop(), allow_graceful=False)

    def repair(self) -> None:
        """Makes it three again."""
        while len(self._others) < 2:
            self._others.append(self.cluster.add_node(**self._facts))
        self.cluster.wait_for_nodes()

    def all_work(self) -> bool:
        """Whether every node has work."""
        return bool(ray.available_resources().get("CPU", 0) == 0)

    @contextmanager
    def one_is_killed_when(self, condition: Callable[[], bool]) -> Iterator[None]:
        """Within it a node is killed as soon as every node works and a condition holds."""
        over, killed = threading.Event(), threading.Event()

        def wait_and_kill() -> None:
            while not over.wait(0.05):
                if self.all_work() and condition():
                    self.kill_one()
                    killed.set()
                    return

        thread = threading.Thread(target=wait_and_kill)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert killed.is_set(), "it was over before a node was killed"


@pytest.fixture(scope="session")
def _three_nodes() -> Iterator[ThreeNodes]:
    nodes = ThreeNodes()
    with connect(nodes.address, quiet=True):
        yield nodes
    nodes.cluster.shutdown()


@pytest.fixture
def three_nodes(_three_nodes: ThreeNodes) -> ThreeNodes:
    """The cluster, to which this process is connected, with all its nodes."""
    _three_nodes.repair()
    return _three_nodes


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the driver only: tests that look at the cache name it.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers of all tests keep packed weights."""
    return tmp_path_factory.mktemp("packed")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random sentence encoder; leave it as it is."""
    return make_sentence_folder(tmp_path_factory.mktemp("sentence"))


@pytest.fixture(scope="session")
def tokenizer(minilm: Path) -> bertfast.Tokenizer:
    return bertfast.Tokenizer.from_pretrained(minilm)


@pytest.fixture(scope="session")
def few(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred dictionary entries, one a line."""
    path = tmp_path_factory.mktemp("inputs") / "few.txt"
    data = (data_dir / "english.txt").read_bytes()[:60_000]
    path.write_bytes(data[: data.rindex(b"\n") + 1])
    return path


@pytest.fixture(scope="session")
def few_files(few: Path, tokenizer: bertfast.Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> object:
    """What is in a store of the few."""
    store = tmp_path_factory.mktemp("few") / "store"
    pretraining.build_corpus(few, tokenizer, store, documents="line")
    return files(store)


@pytest.fixture
def begun(few: Path, tokenizer: bertfast.Tokenizer, tmp_path: Path) -> Callable[..., Path]:
    """Makes what a driver leaves that was killed."""

    def begin(built: Sequence[int] = (0,), name: str = "store", **changes: Any) -> Path:
        store = tmp_path / name
        folder = ShardFolder(store)
        folder.path.mkdir()
        work = work_of(folder, few, tokenizer, **changes)
        for index in built:
            work.build(index)
        return store

    return begin
