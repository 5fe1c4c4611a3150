"""Text in table cells, made safe for charts, terminals and spreadsheets. Numbers are unchanged."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from timtrack.tasks.messages.errors import printable

TEXT = (pl.String, pl.Categorical, pl.Enum)

# What a spreadsheet takes a cell for a formula by, also in full width as East Asian ones write it.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def legible(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with its text printable: a terminal obeys none of it, and XML can hold it."""
    return _changed(frame, printable)


def write_csv(frame: pl.DataFrame, path: Path) -> None:
    """A table as a CSV file that a person may open in a spreadsheet.

    Text that it would compute has an apostrophe before it, as OWASP advises ("CSV Injection").
    """
    path.write_text(csv(frame))


def csv(frame: pl.DataFrame) -> str:
    """What `write_csv` writes."""
    return _changed(frame, _inert).write_csv()


def _inert(text: str) -> str:
    return printable(f"'{text}" if text.startswith(FORMULA) else text)


def _changed(frame: pl.DataFrame, change: Callable[[str], str]) -> pl.DataFrame:
    """The table with each text changed; NULLs stay."""
    names = [name for name, dtype in frame.schema.items() if dtype in TEXT]
    return frame.with_columns(
        pl.Series(name, [None if text is None else change(text) for text in frame[name]], pl.String)
        for name in names
    )
