"""Rows of text as aligned columns, for a terminal."""

from collections.abc import Sequence

GAP = "  "


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A line per row, all of one number of columns: the first `left` of them flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [GAP.join(_cells(row, widths, left)).rstrip() for row in rows]


def with_rule(lines: Sequence[str]) -> list[str]:
    """A rule below the first line, which has the headings."""
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _cells(row: Sequence[str], widths: list[int], left: int) -> list[str]:
    return [
        text.ljust(width) if column < left else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
