"""Queries over steps: every table of every step, computed where it is not stored."""

import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from timtrack.tasks.lake.steps import Step, is_pruned
from timtrack.tasks.messages.errors import BadTables, TimtrackError
from timtrack.tasks.system.interrupts import reach_waits
from timtrack.tasks.tables import read_only
from timtrack.tasks.tables.catalogue import (
    Table,
    catalogue,
    sources_of,
    tables_named,
    words_of,
)
from timtrack.tasks.tables.compute import as_bad_tables, computed_tables
from timtrack.tasks.tables.database import INPUTS, literal, open_inputs
from timtrack.tasks.tables.read_only import NotAllowed, file_list
from timtrack.tasks.tables.stored import is_older, tables_folder

LOG = logging.getLogger("timtrack")


class BadQuery(TimtrackError):
    """DuckDB cannot run the SQL."""


class FilesGone(BadQuery):
    """Files of the lake went while they were asked for."""


@dataclass(frozen=True)
class Answer:
    """What a query gave: rows, and how many `more` there are that were not fetched."""

    rows: pl.DataFrame
    more: int = 0
    copied: int | None = None  # rows that a final COPY wrote or read


def run_query(steps: list[Step], sql: str, any_files: bool = False) -> pl.DataFrame:
    """The answer to a question over these steps; raises BadQuery with DuckDB's reason.

    It can only read, and only the lake, unless `any_files` lets it do what DuckDB can.
    """
    return ask(steps, sql, any_files).rows


def ask(steps: list[Step], sql: str, any_files: bool = False, most: int | None = None) -> Answer:
    """As `run_query`, with at most so many rows, and the others counted.

    Raises KeyboardInterrupt if Ctrl-C ended it.
    """
    reach_waits()
    try:
        statements = duckdb.extract_statements(sql)
        if not statements:
            raise BadQuery("there is no statement in the SQL; try 'show tables'")
        if not any_files:
            read_only.check(sql)
        with connect(steps, sql) as connection:
            if not any_files:
                read_only.lock(connection, {step.path.parents[2] for step in steps})
            is_copy = statements[-1].type == duckdb.StatementType.COPY
            return _interruptible(connection, lambda: _answer(connection, sql, is_copy, most))
    except duckdb.IOException as error:
        raise (FilesGone if "No files found" in str(error) else BadQuery)(str(error)) from error
    except (duckdb.Error, pl.exceptions.PolarsError, NotAllowed) as error:
        raise BadQuery(str(error)) from error
    except RuntimeError as error:  # DuckDB's own Ctrl-C, before the query runs
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from None
        raise


def _interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], Answer]) -> Answer:
    """What the work on a connection returns; Ctrl-C ends it.

    DuckDB looks for signals where it computes in the main thread, which on a busy machine it may
    not do for minutes.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            while not future.done():  # what comes between two queries of the work is lost
                connection.interrupt()
                wait([future], timeout=0.1)
            raise


def _answer(
    connection: duckdb.DuckDBPyConnection, sql: str, is_copy: bool, most: int | None
) -> Answer:
    relation = connection.sql(sql)
    if is_copy:
        return Answer(pl.DataFrame(), copied=relation.fetchall()[0][0])
    return Answer(pl.DataFrame()) if relation is None else _fetched(relation, most)


def _fetched(relation: duckdb.DuckDBPyRelation, most: int | None) -> Answer:
    """The rows, or the first of them; the others are only counted."""
    if most is None:
        return Answer(relation.pl())
    first = relation.limit(most + 1).pl()
    more = relation.count("*").fetchall()[0][0] - most if len(first) > most else 0
    return Answer(first.head(most), more)


def run_queries(steps: list[Step], asked: Mapping[str, str]) -> dict[str, pl.DataFrame]:
    """The answers to several questions over these steps, by name; raises BadQuery.

    What steps lack is computed once for all of them.
    """
    try:
        with connect(steps, " ".join(asked.values())) as connection:
            return {name: connection.sql(sql).pl() for name, sql in asked.items()}
    except (duckdb.Error, pl.exceptions.PolarsError) as error:
        raise BadQuery(str(error)) from error


def connect(steps: list[Step], asked: str) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with a view for every table that the query `asked` names.

    All, if it names none, and none of the inputs either: `show tables` sees them.

    Step tables are read as they were computed. Those that a step lacks (killed before they were
    written, or written by older SQL) are computed in memory, so that no step is missing, and so is
    what frameworks log.
    """
    folders = {step: tables_folder(step) for step in steps}
    missing = [step for step, folder in folders.items() if folder is None]
    older = any(map(is_older, folders.values()))
    are_stored = bool(steps) and not missing and not older
    wanted = tables_named(asked, are_stored)
    if not wanted and not words_of(asked) & INPUTS.keys():
        wanted = set(catalogue())
    connection = open_inputs(steps, words_of(asked) | sources_of(wanted) if asked else None)
    connection.execute("set preserve_insertion_order = true")  # stored steps come in theirs
    in_steps = any(catalogue()[name].folder == "step" for name in wanted)
    # An empty step has the columns that older tables lack.
    to_compute = (*missing, *([None] if older else [])) if in_steps else ()
    parts = [part for step in to_compute if (part := _part(step, wanted))]
    parity = {name for name in wanted if catalogue()[name].folder == "frameworks"}
    logged = _logged(steps, parity, parity & words_of(asked))
    for name, table in catalogue().items():
        if name in wanted:
            body = table.sql
            if table.is_of_step:
                files = [folder / f"{name}.parquet" for folder in folders.values() if folder]
                frames = [part[name] for part in (logged if name in parity else parts)]
                body = _stored_body(connection, name, files, frames) or table.sql
            connection.execute(f"create view {name} as {body}")
            _comment(connection, table)
    return connection


def _logged(
    steps: list[Step], parity: Collection[str], named: Collection[str]
) -> list[dict[str, pl.DataFrame]]:
    """What frameworks log, of every step that has tokens where it is named, else empty tables."""
    if not parity:
        return []
    with_tokens = [step for step in steps if not is_pruned(step)] if named else []
    needed = tables_named(" ".join(parity))
    return [part for step in (*with_tokens, None) if (part := _part(step, needed))]


def _part(step: Step | None, wanted: Collection[str]) -> dict[str, pl.DataFrame]:
    """A step's tables for a query over many; none of one that would keep all others from it."""
    if step is None:
        return computed_tables(step, wanted)
    try:
        with as_bad_tables(step):
            return computed_tables(step, wanted)
    except BadTables as error:
        LOG.warning("%s; the step is left out", error)
        return {}


def _stored_body(
    connection: Any, name: str, found: list[Path], computed: list[pl.DataFrame]
) -> str:
    """SELECT over a step table's files, and over the computed rows of steps without a file."""
    files = [file for file in found if file.is_file()]
    # Made by the same SQL they have the same columns, and only one is looked at to know them.
    union = len({file.parent.name for file in found}) > 1
    stored = (
        f"from read_parquet({file_list(files)}, union_by_name = {union}, hive_partitioning = false)"
    )
    parts = [stored] if files else []
    if computed:
        together = pl.concat(computed, how="diagonal")
        connection.register(f"computed_{name}", together.to_arrow())
        parts.append(f"from computed_{name}")
    return " union all by name ".join(f"({part})" for part in parts)


def _comment(connection: Any, table: Table) -> None:
    """Carry the header into DuckDB, where `duckdb_columns()` shows it."""
    connection.execute(f"comment on view {table.name} is {literal(table.title)}")
