"""Which captures an MLflow run has: the digest of each step's, and when its points are dated.

In tags that MLflow's pages do not show, a hundred steps in each. Runs that were logged by earlier
versions have a dataset a step instead; a run has one dataset now, where its captures lie.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, Run

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import printable

TAG = "mlflow.timtrack.captures."  # and the number of the hundred
EACH = 100  # steps: MLflow's servers take 5,000 characters
OLD = "step "  # how a dataset is called that an earlier version logged


@dataclass(frozen=True)
class Logged:
    """A step's capture as it was logged."""

    digest: str
    timestamp: int  # [ms] of its points, whatever its file's time is now


def logged_steps(run: Run) -> dict[int, Logged]:
    """What was logged, by step."""
    datasets = [item.dataset for item in run.inputs.dataset_inputs] if run.inputs else []
    logged = {
        int(dataset.name.removeprefix(OLD)): Logged(dataset.digest, _dated(dataset))
        for dataset in datasets
        if is_of_step(dataset)
    }
    for name, value in run.data.tags.items():
        if name.startswith(TAG):
            logged |= {int(step): Logged(*record) for step, record in json.loads(value).items()}
    return logged


def tags_of(logged: Mapping[int, Logged]) -> dict[str, str]:
    """The tags that hold these captures, by name."""
    hundreds: dict[str, dict[str, tuple[str, int]]] = {}
    for step, record in sorted(logged.items()):
        of = hundreds.setdefault(f"{TAG}{step // EACH}", {})
        of[str(step)] = (record.digest, record.timestamp)
    return {name: json.dumps(steps, separators=(",", ":")) for name, steps in hundreds.items()}


def tag_of(step: int, logged: Mapping[int, Logged]) -> tuple[str, str]:
    """Name and value of the tag that holds a step's capture."""
    of_hundred = {n: record for n, record in logged.items() if n // EACH == step // EACH}
    [tag] = tags_of(of_hundred).items()
    return tag


def dataset_input(step: Step) -> DatasetInput:
    """Where a run's captures lie, named as the trainer's data if it says so."""
    facts = step.facts()
    told = facts["meta"].get("dataset")
    name = printable(str(told or f"captures of {step.run}"))[:255]
    source = json.dumps({"uri": Path(facts["source"]).parent.absolute().as_uri()})
    return DatasetInput(Dataset(name, step.capture, "local", source), [])


def is_of_step(dataset: Dataset) -> bool:
    """Whether an earlier version logged it for one step."""
    return bool(dataset.name.startswith(OLD) and dataset.name.removeprefix(OLD).isdecimal())


def _dated(dataset: Dataset) -> int:
    return int(json.loads(dataset.source)["timestamp"])
