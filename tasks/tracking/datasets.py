"""The captures of a run as MLflow dataset inputs: which file each step came from."""

import json

from mlflow.entities import Dataset, DatasetInput, Run

from timtrack.tasks.lake.steps import Step


def dataset_of(step: Step, timestamp: int) -> Dataset:
    """A step of the lake as MLflow knows datasets; its points are dated `timestamp` [ms]."""
    facts = step.facts()
    counts = {name: facts[name] for name in ("rows", "tokens", "trained_tokens")}
    source = json.dumps({"uri": step.path.absolute().as_uri(), "timestamp": timestamp})
    return Dataset(f"step {step.step}", step.capture, "local", source, profile=json.dumps(counts))


def as_input(dataset: Dataset) -> DatasetInput:
    """A dataset as `log_inputs` takes it."""
    return DatasetInput(dataset, [])


def timestamp_of(dataset: Dataset) -> int:
    """When a step's points are dated, whatever its file's time is now."""
    return int(json.loads(dataset.source)["timestamp"])


def logged_steps(run: Run) -> dict[int, Dataset]:
    """What was logged, by step."""
    return {step_of(item.dataset): item.dataset for item in inputs_of(run)}


def inputs_of(run: Run) -> list[DatasetInput]:
    """The datasets that a run was given."""
    return list(run.inputs.dataset_inputs) if run.inputs else []


def step_of(dataset: Dataset) -> int:
    """The step whose capture a dataset is."""
    return int(dataset.name.removeprefix("step "))
