"""Tables in a terminal. Text from captures is never interpreted as markup or control codes.

Does not import Prefect, so that `tim sql` starts fast.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from timtrack.flows.cli.printing import as_it_is, is_terminal, say
from timtrack.flows.cli.screen import fit
from timtrack.tasks.messages import formatting
from timtrack.tasks.messages.errors import printable

WIDE = 12  # columns from which a single row is shown line by line
BETWEEN = 3  # characters between columns, where there is room


def cell_text(value: Any) -> str:
    """A number as people read it, anything else as text."""
    if isinstance(value, float):
        return formatting.number(value)
    if isinstance(value, str):
        return value if printable(value) == value else repr(value)
    return "–" if value is None else str(value)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: as much as the terminal has room for, or all of it for a file or a program."""
    names = list(map(printable, header))
    cells = [list(map(printable, row)) for row in rows]
    console = Console(force_terminal=is_terminal())
    shown = fit.fitted(names, cells, console.width) if console.is_terminal else None
    if (len(cells) == 1 and len(names) >= WIDE) or (console.is_terminal and shown is None):
        _print_one_by_one(names, cells)
    elif shown is None:
        as_it_is(_aligned([names, *cells], fit.widths(names, cells), BETWEEN))
    else:
        _print_fitted(console, shown)


def _print_fitted(console: Console, shown: fit.Fitted) -> None:
    """A table that the terminal has room for, its header bold."""
    widths = fit.widths(shown.header, shown.rows)
    with console.capture() as header:
        line = _aligned([shown.header], widths, fit.GAP).rstrip("\n")
        console.print(Text(line, style="bold"), soft_wrap=True)
    as_it_is(header.get() + _aligned(shown.rows, widths, fit.GAP))
    if shown.hidden:
        say(f"{shown.hidden} more columns, for which the terminal is too narrow")


def _print_one_by_one(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A line for each column of each row, `name: value`."""
    named = [f"{name}:" for name in names]
    for number, row in enumerate(rows):
        say(*[""] * (number > 0))
        as_it_is(_aligned(list(zip(named, row, strict=True)), [max(map(cell_len, named)), 0], 1))


def _aligned(rows: Sequence[Sequence[str]], widths: Sequence[int], between: int) -> str:
    """Lines of cells, each filled up to its column's width."""
    gap = " " * between
    lines = []
    for row in rows:
        padded = [
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        ]
        lines.append(f"{gap.join(padded).rstrip()}\n")
    return "".join(lines)


def print_wrapped(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Rows of a name and texts, which are wrapped beside it where the terminal is narrow."""
    texts = [[Text(printable(cell)) for cell in row] for row in rows]
    grid = Grid(box=None, pad_edge=False, show_header=bool(header), padding=(0, BETWEEN, 0, 0))
    for index in range(len(header or texts[0])):
        name = Text(printable(header[index])) if header else ""
        style = "" if header or index else "bold"
        grid.add_column(name, style=style, no_wrap=not index, overflow="fold")
    for row in texts:
        grid.add_row(*row)
    print_grid(grid)


def say_wrapped(*lines: str) -> None:
    """Sentences, wrapped between words where a terminal is too narrow; not for commands to copy."""
    if not is_terminal():
        return say(*lines)
    width = Console(force_terminal=True).width
    for line in map(printable, lines):
        start = " " * (len(line) - len(line.lstrip()))
        more = f"{start}  "
        say(*textwrap.wrap(line, width, subsequent_indent=more, break_on_hyphens=False) or [""])


def print_grid(grid: Grid) -> None:
    """A grid at the terminal's width; for a file or a program, as wide as it needs."""
    console = Console(force_terminal=is_terminal())
    wide = console if console.is_terminal else Console(width=10_000)
    with wide.capture() as captured:
        wide.print(grid)
    as_it_is("".join(f"{line.rstrip()}\n" for line in captured.get().split("\n")[:-1]))
