"""Sandbox of users' SQL: it can read the lake and nothing else, enforced by DuckDB itself.

One rule: a query neither writes, nor opens files outside the lake, nor loads code.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from timtrack.tasks.messages.errors import TimtrackError

READS = (duckdb.StatementType.SELECT, duckdb.StatementType.MULTI)  # MULTI: pivot
EXPLAINED = re.compile(r"\s*explain(\s+analyze)?(\s*\([^)]*\))?\s", re.IGNORECASE)
GLOBBED = re.compile(r"([\[\]*?])")


class NotAllowed(TimtrackError):
    """A statement that does more than read."""


def check(sql: str) -> None:
    """Raise NotAllowed unless every statement only reads; duckdb.ParserException for no SQL."""
    for statement in duckdb.extract_statements(sql):
        kind = statement.type
        if kind == duckdb.StatementType.EXPLAIN:  # `explain analyze` carries out what it explains
            check(EXPLAINED.sub("", statement.query, count=1))
        elif kind not in READS:
            raise NotAllowed(f"{kind.name} is not allowed, a query only reads; see --allow-files")


def lock(connection: Any, folders: Iterable[Path]) -> None:
    """Let a connection read files below these folders only, for good."""
    below = [str(folder.absolute()) for folder in folders]
    allowed = [*below, *map(as_itself, below)]  # a path is checked as it stands in the SQL
    connection.execute("set allowed_directories = $1", [allowed])
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


def as_itself(path: str) -> str:
    """A path as a glob that matches only itself."""
    return GLOBBED.sub(r"[\1]", path)


def file_list(files: Iterable[Path | str]) -> str:
    """Files as a list in SQL, whatever their names hold: `['a.parquet', 'b.parquet']`."""
    quoted = (as_itself(str(file)).replace("'", "''") for file in files)
    return "[" + ", ".join(f"'{name}'" for name in quoted) + "]"
