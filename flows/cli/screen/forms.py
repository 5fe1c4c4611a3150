"""Tables for files and other programs: CSV, JSON, JSON lines, Markdown, Parquet.

CSV, JSON and Parquet hold the data as they are. Nothing is added for spreadsheets, as in MLflow's
tables (tasks/messages/cells.py): a program that reads it would take that for data.
"""

import io
from collections.abc import Callable
from pathlib import Path

import polars as pl

from timtrack.flows.cli.printing import as_it_is, bytes_as_they_are, is_terminal
from timtrack.flows.cli.screen.grids import cell_text
from timtrack.tasks.messages import cells, formatting
from timtrack.tasks.messages.errors import TimtrackError, printable

SUFFIXES = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".md": "markdown",
    ".parquet": "parquet",
}


class BadForm(TimtrackError):
    """A file or a terminal that a table cannot be written to."""


def chosen(form: str | None, file: Path | None) -> str:
    """The form that was asked for, else the one that a file's suffix names; raises BadForm."""
    if file is None:
        return form or "table"
    if form is None and file.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise BadForm(f"{file}: {file.suffix or 'no suffix'} names no format; there are {known}")
    if form == "table":
        raise BadForm(f"{file}: a table is for a terminal; --format markdown is for a file")
    return form or SUFFIXES[file.suffix.lower()]


def write(frame: pl.DataFrame, form: str, path: Path) -> None:
    """The table as a file."""
    path.write_bytes(_parquet(frame) if form == "parquet" else TEXTS[form](frame).encode())


def print_form(frame: pl.DataFrame, form: str) -> None:
    """The table to standard output; on a terminal, text that could act there is escaped."""
    if form == "parquet":
        if is_terminal():
            raise BadForm("Parquet is not for a terminal; give -o FILE, or pipe it")
        bytes_as_they_are(_parquet(frame))
    elif form == "csv" and is_terminal():
        names = pl.DataFrame([list(map(printable, frame.columns))], orient="row")
        shown = (names, cells.legible(_flat(frame)))
        as_it_is("".join(part.write_csv(include_header=False) for part in shown))
    else:
        as_it_is(TEXTS[form](frame))


def _parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def _json(frame: pl.DataFrame) -> str:
    return formatting.as_json(frame.to_dicts(), default=str, indent=1) + "\n"


def _json_lines(frame: pl.DataFrame) -> str:
    rows = frame.iter_rows(named=True)
    return "".join(f"{formatting.as_json(row, default=str)}\n" for row in rows)


def _markdown(frame: pl.DataFrame) -> str:
    """A table for people, numbers rounded as in a terminal."""
    rows = [[cell_text(value) for value in row] for row in frame.iter_rows()]
    header, *body = [list(map(formatting.markdown, line)) for line in (frame.columns, *rows)]
    lines = [header, ["---"] * frame.width, *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists as JSON text, which CSV can hold."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = [
        pl.Series(n, [formatting.as_json(v, default=str) for v in frame[n].to_list()])
        for n in nested
    ]
    return frame.with_columns(texts)


TEXTS: dict[str, Callable[[pl.DataFrame], str]] = {
    "csv": lambda frame: _flat(frame).write_csv(),
    "json": _json,
    "jsonl": _json_lines,
    "markdown": _markdown,
}
