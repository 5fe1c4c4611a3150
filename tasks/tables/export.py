"""The tables as views in a DuckDB file, for tools that know DuckDB and not timtrack.

One rule: it holds no data. A view reads what the lake has when it is asked: the tables of steps as
they were computed, the others by the SQL of `sql/`.

DuckDB resolves relative paths against the working directory, which is any folder for a notebook or
DBeaver. So the views have the home's absolute path, and take the variable `timtrack_home` instead
where a session sets it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import duckdb

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.system import durable
from timtrack.tasks.tables.catalogue import Table, catalogue, macros, tables_named, words_of
from timtrack.tasks.tables.database import INPUTS, OF_REFEREE, hive, literal, open_inputs
from timtrack.tasks.tables.read_only import as_itself

CAPTURE = "lake/run=*/step=*/capture=*"
Types = Mapping[str, str]  # of columns, as SQL writes them


class NotExported(TimtrackError):
    """DuckDB refuses a view, or the file."""


def write(home: Path, steps: list[Step], file: Path) -> None:
    """Put views over a home's lake in place of what the file held, which stays if this fails.

    Raises OSError, and NotExported with DuckDB's reason.
    """
    statements = list(_statements(home.absolute(), steps))
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with duckdb.connect(str(aside)) as database:
            for statement in statements:
                database.execute(statement)
        durable.sync(aside)
        aside.replace(file)
        durable.sync(file.parent)
    except duckdb.Error as error:
        raise NotExported(f"{file}: {error}") from error
    finally:
        for left in (aside, aside.with_name(f"{aside.name}.wal")):
            left.unlink(missing_ok=True)


def _statements(home: Path, steps: list[Step]) -> Iterator[str]:
    """Macros, inputs and tables, each after what it selects from."""
    public = (name for name, table in catalogue().items() if table.folder != "intermediate")
    logged = (name for name, table in catalogue().items() if table.folder == "frameworks")
    wanted = tables_named(" ".join(public), are_stored=True) | tables_named(" ".join(logged))
    views = {name: table for name, table in catalogue().items() if name in wanted}
    yield from _macros(views.values())
    with open_inputs(steps) as inputs:
        for name in INPUTS:
            yield f"create view {name} as {_input(home, name, _types(inputs, name))}"
    step_tables = _step_tables()
    for name, table in views.items():
        body = _stored(home, name, step_tables[name]) if name in step_tables else table.sql
        yield f"create view {name} as {body}"
        yield f"comment on view {name} is {literal(table.title)}"


def _macros(tables: Iterable[Table]) -> Iterator[str]:
    """The macros that these tables need; DuckDB looks inside only when one is used."""
    text = " ".join(table.sql for table in tables if table.folder != "step")
    needed, names = set[str](), words_of(text) & macros().keys()
    while names - needed:
        needed |= names
        names = words_of(" ".join(macros()[name] for name in needed)) & macros().keys()
    return (sql for name, sql in macros().items() if name in needed)


def _step_tables() -> dict[str, Types]:
    """The columns of every step table, by name."""
    with open_inputs([]) as empty:
        for name, table in catalogue().items():
            kind = "view" if table.folder == "tokens" else "table"  # a view is bound at each use
            empty.execute(f"create {kind} {name} as {table.sql}")
        names = [name for name, table in catalogue().items() if table.folder == "step"]
        return {name: _types(empty, name) for name in names}


def _types(connection: duckdb.DuckDBPyConnection, name: str) -> Types:
    relation = connection.sql(f"from {name}")
    return dict(zip(relation.columns, map(str, relation.dtypes), strict=True))


def _stored(home: Path, name: str, types: Types) -> str:
    """A step table, from its files."""
    pattern = f"{CAPTURE}/tables-*/{name}.parquet"
    return _typed(_parquet(home, [pattern], "hive_partitioning = false"), types)


def _input(home: Path, name: str, types: Types) -> str:
    """An input of the tables, from the lake's files."""
    stem = INPUTS[name][0]
    if name == "capture_files":
        return _typed(_json(home, types), types)
    below = f"{CAPTURE}/referee-*" if stem in OF_REFEREE else CAPTURE
    patterns = [f"{below}/{stem}.parquet", f"{below}/{stem}/part-*.parquet"]
    return _typed(_parquet(home, patterns, f"hive_partitioning = true, {hive()}"), types)


def _typed(source: str, types: Types) -> str:
    """Rows with just these columns, whichever of them the files have."""
    columns = ", ".join(f'cast("{name}" as {kind}) as "{name}"' for name, kind in types.items())
    nulls = ", ".join(f'null::{kind} as "{name}"' for name, kind in types.items())
    none = f"select {nulls} where false"
    return f"select {columns} from ({source} union all by name {none})" if source else none


def _parquet(home: Path, patterns: Iterable[str], how: str) -> str:
    """Reads the files of those patterns that have any: DuckDB refuses the others."""
    present = [pattern for pattern in patterns if next(home.glob(pattern), None)]
    files = ", ".join(_place(home, pattern) for pattern in present)
    return f"from read_parquet([{files}], union_by_name = true, {how})" if files else ""


def _json(home: Path, types: Types) -> str:
    if next(home.glob(f"{CAPTURE}/capture.json"), None) is None:
        return ""
    fields = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
    how = f"columns = {{{fields}}}, format = 'unstructured', hive_partitioning = false"
    place = _place(home, f"{CAPTURE}/capture.json")
    of_file = r"regexp_extract(filename, 'capture=([0-9a-f]+)/capture\.json$', 1) as capture"
    return f"select * replace ({of_file}) from read_json({place}, {how}, filename = true)"


def _place(home: Path, pattern: str) -> str:
    """A pattern below the home, wherever it is when it is asked for."""
    place = literal(as_itself(str(home)))
    return f"coalesce(getvariable('timtrack_home'), {place}) || {literal('/' + pattern)}"
