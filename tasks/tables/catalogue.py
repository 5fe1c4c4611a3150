"""The SQL tables: every file in `sql/` is one SELECT, one DuckDB view and one table of that name.

One rule: the input is the parameter. A file selects from `tokens`, `sequences` and other files'
names; whether that is one step or the whole lake is decided by what the views are laid over.
The header comment of a file is its documentation; its lines `-- name | text` name every column.
"""

import functools
import graphlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from timtrack.tasks.tables import causes, coefficients, corrections
from timtrack.tasks.tables.selected import tables_read

SQL = Path(__file__).parents[2] / "sql"

# tokens: views of tokens that others build on. intermediate: numbers that several tables share, not
# stored, not shown to users, computed where one of them is. step: computed and stored for each
# step. frameworks: computed for each step, where they are asked for. run: need several steps.
# referee: over what a referee found later. The last two are computed when they are asked for.
FOLDERS = ("tokens", "intermediate", "step", "frameworks", "run", "referee")
WHEN_ASKED = ("run", "referee")

COLUMN = re.compile(
    r"^-- (?:(?P<name>\w+) *\| (?P<text>.+)|include: (?P<other>\w+))$", re.MULTILINE
)


@dataclass(frozen=True)
class Table:
    """One file of `sql/`."""

    name: str
    folder: str  # one of FOLDERS, whatever lies between
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
    def is_of_step(self) -> bool:
        """Whether a step answers it, and keeps or gives the answer as a table."""
        return self.folder in ("step", "frameworks")

    @property
    def columns(self) -> dict[str, str]:
        """What each column is, as the header says; `-- include: x` stands for those of x."""
        return _columns(self.sql)

    @functools.cached_property
    def sources(self) -> set[str]:
        """The tables and inputs that it selects from."""
        return tables_read(self.sql)


def _columns(sql: str) -> dict[str, str]:
    columns: dict[str, str] = {}
    for match in COLUMN.finditer(sql):
        columns |= _included(match["other"]) if match["other"] else {match["name"]: match["text"]}
    return columns


def _included(other: str) -> dict[str, str]:
    """The columns that a macro or another table gives, without the grain of a step."""
    columns = _columns(macros().get(other) or catalogue()[other].sql)
    return {name: text for name, text in columns.items() if name not in ("run", "step")}


@functools.cache
def macros() -> dict[str, str]:
    """The SQL functions that tables use, each a CREATE MACRO, by name."""
    return {file.stem: file.read_text() for file in sorted((SQL / "macros").glob("*.sql"))}


@functools.cache
def catalogue() -> dict[str, Table]:
    """All tables by name, each after those it selects from."""
    defaults = corrections.defaults().values()
    tables = {
        file.stem: Table(
            file.stem, folder, causes.expand(coefficients.expand(file.read_text(), defaults))
        )
        for folder in FOLDERS
        for file in sorted((SQL / folder).rglob("*.sql"))
    }
    needs = {name: table.sources & tables.keys() for name, table in tables.items()}
    return {name: tables[name] for name in graphlib.TopologicalSorter(needs).static_order()}


@functools.cache
def sql_version() -> str:
    """12 hex digits over the SQL of steps; stored tables are current if they carry this."""
    by_name = sorted(catalogue().values(), key=lambda table: table.name)
    texts = "".join([*macros().values(), *(t.sql for t in by_name if t.name in stored())])
    return hashlib.sha256(texts.encode()).hexdigest()[:12]


def stored() -> set[str]:
    """The tables that are stored with a step, those that they select from, and the token views."""
    own = (name for name, table in catalogue().items() if table.folder in ("tokens", "step"))
    return tables_named(" ".join(own))


def tables_named(asked: str, are_stored: bool = False) -> set[str]:
    """The tables that a query needs: those it names, and those that these select from.

    Tables of steps need no other if all that are stored `are_stored` in every step.
    """
    needed, new = set[str](), catalogue().keys() & words_of(asked)
    while new:
        needed |= new
        open_ = {name for name in new if not (are_stored and catalogue()[name].is_of_step)}
        new = (sources_of(open_) & catalogue().keys()) - needed
    return needed


def words_of(asked: str) -> set[str]:
    """The names that may stand in a query."""
    return set(re.findall(r"\w+", asked.lower()))


def sources_of(tables: Iterable[str]) -> set[str]:
    """All that these tables select from: tables, and names of inputs."""
    return {source for name in tables for source in catalogue()[name].sources}
