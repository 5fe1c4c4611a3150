"""Questions to a lake of hundreds of steps: `python scale.py SMALL MEDIUM LAKE` prints JSON.

A run of 200 steps of 0.3 M tokens and one of 50 steps of 8 M. One step of each goes in the real
way, the others are copies of it under other numbers. Asked in a warm process, medians of five.
"""

import json
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from timtrack.tasks.captures.capture import identify, reading
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import write_step, write_tables
from timtrack.tasks.lake.steps import Step, all_steps
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import connect, run_query

STEPS = {"small": 200, "medium": 50}
TIMES = 5
MARK = "complete.json"  # in a lake that can be used again


@dataclass(frozen=True)
class Question:
    """SQL, and in how many seconds it should be answered."""

    title: str
    sql: str
    target: float | None = None


QUESTIONS = (
    Question(
        "trend over 200 steps from the step tables",
        "select step, kl_k1, kl_k3, abs_logp_diff_p50 from step_metrics where run = 'small' "
        "order by step",
        0.2,
    ),
    Question(
        "ad hoc over one step of 8 M tokens",
        "select avg(abs_logp_diff), quantile_cont(abs_logp_diff, 0.99) from trained_tokens "
        "where run = 'medium' and step = 25",
        1.0,
    ),
    Question(
        "tokens of one row of one step of 8 M",
        "select pos, token_id, logp_diff from trained_tokens "
        "where run = 'medium' and step = 25 and row = 1234 order by pos",
        0.1,
    ),
    Question(
        "all tokens of 200 x 0.3 M, by step",
        "select step, avg(logp_diff) from trained_tokens where run = 'small' "
        "group by step order by step",
    ),
    Question(
        "all tokens of 50 x 8 M, by step",
        "select step, avg(logp_diff) from trained_tokens where run = 'medium' "
        "group by step order by step",
    ),
)


def build(home: Path, files: dict[str, Path]) -> None:
    """The lake, unless it is there as the SQL makes it now."""
    mark = home / MARK
    if mark.is_file() and json.loads(mark.read_text()) == sql_version():
        return
    shutil.rmtree(home, ignore_errors=True)
    for run, file in files.items():
        identified = identify(Source(file), run=run, step=0)
        first = write_step(home, identified, **reading(identified))
        write_tables(first, sql_version(), compute_step(first))
        for number in range(1, STEPS[run]):
            copy(first, number)
    mark.write_text(json.dumps(sql_version()))


def copy(first: Step, number: int) -> None:
    """The same step under another number."""
    to = first.path.parents[1] / f"step={number}" / first.path.name
    shutil.copytree(first.path, to)
    for file in to.glob("tables-*/**/*.parquet"):
        table = pl.read_parquet(file)
        same = pl.lit(number).cast(table.schema["step"]).alias("step")
        table.with_columns(same).write_parquet(file, compression="zstd", compression_level=1)
    facts = json.loads((to / "capture.json").read_text())
    (to / "capture.json").write_text(json.dumps(facts | {"step": number}, indent=2) + "\n")


def ask(home: Path, sql: str) -> dict[str, float]:
    """Seconds of a question as `tim sql` asks it, and of its parts."""
    began = time.perf_counter()
    steps = all_steps(home)
    listed = time.perf_counter()
    run_query(steps, sql)
    answered = time.perf_counter()
    with connect(steps, sql) as connection:
        connected = time.perf_counter()
        rows = len(connection.sql(sql).pl())
    assert rows, sql
    return {
        "seconds": answered - began,
        "listing": listed - began,
        "connecting": connected - answered,
    }


def answers(home: Path) -> list[dict[str, Any]]:
    """Each question with the medians of its seconds."""
    found: list[dict[str, Any]] = []
    for question in QUESTIONS:
        asked = [ask(home, question.sql) for _ in range(TIMES + 1)][1:]  # the first warms up
        medians = {name: statistics.median(a[name] for a in asked) for name in asked[0]}
        found.append({"title": question.title, "target": question.target, **medians})
    return found


def main(small: str, medium: str, home: str) -> None:
    build(Path(home), {"small": Path(small), "medium": Path(medium)})
    print(json.dumps(answers(Path(home))))


if __name__ == "__main__":
    main(*sys.argv[1:])
