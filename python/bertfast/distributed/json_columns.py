"""Fields of JSON lines as columns: every piece of every file has the same ones, of the same types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bertfast.arguments import check_choice, check_utf8
from bertfast.errors import ArgumentError

TYPES = ("string", "int64", "double", "bool", "json")
"""Of columns; ``json`` is the JSON text of any value."""


@dataclass(frozen=True)
class JsonColumns:
    """The fields that are carried along.

    Attributes:
        types: Names of fields to one of `TYPES`, in the order of the columns.
        closed: Whether a field that is not among them is a mistake; else it is left out.
    """

    types: dict[str, str]
    closed: bool

    @classmethod
    def given(cls, columns: Sequence[str], inputs: Sequence[str]) -> JsonColumns:
        """Columns that were named, as ``name:type``.

        Args:
            columns: The names; without a type it is ``json``, and ``string`` for an input.
            inputs: Fields that are strings in any case.

        Raises:
            ArgumentError: There is no such type.
        """
        types = {}
        for column in columns:
            name, _, kind = column.partition(":")
            types[name] = check_choice(
                f"columns: type of {name!r}", kind or ("string" if name in inputs else "json"), TYPES
            )
        return cls(types, closed=False)

    @classmethod
    def found(cls, lines: Iterable[bytes], inputs: Sequence[str]) -> JsonColumns:
        """The fields of some lines, with the types of their values.

        Integers and other numbers together are ``double``; objects, lists and a mixture of types are
        ``json``, and so are fields of which these lines have only nulls.

        Args:
            lines: The first ones of the files. Lines that are no JSON objects are left out here.
            inputs: Fields that are strings in any case.
        """
        kinds: dict[str, set[str]] = {}
        for line in lines:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                for name, one in value.items():
                    kinds.setdefault(name, set()).update(_kind(one))
        types = {name: "string" if name in inputs else _common(found) for name, found in kinds.items()}
        return cls(types, closed=True)

    @property
    def schema(self) -> Any:
        """The ``pyarrow.Schema``."""
        import pyarrow as pa

        arrow = {
            "string": pa.string(),
            "json": pa.string(),
            "int64": pa.int64(),
            "double": pa.float64(),
            "bool": pa.bool_(),
        }
        return pa.schema([(name, arrow[kind]) for name, kind in self.types.items()])

    def parse(self, line: str, inputs: Sequence[str]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """The texts of an input, and the values of all columns.

        Raises:
            ArgumentError: The line is no JSON object, lacks a text, or has a value that its column does not
                take.
        """
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"not a JSON object: {error}") from None
        if not isinstance(entry, dict):
            raise ArgumentError(f"expected a JSON object, got {type(entry).__name__}")
        for name in inputs:
            if name not in entry:
                raise ArgumentError(f"no field {name!r}, only {', '.join(map(repr, entry))}")
            if not isinstance(entry[name], str):
                raise ArgumentError(f"field {name!r} must be a string, got {type(entry[name]).__name__}")
            check_utf8(f"field {name!r}", entry[name])
        if self.closed and (more := [name for name in entry if name not in self.types]):
            raise ArgumentError(
                f"field {more[0]!r}: expected only {', '.join(map(repr, self.types))}, which the first lines "
                "have; name the fields to carry along with --columns"
            )
        values = tuple(_value(name, kind, entry.get(name)) for name, kind in self.types.items())
        return tuple(entry[name] for name in inputs), values


def _kind(value: Any) -> set[str]:
    if value is None:
        return set()
    kinds: dict[type, str] = {str: "string", bool: "bool", int: "int64", float: "double"}
    return {kinds.get(type(value), "json")}


def _common(kinds: set[str]) -> str:
    if kinds == {"int64", "double"}:
        return "double"
    return next(iter(kinds)) if len(kinds) == 1 else "json"


_FITS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int64": lambda value: type(value) is int and -(2**63) <= value < 2**63,
    "double": lambda value: type(value) is float or (type(value) is int and abs(value) < 2**1023),
}


def _value(name: str, kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "json":
        return check_utf8(f"field {name!r}", json.dumps(value, ensure_ascii=False))
    if not _FITS[kind](value):
        shown = json.dumps(value)
        raise ArgumentError(
            f"field {name!r}: expected {kind} as in the first lines, got {shown[:40]}; "
            f"--columns {name}:json takes any value"
        )
    if kind == "string":
        return check_utf8(f"field {name!r}", value)
    return float(value) if kind == "double" else value
