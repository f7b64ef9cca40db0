"""The traps: ours against the file that the Rust tests read, and the file against the installed reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bertfast import Tokenizer
from tokenizer_golden import PATH, golden
from tokenizers_reference import everything, rows

GOLDEN: dict[str, Any] = json.loads(PATH.read_text(encoding="ascii"))


def test_the_file_is_what_the_reference_says() -> None:
    assert golden() == PATH.read_text(encoding="ascii")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    found = {}
    for name, parsed in GOLDEN["tokenizers"].items():
        folder: Path = tmp_path_factory.mktemp("golden")
        (folder / "tokenizer.json").write_text(json.dumps(parsed))
        found[name] = Tokenizer.from_pretrained(folder)
    return found


@pytest.mark.parametrize("name", GOLDEN["tokenizers"])
def test_ours(opened: dict[str, Tokenizer], name: str) -> None:
    for case in GOLDEN["cases"]:
        if case["tokenizer"] != name:
            continue
        options = {key: case[key] for key in ("max_length", "strategy", "direction", "stride") if key in case}
        pairs = None if case["pair"] is None else [case["pair"]]
        got = list(rows(opened[name].encode_ragged([case["text"]], pairs, **everything(options))))
        keys = ("input_ids", "token_type_ids", "offset_mapping", "word_ids")
        expected = [(0, *(sequence[key] for key in keys)) for sequence in case["sequences"]]
        assert got == expected, case


# Column F of the table of differences between Google's tokenizer, the slow and the fast one, as pieces.
@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ΟΔΟΣ", ["οδοσ"]),
        ("a\U0002b820b", ["a", "##\U0002b820", "##b"]),
        ("a\U0002b920b", ["a", "\U0002b920", "b"]),
        ("a\ue000b", ["a", "##b"]),
        ("a\u0378b", ["[UNK]"]),
        ("a\u2e52b", ["a", "##\u2e52", "##b"]),
        ("a\x0bb", ["a", "##b"]),
        ("a\x0cb", ["a", "##b"]),
        ("a\x85b", ["a", "##b"]),
        ("a" * 100, ["a"] + ["##a"] * 99),
        ("a" * 101, ["[UNK]"]),
        ("x[MASK]", ["x", "[MASK]"]),
        ("[mask]", ["[", "mask", "]"]),
        ("unaffableq", ["[UNK]"]),
    ],
    ids=ascii,
)
def test_the_table_of_traps(opened: dict[str, Tokenizer], text: str, pieces: list[str]) -> None:
    tokenizer = opened["uncased"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [tokenizer.convert_ids_to_tokens(token_id) for token_id in ids] == pieces


def test_continuing_marks_are_not_counted_in_offsets(opened: dict[str, Tokenizer]) -> None:
    ragged = opened["uncased"].encode_ragged(["un\u0301affable"], return_offsets_mapping=True)
    assert ragged.offset_mapping is not None
    assert ragged.offset_mapping.tolist() == [[0, 0], [0, 2], [3, 6], [6, 10], [0, 0]]
