"""What a home holds in the end: its lake, what MLflow has of it, what is set aside or left over."""

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from tests.chaos.ledger import Key, Rows, digest
from timtrack.tasks.backlog import quarantine
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.steps import Step, all_steps, token_files
from timtrack.tasks.tables.stored import stored_tables
from timtrack.tasks.tracking.metric_names import grouped
from timtrack.tasks.verdicts.numbers import logged

PLACES = ("source", "mtime_ns", "ctime_ns", "tokenizer")  # facts that say where and when
RUNS = """
    select distinct run_uuid, value from runs
    join tags using (run_uuid)
    where lifecycle_stage = 'active' and key in ('timtrack.run', 'timtrack.building')
"""  # also one that was never written to its end
POINTS = "select key, step, value from metrics where run_uuid = ? and not is_nan"


@dataclass(frozen=True)
class StepSeen:
    """A step of the lake."""

    captures: int  # folders of it
    files: frozenset[str]  # of tokens, sequences, vocabulary: which are there
    tokens: pl.DataFrame | None  # None if pruned
    rows: Rows
    tables: Mapping[str, pl.DataFrame]
    logged: Mapping[str, float]  # what MLflow must have of it
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class RunSeen:
    """The MLflow runs of a training run: one."""

    runs: int
    points: Counter[tuple[str, int, float]]  # metric, step, value
    artifacts: frozenset[str]


@dataclass(frozen=True)
class Seen:
    """A home."""

    steps: Mapping[Key, StepSeen]
    mlflow: Mapping[str, RunSeen]
    aside: frozenset[str]  # captures, relative to the watched folder
    left: frozenset[str]  # in the lake's staging


def look(root: Path, home: Path, database: Path, artifacts: Path) -> Seen:
    """Everything in a home, and in the MLflow store that it logs to."""
    records = [Path(r.path) for r in quarantine.records(home)]
    held = [
        path for path in records if Source(path).exists() and quarantine.holds(home, Source(path))
    ]
    staging = home / "lake" / ".staging"
    return Seen(
        steps={(step.run, step.step): _step(step, root) for step in all_steps(home / "lake")},
        mlflow=_mlflow(database, artifacts),
        aside=frozenset(str(path.relative_to(root.absolute())) for path in held),
        left=frozenset(p.name for p in staging.glob("*") if p.suffix != ".lock"),
    )


def _step(step: Step, root: Path) -> StepSeen:
    files = token_files(step)
    tokens = pl.read_parquet(files, glob=False).sort("row", "pos") if files else None
    stored = stored_tables(step)
    facts = json.loads(json.dumps(step.facts()).replace(str(root), ""))
    return StepSeen(
        captures=len(list(step.path.parent.glob("capture=*"))),
        files=frozenset(p.stem for p in step.path.iterdir() if _of_tokens(p)),
        tokens=tokens,
        rows=() if tokens is None else _rows(tokens),
        tables=stored,
        logged=_finite(logged(stored)) if "step_metrics" in stored else {},
        facts={name: value for name, value in facts.items() if name not in PLACES},
    )


def _of_tokens(path: Path) -> bool:
    return path.stem in ("tokens", "sequences", "vocabulary")


def _rows(tokens: pl.DataFrame) -> Rows:
    columns = ("token_id", "is_trained", "logp_rollout", "logp_train")
    groups = tokens.group_by("row")
    return tuple(sorted(digest(*(g[name].to_numpy() for name in columns)) for _, g in groups))


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    known = {name: value for name, value in metrics.items() if value is not None}
    finite = {f"mismatch/{n}": float(v) for n, v in known.items() if math.isfinite(v)}
    return {name: value for name, value in grouped(finite).items() if value is not None}


def _mlflow(database: Path, artifacts: Path) -> dict[str, RunSeen]:
    """Straight from the database: a client would ask once a metric."""
    found: dict[str, list[str]] = {}
    points: dict[str, Counter[tuple[str, int, float]]] = {}
    with closing(sqlite3.connect(database)) as connection:
        for number, name in connection.execute(RUNS).fetchall():
            run = unquote(name)
            found.setdefault(run, []).append(number)
            points.setdefault(run, Counter()).update(connection.execute(POINTS, (number,)))
    return {
        run: RunSeen(len(numbers), points[run], _artifacts(artifacts, numbers))
        for run, numbers in found.items()
    }


def _artifacts(folder: Path, numbers: list[str]) -> frozenset[str]:
    roots = [root for number in numbers for root in folder.glob(f"**/{number}/artifacts")]
    return frozenset(
        str(file.relative_to(root)) for root in roots for file in root.rglob("*") if file.is_file()
    )
