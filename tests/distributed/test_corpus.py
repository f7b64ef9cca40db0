"""A corpus that a cluster builds: the bytes of one machine, whatever dies meanwhile."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

import bertfast
from bertfast import pretraining
from bertfast.distributed import build_corpus
from bertfast.errors import ArgumentError, ClusterError, CorpusError
from bertfast.pretraining import Corpus
from command_line import error_of, run_bertfast
from token_store import files

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes on this machine. The first one is where the cluster's own services are."""
    started = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    for _ in range(2):
        started.add_node(**NODE)
    yield started
    started.shutdown()


@pytest.fixture(scope="module")
def tokenizer(minilm: Path) -> bertfast.Tokenizer:
    return bertfast.Tokenizer.from_pretrained(minilm)


@pytest.fixture(scope="module")
def english(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three million bytes of dictionary entries, one a line."""
    path = tmp_path_factory.mktemp("inputs") / "english.txt"
    data = (data_dir / "english.txt").read_bytes()[:3_000_000]
    path.write_bytes(data[: data.rindex(b"\n") + 1])
    return path


@pytest.fixture(scope="module")
def few(english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "few.txt"
    data = english.read_bytes()[:60_000]
    path.write_bytes(data[: data.rindex(b"\n") + 1])
    return path


def shards_of(store: Path) -> Path:
    return store.with_name(store.name + ".shards")


def whole_shards(store: Path) -> list[Path]:
    return sorted(shards_of(store).glob("shard-*"))


@pytest.mark.parametrize(
    ("options", "num_shards"),
    [
        ({"documents": "line"}, 7),
        ({"documents": "line", "split_sentences": True}, None),
        ({"split_sentences": lambda text: text.split(". ")}, 3),
    ],
)
def test_the_bytes_of_one_machine(cluster, english, data_dir, tokenizer, tmp_path, options, num_shards):
    bible = (data_dir / "bible-chapters.txt").read_bytes()
    (tmp_path / "a.txt").write_bytes(bible[:500_000])
    (tmp_path / "b.gz").write_bytes(gzip.compress(bible[500_000:700_000]))
    (tmp_path / "c.txt").write_bytes(b"")
    inputs = [tmp_path / "a.txt", tmp_path / "b.gz", english, tmp_path / "c.txt"]
    if callable(options["split_sentences"] if "split_sentences" in options else None):
        # A function of Python takes its time.
        inputs.remove(english)
    store, whole = tmp_path / "store", tmp_path / "whole"
    pretraining.build_corpus(inputs, tokenizer, whole, **options)
    corpus = build_corpus(inputs, tokenizer, store, num_shards=num_shards, address=cluster.address, **options)
    assert corpus.num_documents == Corpus(whole).num_documents > 100
    assert files(store) == files(whole)
    assert not shards_of(store).exists()


class Gate:
    """Texts that are not split before somebody says so, and who has begun with one."""

    def __init__(self, folder: Path, waits: Callable[[str], bool]) -> None:
        folder.mkdir()
        self.folder, self.waits = folder, waits

    def open(self) -> None:
        (self.folder / "open").touch()

    def begun(self, kind: str) -> set[str]:
        """The nodes (``"node"``) or processes (``"process"``) that have begun."""
        return {path.name.partition("-")[2] for path in self.folder.glob(f"{kind}-*")}

    def splitter(self) -> Callable[[str], list[str]]:
        # By value, as a function within one is: workers know nothing of this module.
        folder, waits = self.folder, self.waits

        def split(text: str) -> list[str]:
            with open(folder / "calls", "ab") as calls:
                calls.write(b".")
            if waits(text) and not (folder / "open").exists():
                import ray

                (folder / f"node-{ray.get_runtime_context().get_node_id()}").touch()
                (folder / f"process-{os.getpid()}").touch()
                while not (folder / "open").exists():
                    time.sleep(0.02)
            return [text]

        return split

    def calls(self) -> int:
        """How many texts were split since it was asked last."""
        path = self.folder / "calls"
        count = path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
        return count


def wait_for(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_a_node_dies_in_the_middle(cluster, few, tokenizer, tmp_path):
    gate = Gate(tmp_path / "gate", lambda text: True)
    store, whole = tmp_path / "store", tmp_path / "whole"
    victim = cluster.add_node(**NODE)
    seen: list[object] = []

    def kill() -> None:
        try:
            wait_for(lambda: victim.node_id in gate.begun("node"))
            seen.append((store.exists(), whole_shards(store)))
            cluster.remove_node(victim, allow_graceful=False)
        finally:
            gate.open()

    killer = threading.Thread(target=kill)
    killer.start()
    options = {"documents": "line", "split_sentences": gate.splitter()}
    build_corpus(few, tokenizer, store, num_shards=8, address=cluster.address, **options)
    killer.join()
    assert seen == [(False, [])]
    pretraining.build_corpus(few, tokenizer, whole, **options)
    assert files(store) == files(whole)
    assert not shards_of(store).exists()


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("test_corpus", sys.argv[1])
tests = module_from_spec(spec)
spec.loader.exec_module(tests)
gate = tests.Gate.__new__(tests.Gate)
gate.folder, last = Path(sys.argv[2]), sys.argv[3]
gate.waits = lambda text: text == last
tests.build_corpus(sys.argv[4], sys.argv[5], sys.argv[6], documents="line",
                   split_sentences=gate.splitter(), num_shards=6, address=sys.argv[7])
"""


def test_the_driver_is_killed_and_started_again(cluster, few, minilm, tmp_path):
    lines = few.read_text().splitlines()
    gate = Gate(tmp_path / "gate", lambda text: text == lines[-1])
    store, whole = tmp_path / "store", tmp_path / "whole"
    arguments = [__file__, gate.folder, lines[-1], few, minilm, store, cluster.address]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *map(str, arguments)])
    wait_for(lambda: driver.poll() is not None or (gate.begun("process") and len(whole_shards(store)) == 5))
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    # Ray ends the workers of a driver that has gone.
    (worker,) = gate.begun("process")
    wait_for(lambda: not Path("/proc", worker).exists())
    assert not store.exists()
    done = sum(Corpus(shard).num_sentences for shard in whole_shards(store))
    assert 0 < done < len(lines)
    options = {"documents": "line", "split_sentences": gate.splitter()}
    options["split_sentences"].__module__ = "test_corpus"
    with pytest.raises(CorpusError, match=r"has shards of an unfinished corpus: resume it, or overwrite it$"):
        build_corpus(few, minilm, store, address=cluster.address, **options)
    assert len(whole_shards(store)) == 5
    gate.open()
    gate.calls()
    build_corpus(few, minilm, store, resume=True, address=cluster.address, **options)
    assert gate.calls() == len(lines) - done
    pretraining.build_corpus(few, minilm, whole, **options)
    assert gate.calls() == len(lines)
    assert files(store) == files(whole)
    assert not shards_of(store).exists()
