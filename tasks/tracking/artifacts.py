"""Files of a run: each step's in `steps/<n>`, and at the root what is looked at first."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

AT_ROOT = ("report.html", "ratio_histogram.svg")  # of the latest step
STEPS = "steps"


def log_step_files(
    client: MlflowClient, run_id: str, step: int, files: Path, is_latest: bool
) -> None:
    """A step's files, replacing earlier ones of the same names."""
    client.log_artifacts(run_id, str(files), f"{STEPS}/{step}")
    for file in map(files.joinpath, AT_ROOT if is_latest else ()):
        if file.exists():
            client.log_artifact(run_id, str(file))


def copy_step_files(
    client: MlflowClient, uri: str, old_id: str, new_id: str, keep: Callable[[int], bool]
) -> None:
    """The files of the steps to keep, from one run to another."""
    folders = client.list_artifacts(old_id, STEPS)
    steps = sorted(step for folder in folders if keep(step := int(Path(folder.path).name)))
    for step in steps:
        with tempfile.TemporaryDirectory() as copy:
            files = mlflow.artifacts.download_artifacts(
                run_id=old_id,
                artifact_path=f"{STEPS}/{step}",
                dst_path=copy,
                tracking_uri=uri,
            )
            log_step_files(client, new_id, step, Path(files), step == steps[-1])


def delete_files(uri: str, run: Run) -> None:
    """The files of a run that another took the place of: MLflow keeps those of deleted runs.

    Where its store cannot delete, `mlflow gc` does.
    """
    with contextlib.suppress(Exception):
        store = get_artifact_repository(run.info.artifact_uri, uri)
        store.delete_artifacts(None)  # type: ignore[no-untyped-call]
