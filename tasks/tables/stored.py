"""The tables stored beside a step's tokens."""

from collections.abc import Collection
from pathlib import Path

import polars as pl

from timtrack.tasks.lake.steps import Step, is_pruned
from timtrack.tasks.tables.catalogue import sql_version

JUDGED = "causes"
FLAGS = ("needs", "supports", "contradicts")  # of conditions whose words are the present ones


def tables_folder(step: Step) -> Path | None:
    """The folder of the step's tables, if the present SQL made them.

    Of a step whose tokens were pruned, those that are left: they cannot be made again.
    """
    current = step.path / f"tables-{sql_version()}"
    if current.is_dir():
        return current
    return next(iter(step.path.glob("tables-*")), None) if is_pruned(step) else None


def is_older(folder: Path | None) -> bool:
    """Whether other SQL than the present made the tables in a step's folder of them."""
    return folder is not None and folder.name != f"tables-{sql_version()}"


def are_computed(step: Step) -> bool:
    """Whether the step's tables are there, and current as far as they can be."""
    return tables_folder(step) is not None


def stored_tables(step: Step, only: Collection[str] | None = None) -> dict[str, pl.DataFrame]:
    """The tables that were computed for a step, by name; only some, if these are all one needs.

    Of JUDGED without FLAGS where older SQL made it.
    """
    folder = tables_folder(step)
    files = sorted(folder.glob("*.parquet")) if folder else []
    tables = {
        file.stem: pl.read_parquet(file, glob=False)
        for file in files
        if not only or file.stem in only
    }
    if is_older(folder) and JUDGED in tables:
        unknown = pl.lit(None, pl.String)
        tables[JUDGED] = tables[JUDGED].with_columns(unknown.alias(name) for name in FLAGS)
    return tables
