"""Lines and JSON lines from disk, gzip and pipes; every broken line is named by its number."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from bertfast.errors import ArgumentError
from bertfast.text_files import TextFile


def texts(path: Path, field: str | None = None) -> list[str]:
    with TextFile(str(path), field) as file:
        return list(file)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "texts"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\n\n \nfour", ["one", "", " ", "four"]),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", ["one", "\ufefftwo"]),
        # Not line ends: vertical tab, form feed, NEL, line separator, a lone carriage return.
        ("a\x0bb\x0cc\x85d\u2028e\rf\n".encode(), ["a\x0bb\x0cc\x85d\u2028e\rf"]),
        (b"nul \x00 inside\n", ["nul \x00 inside"]),
        (b"\x1f", ["\x1f"]),
    ],
)
def test_one_text_per_line(path: Path, data: bytes, expected: list[str]):
    path.write_bytes(data)
    assert texts(path) == expected


def test_gzip_is_recognised_by_content(path: Path):
    path.write_bytes(gzip.compress("eins\nzwei ü\n".encode()))
    assert texts(path) == ["eins", "zwei ü"]


def test_gzip_that_ends_early_is_an_error(path: Path):
    lines = os.urandom(20000).hex().encode().replace(b"0", b"\n")
    path.write_bytes(gzip.compress(lines)[:10000])
    with pytest.raises(ArgumentError, match="damaged gzip data after line"):
        texts(path)


def test_gzip_that_is_damaged_is_an_error(path: Path):
    data = bytearray(gzip.compress(b"text\n" * 1000))
    data[12:20] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(ArgumentError, match="damaged gzip data"):
        texts(path)


def test_json_lines(path: Path):
    path.write_bytes(b'{"t": "one", "n": 1}\n{"t": "zw\\u00f6lf\\n"}\n{"n": {}, "t": ""}')
    assert texts(path, "t") == ["one", "zwölf\n", ""]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not a JSON object: "),
        ("", ":2: not a JSON object: "),
        ("[" * 100000, ":2: not a JSON object: "),
        ('["t"]', ":2: expected a JSON object, got list"),
        ('{"u": 1, "v": 2}', ":2: no field 't', only 'u', 'v'"),
        ('{"t": 7}', ":2: field 't' must be a string, got int"),
        (r'{"t": "a\ud800"}', ":2: expected text that can be written as UTF-8, got a lone surrogate at"),
        ('{"t": null}', ":2: field 't' must be a string, got NoneType"),
    ],
)
def test_a_broken_json_line_is_named(path: Path, line: str, message: str):
    path.write_text(f'{{"t": "good"}}\n{line}\n{{"t": "good"}}\n')
    with pytest.raises(ArgumentError) as caught:
        texts(path, "t")
    assert str(caught.value).startswith(f"{path}{message}")


def test_a_line_that_is_not_utf8_is_named(path: Path):
    path.write_bytes(b"good\nb\xffd\n")
    with pytest.raises(ArgumentError, match=r"texts:2: not UTF-8: byte 0xff at position 1"):
        texts(path)


def test_a_missing_file_and_a_folder_are_os_errors(path: Path):
    with pytest.raises(FileNotFoundError):
        TextFile(str(path))
    with pytest.raises(IsADirectoryError):
        TextFile(str(path.parent))


def test_position_goes_from_start_to_size(path: Path):
    path.write_text("word\n" * 100_000)
    with TextFile(str(path)) as file:
        assert file.size == 500_000
        lines = iter(file)
        next(lines)
        assert 0 < file.position < 100_000
        list(lines)
        assert file.position == file.size


READ_STDIN = """
from bertfast.text_files import TextFile
with TextFile("-") as file:
    print(file.name, file.size, *file)
"""


@pytest.mark.parametrize("data", [b"one\ntwo\n", gzip.compress(b"one\ntwo\n")])
def test_standard_input_is_a_pipe_or_a_file(path: Path, data: bytes):
    command = [sys.executable, "-c", READ_STDIN]
    piped = subprocess.run(command, input=data, capture_output=True, check=True)
    assert piped.stdout == b"<stdin> None one two\n"
    path.write_bytes(data)
    with path.open("rb") as file:
        redirected = subprocess.run(command, stdin=file, capture_output=True, check=True)
    assert redirected.stdout.split() == [b"<stdin>", str(len(data)).encode(), b"one", b"two"]


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_blocks_go_on_where_one_says(path: Path, pack, size: int):
    lines = [f"line {number} ü\n" for number in range(30)]
    data = "\ufeff".encode() + "".join(lines).encode()
    path.write_bytes(pack(data))

    def read(*where: int | None) -> tuple[list[str], list[int], int]:
        with TextFile(str(path)) as file:
            found, offsets = [], []
            for block in file.blocks(size, *where):
                found += block.to_list()
                offsets.append(file.offset)
            return found, offsets, len(offsets)

    whole, offsets, count = read()
    assert whole == [line.rstrip("\n") for line in lines]
    assert offsets[-1] == len(data)
    assert count == 1 if size == 1000 else count > 10
    for offset in offsets:
        before = data[:offset].count(b"\n")
        for known in (None, before):
            assert read(offset, None, known)[0] == whole[before:]
        assert read(0, offset)[0] == whole[:before]


def test_the_numbers_of_lines_in_a_part(path: Path):
    path.write_bytes(b"one\ntwo\nb\xffd\n")
    for line, number in [(None, 3), (2, 3), (0, 1)]:
        with TextFile(str(path)) as file:
            (block,) = file.blocks(100, 8, None, line)
            with pytest.raises(ArgumentError, match=rf"texts:{number}: not UTF-8"):
                block.to_list()


def test_zstd_that_repeats_itself_takes_little_memory(path: Path):
    line = b"2026-01-01 nothing happened\n"
    path.write_bytes(zstandard.compress(line * 5_000_000))
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    try:
        with TextFile(str(path)) as texts:
            assert next(iter(texts)) == line.decode().strip()
        assert tracemalloc.get_traced_memory()[1] < 5_000_000 * len(line) / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_zstd_is_recognised_by_content(path: Path, frames: int):
    data = "eins\nzwei ü\ndrei\n".encode()
    compress = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress
    bounds = [len(data) * frame // frames for frame in range(frames + 1)]
    packed = b"".join(compress(data[start:end]) for start, end in itertools.pairwise(bounds))
    path.write_bytes(packed)
    assert texts(path) == ["eins", "zwei ü", "drei"]
    for end in range(4, len(packed)):
        path.write_bytes(packed[:end])
        if frames == 1:
            with pytest.raises(ArgumentError, match=r"damaged zstd data after line \d: it ends too"):
                texts(path)
    for place in range(4, len(packed)):
        path.write_bytes(packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :])
        if packed[place - 1 : place + 1] == b"\x04\x00":  # Another size of the window is no damage.
            assert texts(path) == ["eins", "zwei ü", "drei"]
            continue
        with pytest.raises(ArgumentError, match="damaged zstd data after line"):
            texts(path)
