"""Texts with labels out of files: columns (TSV, CSV) or JSON lines."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bertfast.arguments import check_choice
from bertfast.errors import ArgumentError
from bertfast.text_files import TextFile

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

_SUFFIXES = (".tsv", ".csv", ".jsonl", ".json")
_COMPRESSED = (".gz", ".zst")
# Longer than any text, and still an int of C.
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class LabelledTexts:
    """The examples of a file.

    Attributes:
        name: What messages call the file.
        texts: One for each example.
        text_pairs: The second texts; None if there are none at all.
        labels: A str each; with several labels a tuple of them, and for a regression a float.
        lines: The line of the file that each example ends at, from 1 on.
    """

    name: str
    texts: list[str]
    text_pairs: list[str] | None
    labels: list[Any]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, index: int) -> str:
        """``name:line`` of an example."""
        return f"{self.name}:{self.lines[index]}"


def read_labelled_texts(
    path: str | os.PathLike[str],
    *,
    problem_type: ProblemType = "single_label_classification",
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
) -> LabelledTexts:
    """Reads a file of texts with labels, plain, gzip or zstd.

    The end of its name says what it is. ``.tsv``: a line for each example, tabs between the columns, nothing
    is quoted (as in GLUE); ``.csv``: commas, quoted as spreadsheets do; both begin with the columns' names.
    ``.jsonl``: an object for each line, whose label may be a number too. Blank lines are skipped.

    Args:
        path: The file.
        problem_type: What labels are: one of several (a name), several at once (a list of names, in JSON
            lines only), or a number.
        text_column: Name of the column, or key, of the text.
        text_pair_column: Of the second text, if there is one.
        label_column: Of the label.

    Raises:
        OSError: It cannot be read.
        ArgumentError: Something in it is not as it should be; the message begins with ``name:line``.

    Example:
        >>> read_labelled_texts("reviews.tsv").labels[:2]  # doctest: +SKIP
        ['good', 'bad']
    """
    check_choice("problem_type", problem_type, PROBLEM_TYPES)
    kind = _kind(Path(path))
    names = (text_column, *([text_pair_column] if text_pair_column is not None else []), label_column)
    if len(set(names)) != len(names):
        raise ArgumentError(f"columns: expected different names, got {', '.join(map(repr, names))}")
    with TextFile(os.fspath(path)) as file:
        rows = _json_rows(file, names) if kind in (".jsonl", ".json") else _column_rows(file, kind, names)
        examples = LabelledTexts(file.name, [], None if text_pair_column is None else [], [], [])
        for line, (text, *pair, label) in rows:
            place = f"{file.name}:{line}"
            examples.texts.append(_string(text, text_column, place))
            if examples.text_pairs is not None:
                examples.text_pairs.append(_string(pair[0], str(text_pair_column), place))
            examples.labels.append(_label(label, problem_type, label_column, place))
            examples.lines.append(line)
    if not examples.texts:
        raise ArgumentError(f"{examples.name}: expected examples, found none")
    return examples


def digest(*parts: Any) -> str:
    """A checksum of what examples say: training may go on only with the same ones."""
    found = hashlib.sha256()
    for part in parts:
        found.update(json.dumps(part, ensure_ascii=True).encode())
        found.update(b"\n")
    return found.hexdigest()


def label_names(labels: Sequence[Any]) -> list[str]:
    """Each label once, in sorted order: of numbers by their value, so that label 2 is before label 10.

    Args:
        labels: A str each, or a tuple of str.

    Example:
        >>> label_names(["good", "bad", "good"])
        ['bad', 'good']
    """
    found = {name for label in labels for name in (label if isinstance(label, tuple) else (label,))}
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in found):
        return sorted(found, key=lambda name: (int(name), name))
    return sorted(found)


def label_numbers(examples: LabelledTexts, names: Sequence[str]) -> list[Any]:
    """The numbers of the labels of each example.

    Args:
        examples: With a name or a tuple of names each.
        names: The names, in order.

    Returns:
        An int each, or a list of int.

    Raises:
        ArgumentError: A label has another name.
    """
    numbers = {name: number for number, name in enumerate(names)}

    def number(name: str, index: int) -> int:
        if name not in numbers:
            raise ArgumentError(f"{examples.place(index)}: label {name!r} is not in {listed(names)}")
        return numbers[name]

    return [
        [number(name, index) for name in label] if isinstance(label, tuple) else number(label, index)
        for index, label in enumerate(examples.labels)
    ]


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message; of many the first."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in _SUFFIXES:
        raise ArgumentError(
            f"{path}: expected a name that ends in {', '.join(_SUFFIXES[:3])}, or in one of these and .gz"
        )
    return suffixes[-1]


def _column_rows(file: TextFile, kind: str, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The columns of these names, line by line."""
    options: dict[str, Any] = {"strict": True}
    if kind == ".tsv":
        options |= {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    reader = csv.reader((f"{line}\n" for line in file), **options)
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        header = next(reader, None)
        if header is None:
            raise ArgumentError(
                f"{file.name}: expected a line with the names of the columns, got an empty file"
            )
        for name in names:
            if header.count(name) != 1:
                what = "no column" if name not in header else "more than one column"
                raise ArgumentError(f"{file.name}:1: {what} {name!r}, found {listed(header)}")
        places = [header.index(name) for name in names]
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ArgumentError(
                    f"{file.name}:{reader.line_num}: expected {len(header)} columns as in line 1, "
                    f"got {len(row)}"
                )
            yield reader.line_num, [row[place] for place in places]
    except csv.Error as error:
        raise ArgumentError(f"{file.name}:{reader.line_num}: not {kind[1:].upper()}: {error}") from error
    finally:
        csv.field_size_limit(before)


def _json_rows(file: TextFile, names: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """The values of these keys, line by line."""
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        place = f"{file.name}:{line}"
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"{place}: not a JSON object: {error}") from None
        if not isinstance(entry, dict):
            raise ArgumentError(f"{place}: expected a JSON object, got {type(entry).__name__}")
        for name in names:
            if name not in entry:
                raise ArgumentError(f"{place}: no field {name!r}, only {listed(list(entry))}")
        yield line, [entry[name] for name in names]


def _string(value: Any, name: str, place: str) -> str:
    if not isinstance(value, str):
        raise ArgumentError(f"{place}: field {name!r}: expected a string, got {type(value).__name__}")
    return _encodable(value, name, place)


def _encodable(value: str, name: str, place: str) -> str:
    """JSON can say half of a surrogate pair, which is no text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{place}: field {name!r}: half of a surrogate pair is no text") from None
    return value


def _label(value: Any, problem_type: str, name: str, place: str) -> Any:
    if problem_type == "regression":
        return _number(value, name, place)
    if problem_type == "multi_label_classification":
        if not isinstance(value, list):
            raise ArgumentError(f"{place}: field {name!r}: expected a list of labels, got {value!r}")
        several = tuple(_name(one, name, place) for one in value)
        if len(set(several)) != len(several):
            raise ArgumentError(f"{place}: field {name!r}: expected each label once, got {value!r}")
        return several
    return _name(value, name, place)


def _name(value: Any, name: str, place: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ArgumentError(f"{place}: field {name!r}: expected the name of a label, got {value!r}")
    if not value.strip():
        raise ArgumentError(f"{place}: field {name!r}: expected a label, got an empty one")
    return _encodable(value, name, place)


def _number(value: Any, name: str, place: str) -> float:
    try:
        number = math.nan if isinstance(value, (bool, list, dict)) or value is None else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    # More than this no float32 holds.
    if not abs(number) < 3.4e38:
        raise ArgumentError(f"{place}: field {name!r}: expected a number, got {value!r}")
    return number
