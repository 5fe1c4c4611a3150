"""Parquet of others: no more is read than a file of its size may hold, and errors are ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers.bounds import check_packed


def check(path: Path) -> None:
    """Raise BadCapture for a file that declares more values than its size may hold."""
    check_packed(path.stat().st_size, guarded(lambda: _declared(path)))


def guarded(read: Callable[[], Any]) -> Any:
    """What a reading gives; whatever polars or pyarrow raise is BadCapture."""
    try:
        return read()
    except (Exception, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()
        raise BadCapture(f"the table cannot be read: {reason[0] if reason else error!r}") from error


def _declared(path: Path) -> int:
    """How many values the footer says that the longest column has, empty lists too."""
    footer = pq.read_metadata(path)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = range(footer.num_columns)
    counts = (sum(group.column(number).num_values for group in groups) for number in columns)
    return max(footer.num_rows, *counts, 0)
