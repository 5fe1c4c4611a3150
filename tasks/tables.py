"""The SQL tables: every file in `sql/` is one SELECT, one DuckDB view and one table of that name.

One rule: the input is the parameter. A file selects from `tokens`, `sequences` and other files'
names; whether that is one step or the whole lake is decided here, by what the views are laid over.
The header comment of a file is its documentation; its lines `-- name | text` name every column.
"""

import functools
import graphlib
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import polars as pl

from timtrack.tasks import corrections, identities, read_only
from timtrack.tasks.corrections import Setting
from timtrack.tasks.lake.steps import Step, is_pruned, require_tokens, step_files
from timtrack.tasks.notation import OneLine
from timtrack.tasks.read_only import NotAllowed, file_list
from timtrack.tasks.selected import tables_read
from timtrack.tasks.system import memory
from timtrack.tasks.text import VOCABULARY
from timtrack.tasks.tokens import ADDED, SEQUENCES, TOKENS

LOG = logging.getLogger("timtrack")
SQL = Path(__file__).parents[1] / "sql"

# base: views of tokens that others build on. part: numbers that several tables share, not stored.
# step: computed and stored for each step. run: need several steps. The order of the views follows
# from who selects from whom.
FOLDERS = ("base", "part", "step", "run")

# Views that SQL names: always there as columns, NULL where a capture does not have them.
CHAIN = ("logp_rescored", "logp_dense")

CAPTURES = pl.Schema(
    {
        "run": pl.String(),
        "step": pl.Int64(),
        "vocabulary_size": pl.Int64(),
        "vocabulary_from": pl.String(),
    }
)

# What tables select from that is no table: of the lake's files, and of `capture.json`.
INPUTS: dict[str, tuple[str, pl.Schema]] = {
    "tokens_file": ("tokens", TOKENS),
    "sequences": ("sequences", SEQUENCES),
    "vocabulary": ("vocabulary", VOCABULARY),
    "captures": ("capture", CAPTURES),
}

# Up to here a table is computed by one thread: sums are the same to the last bit whenever they are
# done again. Two tables at a time take two thirds of the time of one (0.3 M tokens, 2026-11).
ONE_THREAD = 2_000_000  # tokens
SIDE_BY_SIDE = 2

SQL_TYPES = {pl.Boolean(): "boolean", pl.Float32(): "float", pl.Int64(): "bigint"}
HIVE = "hive_types = {'run': varchar, 'step': bigint, 'capture': varchar}"
COLUMN = re.compile(
    r"^-- (?:(?P<name>\w+) *\| (?P<text>.+)|include: (?P<other>\w+))$", re.MULTILINE
)


class BadTables(OneLine):
    """A step's tokens are there, but its tables cannot be computed from them."""


class BadQuery(Exception):
    """DuckDB cannot run the SQL."""


class FilesGone(BadQuery):
    """Files of the lake went while they were asked for."""


@dataclass(frozen=True)
class Table:
    """One file of `sql/`."""

    name: str
    folder: str
    sql: str

    @property
    def title(self) -> str:
        """The first sentences of the header, up to the grain."""
        lines = [line[3:] for line in self.sql.split("-- grain:")[0].splitlines()]
        return " ".join(lines).strip()

    @property
    def grain(self) -> list[str]:
        """The columns that make a row unique."""
        match = re.search(r"^-- grain: (.+)$", self.sql, re.MULTILINE)
        return match[1].split(", ") if match else []

    @property
    def columns(self) -> dict[str, str]:
        """What each column is, as the header says; `-- include: x` stands for those of x."""
        return _columns(self.sql)

    @functools.cached_property
    def sources(self) -> set[str]:
        """The tables and inputs that it selects from."""
        return tables_read(self.sql)


def _columns(sql: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in COLUMN.finditer(sql):
        found |= _included(match["other"]) if match["other"] else {match["name"]: match["text"]}
    return found


def _included(other: str) -> dict[str, str]:
    """The columns that a macro or another table gives, without the grain of a step."""
    columns = _columns(macros().get(other) or catalogue()[other].sql)
    return {name: text for name, text in columns.items() if name not in ("run", "step")}


@functools.cache
def macros() -> dict[str, str]:
    """The SQL functions that tables use, each a CREATE MACRO, by name."""
    return {file.stem: file.read_text() for file in sorted((SQL / "macro").glob("*.sql"))}


@functools.cache
def catalogue() -> dict[str, Table]:
    """All tables by name, each after those it selects from."""
    defaults = corrections.defaults().values()
    tables = {
        file.stem: Table(file.stem, folder, corrections.expand(file.read_text(), defaults))
        for folder in FOLDERS
        for file in sorted((SQL / folder).glob("*.sql"))
    }
    needs = {name: table.sources & tables.keys() for name, table in tables.items()}
    return {name: tables[name] for name in graphlib.TopologicalSorter(needs).static_order()}


@functools.cache
def version() -> str:
    """12 hex digits over the SQL of steps; stored tables are current if they carry this."""
    by_name = sorted(catalogue().values(), key=lambda table: table.name)
    texts = "".join([*macros().values(), *(t.sql for t in by_name if t.folder != "run")])
    return hashlib.sha256(texts.encode()).hexdigest()[:12]


def folder_of(step: Step) -> Path | None:
    """Where the step's tables are, if they were made by the SQL as it is now.

    Of a step whose tokens were pruned, those that are left: they cannot be made again.
    """
    current = step.path / f"tables-{version()}"
    if current.is_dir():
        return current
    return next(iter(step.path.glob("tables-*")), None) if is_pruned(step) else None


def are_computed(step: Step) -> bool:
    """Whether the step's tables are there, and current as far as they can be."""
    return folder_of(step) is not None


def compute(step: Step) -> dict[str, pl.DataFrame]:
    """Every table of one step, from its tokens, each once: others build on what is there.

    Raises BadTables, also when the numbers contradict each other.
    """
    with _as_bad_tables(step):
        computed = _computed(step, set(catalogue()))
        identities.check(computed["step_metrics"].row(0, named=True))
    return computed


# Not the step's fault: a full disk, a budget that is too small.
OUTSIDE = (duckdb.IOException, duckdb.OutOfMemoryException)
ITS_OWN = (duckdb.Error, pl.exceptions.PolarsError, identities.BrokenIdentity)


@contextmanager
def _as_bad_tables(step: Step) -> Iterator[None]:
    try:
        yield
    except OUTSIDE:
        raise
    except ITS_OWN as error:
        raise BadTables(f"the tables of {step.name} cannot be computed: {error}") from error


ADVISED_BY = ("corrections", "alignment", "step_metrics")  # what advice is made from


def what_if(step: Step, settings: Iterable[Setting]) -> dict[str, pl.DataFrame]:
    """The tables that advice is made from, `corrections` with these settings beside the listed.

    Raises NoSuchStep for a step whose tokens are gone.
    """
    require_tokens(step)
    every = corrections.defaults() | {setting.name: setting for setting in settings}
    sql = (SQL / "part" / "row_weightings.sql").read_text()
    instead = {"row_weightings": corrections.expand(sql, every.values())}
    return _computed(step, named(" ".join(ADVISED_BY)), instead)


def _computed(
    step: Step | None, wanted: Collection[str], instead: Mapping[str, str] = MappingProxyType({})
) -> dict[str, pl.DataFrame]:
    """The wanted step tables of a step, with what they need; of none, as they are when empty.

    No table is planned or run more than once. `instead` has other SQL for some of them.
    """
    chosen = {n: t for n, t in catalogue().items() if n in wanted and t.folder != "run"}
    needs = {name: table.sources & chosen.keys() for name, table in chosen.items()}
    order = graphlib.TopologicalSorter(needs)
    order.prepare()
    made: dict[str, pl.DataFrame | None] = {}
    with inputs([step] if step else []) as connection:
        is_small = step is None or step.facts()["tokens"] <= ONE_THREAD
        if is_small:
            connection.execute("set threads = 1")
        with ThreadPoolExecutor(SIDE_BY_SIDE if is_small else 1) as pool:
            running: dict[Future[pl.DataFrame | None], str] = {}
            while order.is_active():
                for name in order.get_ready():
                    sql = instead.get(name, chosen[name].sql)
                    running[pool.submit(_made, connection.cursor(), chosen[name], sql)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    made[name] = future.result()
                    order.done(name)
    return {name: frame for name in chosen if (frame := made[name]) is not None}


def _made(connection: Any, table: Table, sql: str) -> pl.DataFrame | None:
    """Make a view or a table of that SQL; the content of one that is stored."""
    if table.folder == "base":
        connection.execute(f"create view {table.name} as {sql}")
        return None
    # A table of DuckDB's own, of which it knows the size: no join builds on the tokens.
    connection.execute(f"create table {table.name} as {sql}")
    return connection.sql(f"from {table.name}").pl() if table.folder == "step" else None


def stored(step: Step, only: Collection[str] | None = None) -> dict[str, pl.DataFrame]:
    """The tables that were computed for a step, by name; only some, if these are all one needs."""
    folder = folder_of(step)
    files = sorted(folder.glob("*.parquet")) if folder else []
    return {
        file.stem: pl.read_parquet(file, glob=False)
        for file in files
        if not only or file.stem in only
    }


def of(step: Step, only: Collection[str] | None = None) -> dict[str, pl.DataFrame]:
    """A step's tables: as they are stored, else computed and not stored."""
    return stored(step, only) or compute(step)


def query(steps: list[Step], sql: str, any_files: bool = False) -> pl.DataFrame:
    """The answer to a question over these steps; raises BadQuery with DuckDB's reason.

    It can only read, and only the lake, unless `any_files` lets it do what DuckDB can.
    """
    try:
        if not any_files:
            read_only.check(sql)
        with connect(steps, sql) as connection:
            if not any_files:
                read_only.lock(connection, {step.path.parents[2] for step in steps})
            relation = connection.sql(sql)
            return pl.DataFrame() if relation is None else relation.pl()
    except duckdb.IOException as error:
        raise (FilesGone if "No files found" in str(error) else BadQuery)(str(error)) from error
    except (duckdb.Error, pl.exceptions.PolarsError, NotAllowed) as error:
        raise BadQuery(str(error)) from error


def queries(steps: list[Step], asked: Mapping[str, str]) -> dict[str, pl.DataFrame]:
    """The answers to several questions over these steps, by name; raises BadQuery.

    What steps lack is computed once for all of them.
    """
    try:
        with connect(steps, " ".join(asked.values())) as connection:
            return {name: connection.sql(sql).pl() for name, sql in asked.items()}
    except (duckdb.Error, pl.exceptions.PolarsError) as error:
        raise BadQuery(str(error)) from error


def connect(steps: list[Step], asked: str) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with a view for every table that the query `asked` names; all if none.

    Step tables are read as they were computed. Those that a step lacks (killed before they were
    written, or written by older SQL) are computed in memory, so that no step is missing.
    """
    folders = {step: folder_of(step) for step in steps}
    missing = [step for step, folder in folders.items() if folder is None]
    older = any(folder and folder.name != f"tables-{version()}" for folder in folders.values())
    are_stored = bool(steps) and not missing and not older
    wanted = named(asked, are_stored) or set(catalogue())
    connection = inputs(steps, _words(asked) | _sources(wanted) if asked else None)
    connection.execute("set preserve_insertion_order = true")  # stored steps come in theirs
    in_steps = any(catalogue()[name].folder == "step" for name in wanted)
    # An empty step has the columns that older tables lack.
    to_compute = (*missing, *([None] if older else [])) if in_steps else ()
    parts = [part for step in to_compute if (part := _part(step, wanted))]
    for name, table in catalogue().items():
        if name in wanted:
            body = table.sql
            if table.folder == "step":
                found = [folder / f"{name}.parquet" for folder in folders.values() if folder]
                frames = [part[name] for part in parts]
                body = _stored_body(connection, name, found, frames) or table.sql
            connection.execute(f"create view {name} as {body}")
            _comment(connection, table)
    return connection


def _part(step: Step | None, wanted: Collection[str]) -> dict[str, pl.DataFrame]:
    """A step's tables for a query over many; none of one that would keep all others from it."""
    if step is None:
        return _computed(step, wanted)
    try:
        with _as_bad_tables(step):
            return _computed(step, wanted)
    except BadTables as error:
        LOG.warning("%s; the step is left out", error)
        return {}


def named(asked: str, are_stored: bool = False) -> set[str]:
    """The tables that a query needs: those it names, and those that these select from.

    Step tables that `are_stored` in every step need no other.
    """
    found, new = set[str](), catalogue().keys() & _words(asked)
    while new:
        found |= new
        open_ = {name for name in new if not (are_stored and catalogue()[name].folder == "step")}
        new = (_sources(open_) & catalogue().keys()) - found
    return found


def _words(asked: str) -> set[str]:
    return set(re.findall(r"\w+", asked.lower()))


def _sources(tables: Iterable[str]) -> set[str]:
    """All that these tables select from: tables, and names of inputs."""
    return {source for name in tables for source in catalogue()[name].sources}


def _stored_body(
    connection: Any, name: str, found: list[Path], computed: list[pl.DataFrame]
) -> str:
    """SELECT over a step table's files and over what was computed for steps without a file."""
    files = [file for file in found if file.is_file()]
    # Made by the same SQL they have the same columns, and only one is looked at to know them.
    union = len({file.parent.name for file in found}) > 1
    read = (
        f"from read_parquet({file_list(files)}, union_by_name = {union}, hive_partitioning = false)"
    )
    parts = [read] if files else []
    if computed:
        together = pl.concat(computed, how="diagonal")
        connection.register(f"computed_{name}", together.to_arrow())
        parts.append(f"from computed_{name}")
    return " union all by name ".join(f"({part})" for part in parts)


def inputs(
    steps: Iterable[Step], needed: Collection[str] | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the files of these steps and the macros, without tables.

    Only the `needed` of `tokens_file`, `sequences`, `vocabulary`, `captures`: binding hundreds of
    files takes its time.
    """
    steps = list(steps)
    wanted = INPUTS.keys() if needed is None else INPUTS.keys() & set(needed)
    described = {"tokens_file", "sequences", "captures"} & wanted
    facts = [step.facts() for step in steps] if described else []
    connection = duckdb.connect()
    connection.execute(f"set memory_limit = '{memory.memory()}'")
    # Of its own: a query may read what lies there.
    spilled = Path(tempfile.gettempdir()) / f"timtrack-duckdb-{os.getpid()}"
    connection.execute("set temp_directory = $1", [str(spilled)])
    connection.execute("set preserve_insertion_order = false")  # every table ends in its own
    connection.execute("set enable_progress_bar = false")
    kinds = {(fact["schema_version"], *fact["views"]) for fact in facts}
    for name in sorted(wanted - {"captures"}):
        table, schema = INPUTS[name]
        absent = _absent(name, schema, facts)
        _input(connection, name, _files(steps, table), schema, absent, union=len(kinds) > 1)
    if "captures" in wanted:
        _keep(connection, "captures", _captures(facts).to_arrow())
    for macro in macros().values():
        connection.execute(macro)
    return connection


def _captures(facts: list[dict[str, Any]]) -> pl.DataFrame:
    """What `capture.json` says that tables need."""
    return pl.DataFrame(
        {
            "run": [fact["run"] for fact in facts],
            "step": [fact["step"] for fact in facts],
            "vocabulary_size": [fact.get("vocabulary_size") for fact in facts],
            "vocabulary_from": [fact.get("vocabulary_from") for fact in facts],
        },
        schema=CAPTURES,
    )


def _absent(name: str, schema: pl.Schema, facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Columns with their types that no file of these steps has: views, and what is newer."""
    newest = max((fact["schema_version"] for fact in facts), default=0)
    added = {column for since, columns in ADDED.items() if newest < since for column in columns}
    views = {f"logp_{view}" for fact in facts for view in fact["views"]}
    chain = {c: pl.Float32() for c in CHAIN if name == "tokens_file" and c not in views}
    return {**chain, **{column: schema[column] for column in schema if column in added}}


def _files(steps: Iterable[Step], name: str) -> list[Path]:
    return [file for step in steps for file in step_files(step, name)]


def _input(
    connection: Any,
    name: str,
    files: list[Path],
    schema: pl.Schema,
    absent: dict[str, Any],
    union: bool,
) -> None:
    """A view over files, typed and empty without any; `union` if they differ in their columns."""
    if files:
        how = f"union_by_name = {union}, hive_partitioning = true, {HIVE}"
        source = f"read_parquet({file_list(files)}, {how})"
        nulls = [f"null::{SQL_TYPES[kind]} as {column}" for column, kind in absent.items()]
        connection.execute(f"create view {name} as select {', '.join(['*', *nulls])} from {source}")
        return
    keys = {"run": pl.String(), "step": pl.Int64(), "capture": pl.String()}
    views = dict.fromkeys(CHAIN if name == "tokens_file" else (), pl.Float32())
    empty = pl.DataFrame(schema={**schema, **views, **keys}).with_columns(
        pl.col(pl.Categorical).cast(pl.String)
    )
    _keep(connection, name, empty.to_arrow(compat_level=pl.CompatLevel.oldest()))


def _keep(connection: Any, name: str, table: Any) -> None:
    """A small table in the database itself, where all its connections see it."""
    connection.register("arriving", table)
    connection.execute(f"create table {name} as from arriving")
    connection.unregister("arriving")


def _comment(connection: Any, table: Table) -> None:
    """Carry the header into DuckDB, where `duckdb_columns()` shows it."""
    connection.execute(f"comment on view {table.name} is {literal(table.title)}")


def literal(text: str) -> str:
    """Text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
