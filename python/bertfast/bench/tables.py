"""Figures as text, and rows of them as tables for a terminal or for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str]
NONE = "-"


def number(value: float | None, form: str) -> str:
    """A formatted number, a dash for None."""
    return NONE if value is None else form.format(value)


def milliseconds(seconds: float | None) -> str:
    """Three significant digits or all before the point: ``2.72``, ``16.8``, ``5,747``."""
    if seconds is None:
        return NONE
    value = seconds * 1e3
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def text_table(rows: Sequence[Row]) -> str:
    """Aligned columns for a terminal: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(rows: Sequence[Row]) -> str:
    """The same as a Markdown table."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


def table(rows: Sequence[Row], markdown: bool) -> str:
    """Either of them."""
    return markdown_table(rows) if markdown else text_table(rows)


def captioned(caption: str, rows: Sequence[Row], markdown: bool) -> str:
    """A table below its caption."""
    return f"**{caption}**\n\n{table(rows, markdown)}" if markdown else f"{caption}\n{table(rows, markdown)}"


def remarks(lines: Sequence[str]) -> str:
    """What there is to say besides, as a list."""
    return "\n".join(f"- {line}" for line in lines)


def page(blocks: Sequence[str], lines: Sequence[str]) -> str:
    """Everything that a mode prints: blocks with a blank line between them, at the end the remarks if any."""
    return "\n\n".join([*blocks, *([remarks(lines)] if lines else [])]) + "\n"
