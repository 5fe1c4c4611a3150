"""Verbs about SQL: sql, tables, export."""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from timtrack.flows.cli.exits import DONE, fail, written
from timtrack.flows.cli.printing import is_terminal, say
from timtrack.tasks.messages.errors import TimtrackError

if TYPE_CHECKING:
    from timtrack.tasks.lake.steps import Step

MOST = 40  # rows of an answer in a terminal


class NoSQL(TimtrackError):
    """There is no SQL to run."""


def sql(options: Namespace) -> int:
    """A query over all steps."""
    from timtrack.flows.cli.screen import forms
    from timtrack.flows.cli.screen.frames import print_frame
    from timtrack.tasks.tables.query import FilesGone, ask

    asked = _asked(options)
    form = forms.chosen(options.format, options.output)
    steps = _steps(options)
    most = MOST if form == "table" and is_terminal() and not options.output else None
    try:
        answer = ask(steps, asked, options.allow_files, most)
    except FilesGone:  # pruned or replaced just now
        answer = ask(_steps(options), asked, options.allow_files, most)
    if answer.copied is not None:
        say(f"{answer.copied:,} row{'s' * (answer.copied != 1)} copied")
    elif options.output:
        return written(options.output, lambda: forms.write(answer.rows, form, options.output))
    else:
        print_frame(answer.rows, form, answer.more)
    return DONE


def _asked(options: Namespace) -> str:
    """The SQL: an argument, a file, or standard input; raises NoSQL."""
    if options.file:
        try:
            return str(options.file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise NoSQL(f"cannot read {options.file}: {error}") from error
    if options.query is None and sys.stdin.isatty():
        raise NoSQL("no SQL: give it as an argument, with -f FILE, or on standard input")
    return sys.stdin.read() if options.query in (None, "-") else str(options.query)


def tables(options: Namespace) -> int:
    """The tables, or the columns of one."""
    from timtrack.flows.cli.screen.answers import print_columns, print_tables
    from timtrack.tasks.tables.catalogue import catalogue

    tables = catalogue()
    if options.name and options.name not in tables:
        return fail(f"no table {options.name}; there are {', '.join(sorted(tables))}")
    if options.name:
        print_columns(tables[options.name], options.format)
    else:
        shown = (table for table in tables.values() if table.folder != "intermediate")
        print_tables(shown, options.format)
    return DONE


def export(options: Namespace) -> int:
    """A DuckDB file with a view for every table."""
    from timtrack.tasks.tables.export import write

    file, steps = options.file or options.home / "timtrack.duckdb", _steps(options)
    return written(file, lambda: write(options.home, steps, file))


def _steps(options: Namespace) -> "list[Step]":
    """Every step of the lake; raises NoSuchStep if there is none."""
    from timtrack.tasks.lake.steps import NoSuchStep, all_steps

    steps = all_steps(options.home / "lake")
    if not steps:
        raise NoSuchStep(f"no steps in {options.home / 'lake'}; `tim ingest` puts them there")
    return steps
