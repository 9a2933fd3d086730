"""Small tables, for a terminal and for a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence

Row = Sequence[object]
#: Maximum number of rows: what a screen holds.
_MOST = 40


def as_text(heads: Sequence[str], rows: Sequence[Row]) -> str:
    """Aligned columns: text to the left, numbers to the right."""
    rows = _shown(rows)
    lines = [heads, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = _numbers(heads, rows)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def as_html(heads: Sequence[str], rows: Sequence[Row]) -> str:
    """The same as a `table` element."""
    rows = _shown(rows)
    aligned = ["right" if number else "left" for number in _numbers(heads, rows)]
    lines = [_line("th", heads, aligned), *(_line("td", row, aligned) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _line(tag: str, cells: Row, aligned: Sequence[str]) -> str:
    return "".join(
        ["<tr>"]
        + [
            f'<{tag} style="text-align: {side}">{html.escape(str(cell))}</{tag}>'
            for cell, side in zip(cells, aligned, strict=True)
        ]
        + ["</tr>"]
    )


def _shown(rows: Sequence[Row]) -> Sequence[Row]:
    if len(rows) <= _MOST:
        return rows
    return [*rows[: _MOST - 1], (f"... {len(rows) - _MOST + 1} more", *([""] * (len(rows[0]) - 1)))]


def _numbers(heads: Sequence[str], rows: Sequence[Row]) -> list[bool]:
    """Which columns contain numbers."""
    columns = zip(*rows, strict=True) if rows else ([head] for head in heads)
    return [all(not str(cell) or str(cell)[0].isdigit() for cell in column) for column in columns]
