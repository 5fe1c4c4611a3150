"""A table in a terminal that may be too narrow for it, much as DuckDB's shell shows one.

One rule: names are never cut. What goes is the end of a long text, then columns from the middle;
a few rows of very many columns are shown one by one, a line for each column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.cells import cell_len, set_cell_size

GAP = 2  # characters between columns
LONGEST = 24  # of a text with spaces, where a row does not fit
FEW = 3  # rows that may be shown one by one
ELIDED = "…"

Row = Sequence[str]
T = TypeVar("T")


@dataclass(frozen=True)
class Fitted:
    """A header and rows that fit; `hidden` columns were left out."""

    header: list[str]
    rows: list[list[str]]
    hidden: int = 0


def fitted(header: Row, rows: Sequence[Row], width: int) -> Fitted | None:
    """The table in at most `width` characters; None if its rows are better shown one by one."""
    if _needed(widths(header, rows)) <= width:
        return Fitted(list(header), [list(row) for row in rows])
    cut = [list(map(_cut, row)) for row in rows]
    lengths = widths(header, cut)
    if _needed(lengths) <= width:
        return Fitted(list(header), cut)
    fits = (n for n in range(len(lengths)) if _needed(_ends(lengths, n, len(ELIDED))) <= width)
    kept = max(fits, default=0)
    if kept < 2 or (len(rows) <= FEW and 2 * kept < len(header)):
        return None
    shown = [_ends(row, kept, ELIDED) for row in cut]
    return Fitted(_ends(header, kept, ELIDED), shown, len(header) - kept)


def widths(header: Row, rows: Sequence[Row]) -> list[int]:
    """Of each column, the characters of its widest cell."""
    return [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]


def _needed(lengths: Sequence[int]) -> int:
    return sum(lengths) + GAP * (len(lengths) - 1)


def _cut(cell: str) -> str:
    """The beginning of a text; a cell without spaces may be a name, and stays."""
    if " " not in cell or cell_len(cell) <= LONGEST:
        return cell
    return set_cell_size(cell, LONGEST - 1).rstrip() + ELIDED


def _ends(items: Sequence[T], kept: int, between: T) -> list[T]:
    """So many items from both ends, one more of the first, and something in between."""
    last = kept // 2
    return [*items[: kept - last], between, *items[len(items) - last :]]
