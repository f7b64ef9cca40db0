"""A `.npy` file that grows, and that appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bertfast.errors import ShapeError
from bertfast.npy_writer import NpyWriter, header


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.npy"


@pytest.mark.parametrize("sizes", [[], [0], [1], [3, 1, 5]])
def test_numpy_reads_what_was_written(path: Path, sizes: list[int]):
    rows = np.random.default_rng(0).standard_normal((sum(sizes), 7)).astype(np.float32)
    with NpyWriter(str(path)) as writer:
        writer.set_dimensions(7)
        for part in np.split(rows, np.cumsum(sizes)[:-1]) if sizes else []:
            writer.write(part)
        assert not path.exists()
        writer.commit()
    loaded = np.load(path)
    assert loaded.dtype == np.float32
    assert loaded.shape == (sum(sizes), 7)
    assert np.array_equal(loaded, rows)
    assert np.load(path, mmap_mode="r").shape == rows.shape
    assert os.listdir(path.parent) == [path.name]


def test_rows_in_any_memory_layout(path: Path):
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)
    with NpyWriter(str(path)) as writer:
        writer.set_dimensions(4)
        writer.write(rows.T)
        writer.write(rows.T[::2].astype(">f4"))
        writer.commit()
    assert np.array_equal(np.load(path), np.concatenate([rows.T, rows.T[::2]]))


def test_the_data_starts_at_a_multiple_of_64_for_any_size():
    for rows, dimensions in [(0, 1), (10**15, 10**6)]:
        assert len(header(rows, dimensions)) == 128


def write_and_be_interrupted(path: Path) -> None:
    with NpyWriter(str(path)) as writer:
        writer.set_dimensions(2)
        writer.write(np.zeros((3, 2), np.float32))
        raise KeyboardInterrupt


def test_without_commit_nothing_changes(path: Path):
    path.write_bytes(b"what was there before")
    with pytest.raises(KeyboardInterrupt):
        write_and_be_interrupted(path)
    assert path.read_bytes() == b"what was there before"
    assert os.listdir(path.parent) == [path.name]


def test_what_was_there_is_replaced(path: Path):
    path.write_bytes(b"what was there before")
    with NpyWriter(str(path)) as writer:
        writer.set_dimensions(2)
        writer.commit()
    assert np.load(path).shape == (0, 2)


def test_rows_of_another_length_are_an_error(path: Path):
    with NpyWriter(str(path)) as writer:
        writer.set_dimensions(3)
        with pytest.raises(ShapeError, match=r"expected shape \(b, 3\), got \(2, 4\)"):
            writer.write(np.zeros((2, 4), np.float32))
        with pytest.raises(ShapeError, match=r"expected shape \(b, 3\), got \(3,\)"):
            writer.write(np.zeros(3, np.float32))


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught:
        NpyWriter(str(tmp_path / "absent" / "vectors.npy"))
    assert caught.value.filename == str(tmp_path / "absent" / "vectors.npy")


def test_a_folder_is_not_a_file(tmp_path: Path):
    with pytest.raises(IsADirectoryError):
        NpyWriter(str(tmp_path))


def test_the_file_has_the_usual_permissions(path: Path):
    with NpyWriter(str(path)) as writer:
        writer.set_dimensions(1)
        writer.commit()
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode
