"""MLflow: one run per training run, one point per metric and step, whatever is logged again."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities import Dataset, DatasetInput, Metric
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service import utils

from tests.given import batch_fields
from timtrack.tasks.tracking import saved_view
from timtrack.tasks.tracking.captures import logged_steps
from timtrack.tasks.tracking.store import local_store
from timtrack.tasks.tracking.tracker import Tracker

SAID = {"model": "m", "algorithm": "GRPO", "codec_rank": 3, "git_commit": "abc123"}


@pytest.fixture
def step(saved, to_lake):
    return to_lake(saved({**batch_fields(), **SAID}))


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "summary.json").write_text("{}")
    return folder


def points(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    history = client.get_metric_history(run_id, name)
    return [(point.step, point.value) for point in history]


def in_another_process() -> None:
    """MLflow remembers where a run's files are, by the run alone."""
    utils._artifact_repos_cache.clear()


def artifacts(client: MlflowClient, run_id: str, folder: str) -> list[str]:
    return [Path(file.path).name for file in client.list_artifacts(run_id, folder)]


def test_a_step_logged_twice_is_one_point(home, step, files):
    for _ in range(2):
        tracker = Tracker(home)  # nothing is remembered between processes
        run_id = tracker.log_step(step, {"kl_k1": 0.5}, files, "v1")
    assert points(tracker.client, run_id, "kl_k1") == [(3, 0.5)]
    assert len(tracker.client.get_run(run_id).inputs.dataset_inputs) == 1


def test_steps_of_a_run_are_points_of_one_mlflow_run(home, step, files):
    tracker = Tracker(home)
    ids = {
        tracker.log_step(replace(step, step=n, capture=f"c{n}"), {"kl_k1": n / 10}, files, "v1")
        for n in (1, 2, 3)
    }
    assert len(ids) == 1
    assert points(tracker.client, ids.pop(), "kl_k1") == [(1, 0.1), (2, 0.2), (3, 0.3)]


@pytest.mark.parametrize("moved", [True, False])
def test_the_files_of_a_home_that_was_moved_or_copied_are_found(home, step, files, moved):
    run_id = Tracker(home).log_step(step, {}, files, "v1")
    there = home.with_name("a home, 100 % elsewhere")
    (shutil.move if moved else shutil.copytree)(home, there)
    in_another_process()
    tracker = Tracker(there)
    assert artifacts(tracker.client, run_id, "steps/3") == ["summary.json"]
    assert tracker.log_step(replace(step, step=4, capture="d"), {}, files, "v1") == run_id
    [folder] = (there / "mlartifacts").iterdir()
    assert sorted(f.name for f in (folder / "artifacts" / "steps").iterdir()) == ["3", "4"]
    in_another_process()
    if moved:
        assert not home.exists()
    else:  # the original has its own still
        assert artifacts(Tracker(home).client, run_id, "steps") == ["3"]


def test_a_home_by_another_name_stays_where_it_is(home, step, files):
    run_id = Tracker(home).log_step(step, {}, files, "v1")
    alias = home.with_name("alias")
    alias.symlink_to(home)
    uri = Tracker(home).client.get_run(run_id).info.artifact_uri
    assert Tracker(alias).client.get_run(run_id).info.artifact_uri == uri


def test_a_run_is_found_by_its_tag_though_its_name_was_changed(home, step, files):
    tracker = Tracker(home)
    run_id = tracker.log_step(step, {"kl_k1": 0.5}, files, "v1")
    tracker.client.set_tag(run_id, "mlflow.runName", "renamed in the UI")
    assert tracker.log_step(replace(step, step=4, capture="d"), {}, files, "v1") == run_id
    other = tracker.log_step(replace(step, run='it\'s "b"/ü'), {}, files, "v1")
    assert other != run_id
    assert tracker.log_step(replace(step, run='it\'s "b"/ü', step=9), {}, files, "v1") == other


def test_what_is_undefined_is_not_logged(home, step, files):
    tracker = Tracker(home)
    numbers = {"a": None, "b": float("nan"), "c": float("inf"), "d": 1.0}
    run_id = tracker.log_step(step, numbers, files, "v1")
    assert set(tracker.client.get_run(run_id).data.metrics) == {"d"}


def test_what_the_capture_says_is_params_tags_and_a_dataset(home, step, files):
    tracker = Tracker(home)
    run = tracker.client.get_run(tracker.log_step(step, {"kl_k1": 0.5}, files, "v1"))
    assert run.data.params == {"model": "m", "algorithm": "GRPO", "codec_rank": "3"}
    assert run.data.tags["timtrack.measurement"] == "measured"
    assert run.data.tags["mlflow.source.name"] == str(Path(step.facts()["source"]).parents[1])
    assert run.data.tags["mlflow.source.git.commit"] == "abc123"
    assert run.data.tags["mlflow.user"]
    assert logged_steps(run)[3].digest == step.capture
    assert artifacts(tracker.client, run.info.run_id, "steps/3") == ["summary.json"]
    assert run.info.start_time == step.facts()["mtime_ns"] // 1_000_000


def test_a_replaced_step_leaves_no_trace_of_the_old_one(home, step, files):
    tracker = Tracker(home)
    for n in (1, 2):
        old = replace(step, step=n, capture=f"old{n}")
        (files / "only_old.txt").write_text("old")
        tracker.log_step(old, {"kl_k1": n, "gone": 1.0}, files, "v1")
    (files / "only_old.txt").unlink()
    run_id = tracker.log_step(replace(step, step=2, capture="new"), {"kl_k1": 9.0}, files, "v1")
    assert points(tracker.client, run_id, "kl_k1") == [(1, 1.0), (2, 9.0)]
    assert points(tracker.client, run_id, "gone") == [(1, 1.0)]
    assert artifacts(tracker.client, run_id, "steps/2") == ["summary.json"]
    assert "only_old.txt" in artifacts(tracker.client, run_id, "steps/1")
    known = logged_steps(tracker.client.get_run(run_id))
    assert {n: logged.digest for n, logged in known.items()} == {1: "old1", 2: "new"}
    assert len(tracker.client.search_runs([tracker._experiment()])) == 1
    kept = {file.parts[-5] for file in (home / "mlartifacts").rglob("only_old.txt")}
    assert len(kept) == 1  # the files of the run that was replaced are gone: no copies pile up


def test_the_local_store_is_made_whole_or_not_at_all(tmp_path):
    """A half-made database of a killed process is made anew, not trusted."""
    (tmp_path / ".mlflow.db.new").write_bytes(b"half a database")
    uri = local_store(tmp_path)
    assert MlflowClient(uri).search_experiments()
    assert local_store(tmp_path) == uri


def test_the_tracking_uri_is_the_users(home, tmp_path, step, files, monkeypatch, fresh_store):
    theirs = shutil.copy(fresh_store, tmp_path / "theirs.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{theirs}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.chdir(tmp_path)  # MLflow's own default puts artifacts below it
    tracker = Tracker(home)
    tracker.log_step(step, {"kl_k1": 0.5}, files, "v1")
    assert MlflowClient(f"sqlite:///{theirs}").get_experiment_by_name("mine")


def test_other_sql_writes_the_run_anew_and_other_times_do_not(home, step, files):
    """One point per metric and step, whatever changed: the SQL, or only the file's time."""
    tracker = Tracker(home)
    run_id = tracker.log_step(step, {"kl_k1": 0.5}, files, "v1")
    facts = step.path / "capture.json"
    facts.write_text(facts.read_text().replace('"mtime_ns": 1', '"mtime_ns": 2'))
    assert tracker.log_step(step, {"kl_k1": 0.5}, files, "v1") == run_id
    assert points(tracker.client, run_id, "kl_k1") == [(3, 0.5)]
    run_id = tracker.log_step(step, {"kl_k1": 0.4}, files, "v2")
    assert points(tracker.client, run_id, "kl_k1") == [(3, 0.4)]


def test_points_of_a_capture_that_was_never_finished_are_replaced_too(
    home, step, files, monkeypatch
):
    tracker = Tracker(home)
    with monkeypatch.context() as killed:
        killed.setattr(tracker.client, "log_artifacts", die)
        with pytest.raises(KeyboardInterrupt):
            tracker.log_step(replace(step, capture="old"), {"kl_k1": 1.0}, files, "v1")
    run_id = tracker.log_step(step, {"kl_k1": 2.0}, files, "v1")
    assert points(tracker.client, run_id, "kl_k1") == [(3, 2.0)]


def die(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_inputs", "set_tag", "delete_run"])
def test_a_run_that_is_being_written_anew_may_be_killed(home, step, files, monkeypatch, call):
    """Whatever call is the last one, the next logging ends with one run that has every step."""
    tracker = Tracker(home)
    for n in (1, 2):
        tracker.log_step(replace(step, step=n, capture=f"c{n}"), {"kl_k1": float(n)}, files, "v1")
    changed = replace(step, step=2, capture="new")
    with monkeypatch.context() as killed:
        killed.setattr(tracker.client, call, die)
        with pytest.raises(KeyboardInterrupt):
            tracker.log_step(changed, {"kl_k1": 9.0}, files, "v1")
    run_id = tracker.log_step(changed, {"kl_k1": 9.0}, files, "v1")
    assert points(tracker.client, run_id, "kl_k1") == [(1, 1.0), (2, 9.0)]
    found = tracker.client.search_runs([tracker._experiment()])
    assert run_id in [run.info.run_id for run in found]
    assert tracker._find(step.run).info.run_id == run_id


def test_a_run_keeps_what_people_wrote_on_it(home, step, files):
    tracker = Tracker(home)
    run_id = tracker.log_step(step, {"kl_k1": 0.5}, files, "v1")
    for name, value in {
        "mlflow.runName": "mine",
        "mlflow.note.content": "why",
        "team": "a",
    }.items():
        tracker.client.set_tag(run_id, name, value)
    run = tracker.client.get_run(
        tracker.log_step(replace(step, capture="new"), {"kl_k1": 0.5}, files, "v1")
    )
    assert run.info.run_id != run_id
    assert run.info.run_name == "mine"
    assert (run.data.tags["mlflow.note.content"], run.data.tags["team"]) == ("why", "a")


def test_what_a_server_says_acts_in_no_log(caplog):
    """MLflow quotes error codes of a server in warnings of its own."""
    handler = next(h for h in logging.getLogger("mlflow").handlers if h.filters)
    said = ("\x1b[31m\nfailed: forged",)
    record = logging.LogRecord("mlflow.x", 30, "", 1, "said %s", said, None)
    assert handler.filter(record)
    assert record.getMessage() == "said \\x1b[31m\\nfailed: forged"


NUMBERS = {"mismatch/kl_k1": 0.5, "mismatch/kl_k1_se": 0.1, "mismatch/tokens": 9.0}


def test_the_headline_has_a_section_of_its_own_and_errors_are_last(home, step, files):
    tracker = Tracker(home)
    numbers = {**NUMBERS, "mismatch/whatif/tis_2/ess": 0.5, "verl/x": 1.0}
    run = tracker.client.get_run(tracker.log_step(step, numbers, files, "v1"))
    assert sorted(run.data.metrics) == [
        "mismatch/kl_k1",
        "mismatch/more/tokens",
        "mismatch/whatif/tis_2/ess",
        "standard_errors/kl_k1",
        "verl/x",
    ]


def log_as_before(tracker: Tracker, step) -> str:
    """A step as version 0.2.0 logged it: one name for all metrics, a dataset a step."""
    tags = {"timtrack.run": step.run, "timtrack.tables": "v1"}
    run_id = tracker.client.create_run(tracker._experiment(), 1000, tags, step.run).info.run_id
    tracker.client.set_terminated(run_id, "FINISHED")
    source = json.dumps({"uri": step.path.as_uri(), "timestamp": 1234})
    dataset = Dataset(f"step {step.step}", step.capture, "local", source, profile="{}")
    tracker.client.log_inputs(run_id, [DatasetInput(dataset, [])])
    points = [Metric(name, value, 1234, step.step) for name, value in NUMBERS.items()]
    tracker.client.log_batch(run_id, metrics=points)
    return run_id


def test_a_store_of_an_earlier_version_goes_on_under_its_names(home, step, files):
    tracker = Tracker(home)
    run_id = log_as_before(tracker, replace(step, step=1, capture="c1"))
    assert tracker.log_step(replace(step, step=1, capture="c1"), NUMBERS, files, "v1") == run_id
    assert tracker.log_step(replace(step, step=2, capture="c2"), NUMBERS, files, "v1") == run_id
    for name, value in NUMBERS.items():
        assert points(tracker.client, run_id, name) == [(1, value), (2, value)]
    assert len(tracker.client.get_run(run_id).data.metrics) == len(NUMBERS)
    changed = tracker.log_step(replace(step, step=2, capture="new"), NUMBERS, files, "v1")
    assert points(tracker.client, changed, "mismatch/kl_k1_se") == [(1, 0.1), (2, 0.1)]
    anew = tracker.log_step(replace(step, step=2, capture="new"), NUMBERS, files, "v2")
    assert points(tracker.client, anew, "standard_errors/kl_k1") == [(2, 0.1)]


def test_a_run_of_many_steps_has_one_dataset_and_few_tags(home, step, files):
    tracker = Tracker(home)
    for n in (1, 2, 99, 100, 250):
        run_id = tracker.log_step(replace(step, step=n, capture=f"c{n}"), {}, files, "v1")
    run = tracker.client.get_run(run_id)
    assert [given.dataset.name for given in run.inputs.dataset_inputs] == ["captures of run-a"]
    assert sorted(logged_steps(run)) == [1, 2, 99, 100, 250]
    assert len([tag for tag in run.data.tags if "captures" in tag]) == 3


def test_the_latest_step_s_report_is_at_the_root_whatever_is_logged_last(home, step, files):
    tracker = Tracker(home)
    for n, capture in ((1, "a"), (3, "b"), (2, "c"), (1, "changed")):
        (files / "report.html").write_text(f"of step {n}")
        run_id = tracker.log_step(replace(step, step=n, capture=capture), {}, files, "v1")
        shown = Path(tracker.client.download_artifacts(run_id, "report.html"))
        assert shown.read_text() == f"of step {max(n, 3) if capture != 'a' else 1}"


def test_runs_have_colours_of_their_own(home, step, files):
    tracker = Tracker(home)
    ids = [tracker.log_step(replace(step, run=f"r{n}"), {}, files, "v1") for n in range(4)]
    colors = {tracker.client.get_run(run).data.tags["mlflow.runColor"] for run in ids}
    assert len(colors) == 4


def test_a_comparison_is_marked_and_not_in_the_saved_view(home, step, files):
    tracker = Tracker(home)
    run_id = tracker.log_step(step, {}, files, "v1")
    comparison = tracker.log_comparison(["a", "b"], files)
    assert tracker.client.get_run(comparison).data.tags["type"] == "comparison"
    experiment = tracker.client.get_experiment(tracker._experiment())
    view = json.loads(json.loads(experiment.tags[saved_view.VIEW_TAG])["state"])
    shown = tracker.client.search_runs([experiment.experiment_id], view["searchFilter"])
    assert [run.info.run_id for run in shown] == [run_id]


def test_a_view_that_people_changed_stays(home, step, files):
    tracker = Tracker(home)
    tracker.log_step(step, {}, files, "v1")
    tracker.client.set_experiment_tag(tracker._experiment(), saved_view.VIEW_TAG, "mine")
    tracker.log_step(step, {}, files, "v1")
    experiment = tracker.client.get_experiment(tracker._experiment())
    assert experiment.tags[saved_view.VIEW_TAG] == "mine"


def test_a_run_that_a_killed_watcher_left_running_is_ended(home, step, files):
    tracker = Tracker(home)
    run_id = tracker.log_step(step, {}, files, "v1", followed=True)
    tracker.finish()  # by a sweep, while the watcher lives
    assert tracker.client.get_run(run_id).info.status == "RUNNING"
    tracker.finish(is_followed=lambda by: False)
    run = tracker.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.end_time == step.facts()["mtime_ns"] // 1_000_000
