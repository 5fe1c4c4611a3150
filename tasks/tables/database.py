"""The inputs of the tables in DuckDB: the lake's files as views."""

import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from timtrack.tasks.lake import parquet
from timtrack.tasks.lake.steps import Step, referee_folder, step_files
from timtrack.tasks.messages import formatting
from timtrack.tasks.tables import memory
from timtrack.tasks.tables.catalogue import macros
from timtrack.tasks.tables.read_only import file_list
from timtrack.tasks.tokens.table import ADDED, EVIDENCE, SEQUENCES, TOKENS, VOCABULARY

# Views that SQL names: always there as columns, NULL where a capture does not have them.
VIEWS = ("logp_rescored", "logp_dense", "logp_next_rollout")

TEXT, COUNT, TEXTS = pl.String(), pl.Int64(), pl.List(pl.String())
CAPTURES = pl.Schema(
    {
        **{"run": TEXT, "step": COUNT, "capture": TEXT},
        **dict.fromkeys(("source", "sha256", "format", "columns", "tokenizer"), TEXT),
        **dict.fromkeys(("measurement", "vocabulary_from", "meta"), TEXT),  # meta: JSON
        **dict.fromkeys(("schema_version", "bytes", "mtime_ns", "vocabulary_size"), COUNT),
        **dict.fromkeys(("rows", "tokens", "trained_tokens"), COUNT),
        **dict.fromkeys(("nonfinite_rollout", "nonfinite_train"), COUNT),
        **dict.fromkeys(("views", "notes"), TEXTS),
    }
)

# What a referee found, by file: every hypothesis, and the scorings of the same tokens, a row each.
HYPOTHESES = pl.Schema(
    {
        "engine": pl.String(),
        "rank": pl.Int32(),
        "hypothesis": pl.String(),
        "value": pl.String(),
        "explained": pl.Float64(),
        "explained_everywhere": pl.Float64(),
        "rows_nearer": pl.Int32(),
        "rows_scored": pl.Int32(),
        "residual_mean": pl.Float64(),
        "residual_p50": pl.Float64(),
        "causes": pl.String(),
    }
)
RESCORED = pl.Schema(
    {"row": pl.Int32(), "pos": pl.Int32(), "view_name": pl.String(), "logp": pl.Float64()}
)
OF_REFEREE = ("hypotheses", "rescored")

# What tables select from that is no table: of the lake's files, and of `capture.json`.
INPUTS: dict[str, tuple[str, pl.Schema]] = {
    "tokens_file": ("tokens", TOKENS),
    "sequences": ("sequences", SEQUENCES),
    "evidence": ("evidence", EVIDENCE),
    "vocabulary": ("vocabulary", VOCABULARY),
    "capture_files": ("capture", CAPTURES),
    "hypotheses_file": ("hypotheses", HYPOTHESES),
    "rescored": ("rescored", RESCORED),
}

SQL_TYPES = {
    pl.Boolean(): "boolean",
    pl.Float32(): "float",
    pl.Float64(): "double",
    pl.Int32(): "int",
    pl.Int64(): "bigint",
    pl.String(): "varchar",
}


def open_inputs(
    steps: Iterable[Step], needed: Collection[str] | None = None, as_enum: bool = False
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the files of these steps and the macros, without tables.

    Only the `needed` of INPUTS: binding hundreds of files takes its time. `as_enum`: the column
    `run` is an ENUM, which joins and groups compare as a number (8 M tokens, 2026-11: `slice_sums`
    in half the time).
    """
    steps = list(steps)
    inputs = INPUTS.keys() if needed is None else INPUTS.keys() & set(needed)
    described = {"tokens_file", "sequences", "capture_files"} & inputs
    facts = [step.facts() for step in steps] if described else []
    connection = duckdb.connect()
    connection.execute(f"set memory_limit = '{memory.memory()}'")
    # Of its own: a query may read what lies there.
    spilled = Path(tempfile.gettempdir()) / f"timtrack-duckdb-{os.getpid()}"
    connection.execute("set temp_directory = $1", [str(spilled)])
    connection.execute("set preserve_insertion_order = false")  # every table ends in its own
    connection.execute("set enable_progress_bar = false")
    run_type = _run_type(connection, steps) if as_enum else "varchar"
    kinds = {(fact["schema_version"], *fact["views"]) for fact in facts}
    for name in sorted(inputs - {"capture_files"}):
        table, schema = INPUTS[name]
        absent = _absent(name, schema, facts)
        how = f"union_by_name = {len(kinds) > 1}, hive_partitioning = true, {hive(run_type)}"
        files = _files(steps, table)
        if files:
            _view(connection, name, files, absent, how)
        else:
            _empty(connection, name, schema, run_type)
    if "capture_files" in inputs:
        captures = _captures(steps, facts).to_arrow(compat_level=pl.CompatLevel.oldest())
        _keep(connection, "capture_files", captures, run_type)
    for macro in macros().values():
        connection.execute(macro)
    return connection


def open_frames(frames: Mapping[str, pl.DataFrame]) -> duckdb.DuckDBPyConnection:
    """The same over frames in place of the files of INPUTS that they are named after.

    Frames have the columns run, step and capture. They are given the types of their schema; what
    they lack of it is NULL.
    """
    connection = open_inputs([])
    for name, frame in frames.items():
        views = dict.fromkeys(VIEWS if name == "tokens_file" else (), pl.Float32())
        schema = {**INPUTS[name][1], **views}
        absent = [pl.lit(None, schema[c]).alias(c) for c in schema if c not in frame.columns]
        connection.execute(f"drop table {name}")
        typed = frame.cast({c: kind for c, kind in schema.items() if c in frame.columns})
        whole = typed.with_columns(absent)
        _keep(connection, name, whole.to_arrow(compat_level=pl.CompatLevel.oldest()))
    return connection


def _run_type(connection: Any, steps: Iterable[Step]) -> str:
    """An ENUM of the runs of these steps."""
    names = ", ".join(sorted({literal(step.run) for step in steps})) or "''"
    connection.execute(f"create type run_name as enum ({names})")
    return "run_name"


def hive(run_type: str = "varchar") -> str:
    """The types of the lake's folders, as an argument of read_parquet."""
    return f"hive_types = {{'run': {run_type}, 'step': bigint, 'capture': varchar}}"


def _captures(steps: list[Step], facts: list[dict[str, Any]]) -> pl.DataFrame:
    """What the steps' `capture.json` say."""
    rows = [
        {
            **{name: formatting.plain(fact.get(name)) for name in CAPTURES},
            "capture": step.capture,
            "meta": formatting.as_json(fact["meta"]),
        }
        for step, fact in zip(steps, facts, strict=True)
    ]
    return pl.DataFrame(rows, schema=CAPTURES)


def _absent(name: str, schema: pl.Schema, facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Columns with their types that no file of these steps has: views, and newer columns."""
    newest = max((fact["schema_version"] for fact in facts), default=0)
    added = {column for since, columns in ADDED.items() if newest < since for column in columns}
    views = {f"logp_{view}" for fact in facts for view in fact["views"]}
    unscored = {c: pl.Float32() for c in VIEWS if name == "tokens_file" and c not in views}
    return {**unscored, **{column: schema[column] for column in schema if column in added}}


def _files(steps: Iterable[Step], name: str) -> list[Path]:
    if name in OF_REFEREE:
        folders = (folder for step in steps if (folder := referee_folder(step)))
        return [file for folder in folders for file in parquet.files(folder, name)]
    return [file for step in steps for file in step_files(step, name)]


def _view(connection: Any, name: str, files: list[Path], absent: dict[str, Any], how: str) -> None:
    """A view over files, with NULL for columns that none of them has; `how` they are read."""
    nulls = [f"null::{SQL_TYPES[kind]} as {column}" for column, kind in absent.items()]
    source = f"read_parquet({file_list(files)}, {how})"
    connection.execute(f"create view {name} as select {', '.join(['*', *nulls])} from {source}")


def _empty(connection: Any, name: str, schema: pl.Schema, run_type: str) -> None:
    """An input that no step has, typed."""
    keys = {"run": pl.String(), "step": pl.Int64(), "capture": pl.String()}
    views = dict.fromkeys(VIEWS if name == "tokens_file" else (), pl.Float32())
    empty = pl.DataFrame(schema={**schema, **views, **keys}).with_columns(
        pl.col(pl.Categorical).cast(pl.String)
    )
    _keep(connection, name, empty.to_arrow(compat_level=pl.CompatLevel.oldest()), run_type)


def _keep(connection: Any, name: str, table: Any, run_type: str = "varchar") -> None:
    """A small table in the database itself, where all its connections see it.

    Its `run` is of the type that files have: with another one, DuckDB joins what it could drop.
    """
    connection.register("arriving", table)
    typed = f"select * replace (cast(run as {run_type}) as run) from arriving"
    connection.execute(f"create table {name} as {typed}")
    connection.unregister("arriving")


def literal(text: str) -> str:
    """Text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
