"""Track the mismatch between rollout engine and trainer, token by token.

    import timtrack

    timtrack.assess("step_batch.pt").text                       # how bad, and why
    timtrack.sql("select step, kl_k1 from step_metrics")        # polars, over every step of a lake
    timtrack.read("step_batch.pt")                              # the token table of a capture

`home` is the folder of lake and local MLflow store: $TIMTRACK_HOME, else ./timtrack. Errors that a
caller can mend are `TimtrackError`. Everything is imported when it is first asked for.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timtrack.tasks.messages.errors import TimtrackError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from timtrack.tasks.lake.steps import Step
    from timtrack.tasks.verdicts.assessment import Assessment
    from timtrack.tasks.verdicts.causes import Cause

__all__ = [
    "TimtrackError",
    "assess",
    "connect",
    "diagnose",
    "read",
    "report",
    "sql",
    "tables",
]

Place = str | os.PathLike[str]


def connect(home: Place | None = None) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB with a view for each table, over every step of the lake.

    What a step lacks is computed first, which takes seconds for a step of some million tokens.
    """
    from timtrack.tasks.tables import query

    return query.connect(_steps(home), "")


def sql(query: str, home: Place | None = None) -> "pl.DataFrame":
    """The answer to a SELECT over every step of the lake; it can read the lake and nothing else.

    Raises TimtrackError with DuckDB's reason.
    """
    from timtrack.tasks.tables.query import run_query

    return run_query(_steps(home), query)


def read(path: Place, columns: str | None = None) -> "pl.DataFrame":
    """The token table of a capture, a row per response token; see tasks/tokens/table.py.

    `columns` maps the names of a home-made dump: `logp_rollout=vllm,logp_train=fsdp`. Raises
    TimtrackError for what is no capture, or no log-probs of two engines.
    """
    import polars as pl

    from timtrack.tasks.captures.source import Source
    from timtrack.tasks.tokens.checks import Check

    check = Check()
    blocks = [block.tokens for block in check.watch(Source(Path(path), columns).open().blocks())]
    check.verdict()
    return pl.concat(blocks)


def tables(
    what: Place, step: int | None = None, home: Place | None = None, columns: str | None = None
) -> dict[str, "pl.DataFrame"]:
    """Every table of a step, by name: of a capture's file, or of a run in the lake.

    `step` is the latest by default, or of a file what it says itself.
    """
    with _a_step(what, step, home, columns) as (_, computed):
        return computed


def assess(
    what: Place, step: int | None = None, home: Place | None = None, columns: str | None = None
) -> "Assessment":
    """What a step amounts to: status, verdict in a sentence, findings, advice.

    Of a capture's file, or of a run in the lake, as `tables` takes them.
    """
    with _a_step(what, step, home, columns) as (found, computed):
        return _assessed(found, computed)


def diagnose(
    what: Place, step: int | None = None, home: Place | None = None, columns: str | None = None
) -> tuple["Cause", ...]:
    """The causes whose signature fits a step, the likeliest first; none where none does.

    Of a capture's file, or of a run in the lake, as `tables` takes them; of a run without a `step`
    also those that fit how its steps follow each other.
    """
    from timtrack.tasks.verdicts import causes

    return causes.of(os.fspath(what), _lake(home), step, columns).causes


def report(
    what: Place, step: int | None = None, home: Place | None = None, columns: str | None = None
) -> str:
    """A step's page as HTML that needs no network; of a file or a run, as `tables` takes them."""
    from timtrack.tasks.reports import step_page
    from timtrack.tasks.reports.charts.step import draw_charts
    from timtrack.tasks.reports.samples import Choice

    with _a_step(what, step, home, columns) as (found, computed):
        assessment = _assessed(found, computed)
        page, _ = step_page.page(found, computed, draw_charts(computed), assessment, Choice())
        return page


def _assessed(step: "Step", computed: dict[str, Any]) -> "Assessment":
    from timtrack.flows.settings import Settings
    from timtrack.tasks.verdicts.assessment import assess

    return assess(step.facts(), computed, Settings.read().bands)


def _lake(home: Place | None) -> Path:
    from timtrack.flows.settings import default_home

    return Path(home or default_home()) / "lake"


def _steps(home: Place | None) -> list["Step"]:
    from timtrack.tasks.lake.steps import NoSuchStep, all_steps

    steps = all_steps(_lake(home))
    if not steps:
        raise NoSuchStep(f"no steps in {_lake(home)}; `tim ingest` puts them there")
    return steps


@contextmanager
def _a_step(
    what: Place, step: int | None, home: Place | None, columns: str | None
) -> Iterator[tuple["Step", dict[str, Any]]]:
    from timtrack.tasks.lake.conversion import step_of
    from timtrack.tasks.tables.compute import tables_of

    with step_of(os.fspath(what), _lake(home), step, columns) as found:
        yield found, tables_of(found)
