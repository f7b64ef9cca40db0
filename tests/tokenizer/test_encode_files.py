"""Files are tokenized as their lines are, whatever they are packed in, however they are cut into blocks."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertfast import Tokenizer
from bertfast._bertfast import Lines
from bertfast.errors import ArgumentError

LINES = ["", "one", "two words", "中文字符", "[MASK] é", "x" * 300, " ", "last of all"]


def rows(tokenizer: Tokenizer, *args: Any, **kwargs: Any) -> list[list[int]]:
    found = []
    for ragged in tokenizer.encode_files(*args, **kwargs):
        ends = ragged.cu_seqlens.tolist()
        found += [ragged.input_ids[start:end].tolist() for start, end in itertools.pairwise(ends)]
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("chunk_bytes", [1, 7, 100, 1 << 20])
def test_blocks_of_any_size(ours: Tokenizer, path: Path, chunk_bytes: int) -> None:
    assert rows(ours, path, chunk_bytes=chunk_bytes) == ours(LINES)["input_ids"]


def test_a_block_ends_with_a_line(ours: Tokenizer, path: Path) -> None:
    assert [len(ragged) for ragged in ours.encode_files(path, chunk_bytes=20)] == [4, 2, 2]


def test_all_of_the_real_text(ours: Tokenizer, data_dir: Path, chinese_texts: list[str]) -> None:
    got = list(ours.encode_files(data_dir / "chinese.txt", chunk_bytes=1 << 20))
    assert len(got) > 5
    expected = ours.encode_ragged(chinese_texts)
    assert np.array_equal(np.concatenate([ragged.input_ids for ragged in got]), expected.input_ids)
    lengths = np.concatenate([np.diff(ragged.cu_seqlens) for ragged in got])
    assert np.array_equal(lengths, np.diff(expected.cu_seqlens))


def test_several_files_one_after_the_other(ours: Tokenizer, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gz"
    # Several members, as `cat a.gz b.gz` makes them; no end of line at the end.
    other.write_bytes(gzip.compress(b"drei\r\nvier") + gzip.compress(b"teen\n\nfive"))
    expected = ours([*LINES, "drei", "vierteen", "", "five"])["input_ids"]
    assert rows(ours, [path, str(other)]) == expected


def test_a_field_of_json_lines(ours: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with path.open("w") as file:
        for number, text in enumerate([*LINES, '"quoted" \\ \u2028 \U0001f600']):
            json.dump({"id": number, "text": text}, file, ensure_ascii=number % 2 == 0)
            file.write("\n")
    expected = ours([*LINES, '"quoted" \\ \u2028 \U0001f600'])["input_ids"]
    for chunk_bytes in (10, 1 << 20):
        assert rows(ours, path, field="text", chunk_bytes=chunk_bytes) == expected


def test_options_are_those_of_encode_ragged(ours: Tokenizer, path: Path) -> None:
    options: dict[str, Any] = {
        "truncation": True,
        "max_length": 5,
        "stride": 1,
        "return_overflowing_tokens": True,
        "return_offsets_mapping": True,
        "return_word_ids": True,
        "return_token_type_ids": True,
    }
    (got,) = ours.encode_files(path, **options)
    expected = ours.encode_ragged(LINES, **options)
    for name in ("input_ids", "cu_seqlens", "offset_mapping", "word_ids", "token_type_ids"):
        assert np.array_equal(getattr(got, name), getattr(expected, name)), name
    assert got.overflow_to_sample is not None
    assert np.array_equal(got.overflow_to_sample, expected.overflow_to_sample)
    assert got.truncated == expected.truncated > 0


def test_a_byte_order_mark_is_no_text(ours: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "marked.txt"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    assert rows(ours, path) == ours(["one", "two"])["input_ids"]


def test_empty_files_have_no_blocks(ours: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    assert list(ours.encode_files([tmp_path / "empty", tmp_path / "empty.gz"])) == []
    assert list(ours.encode_files([])) == []


def test_a_bad_line_is_named_and_what_came_before_is_not_lost(ours: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"one\ntwo\nthr\xffee\n")
    blocks = ours.encode_files(path, chunk_bytes=1)
    assert [len(next(blocks)), len(next(blocks))] == [1, 1]
    with pytest.raises(ArgumentError, match=r"bad\.txt:3: not UTF-8: byte 0xff at position 3$"):
        next(blocks)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", 'no field "text", only $'),
        ('{"text": 1}', 'field "text" must be a string, got a number'),
        ("[]", "not a JSON object"),
        ('{"text": "\\ud800"}', "not a JSON object"),
        ("", "not a JSON object"),
    ],
)
def test_a_bad_json_line_is_named(ours: Tokenizer, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"text": ""}}\n{line}\n')
    with pytest.raises(ArgumentError, match=rf"bad\.jsonl:2: {message}"):
        list(ours.encode_files(path, field="text"))


def test_damaged_gzip_data_is_an_error(ours: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "short.gz"
    path.write_bytes(gzip.compress(os.urandom(5000).hex().encode())[:1000])
    with pytest.raises(ArgumentError, match=r"short\.gz: damaged gzip data after line 0"):
        list(ours.encode_files(path))


def test_mistakes_are_errors_at_once(ours: Tokenizer, path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ours.encode_files([path, tmp_path / "nowhere.txt"])
    with pytest.raises(ArgumentError, match="chunk_bytes"):
        ours.encode_files(path, chunk_bytes=0)
    with pytest.raises(ArgumentError, match="truncation_side"):
        ours.encode_files(path, truncation_side="middle")
    with pytest.raises(TypeError, match="no_such_option"):
        ours.encode_files(path, no_such_option=1)


def test_progress_is_shown_where_it_is_asked_for(
    ours: Tokenizer, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list(ours.encode_files(path))
    assert capsys.readouterr().err == ""
    list(ours.encode_files(path, show_progress_bar=True))
    assert "megabyte" in capsys.readouterr().err


def test_standard_input(minilm: Path) -> None:
    program = (
        "import sys; from bertfast import Tokenizer; t = Tokenizer.from_pretrained(sys.argv[1]); "
        "print([r.input_ids.tolist() for r in t.encode_files('-')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(minilm)], input=b"hello\nworld\n", capture_output=True, check=True
    )
    assert done.stdout.strip() == b"[[101, 7592, 102, 101, 2088, 102]]"


def test_lines_are_texts_too(ours: Tokenizer) -> None:
    lines = Lines("eins\nzwei\r\n\n中".encode())
    assert len(lines) == 4
    assert lines.to_list() == ["eins", "zwei", "", "中"]
    assert np.array_equal(ours.encode_ragged(lines).input_ids, ours.encode_ragged(lines.to_list()).input_ids)


@pytest.mark.parametrize("aligned", [False, True])
def test_one_text_of_megabytes_is_what_it_is_to_the_reference(
    aligned: bool, uncased: Any, english_texts: list[str], chinese_texts: list[str]
) -> None:
    """It is cut into parts for the threads; offsets and word ids count through."""
    ours, reference = uncased
    for text in (
        " ".join(english_texts[:8000]),
        "".join(chinese_texts[:8000]),
        "\n".join(chinese_texts[:8000]),
    ):
        assert len(text.encode()) > 1_500_000
        ragged = ours.encode_ragged([text], return_offsets_mapping=aligned, return_word_ids=aligned)
        (expected,) = reference.encode_batch([text])
        assert ragged.input_ids.tolist() == expected.ids
        if aligned:
            assert np.array_equal(ragged.offset_mapping, np.array(expected.offsets))
            words = [-1 if word is None else word for word in expected.word_ids]
            assert ragged.word_ids.tolist() == words


def test_long_texts_in_pairs_and_windows(ours: Tokenizer, english_texts: list[str]) -> None:
    """The threads' way and the way of texts that are split into words, which is another, give the same."""
    long = " ".join(english_texts[:8000])
    options: dict[str, Any] = {"truncation": True, "max_length": 400, "stride": 30}
    options |= {"return_overflowing_tokens": True, "return_token_type_ids": True, "return_sequence_ids": True}
    for texts, pairs, strategy in (
        ([long, "short"], ["short", long], True),
        ([long], ["short"], "only_first"),
        (["short"], [long], "only_second"),
        ([long], None, "longest_first"),
    ):
        if strategy is True:
            # Windows of both would be a product of thousands.
            options["return_overflowing_tokens"] = False
        got = ours.encode_ragged(texts, pairs, **{**options, "truncation": strategy})
        split = None if pairs is None else [pair.split(" ") for pair in pairs]
        expected = ours.encode_ragged(
            [text.split(" ") for text in texts],
            split,
            **{**options, "truncation": strategy, "is_split_into_words": True},
        )
        for name in ("input_ids", "cu_seqlens", "token_type_ids", "sequence_ids"):
            assert np.array_equal(getattr(got, name), getattr(expected, name)), name
        options["return_overflowing_tokens"] = True
