"""Writing a run anew: MLflow cannot delete single points, so what is to stay is copied."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.tracking import MlflowClient

from timtrack.tasks.tracking import metric_names
from timtrack.tasks.tracking.artifacts import copy_step_files, delete_files
from timtrack.tasks.tracking.captures import is_of_step, logged_steps, tags_of
from timtrack.tasks.tracking.description import COLOR_TAG
from timtrack.tasks.tracking.run_tags import (
    BUILDING_TAG,
    NOTE_TAG,
    NOTED_TAG,
    OUR_NOTE,
    REPLACES_TAG,
    RUN_TAG,
)

MOST_POINTS, MOST_PARAMS = 1000, 100  # in one request
STAYING = (COLOR_TAG, "mlflow.source.", "mlflow.user")  # of MLflow's own tags


def created(
    client: MlflowClient, experiment: str, name: str, start: int, tags: dict[str, str]
) -> Run:
    """A finished MLflow run."""
    run = client.create_run(experiment, start_time=start, tags=tags, run_name=name)
    client.set_terminated(run.info.run_id, "FINISHED")
    return client.get_run(run.info.run_id)


def log_params(client: MlflowClient, run_id: str, told: Mapping[str, str]) -> None:
    """Parameters that a run does not have yet."""
    params = [Param(*param) for param in told.items()]
    for start in range(0, len(params), MOST_PARAMS):
        client.log_batch(run_id, params=params[start : start + MOST_PARAMS])


@dataclass(frozen=True)
class Renewal:
    """Writes runs of an experiment anew."""

    client: MlflowClient
    uri: str
    experiment: str

    def of(self, old: Run, told: Mapping[str, str], keep: Callable[[int], bool]) -> Run:
        """A new run with the steps of the old one to keep, and what is `told` as tags.

        It gets the tag that it is found by when it is complete, and only then the old one goes: a
        kill at any point leaves one that counts.
        """
        name = unquote(old.data.tags[RUN_TAG])
        self._delete_unfinished(name)
        tags = {**_tags_to_keep(old, keep), **told, BUILDING_TAG: quote(name)}
        title = old.info.run_name or name
        new = created(self.client, self.experiment, title, old.info.start_time, tags)
        new_id, old_id = new.info.run_id, old.info.run_id
        log_params(self.client, new_id, old.data.params)
        self._copy_points(old, new_id, keep)
        copy_step_files(self.client, self.uri, old_id, new_id, keep)
        inputs = old.inputs.dataset_inputs if old.inputs else []
        if of_run := [one for one in inputs if not is_of_step(one.dataset)]:
            self.client.log_inputs(new_id, of_run)
        self.client.set_tag(new_id, REPLACES_TAG, old_id)
        self.client.set_tag(new_id, RUN_TAG, quote(name))
        self.client.delete_tag(new_id, BUILDING_TAG)
        self.client.delete_run(old_id)
        delete_files(self.uri, old)
        return self.client.get_run(new_id)

    def _copy_points(self, old: Run, new_id: str, keep: Callable[[int], bool]) -> None:
        for metric in old.data.metrics:
            history = self.client.get_metric_history(old.info.run_id, metric)
            points: list[Metric] = [point for point in history if keep(point.step)]
            for start in range(0, len(points), MOST_POINTS):
                self.client.log_batch(new_id, metrics=points[start : start + MOST_POINTS])

    def _delete_unfinished(self, name: str) -> None:
        """Runs that were being written anew when their process was killed, or replaced since."""
        building = f"tags.`{BUILDING_TAG}` = '{quote(name)}'"
        for run in self.client.search_runs([self.experiment], building, ViewType.ACTIVE_ONLY):
            if RUN_TAG not in run.data.tags:
                self.client.delete_run(run.info.run_id)
                delete_files(self.uri, run)


def _tags_to_keep(old: Run, keep: Callable[[int], bool]) -> dict[str, str]:
    """What people wrote, what MLflow's lists show, the steps to keep; names as its points have."""
    there = old.data.tags
    tags = {
        name: value
        for name, value in there.items()
        if name.startswith(STAYING) or not name.startswith(("mlflow.", "timtrack."))
    }
    steps = {step: record for step, record in logged_steps(old).items() if keep(step)}
    if not steps:
        tags[metric_names.NAMES_TAG] = metric_names.NAMES
    elif metric_names.NAMES_TAG in there:
        tags[metric_names.NAMES_TAG] = there[metric_names.NAMES_TAG]
    is_noted = keep(int(there.get(NOTED_TAG, -1)))
    if is_noted or not there.get(NOTE_TAG, "").startswith(OUR_NOTE):
        tags |= {name: there[name] for name in (NOTE_TAG, NOTED_TAG) if name in there}
    return tags | tags_of(steps)
