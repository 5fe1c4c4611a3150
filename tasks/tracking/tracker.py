"""MLflow: one MLflow run per training run, MLflow step = training step.

One rule: logging is repeatable. A metric's timestamp is the capture's, so writing it again is the
same point; the digests of what was logged are the run's dataset inputs, so that a replaced step is
noticed.
"""

import contextlib
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import mlflow
from filelock import FileLock
from mlflow.entities import Metric, Run, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import TimtrackError, printable
from timtrack.tasks.tracking.datasets import (
    as_input,
    dataset_of,
    inputs_of,
    logged_steps,
    step_of,
    timestamp_of,
)
from timtrack.tasks.tracking.store import local_store

EXPERIMENT = "timtrack"
ASKED_TAG = "timtrack.asked"  # of the experiment: when it was last found to be writable
RUN_TAG = "timtrack.run"
VERSION_TAG = "timtrack.tables"  # version of the SQL that the metrics were computed with
REPLACES_TAG = "timtrack.replaces"  # id of the run that this one was written anew for
BUILDING_TAG = "timtrack.building"  # on a run that is being written anew, until it is complete
COMPARES_TAG = "timtrack.compares"  # the training runs that a comparison run is about
NOTE_TAG = "mlflow.note.content"  # what MLflow shows as a run's description
NOTED_TAG = "timtrack.noted"  # the step that our note is of
OUR_NOTE = "<!-- written by timtrack, renewed at each step -->"
PARAMS = ("model", "dataset", "algorithm")
LONGEST = 500  # characters of a param: what any MLflow takes


class _Printable(logging.Filter):
    """What a server says is in MLflow's own warnings as it came."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage()), None
        return True


for _handler in logging.getLogger("mlflow").handlers:
    _handler.addFilter(_Printable())


class TrackingError(TimtrackError):
    """MLflow's configuration is unusable."""


class Tracker:
    """The experiment of one MLflow server or local store, `MLFLOW_TRACKING_URI` if that is set.

    Without it, a SQLite file and an artifact folder in `home`.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self.uri = given or local_store(home)
        self.client = MlflowClient(self.uri)
        self._lock = FileLock(home / ".mlflow.lock")
        self._artifacts = None if given else home / "mlartifacts"

    def answers(self) -> bool:
        """Whether MLflow can be asked and written to at all."""
        try:
            experiment = self._experiment()
            self.client.set_experiment_tag(experiment, ASKED_TAG, str(time.time_ns()))
        except Exception:  # whatever server or network says
            return False
        return True

    def runs(self) -> set[str]:
        """The training runs that MLflow has, deleted ones left out."""
        found, page = set[str](), None
        tagged = f"tags.`{RUN_TAG}` LIKE '%'"
        while True:
            runs = self.client.search_runs(
                [self._experiment()], tagged, ViewType.ACTIVE_ONLY, page_token=page
            )
            found |= {unquote(run.data.tags[RUN_TAG]) for run in runs}
            page = runs.token
            if not page:
                return found

    def log_step(
        self, step: Step, metrics: Mapping[str, float | None], files: Path, version: str
    ) -> str:
        """Log a step's metrics and the files in a folder; the id of its MLflow run.

        Undefined (NULL, not finite) metrics are left out. If the step was logged from another
        capture before, the run is written anew without that; if it was logged by another `version`
        of the tables, it is written anew without any step, and all of them count as not logged.
        """
        with self._lock:
            started = step.facts()["mtime_ns"] // 1_000_000
            run = self._find(step.run) or self._create(step.run, started, {VERSION_TAG: version})
            if run.data.tags.get(VERSION_TAG, version) != version:
                run = self._anew(run, version, keep=lambda _: False)
            logged = logged_steps(run).get(step.step)
            if logged and logged.digest != step.capture:
                run, logged = self._anew(run, version, keep=lambda n: n != step.step), None
            if logged is None:
                # First: from now on the run may hold points of this capture.
                logged = dataset_of(step, started)
                self.client.log_inputs(run.info.run_id, [as_input(logged)])
            self._describe(run, step)
            self._log_points(run.info.run_id, step.step, metrics, timestamp_of(logged))
            self.client.log_artifacts(run.info.run_id, str(files), f"steps/{step.step}")
        return run.info.run_id

    def _log_points(
        self, run_id: str, step: int, metrics: Mapping[str, float | None], timestamp: int
    ) -> None:
        points = [
            Metric(name, value, timestamp, step)
            for name, value in metrics.items()
            if value is not None and math.isfinite(value)
        ]
        self.client.log_batch(run_id, metrics=points)

    def log_files(self, run: str, files: Path, folder: str) -> None:
        """Log files of a whole training run, replacing earlier ones."""
        with self._lock:
            self.client.log_artifacts(self._there(run).info.run_id, str(files), folder)

    def require_step(self, step: Step) -> None:
        """Raise TrackingError for a step that is not logged, or from another capture."""
        logged = logged_steps(self._there(step.run)).get(step.step)
        if logged is None or logged.digest != step.capture:
            raise TrackingError(f"{step.name} was not logged to {self.uri} yet")

    def add_to_step(self, step: Step, metrics: Mapping[str, float | None], files: Path) -> None:
        """More metrics and files of a step that is logged already; raises TrackingError."""
        with self._lock:
            self.require_step(step)
            run = self._there(step.run)
            timestamp = timestamp_of(logged_steps(run)[step.step])
            self._log_points(run.info.run_id, step.step, metrics, timestamp)
            self.client.log_artifacts(run.info.run_id, str(files), f"steps/{step.step}")

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        """Set tags of a training run."""
        with self._lock:
            for name, value in tags.items():
                self.client.set_tag(self._there(run).info.run_id, name, value)

    def log_comparison(self, runs: Sequence[str], files: Path) -> str:
        """A run of its own for a comparison of training runs; the same one when it is renewed."""
        name = " vs ".join(runs)
        with self._lock:
            tagged = f"tags.`{COMPARES_TAG}` = '{quote(name)}'"
            there = self.client.search_runs([self._experiment()], tagged, ViewType.ACTIVE_ONLY)
            now = time.time_ns() // 1_000_000
            found = (
                there[0] if there else self._create(name, now, {COMPARES_TAG: quote(name)}, name)
            )
            self.client.log_artifacts(found.info.run_id, str(files), "comparison")
        return str(found.info.run_id)

    def note(self, run_id: str, step: int, markdown: str) -> None:
        """Say on the run's page how its latest step stands, unless a person wrote a note there."""
        with self._lock:
            tags = self.client.get_run(run_id).data.tags
            there = tags.get(NOTE_TAG, "")
            latest = int(tags.get(NOTED_TAG, -1))
            if step < latest or (there and not there.startswith(OUR_NOTE)):
                return
            self.client.set_tag(run_id, NOTE_TAG, f"{OUR_NOTE}\n{markdown}")
            self.client.set_tag(run_id, NOTED_TAG, str(step))

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
        """The MLflow run of a training run, by its tag; the oldest, so that all pick the same.

        Of a run and the one that was written anew for it, the new one.
        """
        tagged = f"tags.`{RUN_TAG}` = '{quote(run)}'"
        runs = self.client.search_runs([self._experiment()], tagged, ViewType.ACTIVE_ONLY)
        replaced = {found.data.tags.get(REPLACES_TAG) for found in runs}
        current = [found for found in runs if found.info.run_id not in replaced]
        return min(current, key=lambda r: (r.info.start_time, r.info.run_id), default=None)

    def _there(self, run: str) -> Run:
        found = self._find(run)
        if found is None:
            raise TrackingError(f"no step of run {run} was logged to {self.uri} yet")
        return found

    def _create(self, name: str, start: int, tags: dict[str, str], run: str | None = None) -> Run:
        """A finished MLflow run; looked up by the training run's `name` if `run` is not given."""
        tags = tags if run else {**tags, RUN_TAG: quote(name)}
        created = self.client.create_run(
            self._experiment(), start_time=start, tags=tags, run_name=run or name
        )
        self.client.set_terminated(created.info.run_id, "FINISHED")
        return self.client.get_run(created.info.run_id)

    def _describe(self, run: Run, step: Step) -> None:
        facts = step.facts()
        for name in PARAMS:
            value = facts["meta"].get(name)
            if value is not None and name not in run.data.params:
                self.client.log_param(run.info.run_id, name, printable(str(value))[:LONGEST])
        tags = {"timtrack.format": facts["format"], "timtrack.measurement": facts["measurement"]}
        for name, value in tags.items():
            self.client.set_tag(run.info.run_id, name, value)

    def _anew(self, old: Run, version: str, keep: Callable[[int], bool]) -> Run:
        """A new run with the steps of the old one to keep: MLflow cannot delete single points.

        It gets the tag that it is found by when it is complete, and only then the old one goes: a
        kill at any point leaves one that counts.
        """
        name = unquote(old.data.tags[RUN_TAG])
        self._delete_unfinished(name)
        own = {k: v for k, v in old.data.tags.items() if not k.startswith(("mlflow.", "timtrack."))}
        tags = {**own, VERSION_TAG: version, BUILDING_TAG: quote(name)}
        told = old.data.tags
        if not told.get(NOTE_TAG, "").startswith(OUR_NOTE) or keep(int(told.get(NOTED_TAG, -1))):
            tags |= {name: told[name] for name in (NOTE_TAG, NOTED_TAG) if name in told}
        shown = old.info.run_name or name
        new = self._create(name, old.info.start_time, tags, run=shown)
        new_id, old_id = new.info.run_id, old.info.run_id
        for param, value in old.data.params.items():
            self.client.log_param(new_id, param, value)
        for metric in old.data.metrics:
            kept = [p for p in self.client.get_metric_history(old_id, metric) if keep(p.step)]
            for start in range(0, len(kept), 1000):
                self.client.log_batch(new_id, metrics=kept[start : start + 1000])
        self._copy_artifacts(old_id, new_id, keep)
        kept_inputs = [i for i in inputs_of(old) if keep(step_of(i.dataset))]
        if kept_inputs:
            self.client.log_inputs(new_id, kept_inputs)
        self.client.set_tag(new_id, REPLACES_TAG, old_id)
        self.client.set_tag(new_id, RUN_TAG, quote(name))
        self.client.delete_tag(new_id, BUILDING_TAG)
        self.client.delete_run(old_id)
        self._delete_artifacts(old)
        return self.client.get_run(new_id)

    def _delete_artifacts(self, run: Run) -> None:
        """The files of a run that another took the place of: MLflow keeps those of deleted runs.

        Where its store cannot delete, `mlflow gc` does.
        """
        with contextlib.suppress(Exception):
            store = get_artifact_repository(run.info.artifact_uri, self.uri)
            store.delete_artifacts(None)  # type: ignore[no-untyped-call]

    def _delete_unfinished(self, name: str) -> None:
        """Runs that were being written anew when their process was killed, or replaced since."""
        building = f"tags.`{BUILDING_TAG}` = '{quote(name)}'"
        for run in self.client.search_runs([self._experiment()], building, ViewType.ACTIVE_ONLY):
            if RUN_TAG not in run.data.tags:
                self.client.delete_run(run.info.run_id)
                self._delete_artifacts(run)

    def _copy_artifacts(self, old_id: str, new_id: str, keep: Callable[[int], bool]) -> None:
        for folder in self.client.list_artifacts(old_id, "steps"):
            if keep(int(Path(folder.path).name)):
                with tempfile.TemporaryDirectory() as copy:
                    files = mlflow.artifacts.download_artifacts(
                        run_id=old_id,
                        artifact_path=folder.path,
                        dst_path=copy,
                        tracking_uri=self.uri,
                    )
                    self.client.log_artifacts(new_id, files, folder.path)
