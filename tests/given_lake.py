"""What tests read of a lake and of MLflow's store."""

from pathlib import Path

import polars as pl

from timtrack.tasks.lake import parquet
from timtrack.tasks.lake.steps import Step, token_files


def read(step: Step) -> tuple[pl.DataFrame, pl.DataFrame]:
    tokens = pl.read_parquet(token_files(step)).sort("row", "pos")
    return tokens, pl.read_parquet(parquet.files(step.path, "sequences")).sort("row")


def files(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def data(home):
    """The lake's data: all but the marks of what was logged."""
    found = files(home / "lake")
    marks = ("logged-", "seen-")
    return {name: v for name, v in found.items() if not any(mark in name for mark in marks)}


def stored_points(home: Path, metric: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient  # it takes seconds

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("timtrack")
    [run] = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, f"mismatch/{metric}")
    return sorted((point.step, point.value) for point in history)
