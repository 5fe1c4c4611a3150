"""MLflow: one MLflow run per training run, MLflow step = training step. The only user of `mlflow`.

One rule: logging is repeatable. A metric's timestamp is the capture's, so writing it again is the
same point; the digests of what was logged are the run's dataset inputs, so that a replaced step is
noticed.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, Metric, Run, ViewType
from mlflow.tracking import MlflowClient

from tasks.lake import Step

EXPERIMENT = "timtrack"
PREFIX = "mismatch/"
RUN_TAG = "timtrack.run"
PARAMS = ("model", "dataset", "algorithm")


class TrackingError(Exception):
    """MLflow cannot be used as it is set up."""


class Tracker:
    """The experiment of one MLflow server or local store, `MLFLOW_TRACKING_URI` if that is set.

    Without it, a SQLite file and an artifact folder in `home`.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or local_store(home)
        self.client = MlflowClient(self.uri)
        self._lock = FileLock(home / ".mlflow.lock")
        self._artifacts = None if "MLFLOW_TRACKING_URI" in os.environ else home / "mlartifacts"

    def log_step(self, step: Step, metrics: Mapping[str, float | None], files: Path) -> str:
        """Log a step's metrics and the files in a folder; the id of its MLflow run.

        Undefined (NULL, not finite) metrics are left out. If the step was logged from another
        capture before, the run is written anew without that.
        """
        with self._lock:
            started = step.facts()["mtime_ns"] // 1_000_000
            run = self._find(step.run) or self._create(step.run, started)
            if _logged(run).get(step.step, step.capture) != step.capture:
                run = self._without(run, step)
            run_id = run.info.run_id
            self._describe(run, step)
            points = [
                Metric(PREFIX + name, value, started, step.step)
                for name, value in metrics.items()
                if value is not None and math.isfinite(value)
            ]
            self.client.log_batch(run_id, metrics=points)
            self.client.log_artifacts(run_id, str(files), f"steps/{step.step}")
            # Last, as it marks the step as logged.
            self.client.log_inputs(run_id, [_dataset(step)])
        return run_id

    def log_files(self, run: str, files: Path, folder: str) -> None:
        """Log files of a whole training run, in place of what was there."""
        with self._lock:
            found = self._find(run)
            if found is None:
                raise TrackingError(f"no step of run {run} was logged to {self.uri} yet")
            self.client.log_artifacts(found.info.run_id, str(files), folder)

    def link(self, run_id: str) -> str:
        """Where to look at a run: a path in the MLflow UI, whole if a server is set."""
        experiment = self.client.get_run(run_id).info.experiment_id
        base = self.uri if self.uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{base}/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        if experiment := self.client.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        location = self._artifacts.absolute().as_uri() if self._artifacts else None
        return str(self.client.create_experiment(name, artifact_location=location))

    def _find(self, run: str) -> Run | None:
        """The MLflow run of a training run, by its tag; the oldest, so that all pick the same."""
        tagged = f"tags.`{RUN_TAG}` = '{quote(run)}'"
        runs = self.client.search_runs([self._experiment()], tagged, ViewType.ACTIVE_ONLY)
        return min(runs, key=lambda r: (r.info.start_time, r.info.run_id), default=None)

    def _create(self, run: str, start: int) -> Run:
        created = self.client.create_run(
            self._experiment(), start_time=start, tags={RUN_TAG: quote(run)}, run_name=run
        )
        self.client.set_terminated(created.info.run_id, "FINISHED")
        return created

    def _describe(self, run: Run, step: Step) -> None:
        facts = step.facts()
        for name in PARAMS:
            if name in facts["meta"] and name not in run.data.params:
                self.client.log_param(run.info.run_id, name, facts["meta"][name])
        tags = {"timtrack.format": facts["format"], "timtrack.measurement": facts["measurement"]}
        for name, value in tags.items():
            self.client.set_tag(run.info.run_id, name, value)

    def _without(self, old: Run, step: Step) -> Run:
        """A new run with all of the old one but this step: MLflow cannot delete single points."""
        new = self._create(step.run, old.info.start_time)
        new_id, old_id = new.info.run_id, old.info.run_id
        for name, value in old.data.params.items():
            self.client.log_param(new_id, name, value)
        for name in old.data.metrics:
            history = self.client.get_metric_history(old_id, name)
            kept = [point for point in history if point.step != step.step]
            for start in range(0, len(kept), 1000):
                self.client.log_batch(new_id, metrics=kept[start : start + 1000])
        with tempfile.TemporaryDirectory() as copy:
            mlflow.artifacts.download_artifacts(run_id=old_id, dst_path=copy, tracking_uri=self.uri)
            shutil.rmtree(Path(copy) / "steps" / str(step.step), ignore_errors=True)
            self.client.log_artifacts(new_id, copy)
        others = [i for i in _inputs(old) if _step_of(i.dataset) != step.step]
        if others:
            self.client.log_inputs(new_id, others)
        self.client.delete_run(old_id)
        return new


def local_store(home: Path) -> str:
    """The URI of the SQLite store in `home`, made if it is not there.

    It is made under another name and then renamed: a process that is killed while MLflow fills a
    new database would leave one that never opens again.
    """
    database = home / "mlflow.db"
    with FileLock(home / ".mlflow.db.lock"):
        if not database.exists():
            aside = home / ".mlflow.db.new"
            aside.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{aside.absolute()}").search_experiments(max_results=1)
            aside.replace(database)
    return f"sqlite:///{database.absolute()}"


def _dataset(step: Step) -> DatasetInput:
    facts = step.facts()
    counts = {name: facts[name] for name in ("rows", "tokens", "trained_tokens")}
    source = json.dumps({"uri": step.path.absolute().as_uri()})
    return DatasetInput(
        Dataset(f"step {step.step}", step.capture, "local", source, profile=json.dumps(counts)), []
    )


def _logged(run: Run) -> dict[int, str]:
    """Capture ids that were logged, by step."""
    return {_step_of(item.dataset): item.dataset.digest for item in _inputs(run)}


def _inputs(run: Run) -> list[DatasetInput]:
    return list(run.inputs.dataset_inputs) if run.inputs else []


def _step_of(dataset: Dataset) -> int:
    return int(dataset.name.removeprefix("step "))
