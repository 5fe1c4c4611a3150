"""The runs of a home at a glance."""

from pathlib import Path
from typing import Any

import polars as pl

from timtrack.tasks.lake.steps import Step, all_steps
from timtrack.tasks.tables.stored import stored_tables
from timtrack.tasks.verdicts import alerts
from timtrack.tasks.verdicts.numbers import metrics
from timtrack.tasks.verdicts.standing import Status

RUNS = pl.Schema(
    {
        "run": pl.String(),
        "status": pl.String(),  # as `tim status` has it; NULL where it was not judged
        "kl_k3": pl.Float64(),  # of the last step [nats]
        "frac_outside_5": pl.Float64(),
        "since": pl.Int64(),  # step at which the status began
        "steps": pl.Int64(),
        "last": pl.Int64(),  # step
        "model": pl.String(),
    }
)


def of_runs(home: Path) -> pl.DataFrame:
    """A row for each run of the lake, by name; RUNS. Numbers of a step without tables are NULL."""
    steps: dict[str, list[Step]] = {}
    for step in all_steps(home / "lake"):
        steps.setdefault(step.run, []).append(step)
    statuses = alerts.told(home)
    return pl.DataFrame([_row(of_run, statuses) for of_run in steps.values()], schema=RUNS)


def _row(steps: list[Step], told: dict[str, Status]) -> dict[str, Any]:
    last = steps[-1]
    tables = stored_tables(last, {"step_metrics"})
    numbers = metrics(tables) if tables else {}
    status, model = told.get(last.run), last.facts()["meta"].get("model")
    return {
        "run": last.run,
        "steps": len(steps),
        "last": last.step,
        "status": status and status.level,
        "since": status and status.since,
        "kl_k3": numbers.get("kl_k3"),
        "frac_outside_5": numbers.get("frac_outside_5"),
        "model": None if model is None else str(model),
    }
