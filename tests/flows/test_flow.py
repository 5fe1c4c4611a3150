"""The whole road under a real Prefect server, and the command line that people type."""

import json
import os
import subprocess
import sys

import pytest
from prefect.client.orchestration import get_client

from tests.given import batch_fields, with_other_sql
from tests.given_lake import stored_points
from tests.servers import TIM
from timtrack.flows import analyse as analysis
from timtrack.flows import execution
from timtrack.flows.cli.main import main
from timtrack.flows.outcomes import CapturesFailed
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.pipeline import drawing, outputs
from timtrack.tasks.tables.query import run_query

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]

analyse = execution.as_flow(analysis.analyse)


@pytest.fixture
def three_steps(saved):
    """Captures of steps 1 to 3 of one run, named so that names sort otherwise."""
    return [
        saved({**batch_fields(seed=n), "global_step": n}, f"run-a/step_{n}/step_batch.pt")
        for n in (3, 1, 2)
    ]


def test_three_captures_become_three_points_in_step_order(three_steps, home):
    outcomes = analyse(three_steps, home)
    assert [outcome.step.step for outcome in outcomes] == [1, 2, 3]
    logged = stored_points(home, "kl_k1")
    asked = run_query(all_steps(home / "lake"), "select step, kl_k1 from step_metrics")
    assert logged == asked.rows()
    again = analyse(three_steps, home)
    assert [o.step for o in again] == [o.step for o in outcomes]
    assert stored_points(home, "kl_k1") == logged


def test_one_capture_is_answered_before_mlflow_has_it(three_steps, home, monkeypatch, capsys):
    log, before = outputs.log_step, []

    def logged(*given):
        before.append(capsys.readouterr().out)
        return log(*given)

    monkeypatch.setattr(outputs, "log_step", logged)
    assert main(["--home", str(home), "ingest", str(three_steps[0])]) == 0
    assert "trained tokens" in before[0] and "How bad: " in before[0]
    after = capsys.readouterr().out
    assert "How bad" not in after and after.startswith("MLflow, served by `tim ui`:")
    assert main(["--home", str(home), "ingest", *map(str, three_steps)]) == 0
    assert before[1:] == [""] * 3  # of several there is a table, at the end


def test_artifacts_of_a_step_and_of_the_run(three_steps, home):
    analyse(three_steps, home)
    [folder] = (home / "mlartifacts").iterdir()
    files = {str(p.relative_to(folder / "artifacts")) for p in folder.rglob("*") if p.is_file()}
    for name in (
        "ratio_histogram.svg",
        "report.html",
        "samples.json",
        "summary.json",
        "tables/worst_tokens.csv",
    ):
        assert f"steps/2/{name}" in files
    assert {"trend/run_trend.svg", "trend/run_trend.csv"} <= files
    assert {"report.html", "ratio_histogram.svg"} <= files  # at the root, of the latest step
    report = (folder / "artifacts/report.html").read_text()
    assert report == (folder / "artifacts/steps/3/report.html").read_text()
    columns = (folder / "artifacts/steps/3/tables/worst_tokens.csv").read_text().split("\n")[0]
    assert columns.startswith("pos,token,ratio,p_rollout,p_train")
    summary = json.loads((folder / "artifacts/steps/2/summary.json").read_text())
    assert summary["metrics"]["trained_tokens"] == summary["capture"]["trained_tokens"]


def test_a_bad_capture_does_not_stop_the_others_and_is_seen(three_steps, home):
    three_steps[1].write_bytes(b"broken")
    with pytest.raises(CapturesFailed, match=r"1 of 3 captures failed, first .*step_1") as raised:
        analyse(three_steps, home)
    assert [o.step.step for o in raised.value.outcomes if o.step] == [2, 3]
    with get_client(sync_client=True) as client:
        failed = [r for r in client.read_task_runs() if r.state.is_failed()]
    assert any(str(three_steps[1]) in run.name and "b'brok'" in run.state.message for run in failed)


def test_two_captures_of_one_step_are_not_mixed_up(saved, home):
    paths = [saved(batch_fields(seed=n), f"{n}/run/step_3/step_batch.pt") for n in (1, 2)]
    with pytest.raises(CapturesFailed, match="are different captures of run step 3") as raised:
        analyse(paths, home)
    assert [bool(o.error) for o in raised.value.outcomes] == [False, True]


def test_prefect_shows_the_headline(three_steps, home):
    analyse(three_steps[:1], home)
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts()
    latest = max((a for a in artifacts if a.key == "run-a"), key=lambda a: a.created)
    assert "| KL(rollout \\|\\| train), k1 |" in latest.data
    assert latest.description.startswith("run-a step 3: ")


def test_tables_of_older_sql_are_computed_again(three_steps, home, monkeypatch):
    [outcome] = analyse(three_steps[:1], home)
    with_other_sql(monkeypatch)
    analyse(three_steps[:1], home)
    folders = [path.name for path in outcome.step.path.glob("tables-*")]
    assert folders == ["tables-0123456789ab"]


def test_tim_ingest_tells_the_numbers_and_the_failures(three_steps, home, capsys):
    three_steps[0].write_bytes(b"")
    code = main(["--home", str(home), "ingest", str(three_steps[0].parents[1])])
    out, err = capsys.readouterr()
    assert code == 1
    assert f"failed: {three_steps[0]}: the file is empty (0 bytes)" in err
    assert "abs_logp_diff_p50" in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("run-a")] == [
        ["run-a", "1"],
        ["run-a", "2"],
    ]
    assert len(all_steps(home / "lake")) == 2


BAD_INPUTS = {
    "cut.pt": lambda path, whole: path.write_bytes(whole.read_bytes()[:2000]),
    "empty.pt": lambda path, whole: path.write_bytes(b""),
}


def test_only_bad_captures_leave_lake_and_mlflow_as_before(three_steps, home, tmp_path, capsys):
    analyse(three_steps, home)
    lake_before = sorted(str(p) for p in (home / "lake").rglob("*"))
    points_before = stored_points(home, "kl_k1")
    bad = []
    for name, spoil in BAD_INPUTS.items():
        bad.append(tmp_path / name)
        spoil(bad[-1], three_steps[0])
    code = main(["--home", str(home), "ingest", *map(str, bad), "--run", "run-a"])
    assert code == 1
    assert capsys.readouterr().err.count("failed:") == 2
    assert sorted(str(p) for p in (home / "lake").rglob("*")) == lake_before
    assert stored_points(home, "kl_k1") == points_before


def test_the_demo_prints_the_published_numbers(home, capsys):
    assert main(["--home", str(home), "demo", "--steps", "3"]) == 0
    out = capsys.readouterr().out
    for number in (
        "2.845 nats",
        "61.5 %",
        "4.872 nats",
        "4.309 nats",
        "0.04478",
        "0.2188",
        "0.164",
    ):
        assert number in out


def without_prefect() -> dict[str, str]:
    """The environment without the tests' server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def test_a_flow_needs_no_server_started_by_hand(three_steps, home):
    """A new process with nothing around it: so few captures need no server at all."""
    environment = without_prefect()
    environment |= {"PREFECT_HOME": str(home / "prefect"), "TIMTRACK_HOME": str(home)}
    command = [*TIM, "ingest", str(three_steps[0])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "trained tokens" in done.stdout
    assert done.stderr == ""
    assert not list((home / "prefect").glob("*.db"))


def test_one_capture_needs_neither_prefect_nor_mlflow_nor_torch_in_the_process(three_steps, home):
    """They take seconds to import: Prefect is not needed, the others are in processes of theirs."""
    environment = without_prefect()
    code = (
        "import sys; from timtrack.flows.cli.main import main;"
        "assert main(['--home', sys.argv[1], 'ingest', sys.argv[2]]) == 0;"
        "heavy = {'prefect', 'mlflow', 'torch', 'pandas'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-P", "-c", code, str(home), str(three_steps[0])]
    environment["HOME"] = str(home)  # no profiles of Prefect
    done = subprocess.run(
        command, env=environment, cwd=home.parent, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    [(step, value)] = stored_points(home, "kl_k1")
    asked = run_query(all_steps(home / "lake"), "select step, kl_k1 from step_metrics")
    assert [(step, value)] == asked.rows()


def test_another_experiment_does_not_replace_a_step_unasked(saved, home):
    """Two folders with runs of the same name, ingested one after the other."""
    first = saved(batch_fields(seed=1), "exp1/run/step_3/step_batch.pt")
    second = saved(batch_fields(seed=2), "exp2/run/step_3/step_batch.pt")
    [outcome] = analyse([first], home)
    with pytest.raises(CapturesFailed, match="different captures of run step 3"):
        analyse([second], home)
    assert all_steps(home / "lake") == [outcome.step]
    first.unlink()  # the trainer moved it: now the other one takes its place
    [outcome] = analyse([second], home)
    assert all_steps(home / "lake") == [outcome.step]


def test_after_other_sql_one_ingest_brings_the_whole_run_back(three_steps, home, monkeypatch):
    """The run is written anew with the new numbers, and no step of it is missing."""
    analyse(three_steps, home)
    with_other_sql(monkeypatch)
    analyse(three_steps[:1], home)
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 2, 3]


def test_a_step_that_cannot_be_drawn_does_not_stop_the_others(three_steps, home, monkeypatch):
    draw = drawing.draw_charts

    def fail_on_step_2(drawn):
        if drawn.get("step_metrics") is not None and drawn["step_metrics"]["step"].item() == 2:
            raise ValueError("no such color")
        return draw(drawn)

    monkeypatch.setattr(drawing, "draw_charts", fail_on_step_2)
    with pytest.raises(CapturesFailed, match=r"1 of 3 captures failed.*no such color"):
        analyse(three_steps, home)
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 3]
