"""MLflow: one run per training run, one point per metric and step, whatever is logged again."""

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tasks.tracking import Tracker, local_store
from tests.given import batch_fields


@pytest.fixture
def step(saved, to_lake):
    return to_lake(saved({**batch_fields(), "model": "m", "algorithm": "GRPO"}))


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "summary.json").write_text("{}")
    return folder


def points(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    history = client.get_metric_history(run_id, f"mismatch/{name}")
    return [(point.step, point.value) for point in history]


def artifacts(client: MlflowClient, run_id: str, folder: str) -> list[str]:
    return [Path(file.path).name for file in client.list_artifacts(run_id, folder)]


def test_a_step_logged_twice_is_one_point(home, step, files):
    for _ in range(2):
        tracker = Tracker(home)  # nothing is remembered between processes
        run_id = tracker.log_step(step, {"kl_k1": 0.5}, files)
    assert points(tracker.client, run_id, "kl_k1") == [(3, 0.5)]
    assert len(tracker.client.get_run(run_id).inputs.dataset_inputs) == 1


def test_steps_of_a_run_are_points_of_one_mlflow_run(home, step, files):
    tracker = Tracker(home)
    ids = {
        tracker.log_step(replace(step, step=n, capture=f"c{n}"), {"kl_k1": n / 10}, files)
        for n in (1, 2, 3)
    }
    assert len(ids) == 1
    assert points(tracker.client, ids.pop(), "kl_k1") == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_run_is_found_by_its_tag_though_its_name_was_changed(home, step, files):
    tracker = Tracker(home)
    run_id = tracker.log_step(step, {"kl_k1": 0.5}, files)
    tracker.client.set_tag(run_id, "mlflow.runName", "renamed in the UI")
    assert tracker.log_step(replace(step, step=4, capture="d"), {}, files) == run_id
    other = tracker.log_step(replace(step, run='it\'s "b"/ü'), {}, files)
    assert other != run_id
    assert tracker.log_step(replace(step, run='it\'s "b"/ü', step=9), {}, files) == other


def test_what_is_undefined_is_not_logged(home, step, files):
    tracker = Tracker(home)
    numbers = {"a": None, "b": float("nan"), "c": float("inf"), "d": 1.0}
    run_id = tracker.log_step(step, numbers, files)
    assert set(tracker.client.get_run(run_id).data.metrics) == {"mismatch/d"}


def test_what_the_capture_says_is_params_tags_and_a_dataset(home, step, files):
    tracker = Tracker(home)
    run = tracker.client.get_run(tracker.log_step(step, {"kl_k1": 0.5}, files))
    assert run.data.params == {"model": "m", "algorithm": "GRPO"}
    assert run.data.tags["timtrack.measurement"] == "measured"
    [given] = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("step 3", step.capture)
    assert artifacts(tracker.client, run.info.run_id, "steps/3") == ["summary.json"]
    assert run.info.start_time == step.facts()["mtime_ns"] // 1_000_000


def test_a_replaced_step_leaves_no_trace_of_the_old_one(home, step, files):
    tracker = Tracker(home)
    for n in (1, 2):
        old = replace(step, step=n, capture=f"old{n}")
        (files / "only_old.txt").write_text("old")
        tracker.log_step(old, {"kl_k1": n, "gone": 1.0}, files)
    (files / "only_old.txt").unlink()
    run_id = tracker.log_step(replace(step, step=2, capture="new"), {"kl_k1": 9.0}, files)
    assert points(tracker.client, run_id, "kl_k1") == [(1, 1.0), (2, 9.0)]
    assert points(tracker.client, run_id, "gone") == [(1, 1.0)]
    assert artifacts(tracker.client, run_id, "steps/2") == ["summary.json"]
    assert "only_old.txt" in artifacts(tracker.client, run_id, "steps/1")
    inputs = tracker.client.get_run(run_id).inputs.dataset_inputs
    assert {i.dataset.name: i.dataset.digest for i in inputs} == {"step 1": "old1", "step 2": "new"}
    assert len(tracker.client.search_runs([tracker._experiment()])) == 1


def test_the_local_store_is_made_whole_or_not_at_all(tmp_path):
    """A half-made database of a killed process is made anew, not trusted."""
    (tmp_path / ".mlflow.db.new").write_bytes(b"half a database")
    uri = local_store(tmp_path)
    assert MlflowClient(uri).search_experiments()
    assert local_store(tmp_path) == uri


def test_the_tracking_uri_is_the_users(home, tmp_path, step, files, monkeypatch, fresh_store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{fresh_store}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.chdir(tmp_path)  # MLflow's own default puts artifacts below it
    tracker = Tracker(home)
    tracker.log_step(step, {"kl_k1": 0.5}, files)
    assert MlflowClient(f"sqlite:///{fresh_store}").get_experiment_by_name("mine")
