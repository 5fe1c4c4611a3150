"""Which tables a SELECT reads, from DuckDB's own parser."""

import functools
import json
from typing import Any

import duckdb


@functools.cache
def _parser() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def tables_read(sql: str) -> set[str]:
    """Names of the tables and views that a SELECT reads, its own CTEs left out.

    The tables need not exist. Raises duckdb.ParserException for what is not a SELECT.
    """
    # A cursor each: threads may ask at once.
    row = _parser().cursor().execute("select json_serialize_sql($1)", [sql]).fetchone()
    tree = json.loads(row[0]) if row else {}
    if tree.get("error"):
        raise duckdb.ParserException(tree["error_message"])
    read, defined = set[str](), set[str]()
    _visit(tree, read, defined)
    return read - defined


def _visit(node: Any, read: set[str], defined: set[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _visit(item, read, defined)
    elif isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            read.add(node["table_name"])
        defined |= {entry["key"] for entry in node.get("cte_map", {}).get("map", ())}
        for item in node.values():
            _visit(item, read, defined)
