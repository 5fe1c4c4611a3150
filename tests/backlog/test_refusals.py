"""Steps that go no further: each stops nobody else, is told with its reason, and is tried again."""

import json
import time

import duckdb
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tests.given import batch_fields, ingest, replace_everywhere, with_other_sql
from timtrack.flows.cli.main import main
from timtrack.flows.watch import watch
from timtrack.tasks.backlog import refusals, survey
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.steps import all_steps, has_mark
from timtrack.tasks.pipeline import stages
from timtrack.tasks.tables import compute
from timtrack.tasks.tracking.tracker import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]


@pytest.fixture
def root(tmp_path):
    for seed, run in enumerate(("a", "b", "c")):
        save_step_batch(tmp_path / "runs" / run, 3, batch_fields(seed=seed))
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """What fails is not tried again within a sweep."""
    monkeypatch.setattr(stages.log_step.task, "retries", 0)


def is_logged(home) -> dict[str, bool]:
    mark = survey.logged_mark(home)
    return {step.run: has_mark(step, mark) for step in all_steps(home / "lake")}


def test_a_step_that_mlflow_refuses_keeps_no_other_out(root, home, monkeypatch, capsys):
    really, asked = Tracker.log_step, []

    def log_step(self, step, *given):
        asked.append(step.run)
        if step.run == "a":
            raise MlflowException("INVALID_PARAMETER_VALUE: the value is too long")
        return really(self, step, *given)

    monkeypatch.setattr(Tracker, "log_step", log_step)
    command = ["--home", str(home), "watch", str(root), "--once"]
    assert main(command) == 1
    assert is_logged(home) == {"a": False, "b": True, "c": True}
    assert main(command) == 0  # nothing that could be done now
    capsys.readouterr()
    assert main(["--home", str(home), "status", str(root), "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)["refused"]
    assert (told["run"], told["step"], told["tries"]) == ("a", 3, 1)
    status = survey.survey(root, home)
    assert survey.counts(status)["not_logged"] == 1
    [trouble] = survey.troubles(status)
    assert trouble.startswith("goes no further: a step 3 (since ")
    assert "the value is too long" in trouble
    monkeypatch.setattr(Tracker, "log_step", really)
    monkeypatch.setattr(refusals, "AGAIN", 0.0)
    assert main(command) == 0
    assert is_logged(home) == {"a": True, "b": True, "c": True}
    assert survey.troubles(survey.survey(root, home)) == []


def test_a_mistake_that_passes_is_none_of_the_step(root, home, monkeypatch):
    """MLflow does not answer at all: no step is refused, all wait."""

    def fails(*_, **__):
        raise ConnectionError("connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(Tracker, "log_step", fails)
        patched.setattr(Tracker, "answers", lambda self: False)
        watch(root, home, quiet=0, return_state=True)
    seen = survey.survey(root, home)
    assert ([step.run for step in seen.unlogged], seen.refused) == (["a", "b", "c"], [])


def test_a_step_without_tables_spoils_no_other(root, home, monkeypatch, capsys, caplog):
    really = compute.computed_tables

    def computed_tables(step, *given):
        if step and step.run == "b":
            raise duckdb.ConversionException("out of range")
        return really(step, *given)

    replace_everywhere(monkeypatch, really, computed_tables)
    command = ["--home", str(home), "watch", str(root), "--once"]
    assert main(command) == 1
    assert is_logged(home) == {"a": True, "b": False, "c": True}
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    [trouble] = survey.troubles(survey.survey(root, home))
    assert "the tables of b step 3 cannot be computed: out of range" in trouble
    query = "select run from step_metrics order by run"
    assert main(["--home", str(home), "sql", query, "--format", "csv"]) == 0
    assert capsys.readouterr().out.split() == ["run", "a", "c"]
    assert "b step 3" in caplog.text
    replace_everywhere(monkeypatch, computed_tables, really)
    with_other_sql(monkeypatch)  # other SQL is another try
    assert survey.survey(root, home).refused == []


def test_a_run_that_was_deleted_in_mlflow_comes_back(root, home):
    watch(root, home, quiet=0)
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    [found] = [
        run
        for run in client.search_runs([e.experiment_id for e in client.search_experiments()])
        if run.data.tags["timtrack.run"] == "b"
    ]
    client.delete_run(found.info.run_id)
    assert {outcome.step.run for outcome in watch(root, home, quiet=0)} == {"b"}
    assert is_logged(home) == {"a": True, "b": True, "c": True}
    assert Tracker(home).runs() == {"a", "b", "c"}
    assert watch(root, home, quiet=0) == []


def test_a_refusal_is_of_the_store_that_refused(root, home):
    step = ingest(root / "a" / "step_3" / "step_batch.pt", home / "lake")
    refusals.add(step, "another mark", "why")
    refusals.add(step, "another mark", "why")
    assert refusals.of(step, ["a mark"]) is None
    assert not refusals.keeps(step, ["a mark"])
    assert refusals.keeps(step, ["another mark"])
    assert refusals.of(step, ["another mark"]).tries == 2
    assert refusals.of(step, ["another mark"]).tried <= time.time()
    refusals.clear(step)
    assert refusals.of(step, ["another mark"]) is None
