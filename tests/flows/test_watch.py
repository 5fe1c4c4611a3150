"""The watcher: nothing lost, nothing twice, nothing half, whatever files and servers do."""

import json
import os
import shutil
import time

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from tests.given import batch_fields
from tests.given_lake import data, stored_points
from timtrack.flows.cli.main import main
from timtrack.flows.follow import follow
from timtrack.flows.outcomes import CapturesFailed
from timtrack.flows.watch import watch
from timtrack.flows.watched import Watched
from timtrack.tasks.backlog import quarantine, survey
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.pipeline import stages
from timtrack.tasks.pipeline.stage import Stage
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tracking.tracker import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]


@pytest.fixture
def write(saved, tmp_path):
    """Write the capture of a step of a run below `tmp_path / "runs"`."""

    def write(step: int, run: str = "a", seed: int | None = None):
        fields = batch_fields(seed=step if seed is None else seed)
        return saved({**fields, "global_step": step}, f"runs/{run}/step_{step}/step_batch.pt")

    return write


@pytest.fixture
def root(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def test_a_second_sweep_has_nothing_to_do(write, root, home, capsys):
    write(1)
    write(2, run="b")
    assert len(watch(root, home)) == 2
    assert survey.survey(root, home).is_empty
    assert watch(root, home) == []
    assert main(["--home", str(home), "watch", str(root), "--once"]) == 0
    assert capsys.readouterr().out == "nothing to do\n"


def test_steps_that_come_later_join_those_that_were_there(write, root, home):
    write(1)
    watch(root, home)
    write(2)
    assert [outcome.step.step for outcome in watch(root, home)] == [2]
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 2]


def test_an_overwritten_step_is_replaced_everywhere(write, root, home):
    write(1)
    write(2)
    watch(root, home)
    before = stored_points(home, "kl_k1")
    time.sleep(0.01)
    write(2, seed=99)
    [outcome] = watch(root, home)
    after = stored_points(home, "kl_k1")
    assert len(after) == 2
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert all_steps(home / "lake")[1] == outcome.step
    assert survey.survey(root, home).is_empty


def test_lines_that_come_slower_than_the_quiet_time_are_taken_again_whole(root, home, capsys):
    lines = root / "a" / "4.jsonl"
    lines.parent.mkdir()
    rng = np.random.default_rng(0)

    def append(rows: int) -> None:
        with lines.open("a") as file:
            for _ in range(rows):
                logp = (-rng.exponential(1.0, 20)).tolist()
                file.write(json.dumps({"q": logp, "p": [min(0.0, x + 0.01) for x in logp]}) + "\n")

    named = ["--pattern", "{run}/{step}.jsonl", "--columns", "logp_rollout=q,logp_train=p"]
    command = ["--home", str(home), "watch", str(root), "--once", "--quiet", "0", *named]
    append(3)
    assert main(command) == 0
    append(4)
    assert main(command) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"watching {root}: 1 found, 1 to analyse, 0 set aside; into {home}"
    assert told[1].startswith("a step 4: trained_tokens 60,")
    [again] = [line for line in told if "again" in line]
    assert again.startswith("a step 4, taken again, in place of what was there: trained_tokens 140")
    [step] = all_steps(home / "lake")
    assert step.facts()["rows"] == 7
    assert [number for number, _ in stored_points(home, "kl_k1")] == [4]


def test_a_touched_but_unchanged_capture_changes_nothing(write, root, home):
    path = write(1)
    watch(root, home)
    before, points = data(home), stored_points(home, "kl_k1")
    os.utime(path, (1, 1))
    watch(root, home)
    assert survey.survey(root, home).is_empty  # nor is it looked at again
    assert data(home) == before
    assert stored_points(home, "kl_k1") == points


def test_backfill_and_live_give_the_same(write, root, home, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(home / "mlflow.db", other / "mlflow.db")
    for step in (1, 2, 3):
        write(step)
        watch(root, home)
    watch(root, other)
    assert data(other) == data(home)
    assert stored_points(other, "kl_k1") == stored_points(home, "kl_k1")


def test_a_bad_capture_is_set_aside_until_it_changes(write, root, home, capsys):
    bad, good = write(1), write(2)
    content = bad.read_bytes()
    bad.write_bytes(content[:3000])
    with pytest.raises(CapturesFailed, match="1 of 2 captures failed"):
        watch(root, home, quiet=0)
    [record] = quarantine.records(home)
    assert (record.path, record.tries) == (str(bad), 1)
    assert "cut short" in record.error
    assert watch(root, home, quiet=0) == []
    bad.write_bytes(content[:2000])
    with pytest.raises(CapturesFailed):
        watch(root, home, quiet=0)
    assert quarantine.records(home)[0].tries == 2
    assert main(["--home", str(home), "status", str(root), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["found"], status["analysed"], status["quarantined"]) == (2, 1, 1)
    assert status["quarantine"][0]["path"] == str(bad)
    bad.write_bytes(content)
    watch(root, home, quiet=0)
    assert quarantine.records(home) == []
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 2]
    assert good.exists()


def test_an_unfinished_file_is_not_bad_yet(write, root, home):
    path = write(1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert watch(root, home, quiet=60) == []
    assert quarantine.records(home) == []
    assert len(survey.survey(root, home).pending) == 1
    path.write_bytes(content)
    assert [outcome.step.step for outcome in watch(root, home, quiet=60)] == [1]


def test_follow_takes_captures_as_they_come_and_ends_when_told(write, root, home):
    told, left = [], [3, 2, 1]

    def finished():
        if left:
            write(left.pop())
        return not left

    for outcome in follow(Watched(root), home, finished, every=0.05):
        told.append(outcome.step.step)
    assert told == [1, 2, 3]


def test_without_mlflow_the_lake_goes_on_and_mlflow_catches_up(write, root, home, monkeypatch):
    write(1)
    write(2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    first, second = follow(Watched(root), home, lambda: True)  # told to end, it does not wait
    assert "analysed, not logged to MLflow" in str(first.error)
    assert "waits for MLflow" in str(second.error)
    assert [step.step for step in all_steps(home / "lake")] == [1, 2]
    assert quarantine.records(home) == []
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert [step.step for step in survey.survey(root, home).unlogged] == [1, 2]
    watch(root, home)
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 2]
    assert survey.survey(root, home).is_empty


def test_a_deleted_store_is_filled_again_from_the_lake(write, root, home, fresh_store):
    write(1)
    watch(root, home)
    (home / "mlflow.db").unlink()
    shutil.copy(fresh_store, home / "new.db")
    (home / "new.db").rename(home / "mlflow.db")
    watch(root, home)
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1]


def test_what_a_killed_process_left_aside_is_deleted(write, root, home):
    import socket
    import subprocess

    gone = subprocess.Popen(["true"])
    gone.wait()
    left = home / "lake" / ".staging" / f"{gone.pid}@{socket.gethostname()}@x"
    left.mkdir(parents=True)
    mine = left.with_name(f"{os.getpid()}@{socket.gethostname()}@y")
    mine.mkdir()
    for folder in (left, mine):
        os.utime(folder, (1, 1))
    write(1)
    watch(root, home)
    assert not left.exists()
    assert mine.exists()


@pytest.mark.parametrize("stage", ["convert_capture", "compute_tables", "draw_step", "log_step"])
def test_a_sweep_that_dies_in_any_stage_is_finished_by_the_next(
    write, root, home, monkeypatch, stage
):
    write(1)
    write(2)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stages, stage, Stage(die, "die"))
        with pytest.raises(BaseException):  # noqa: B017 - as Prefect passes the interrupt on
            watch(root, home)
    watch(root, home)
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 2]
    assert survey.survey(root, home).is_empty


def test_prefect_shows_how_far_the_watcher_is(write, root, home):
    from prefect.client.orchestration import get_client

    write(1)
    watch(root, home)
    with get_client(sync_client=True) as client:
        pages = [a for a in client.read_artifacts() if a.key == "watch-runs"]
    watch(root, home)  # nothing new: nothing is shown again
    with get_client(sync_client=True) as client:
        assert len([a for a in client.read_artifacts() if a.key == "watch-runs"]) == len(pages)
    page = max(pages, key=lambda a: a.created)
    assert page.description.endswith("runs: 1 of 1 captures analysed")
    assert "| analysed | 1 |" in page.data
    assert "| steps in it | 1 |" in page.data
    assert "| tokens per second |" in page.data


def test_an_idle_watcher_still_tells_prefect_that_it_lives(root, home, monkeypatch):
    from timtrack.flows import follow as module

    swept, looks = [], iter([False, False, True])
    monkeypatch.setattr(module, "HEARTBEAT", -1.0)
    monkeypatch.setattr(module, "_swept", lambda *_: swept.append(1) or [])
    assert list(follow(Watched(root), home, lambda: next(looks), every=0.01)) == []
    assert len(swept) == 2


def test_a_program_reads_a_line_for_each_capture_and_changed_run(write, root, home, capsys):
    for step in (1, 2):
        write(step)
    (root / "a" / "step_3").mkdir()
    (root / "a" / "step_3" / "step_batch.pt").write_bytes(b"not a capture")
    at_home = ["--home", str(home)]
    assert main([*at_home, "watch", str(root), "--once", "--quiet", "0", "--json"]) == 1
    printed = capsys.readouterr()
    told = [json.loads(line) for line in printed.out.splitlines()]
    assert printed.err.startswith(f"watching {root}: 3 found, 3 to analyse")
    captures = {one["capture"]: one for one in told if "capture" in one}
    assert [one["error"] is None for _, one in sorted(captures.items())] == [True, True, False]
    analysed = captures[str(root / "a" / "step_2" / "step_batch.pt")]
    [kl] = run_query(all_steps(home / "lake")[1:], "select kl_k3 from step_metrics")["kl_k3"]
    assert (analysed["run"], analysed["step"]) == ("a", 2)
    assert analysed["summary"]["metrics"]["kl_k3"] == kl
    [change] = [one for one in told if "was" in one]
    assert (change["run"], change["was"], change["level"]) == ("a", "healthy", "critical")


def test_a_pattern_names_captures_runs_and_steps(saved, root, home, capsys):
    fields = {k: v for k, v in batch_fields().items() if k != "global_step"}
    saved(fields, "runs/a/dump-7.bin")
    saved(fields, "runs/b/other.bin")
    at_home, called = ["--home", str(home)], ["--pattern", "{run}/dump-{step}.bin"]
    assert main([*at_home, "watch", str(root), "--once", *called]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("a step 7: ")
    assert [(step.run, step.step) for step in all_steps(home / "lake")] == [("a", 7)]
    assert main([*at_home, "status", str(root), *called, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["analysed"] == 1


def test_a_capture_waits_for_its_marker(write, root, home):
    path = write(1)
    assert watch(root, home, marker="DONE") == []
    path.with_name("DONE").touch()
    assert [outcome.step.step for outcome in watch(root, home, marker="DONE")] == [1]


def test_status_needs_no_server(write, root, home, capsys):
    write(1)
    assert main(["--home", str(home), "status", str(root)]) == 0
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert (lines["found"], lines["pending"], lines["analysed"]) == ("1", "1", "0")
    assert float(lines["lag_seconds"]) < 60
    assert main(["--home", str(home), "status", str(root / "nowhere")]) == 2


def test_mlflow_is_not_asked_when_there_is_nothing_to_do(write, root, home):
    """A look at the disk is enough: the marks in the lake say what was logged."""
    write(1)
    watch(root, home)
    before = (home / "mlflow.db").stat().st_mtime_ns
    survey.survey(root, home)
    assert (home / "mlflow.db").stat().st_mtime_ns == before
    assert MlflowClient(f"sqlite:///{home}/mlflow.db").search_experiments()


def test_a_trend_that_cannot_be_drawn_is_told_and_drawn_later(
    write, root, home, monkeypatch, capsys
):
    write(1)
    command = ["--home", str(home), "watch", str(root), "--once", "--every", "0.01"]

    def fails(*_):
        raise ConnectionError("refused")

    with monkeypatch.context() as broken:
        broken.setattr(Tracker, "log_files", fails)
        broken.setattr(stages.log_trend.task, "retries", 0)
        assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("no sweep: NothingDone: two sweeps left 1 runs without trend or status")
    assert main(command) == 0
    assert survey.survey(root, home).is_empty


def test_a_sweep_is_called_by_what_it_found(write, root, home):
    from prefect.client.orchestration import get_client

    write(1)
    write(2)
    first = watch(root, home, return_state=True)
    second = watch(root, home, return_state=True)
    with get_client(sync_client=True) as client:
        names = [client.read_flow_run(s.state_details.flow_run_id).name for s in (first, second)]
    assert names == ["sweep: 2 new, a 1-2", "sweep: nothing new"]


def test_a_run_is_running_in_mlflow_while_it_is_followed(write, root, home):
    write(1)
    sweeps = follow(Watched(root, follows=True), home, lambda: False, every=0.05)
    next(sweeps)
    tracker = Tracker(home)
    assert tracker._find("a").info.status == "RUNNING"
    sweeps.close()
    run = tracker._find("a")
    assert run.info.status == "FINISHED"
    [step] = all_steps(home / "lake")
    assert run.info.end_time == step.facts()["mtime_ns"] // 1_000_000


IDLE = """
import sys
from pathlib import Path
from timtrack.flows.watch import watch
assert watch(Path(sys.argv[1]), Path(sys.argv[2])) == []
print(*{"mlflow", "altair", "ruptures", "torch", "vl_convert", "pandas"} & {*sys.modules})
"""


def test_a_sweep_without_work_imports_nothing_that_draws_or_logs(write, root, home):
    import subprocess
    import sys

    from prefect.settings import PREFECT_API_URL

    write(1)
    watch(root, home)
    watch(root, home)  # asks MLflow, whose store the first one wrote to
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    command = [sys.executable, "-c", IDLE, str(root), str(home)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
