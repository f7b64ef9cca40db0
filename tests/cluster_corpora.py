"""Corpora that a cluster builds: what their tests share."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bertfast
from bertfast.distributed.shard_folder import ShardFolder, ShardWork
from bertfast.pretraining.build_job import BuildJob, BuildOptions, files_for


def shards_of(store: Path) -> Path:
    return store.with_name(store.name + ".shards")


def whole_shards(store: Path) -> list[Path]:
    return sorted(shards_of(store).glob("shard-*"))


def nothing_is_left(store: Path) -> bool:
    return not store.exists() and not shards_of(store).exists()


def work_of(folder: ShardFolder, inputs: Path, tokenizer: bertfast.Tokenizer, **changes: Any) -> ShardWork:
    options = BuildOptions(documents="line")
    found = files_for(inputs, folder.path)
    described = BuildJob.of(found, tokenizer, folder.path, options).options
    key = folder.begin(found, tokenizer, described, 3)
    work = ShardWork(folder.path, key, found, tokenizer, options, described, 3)
    return dataclasses.replace(work, **changes)


class Gate:
    """Texts that are not split before somebody says so, and who has begun with one."""

    def __init__(self, folder: Path, waits: Callable[[str], bool]) -> None:
        folder.mkdir()
        self.folder, self.waits = folder, waits

    def open(self) -> None:
        (self.folder / "open").touch()

    def begun(self) -> dict[str, int]:
        """The nodes that have begun, with the process that has."""
        return {path.name.partition("-")[2]: int(path.read_bytes()) for path in self.folder.glob("node-*")}

    def splitter(self) -> Callable[[str], list[str]]:
        # By value, as a function within one is: workers know nothing of this module.
        folder, waits = self.folder, self.waits

        def split(text: str) -> list[str]:
            with open(folder / "calls", "ab") as calls:
                calls.write(b".")
            if waits(text) and not (folder / "open").exists():
                import ray

                node = ray.get_runtime_context().get_node_id()
                (folder / f"new-{node}").write_text(str(os.getpid()))
                (folder / f"new-{node}").rename(folder / f"node-{node}")
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
