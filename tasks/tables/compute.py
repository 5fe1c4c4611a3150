"""Computing the tables of one step from its tokens."""

import graphlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import duckdb
import polars as pl

from timtrack.tasks.lake.steps import Step, is_pruned, require_tokens
from timtrack.tasks.messages.errors import BadTables
from timtrack.tasks.tables import coefficients, corrections, invariants
from timtrack.tasks.tables.catalogue import (
    SQL,
    WHEN_ASKED,
    Table,
    catalogue,
    stored,
    tables_named,
)
from timtrack.tasks.tables.corrections import Setting
from timtrack.tasks.tables.database import open_frames, open_inputs
from timtrack.tasks.tables.stored import stored_tables

# Up to here a table is computed by one thread: sums are the same to the last bit whenever they are
# done again. Two tables at a time take two thirds of the time of one (0.3 M tokens, 2026-11).
ONE_THREAD = 2_000_000  # tokens
SIDE_BY_SIDE = 2

# Up to here the view that most tables read is a table, which DuckDB plans once and not sixty times:
# a sixth of the time of a few rows; of 0.3 M tokens nothing but memory (2026-11).
HELD, MOST_HELD = "trained_tokens", 100_000  # tokens


def compute_step(step: Step) -> dict[str, pl.DataFrame]:
    """Every table that is stored with a step, from its tokens; each is computed once.

    Raises BadTables, also when the numbers contradict each other.
    """
    with as_bad_tables(step):
        computed = computed_tables(step, stored())
        invariants.check(computed["step_metrics"].row(0, named=True))
    return computed


# Not the step's fault: a full disk, a budget that is too small.
OUTSIDE = (duckdb.IOException, duckdb.OutOfMemoryException)
ITS_OWN = (duckdb.Error, pl.exceptions.PolarsError, invariants.BrokenIdentity)


@contextmanager
def as_bad_tables(step: Step) -> Iterator[None]:
    """Errors that are the step's own, as BadTables."""
    try:
        yield
    except OUTSIDE:
        raise
    except ITS_OWN as error:
        raise BadTables(f"the tables of {step.name} cannot be computed: {error}") from error


# The tables of a step read tokens without their texts: of 8.2 M tokens with a vocabulary the join
# took 18 of 44 s CPU (2026-11). Those that list ids join `token_texts`.
WITHOUT_TEXTS = {"tokens": "from tokens_file"}

ADVISED_BY = ("corrections", "alignment", "step_metrics")  # what advice is made from


def what_if(step: Step, settings: Iterable[Setting]) -> dict[str, pl.DataFrame]:
    """The tables that advice is made from, `corrections` with these settings beside the listed.

    Raises NoSuchStep for a step whose tokens are gone.
    """
    require_tokens(step)
    every = corrections.defaults() | {setting.name: setting for setting in settings}
    files = (SQL / "intermediate" / "corrections").glob("*.sql")
    instead = {file.stem: coefficients.expand(file.read_text(), every.values()) for file in files}
    return computed_tables(step, tables_named(" ".join(ADVISED_BY)), instead)


def parity_tables(step: Step, frameworks: Iterable[str]) -> dict[str, pl.DataFrame]:
    """What these frameworks would log; of a pruned step what older SQL stored of it."""
    names = [f"{framework}_metrics" for framework in frameworks]
    if is_pruned(step):
        return stored_tables(step)
    return computed_tables(step, tables_named(" ".join(names))) if names else {}


def computed_tables(
    step: Step | None, wanted: Collection[str], instead: Mapping[str, str] = MappingProxyType({})
) -> dict[str, pl.DataFrame]:
    """The wanted step tables of a step, with what they need; of none, as they are when empty.

    No table is planned or run more than once. `instead` has other SQL for some of them.
    """
    with open_inputs([step] if step else [], as_enum=True) as connection:
        return _computed(connection, wanted, instead, step.facts()["tokens"] if step else 0)


def tables_of_frames(
    frames: Mapping[str, pl.DataFrame], wanted: Collection[str]
) -> dict[str, pl.DataFrame]:
    """The wanted step tables, with what they need, of a small batch that lies in no lake.

    `frames` has `tokens_file` and `sequences`, as `open_frames` takes them.
    """
    with open_frames(frames) as connection:
        return _computed(connection, wanted, {}, len(frames["tokens_file"]))


def token_coefficients(frames: Mapping[str, pl.DataFrame], setting: Setting) -> pl.DataFrame:
    """What a setting multiplies each trained token's gradient by: row, pos, coefficient.

    By the formula that `corrections` adds up, over the same frames as above; in order.
    """
    formula = coefficients.coefficient(setting)
    query = f"select row, pos, {formula} as coefficient from token_weights order by row, pos"
    needed = tables_named(query)
    with open_frames(frames) as connection:
        connection.execute("set threads = 1")
        for name in (name for name in catalogue() if name in needed):
            table = catalogue()[name]
            _made(connection, table, table.sql, is_view=table.folder == "tokens")
        return connection.sql(query).pl()


def _computed(
    connection: Any, wanted: Collection[str], instead: Mapping[str, str], tokens: int
) -> dict[str, pl.DataFrame]:
    """The wanted tables over the inputs of a connection, which have so many tokens."""
    instead = WITHOUT_TEXTS | dict(instead)
    is_small = tokens <= ONE_THREAD
    held = {HELD} if tokens <= MOST_HELD else set()
    tables = {n: t for n, t in catalogue().items() if n in wanted and t.folder not in WHEN_ASKED}
    needs = {name: table.sources & tables.keys() for name, table in tables.items()}
    order = graphlib.TopologicalSorter(needs)
    order.prepare()
    frames: dict[str, pl.DataFrame | None] = {}
    if is_small:
        connection.execute("set threads = 1")
    with ThreadPoolExecutor(SIDE_BY_SIDE if is_small else 1) as pool:
        running: dict[Future[pl.DataFrame | None], str] = {}
        while order.is_active():
            for name in order.get_ready():
                sql = instead.get(name, tables[name].sql)
                is_view = tables[name].folder == "tokens" and name not in held
                work = pool.submit(_made, connection.cursor(), tables[name], sql, is_view)
                running[work] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                frames[name] = future.result()
                order.done(name)
    return {name: frame for name in tables if (frame := frames[name]) is not None}


def _made(connection: Any, table: Table, sql: str, is_view: bool) -> pl.DataFrame | None:
    """Make a view or a table of that SQL; the content of one that is stored.

    DuckDB knows the size of a table of its own, so that no join builds on the tokens.
    """
    connection.execute(f"create {'view' if is_view else 'table'} {table.name} as {sql}")
    if not table.is_of_step:
        return None
    return connection.sql(f"select * replace (run::varchar as run) from {table.name}").pl()


def tables_of(step: Step, only: Collection[str] | None = None) -> dict[str, pl.DataFrame]:
    """A step's tables: as they are stored, else computed and not stored."""
    return stored_tables(step, only) or compute_step(step)
