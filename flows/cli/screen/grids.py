"""Tables in a terminal. Text from captures is never interpreted as markup or control codes.

Does not import Prefect, so that `tim sql` starts fast.
"""

import sys
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from timtrack.flows.cli.printing import as_it_is
from timtrack.tasks.messages import formatting
from timtrack.tasks.messages.errors import printable
from timtrack.tasks.reports import cells

if TYPE_CHECKING:
    pass


WIDE = 12  # columns from which a single row is shown on its side


def print_frame(frame: pl.DataFrame, form: str) -> None:
    """A query's answer: a table that fits the terminal, or all of it as CSV or JSON."""
    if not frame.width:
        return
    if form == "csv":
        as_it_is(_csv(frame))
    elif form == "json":
        as_it_is(formatting.as_json(frame.to_dicts(), default=str, indent=1) + "\n")
    elif len(frame) == 1 and frame.width >= WIDE:
        row = frame.row(0, named=True)
        print_grid(grid([], [[name, cell_text(value)] for name, value in row.items()]))
    else:
        print_grid(
            grid(frame.columns, [[cell_text(value) for value in row] for row in frame.iter_rows()])
        )


def _csv(frame: pl.DataFrame) -> str:
    """A query's answer as CSV: the data as they are, for a file or another program.

    Nothing is added for spreadsheets, as in MLflow's tables (tasks/reports/cells.py): a program
    that reads it would take that for data. Only on a terminal, where text could act and nothing
    is read back, it is escaped.
    """
    flat = _flat(frame)
    if not sys.stdout.isatty():
        return flat.write_csv()
    names = pl.DataFrame([list(map(printable, flat.columns))], orient="row")
    shown = (names, cells.legible(flat))
    return "".join(part.write_csv(include_header=False) for part in shown)


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists as JSON text, which CSV can hold."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = [
        pl.Series(n, [formatting.as_json(v, default=str) for v in frame[n].to_list()])
        for n in nested
    ]
    return frame.with_columns(texts)


def cell_text(value: Any) -> str:
    """A number as people read it, anything else as text."""
    if isinstance(value, float):
        return formatting.number(value)
    if isinstance(value, str):
        return value if printable(value) == value else repr(value)
    return "–" if value is None else str(value)


def grid(header: list[str], rows: list[list[str]]) -> Grid:
    """Columns of plain text; without a header, the first column names the rows."""
    grid = Grid(box=None, pad_edge=False, show_header=bool(header), padding=(0, 3, 0, 0))
    for index in range(len(header or rows[0])):
        grid.add_column(
            plain_text(header[index]) if header else "", style="" if header or index else "bold"
        )
    for row in rows:
        grid.add_row(*map(plain_text, row))
    return grid


def plain_text(cell: str) -> Text:
    """Text that is not taken for markup."""
    return Text(printable(cell))


def print_grid(grid: Grid) -> None:
    """At the terminal's width; when the output goes to a file, as wide as it needs."""
    console = Console()
    wide = console if console.is_terminal else Console(width=10_000)
    with wide.capture() as captured:
        wide.print(grid)
    as_it_is("".join(f"{line.rstrip()}\n" for line in captured.get().split("\n")[:-1]))
