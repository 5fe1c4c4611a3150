"""A step's numbers by name: those of `step_metrics`, and what common corrections would do."""

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from timtrack.tasks.tables import corrections

LOGGED_FROM = ("step_metrics", "corrections")  # the tables that `logged` reads


def metrics(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """`step_metrics` without its grain; None for what overflowed."""
    row = tables["step_metrics"].row(0, named=True)
    return {
        name: value if value is None or math.isfinite(value) else None
        for name, value in row.items()
        if name not in ("run", "step")
    }


def logged(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """The numbers that MLflow has over steps: `metrics`, and what common corrections would do.

    With `step_gain`, where the step has one: whether its update improved the sampler.
    """
    followed = corrections.metrics(tables["corrections"]) if "corrections" in tables else {}
    gains = tables["step_gain"].to_dicts() if "step_gain" in tables else []
    gained = {f"step_{name}": row[name] for row in gains for name in ("gain", "gain_se")}
    return {**metrics(tables), **followed, **gained}


def interval_of(metric: str) -> str:
    """The column by which the metric's standard error becomes half of a 95 % interval."""
    averages = metric in ("kl_k3", "ratio_mean", "ess_token")
    return "interval_t_of_r" if averages else "interval_t"
