"""Which SQL takes the time: `python per_table.py CAPTURE OUT [LIMIT]` prints each table when done.

Seconds, CPU seconds, and the peak of the process's own memory while DuckDB was at it. LIMIT is
DuckDB's, such as 4GiB, in place of TIMTRACK_MEMORY's default.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stopwatch import Stopwatch

from timtrack.tasks.captures.capture import identify, reading
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import write_step
from timtrack.tasks.tables import compute, memory
from timtrack.tasks.tables.catalogue import Table
from timtrack.tasks.tables.compute import compute_step


def now() -> tuple[float, float]:
    """The time, and what this process has used of the processors [s]."""
    return time.perf_counter(), time.process_time()


def show(name: str, began: tuple[float, float], peak: int) -> None:
    seconds, of_cpu = (end - start for end, start in zip(now(), began, strict=True))
    print(f"{name:28}{seconds:9.2f} s{of_cpu:9.2f} s{peak / 2**20:9.0f} MB", flush=True)


def main(capture: Path, out: Path, limit: str | None = None) -> None:
    import torch  # noqa: F401 - the reader imports it when it needs it

    os.environ["TIMTRACK_MEMORY"] = limit or memory.DEFAULT
    watch = Stopwatch()
    watch.begin()
    show("imports", now(), watch.peaks["imports"])
    step = timed(watch, "identify", lambda: identify(Source(capture)))
    read = timed(watch, "open", lambda: reading(step))
    step = timed(watch, "load + Parquet", lambda: write_step(out / "lake", step, **read))
    made = compute._made

    def traced(connection: Any, table: Table, sql: str, is_view: bool) -> Any:
        return timed(watch, table.name, lambda: made(connection, table, sql, is_view))

    compute._made = traced
    timed(watch, "all tables", lambda: compute_step(step))


def timed(watch: Stopwatch, name: str, work: Callable[[], Any]) -> Any:
    began = now()
    with watch.stage(name):
        done = work()
    show(name, began, watch.peaks[name])
    return done


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
