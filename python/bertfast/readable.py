"""Facts as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def readable(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of aligned ``name  value`` lines."""
    lines: list[str] = []
    for section, entries in facts.items():
        width = max((len(name) for name in entries), default=0)
        lines += [section, *(f"  {name.ljust(width)}  {_value(value)}" for name, value in entries.items())]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if value is None or value in ([], {}, ()):
        return "none"
    if value == "":
        return "(empty)"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_value(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
