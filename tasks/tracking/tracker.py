"""MLflow: one MLflow run per training run, MLflow step = training step.

One rule: logging is repeatable. A metric's timestamp is the capture's, so writing it again is the
same point; the digests of what was logged are tags of the run, so that a replaced step is noticed.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock
from mlflow.entities import Metric, Run, ViewType
from mlflow.tracking import MlflowClient

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import TimtrackError, printable
from timtrack.tasks.tracking import description, metric_names, saved_view
from timtrack.tasks.tracking.artifacts import log_step_files
from timtrack.tasks.tracking.captures import Logged, dataset_input, logged_steps, tag_of
from timtrack.tasks.tracking.renewal import Renewal, created, log_params
from timtrack.tasks.tracking.run_tags import (
    COMPARES_TAG,
    COMPARISON,
    FOLLOWED_TAG,
    NOTE_TAG,
    NOTED_TAG,
    OUR_NOTE,
    REPLACES_TAG,
    RUN_TAG,
    TYPE_TAG,
    VERSION_TAG,
    process,
    still_follows,
)
from timtrack.tasks.tracking.store import ARTIFACTS, local_store

EXPERIMENT = "timtrack"
ASKED_TAG = "timtrack.asked"  # of the experiment: when it was last found to be writable
ABOUT = (
    "Train-inference mismatch, one run per training run, MLflow step = training step. Look at "
    "`kl_k3` (healthy below 0.002 nats), `frac_outside_2`, `abs_logp_diff_p50`, `ess_token` and "
    "the run's status; then at `report.html` among its artifacts."
)


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
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self.uri = uri or local_store(home)
        self.client = MlflowClient(self.uri)
        self._lock = FileLock(home / ".mlflow.lock")
        self._artifacts = None if uri else home / ARTIFACTS

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
        runs = self._search(f"tags.`{RUN_TAG}` LIKE '%'")
        return {unquote(run.data.tags[RUN_TAG]) for run in runs}

    def _search(self, tagged: str) -> list[Run]:
        found: list[Run] = []
        page = None
        while page != "":
            runs = self.client.search_runs(
                [self._experiment()], tagged, ViewType.ACTIVE_ONLY, page_token=page
            )
            found += runs
            page = runs.token or ""
        return found

    def log_step(
        self,
        step: Step,
        metrics: Mapping[str, float | None],
        files: Path,
        version: str,
        followed: bool = False,
    ) -> str:
        """Log a step's metrics and the files in a folder; the id of its MLflow run.

        Undefined (NULL, not finite) metrics are left out. If the step was logged from another
        capture before, the run is written anew without that; if it was logged by another `version`
        of the tables, it is written anew without any step, and all of them count as not logged.
        The run ends with its last step, unless this process follows it (`followed`, `finish`).
        """
        with self._lock:
            started = step.facts()["mtime_ns"] // 1_000_000
            run, logged = self._ready(step, version, started)
            run_id = run.info.run_id
            if step.step not in logged:
                logged[step.step] = Logged(step.capture, started)
                # First: from now on the run may hold points of this capture.
                self.client.set_tag(run_id, *tag_of(step.step, logged))
            self._describe(run, step)
            if run.data.tags.get(metric_names.NAMES_TAG) == metric_names.NAMES:
                metrics = metric_names.grouped(metrics)
            self._log_points(run_id, step.step, metrics, logged[step.step].timestamp)
            log_step_files(self.client, run_id, step.step, files, step.step == max(logged))
            self._end(run_id, max(one.timestamp for one in logged.values()), followed)
        return run_id

    def _ready(self, step: Step, version: str, started: int) -> tuple[Run, dict[int, Logged]]:
        """The run that a step is to be logged to, and what it has that can stay."""
        run = self._find(step.run) or self._create_for(step, version, started)
        renewal = Renewal(self.client, self.uri, self._experiment())
        if run.data.tags.get(VERSION_TAG, version) != version:
            run = renewal.of(run, {VERSION_TAG: version}, keep=lambda _: False)
        logged = logged_steps(run).get(step.step)
        if logged and logged.digest != step.capture:
            run = renewal.of(run, {VERSION_TAG: version}, keep=lambda n: n != step.step)
        return run, logged_steps(run)

    def _end(self, run_id: str, last: int, followed: bool) -> None:
        """A run that is followed is one that runs; else it ended with its last capture [ms]."""
        if followed:
            self.client.set_tag(run_id, FOLLOWED_TAG, process())
            self.client.update_run(run_id, status="RUNNING")
        else:
            self.client.set_terminated(run_id, "FINISHED", end_time=last)

    def finish(self, is_followed: Callable[[str], bool] = still_follows) -> None:
        """End the runs that are marked as running, but those that are still followed.

        `is_followed` is asked with what `process` gave: a watcher that was killed left its mark.
        """
        for run in self._search(f"tags.`{FOLLOWED_TAG}` LIKE '%'"):
            if run.info.status == "RUNNING" and not is_followed(run.data.tags[FOLLOWED_TAG]):
                dated = [one.timestamp for one in logged_steps(run).values()]
                self._end(run.info.run_id, max(dated, default=run.info.start_time), followed=False)

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
            dated = logged_steps(run)[step.step].timestamp
            self._log_points(run.info.run_id, step.step, metrics, dated)
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
            earlier = self.client.search_runs([self._experiment()], tagged, ViewType.ACTIVE_ONLY)
            now = time.time_ns() // 1_000_000
            tags = {COMPARES_TAG: quote(name), TYPE_TAG: COMPARISON}
            comparison = earlier[0] if earlier else self._create(name, now, tags)
            self.client.log_artifacts(comparison.info.run_id, str(files), "comparison")
        return str(comparison.info.run_id)

    def note(self, run_id: str, step: int, markdown: str) -> None:
        """Say on the run's page how its latest step stands, unless a person wrote a note there."""
        with self._lock:
            tags = self.client.get_run(run_id).data.tags
            current = tags.get(NOTE_TAG, "")
            latest = int(tags.get(NOTED_TAG, -1))
            if step < latest or (current and not current.startswith(OUR_NOTE)):
                return
            self.client.set_tag(run_id, NOTE_TAG, f"{OUR_NOTE}\n{markdown}")
            self.client.set_tag(run_id, NOTED_TAG, str(step))

    def link(self, run_id: str) -> str:
        """Where to look at a run; without a server, where `tim ui` shows it."""
        experiment = self.client.get_run(run_id).info.experiment_id
        base = self.server or "http://127.0.0.1:5000"
        return f"{base}/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"

    @property
    def server(self) -> str | None:
        """The server's address; None for a local store."""
        return self.uri if self.uri.startswith("http") else None

    def overview(self) -> str:
        """What follows the server's address where all runs are, in the view of saved_view.py."""
        return f"/#/experiments/{self._experiment()}/runs{saved_view.QUERY}"

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        if experiment := self.client.get_experiment_by_name(name):
            number, tags = str(experiment.experiment_id), experiment.tags
        else:
            location = self._artifacts.absolute().as_uri() if self._artifacts else None
            tags = {NOTE_TAG: ABOUT}
            number = str(self.client.create_experiment(name, location, tags))
        if saved_view.VIEW_TAG not in tags:
            view = saved_view.saved_view(RUN_TAG)
            self.client.set_experiment_tag(number, saved_view.VIEW_TAG, view)
        return number

    def _find(self, run: str) -> Run | None:
        """The MLflow run of a training run, by its tag; the oldest, so that all pick the same.

        Of a run and the one that was written anew for it, the new one.
        """
        tagged = f"tags.`{RUN_TAG}` = '{quote(run)}'"
        runs = self.client.search_runs([self._experiment()], tagged, ViewType.ACTIVE_ONLY)
        replaced = {one.data.tags.get(REPLACES_TAG) for one in runs}
        current = [one for one in runs if one.info.run_id not in replaced]
        return min(current, key=lambda r: (r.info.start_time, r.info.run_id), default=None)

    def _there(self, run: str) -> Run:
        newest = self._find(run)
        if newest is None:
            raise TrackingError(f"no step of run {run} was logged to {self.uri} yet")
        return newest

    def _create_for(self, step: Step, version: str, started: int) -> Run:
        colors = (run.data.tags.get(description.COLOR_TAG, "") for run in self._search(""))
        tags = {
            RUN_TAG: quote(step.run),
            VERSION_TAG: version,
            metric_names.NAMES_TAG: metric_names.NAMES,
            description.COLOR_TAG: description.color(colors),
            **description.origin_of(step.facts()),
        }
        run = self._create(step.run, started, tags)
        self.client.log_inputs(run.info.run_id, [dataset_input(step)])
        return run

    def _create(self, name: str, start: int, tags: dict[str, str]) -> Run:
        """A finished MLflow run."""
        return created(self.client, self._experiment(), name, start, tags)

    def _describe(self, run: Run, step: Step) -> None:
        facts = step.facts()
        params = description.params_of(facts).items()
        missing = {name: value for name, value in params if name not in run.data.params}
        log_params(self.client, run.info.run_id, missing)
        tags = {"timtrack.format": facts["format"], "timtrack.measurement": facts["measurement"]}
        for name, value in tags.items():
            self.client.set_tag(run.info.run_id, name, value)
