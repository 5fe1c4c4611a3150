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
    read, defined = set[str](), set[str]()

    def note(node: dict[str, Any]) -> dict[str, Any]:
        if node.get("type") == "BASE_TABLE":
            read.add(node["table_name"])
        if "cte_map" in node:
            defined.update(entry["key"] for entry in node["cte_map"].get("map", ()))
        return node

    # A cursor each: threads may ask at once.
    row = _parser().cursor().execute("select json_serialize_sql($1)", [sql]).fetchone()
    tree = json.loads(row[0], object_hook=note) if row else {}
    if tree.get("error"):
        raise duckdb.ParserException(tree["error_message"])
    return read - defined
