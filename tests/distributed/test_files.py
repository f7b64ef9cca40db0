"""Files, their pieces, and fields of JSON lines as columns; no cluster."""

from __future__ import annotations

import gzip
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bertfast.distributed import files
from bertfast.distributed.files import find_files, format_of, lines_before, read_lines
from bertfast.distributed.json_columns import JsonColumns
from bertfast.distributed.pieces import Piece, Reading, chunks_of, pieces_of
from bertfast.errors import ArgumentError

TEXTS = Reading(("text",), None, None)


def one(path: Path) -> files.InputFile:
    (file,) = find_files([str(path)])
    return file


def rows_of(pieces: list[Piece], reading: Reading) -> tuple[list[Any], list[tuple[int, str]]]:
    """The rows of all pieces, and the numbers and reasons of those that are bad."""
    rows, bad = [], []
    for piece in pieces:
        for chunk in chunks_of(piece, reading):
            assert chunk.table.num_rows == len(chunk.inputs) == len(chunk.rows)
            rows += chunk.table.to_pylist()
            bad += [(piece.row_number(row), reason) for row, reason in chunk.bad]
    return rows, bad


def test_every_line_is_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    for _ in range(300):
        data = bytes(draw.choice(b"ab\n\n\r") for _ in range(draw.randrange(40)))
        (tmp_path / "lines").write_bytes(data)
        file = one(tmp_path / "lines")
        monkeypatch.setattr(files, "_BLOCK", draw.choice([1, 3, 7, 1 << 20]))
        lines = data.split(b"\n")
        expected = [line.removesuffix(b"\r") for line in (lines if lines[-1] else lines[:-1])]
        size = draw.choice([1, 2, 5, 11])
        found: list[bytes] = []
        for start in range(0, max(len(data), 1), size):
            assert lines_before(file, start) == len(found)
            found += read_lines(file, "text", start, start + size)
        assert found == expected, (data, size)


def test_which_files_are_meant(tmp_path: Path) -> None:
    for name in ("b/z.txt", "b/a.txt", "a.txt", ".hidden", "_bertfast.json", "_skipped/x", "b/.git/x"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("x\n")
    found = find_files([str(tmp_path / "in")])
    assert [file.relative for file in found] == ["a.txt", "b/a.txt", "b/z.txt"]
    assert found[1].name == f"{tmp_path}/in/b/a.txt"
    (uri,) = find_files([f"file://{tmp_path}/in/b/a.txt"])
    assert (uri.relative, uri.size) == ("a.txt", 2)
    with pytest.raises(
        ArgumentError, match=r"inputs: expected different names, got .*/in/a.txt and .*/b/a.txt"
    ):
        find_files([str(tmp_path / "in"), str(tmp_path / "in/b/a.txt")])
    with pytest.raises(FileNotFoundError, match="none"):
        find_files([str(tmp_path / "none")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match=f"inputs: expected files in {tmp_path}/empty, found none"):
        find_files([str(tmp_path / "empty")])
    with pytest.raises(ArgumentError, match="nope://x: expected a path or a URI that pyarrow opens"):
        find_files(["nope://x"])


@pytest.mark.parametrize("kind", ["text", "gzip", "zstd"])
def test_lines_of_texts(tmp_path: Path, kind: str) -> None:
    lines = ["one", "", "Größe 😀", "line\u2028separator", "x" * 50] * 40
    data = b"\xef\xbb\xbf" + "\r\n".join(lines).encode()
    pack = {"text": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[kind]
    # Several members, as `cat a.gz b.gz` makes them.
    (tmp_path / "file").write_bytes(pack(data[:700]) + pack(data[700:]))
    file = one(tmp_path / "file")
    assert format_of(file) == kind
    pieces = pieces_of(file, TEXTS, 300)
    assert (len(pieces) > 5) == (kind == "text")
    rows, bad = rows_of(pieces, TEXTS)
    assert [row["text"] for row in rows] == lines
    assert bad == []


def test_a_line_that_is_not_utf8_has_its_number(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\n" * 400 + b"d\xe9j\xe0\n" + b"b\n" * 400)
    rows, bad = rows_of(pieces_of(one(tmp_path / "file"), TEXTS, 100), TEXTS)
    assert len(rows) == 800
    assert bad == [(401, "not UTF-8: byte 0xe9 at position 1")]


@pytest.mark.parametrize("cut", [True, False])
def test_damaged_gzip(tmp_path: Path, cut: bool) -> None:
    data = gzip.compress("".join(f"{n} {os.urandom(9).hex()}\n" for n in range(5000)).encode())
    (tmp_path / "a.gz").write_bytes(data[:-1000] if cut else data[:-1000] + b"x" * 1000)
    with pytest.raises(ArgumentError, match=r"a\.gz: damaged gzip data after line \d+: "):
        rows_of(pieces_of(one(tmp_path / "a.gz"), TEXTS, 100), TEXTS)


def test_row_groups_of_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": [f"text {n}" for n in range(100)],
            "n": list(range(100)),
            "s": [{"a": [n]} for n in range(100)],
        }
    )
    pq.write_table(table, tmp_path / "p", row_group_size=7)
    pieces = pieces_of(one(tmp_path / "p"), TEXTS, 500)
    assert len(pieces) > 3
    rows, bad = rows_of(pieces, TEXTS)
    assert rows == table.to_pylist()
    assert bad == []
    rows, _ = rows_of(pieces, Reading(("text",), ("n",), None))
    assert rows == [{"n": n} for n in range(100)]
    rows, _ = rows_of(pieces, Reading(("text",), (), None))
    assert rows == [{}] * 100


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_columns_of_strings_of_every_kind(tmp_path: Path, kind: str) -> None:
    column = pa.array(["a", "b", None, "a"])
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "p")
    rows, bad = rows_of(pieces_of(one(tmp_path / "p"), TEXTS, 1000), TEXTS)
    assert [row["text"] for row in rows] == ["a", "b", "a"]
    assert bad == [(3, "column 'text': expected str, got null")]


def test_parquet_with_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    column = pa.array([b"a", b"d\xe9", b"c"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "p")
    rows, bad = rows_of(pieces_of(one(tmp_path / "p"), TEXTS, 1000), TEXTS)
    assert [row["text"] for row in rows] == ["a", "c"]
    assert bad == [(2, "column 'text': expected str, got bytes that are not UTF-8")]


def test_parquet_that_does_not_fit(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1], "body": ["x"]}), tmp_path / "p")
    file = one(tmp_path / "p")
    with pytest.raises(ArgumentError, match=f"^{tmp_path}/p: column 'text': expected strings, got int64$"):
        pieces_of(file, TEXTS, 100)
    with pytest.raises(ArgumentError, match=f"^{tmp_path}/p: expected one column 'x', got 'text', 'body'$"):
        pieces_of(file, Reading(("x",), None, None), 100)
    with pytest.raises(ArgumentError, match=f"^{tmp_path}/p: expected one column 'y', got "):
        pieces_of(file, Reading(("body",), ("y",), None), 100)
    (tmp_path / "p").write_bytes((tmp_path / "p").read_bytes()[:-20])
    with pytest.raises(ArgumentError, match=f"^{tmp_path}/p: damaged Parquet: "):
        pieces_of(one(tmp_path / "p"), TEXTS, 100)


@pytest.mark.parametrize("part", ["page header", "page", "footer"])
def test_parquet_with_a_damaged_byte(tmp_path: Path, part: str) -> None:
    texts = pa.table({"text": [f"text {n}" for n in range(2000)]})
    pq.write_table(texts, tmp_path / "p", row_group_size=1000, use_dictionary=False)
    data = bytearray((tmp_path / "p").read_bytes())
    # Behind four bytes that say that this is Parquet, and before as many and the length of the footer.
    place = {"page header": 4, "page": 60, "footer": len(data) - 8 - int.from_bytes(data[-8:-4], "little")}
    data[place[part]] ^= 0xFF
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(ArgumentError, match=f"^{tmp_path}/p(:1)?: damaged Parquet: "):
        rows_of(pieces_of(one(tmp_path / "p"), TEXTS, 1 << 20), TEXTS)


class FailingSystem:
    """A file system whose errors have no number, as those of pyarrow's S3."""

    def __init__(self, system: Any) -> None:
        self._system, self.reads_left = system, 1_000_000

    def open_input_file(self, path: str) -> Any:
        return FailingFile(self, self._system.open_input_file(path))


class FailingFile:
    def __init__(self, system: FailingSystem, raw: Any) -> None:
        self._system, self._raw = system, raw

    def readinto(self, buffer: Any) -> int:
        if self._system.reads_left == 0:
            raise OSError("AWS Error NETWORK_CONNECTION")
        self._system.reads_left -= 1
        return self._raw.readinto(buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def test_a_file_system_that_fails_is_no_damage(tmp_path: Path) -> None:
    texts = pa.table({"text": [os.urandom(20).hex() for _ in range(100_000)]})
    pq.write_table(texts, tmp_path / "p", row_group_size=10_000)
    file = one(tmp_path / "p")
    system = FailingSystem(file.place.system)
    file = replace(file, place=replace(file.place, system=system))
    piece = Piece(file, "parquet", 0)
    chunks = chunks_of(piece, TEXTS)
    assert next(chunks).inputs
    system.reads_left = 0
    with pytest.raises(OSError, match=r"^AWS Error"):
        list(chunks)


def test_columns_that_lines_of_text_do_not_have(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a\n")
    for carried in ((), ("text",)):
        assert len(pieces_of(one(tmp_path / "a"), Reading(("text",), carried, None), 100)) == 1
    with pytest.raises(ArgumentError, match=f"^{tmp_path}/a: expected one column 'txt', got 'text'$"):
        pieces_of(one(tmp_path / "a"), Reading(("text",), ("txt",), None), 100)


def test_nothing_is_left_out_unnoticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in/a.txt", "in/closed/b.txt", "_x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n")
    with pytest.raises(ArgumentError, match=r'neither "\." nor "_", got .*/_x\.txt$'):
        find_files([str(tmp_path / "_x.txt")])
    (tmp_path / "in/there").symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"symbolic links: .*/in/there"):
        find_files([str(tmp_path / "in")])
    (tmp_path / "in/there").unlink()
    assert len(find_files([str(tmp_path / "in")])) == 2
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match="in/closed"):
        find_files([str(tmp_path / "in")])


class TestJsonColumns:
    def test_types_are_found(self) -> None:
        entries = [
            {"text": "a", "n": 1, "x": 1, "ok": True, "none": None, "list": [1], "mix": 1},
            {"text": None, "n": None, "x": 2.5, "mix": "a", "more": {"a": 1}},
        ]
        columns = JsonColumns.found(
            [json.dumps(entry).encode() for entry in entries] + [b"{", b"3"], ("text",)
        )
        assert columns.types == {
            "text": "string",
            "n": "int64",
            "x": "double",
            "ok": "bool",
            "none": "json",
            "list": "json",
            "mix": "json",
            "more": "json",
        }
        texts, values = columns.parse('{"text": "t", "x": 3, "list": [1, "é"], "none": "s"}', ("text",))
        assert texts == ("t",)
        assert values == ("t", None, 3.0, None, '"s"', '[1, "é"]', None, None)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"text": "a"', "not a JSON object: "),
            ("3", "expected a JSON object, got int"),
            ('{"body": "a"}', "no field 'text', only 'body'"),
            ('{"text": null}', "field 'text' must be a string, got NoneType"),
            ('{"text": ["a"]}', "field 'text' must be a string, got list"),
            ('{"text": "a", "z": 1}', "field 'z': expected only 'text', 'n', which the first lines have"),
            ('{"text": "a", "n": 1.5}', "field 'n': expected int64 as in the first lines, got 1.5; "),
            ('{"text": "a", "n": true}', "field 'n': expected int64 as in the first lines, got true; "),
            ('{"text": "a", "n": 99999999999999999999}', "field 'n': expected int64"),
            ('{"text": "\\ud800"}', "field 'text': expected text that can be written as UTF-8"),
            ("[" * 100_000, "not a JSON object: "),
        ],
    )
    def test_lines_that_do_not_fit(self, line: str, message: str) -> None:
        columns = JsonColumns.found([b'{"text": "a", "n": 1}'], ("text",))
        with pytest.raises(ArgumentError) as found:
            columns.parse(line, ("text",))
        assert str(found.value).startswith(message)

    def test_columns_that_were_named(self) -> None:
        columns = JsonColumns.given(["n:double", "text", "any"], ("text",))
        assert columns.types == {"n": "double", "text": "string", "any": "json"}
        _, values = columns.parse('{"text": "t", "n": 3, "z": 1, "any": "s"}', ("text",))
        assert values == (3.0, "t", '"s"')
        with pytest.raises(
            ArgumentError, match=r"columns: type of 'n': expected one of 'string', .* got 'text'"
        ):
            JsonColumns.given(["n:text"], ())
