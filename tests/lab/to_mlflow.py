"""The lab in MLflow: an experiment, a run for each mismatch, and in it one for each of its runs.

python -m tests.lab.to_mlflow build/lab timtrack
"""

import argparse
from pathlib import Path
from typing import Any

import polars as pl
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from timtrack.tasks.tracking.store import local_store

EXPERIMENT = "timtrack lab"
PARENT = "mlflow.parentRunId"
SAID = ("gained", "kept", "more", "ess_token", "bias", "usable", "kl_k3", "none_usable")


def log(table: pl.DataFrame, home: Path) -> str:
    """Log what is not there yet; the experiment's id."""
    client = MlflowClient(local_store(home))
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    known = {run.info.run_name: run.info.run_id for run in _all(client, experiment)}
    for (mismatch,), rows in table.group_by("mismatch", maintain_order=True):
        parent = known.get(mismatch) or _begin(client, experiment, mismatch, {})
        for row in rows.to_dicts():
            name = f"{mismatch}, {row['correction']}, seed {row['seed']}"
            if name not in known:
                _log_run(client, _begin(client, experiment, name, {PARENT: parent}), row)
        client.set_terminated(parent)
    return experiment


def _all(client: MlflowClient, experiment: str) -> list[Any]:
    runs, token = [], None
    while True:
        found = client.search_runs([experiment], max_results=1000, page_token=token)
        runs, token = [*runs, *found], found.token
        if not token:
            return runs


def _begin(client: MlflowClient, experiment: str, name: str, tags: dict[str, str]) -> str:
    return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)


def _log_run(client: MlflowClient, run_id: str, row: dict[str, Any]) -> None:
    """Rewards at their steps; what was gained, and what timtrack said."""
    rewards = [Metric("reward", reward, 0, step) for step, reward in enumerate(row["rewards"], 1)]
    said = [Metric(name, row[name], 0, 0) for name in SAID if row[name] is not None]
    params = [Param(name, str(row[name])) for name in ("mismatch", "correction", "seed", "steps")]
    same = [RunTag("same_as", row["same_as"])] if row["same_as"] else []
    client.log_batch(run_id, metrics=[*rewards, *said], params=params, tags=same)
    client.set_terminated(run_id)


def main() -> None:
    """Log `lab.parquet` of a folder into a home."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("home", type=Path)
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    print(f"experiment {log(pl.read_parquet(given.folder / 'lab.parquet'), given.home)}")


if __name__ == "__main__":
    main()
