"""Which SQL takes the time: `python per_table.py CAPTURE OUT [LIMIT]` prints each table when done.

Seconds, and the peak of the process's own memory while DuckDB was at it. LIMIT is DuckDB's, such
as 4GiB, in place of that of tasks/tables.py.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from stopwatch import Stopwatch

from timtrack.tasks.captures.capture import identify, reading
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import write_step
from timtrack.tasks.system import memory
from timtrack.tasks.tables import compute
from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.tables.compute import computed_tables


class Traced:
    """A DuckDB connection that says what each table cost: all until the next one is begun."""

    def __init__(self, connection: Any, names: dict[str, str], watch: Stopwatch) -> None:
        self.connection, self.names, self.watch = connection, names, watch
        self.stage: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def __enter__(self) -> "Traced":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()
        self.connection.close()

    def sql(self, text: str, **options: Any) -> Any:
        self._close()
        self.began, self.name = time.perf_counter(), self.names.get(text, text[:40])
        self.stage = self.watch.stage(self.name)
        self.stage.__enter__()
        return Tolerant(self.connection.sql(text, **options), self.name)

    def _close(self) -> None:
        if self.stage:
            self.stage.__exit__(None, None, None)
            show(self.name, time.perf_counter() - self.began, self.watch.peaks[self.name])
            self.stage = None


class Tolerant:
    """A DuckDB relation that is empty where DuckDB fails, so that the tables after it are seen."""

    def __init__(self, relation: Any, name: str) -> None:
        self.relation, self.name = relation, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.relation, name)

    def pl(self) -> Any:
        try:
            return self.relation.pl()
        except duckdb.Error as error:
            print(f"{self.name} failed: {str(error).splitlines()[0]}", flush=True)
            return self.relation.limit(0).pl()


def show(name: str, seconds: float, peak: int) -> None:
    print(f"{name:28}{seconds:9.2f} s{peak / 2**20:9.0f} MB", flush=True)


def main(capture: Path, out: Path, limit: str | None = None) -> None:
    import torch  # noqa: F401 - the reader imports it when it needs it

    os.environ["TIMTRACK_MEMORY"] = limit or memory.DEFAULT
    watch = Stopwatch()
    watch.begin()
    show("imports", 0, watch.peaks["imports"])
    step = timed(watch, "identify", lambda: identify(Source(capture)))
    read = timed(watch, "open", lambda: reading(step))
    stored = timed(watch, "load + Parquet", lambda: write_step(out / "lake", step, **read))
    names = {table.sql: name for name, table in catalogue().items()}
    plain = compute.open_inputs
    compute.open_inputs = lambda *given: Traced(plain(*given), names, watch)  # type: ignore[assignment]
    timed(watch, "all tables", lambda: computed_tables(stored, set(catalogue())))


def timed(watch: Stopwatch, name: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    with watch.stage(name):
        done = work()
    show(name, time.perf_counter() - began, watch.peaks[name])
    return done


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
