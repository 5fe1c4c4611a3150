"""A run's status: worse soon, better late, told once."""

import random
from collections.abc import Sequence

import pytest
from mlflow.tracking import MlflowClient

from tests.given import batch_fields
from timtrack.flows.cli.main import main
from timtrack.flows.watch import watch
from timtrack.tasks.backlog import survey
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.verdicts import alert_rules, alerts
from timtrack.tasks.verdicts.alert_rules import Alerts, BadAlerts
from timtrack.tasks.verdicts.alerts import Change
from timtrack.tasks.verdicts.numbers import metrics
from timtrack.tasks.verdicts.standing import Seen, Status, judged, standing

HEALTHY, WARNING = 0, 1
CALM, WILD = 1e-4, 0.5  # gaps in nats


def story(levels: list[int], rules: Alerts) -> list[str]:
    """The status after each step."""
    status, told = None, []
    for end in range(1, len(levels) + 1):
        seen = [Seen(step, levels[step], ("why",)) for step in range(end)]
        status = standing(status, seen, rules, end - 1)
        told.append(status.level)
    return told


def test_a_single_bad_step_is_told_only_if_it_is_the_first():
    assert set(story([0, 0, 2, 0, 0, 1, 0], Alerts())) == {"healthy"}
    assert story([2], Alerts()) == ["critical"]


def test_two_bad_steps_make_a_run_as_bad_as_the_milder_one():
    assert story([0, 1, 2, 2], Alerts()) == ["healthy", "healthy", "warning", "critical"]


def test_a_run_is_better_after_five_better_steps():
    rules = Alerts(after=2, recover=5)
    levels = [2, 2, 0, 0, 1, 0, 0, 0, 0, 0]
    assert story(levels, rules) == [*["critical"] * 6, "warning", "warning", "warning", "healthy"]


def test_what_scatters_about_a_bound_is_told_once():
    told = story([0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 1], Alerts())
    assert told == [*["healthy"] * 2, *["warning"] * 12]


def test_a_status_has_its_first_step_and_its_reasons():
    seen = [Seen(7, HEALTHY), Seen(8, WARNING, ("a",)), Seen(9, WARNING, ("b",))]
    status = standing(None, seen, Alerts())
    assert status == Status("warning", 8, ("b",), last_good=7)


@pytest.mark.parametrize("at_once", [1, 2, 5, 1000])
def test_a_streak_begins_where_it_began_however_many_steps_a_sweep_saw(at_once):
    """Steps 4 to 1002 are bad: since 4, whether they came one by one or as a backfill."""
    levels = [0, 0, 0, 0, *[2] * 999]
    status, seen = None, [Seen(step, level) for step, level in enumerate(levels)]
    for end in range(at_once, len(seen) + at_once, at_once):
        status = standing(status, seen[:end], Alerts(), end - at_once)
    assert (status.level, status.since, status.last_good) == ("critical", 4, 3)


def test_steps_that_were_judged_are_looked_at_no_further_than_the_streak_needs():
    looked_at = set()

    class Steps(Sequence):
        def __len__(self):
            return 1000

        def __getitem__(self, place):
            if isinstance(place, slice):
                return [self[i] for i in range(*place.indices(1000))]
            looked_at.add(place)
            return Seen(place, 2 if place > 990 else 0)

    status = standing(Status("healthy", 0, ()), Steps(), Alerts(), 992)
    assert (status.level, status.since, status.last_good) == ("critical", 991, 990)
    assert min(looked_at) == 988  # of the last five, before which nothing is asked


@pytest.mark.parametrize("seed", range(20))
def test_a_backfill_says_what_one_step_after_the_other_says(seed):
    rng = random.Random(seed)
    seen = [Seen(step, rng.choice([0, 0, 0, 1, 2, 2]), (f"{step}",)) for step in range(60)]
    one_by_one = None
    for end in range(1, 61):
        one_by_one = standing(one_by_one, seen[:end], Alerts(), end - 1)
    assert standing(None, seen, Alerts()) == one_by_one


def test_a_run_that_gets_worse_still_names_its_last_healthy_step():
    levels = [0, 0, 1, 1, 2, 2]
    status = standing(None, [Seen(i, level) for i, level in enumerate(levels)], Alerts())
    assert status == Status("critical", 4, (), last_good=1)


def test_a_recovery_is_since_the_first_better_step():
    seen = [Seen(step, 2 if step < 3 else 0) for step in range(20)]
    before = Status("critical", 0, ("why",))
    assert standing(before, seen, Alerts(), 3) == Status("healthy", 3, ())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("warning = ['kl_k3 <']", "is not a rule"),
        ("warning = 'kl_k3 < 1'", "not a list of rules"),
        ("warning = ['mean(kl_k3) < 1']", "without mean()"),
        ("critical = ['kl_k33 < 1']", "step_metrics has no kl_k33"),
        ("wraning = ['kl_k3 < 1']", "unknown wraning"),
        ("after = 0", "whole number of steps"),
        ("recover = true", "whole number of steps"),
        ("after", "alerts.toml"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_done(text, says, home, tmp_path, capsys):
    (home / alert_rules.NAME).write_text(text)
    with pytest.raises(BadAlerts, match=says.replace("(", r"\(").replace(")", r"\)")):
        alert_rules.of_home(home)
    (tmp_path / "runs").mkdir()
    assert main(["--home", str(home), "watch", str(tmp_path / "runs"), "--once"]) == 2
    assert says in capsys.readouterr().err


@pytest.fixture
def write(saved, tmp_path):
    """Write the capture of a step whose engines differ by `gap`."""

    def write(step: int, gap: float):
        fields = {**batch_fields(seed=step, gap=gap), "global_step": step}
        return saved(fields, f"runs/a/step_{step}/step_batch.pt")

    (tmp_path / "runs").mkdir()
    return write


def test_by_rules_of_a_file(write, home, tmp_path, to_lake):
    steps = [to_lake(write(step, gap)) for step, gap in enumerate([CALM, WILD, WILD])]
    for step in steps:
        write_tables(step, sql_version(), compute_step(step))
    rules = tmp_path / "mine.toml"
    rules.write_text("warning = ['kl_k3 < 1e-3']\ncritical = ['kl_k3 < 1e9']\nafter = 2")
    assert judged(None, steps, alert_rules.read(rules)).level == "warning"
    [reason] = judged(None, steps, alert_rules.read(rules)).reasons
    assert reason.endswith("not kl_k3 < 1e-3")


def test_a_step_that_came_late_is_judged_in_its_place(write, tmp_path, to_lake):
    def judge(number: int, gap: float) -> Change | None:
        step = to_lake(write(number, gap))
        write_tables(step, sql_version(), compute_step(step))
        assert alerts.unjudged(tmp_path, Alerts()) == ["a"]
        return alerts.update(tmp_path, "a", Alerts(), told.append)

    told: list[Change] = []
    assert [judge(number, gap) for number, gap in [(1, CALM), (3, WILD), (4, CALM)]] == [None] * 3
    assert judge(2, WILD).now.since == 2
    assert alerts.unjudged(tmp_path, Alerts()) == []
    assert [change.now.last_good for change in told] == [1]


def test_an_undefined_number_is_not_silently_well(write, tmp_path, to_lake):
    rules = tmp_path / "mine.toml"
    rules.write_text("warning = ['entropy_mean < 1e9']")
    status = judged(None, [to_lake(write(1, CALM))], alert_rules.read(rules))
    assert status == Status("warning", 1, ("entropy_mean is undefined, not entropy_mean < 1e9",))


def test_a_suspect_capture_is_critical_and_the_reason_is_what_is_wrong_with_it(saved, to_lake):
    fields = batch_fields(rows=40, width=200)
    fields["old_log_probs"] = fields["old_log_probs"].roll(1, dims=1) * fields["response_mask"]
    status = judged(None, [to_lake(saved(fields))], Alerts())
    assert (status.level, len(status.reasons)) == ("critical", 1)
    assert status.reasons[0].startswith("The engines' log-probs may be 1 token apart")


def test_a_number_that_overflowed_is_critical(saved, to_lake):
    fields = batch_fields(rows=40, width=50)
    fields["rollout_log_probs"][0, 3] = -2000.0
    step = to_lake(saved(fields))
    assert metrics(compute_step(step))["kl_k3"] is None
    status = judged(None, [step], Alerts())
    assert status.level == "critical"
    assert any(reason.startswith("kl_k3 inf") for reason in status.reasons)


def test_bypass_is_not_measured(write, to_lake, saved):
    fields = batch_fields()
    fields["old_log_probs"] = fields["rollout_log_probs"]
    step = to_lake(saved(fields))
    assert judged(None, [step], Alerts()).level == "not measured"


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_critical_run_is_visible_until_it_is_better_and_tagged_once(
    write, home, tmp_path, capsys
):
    def sweep(*gaps: float) -> tuple[str, str]:
        for gap in gaps:
            written.append(write(len(written), gap))
        state = watch(tmp_path / "runs", home, critical_fails=True, return_state=True)
        return state.name, state.type.value

    written: list[object] = []
    assert sweep(CALM, CALM) == ("Completed", "COMPLETED")
    assert sweep(WILD) == ("Completed", "COMPLETED")
    assert sweep(WILD) == ("Critical: a", "FAILED")
    assert sweep() == ("Critical: a", "COMPLETED")
    assert sweep(WILD) == ("Critical: a", "COMPLETED")
    tags = MlflowClient(f"sqlite:///{home}/mlflow.db").search_runs(["1"])[0].data.tags
    assert tags["mismatch.status"] == "critical"
    assert tags["mismatch.status_since"] == "2"
    assert main(["--home", str(home), "status", str(tmp_path / "runs")]) == 0
    assert "a: critical since step 2; " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_rules_that_are_half_written_leave_those_from_before(write, home, tmp_path):
    rules = home / alert_rules.NAME
    rules.write_text("critical = ['kl_k3 < 0']\nafter = 1")
    write(1, CALM)
    assert watch(tmp_path / "runs", home, return_state=True).name == "Critical: a"
    rules.write_text("critical = ['kl_k3 <")
    write(2, CALM)
    assert watch(tmp_path / "runs", home, return_state=True).name == "Critical: a"
    assert alerts.told(home)["a"].since == 1
    rules.write_text("critical = ['kl_k3 < 1e9']\nafter = 1\nrecover = 1")
    write(3, CALM)
    assert watch(tmp_path / "runs", home, return_state=True).name == "Completed"


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_watcher_that_was_killed_before_it_judged_does_so_next_time(
    write, home, tmp_path, monkeypatch
):
    write(1, WILD)
    with monkeypatch.context() as killed:
        killed.setattr("timtrack.flows.watch.tell_of_runs", lambda *_: [])
        watch(tmp_path / "runs", home)
    assert alerts.told(home) == {}
    assert survey.survey(tmp_path / "runs", home).unsettled == ["a"]  # `follow` sees that
    assert watch(tmp_path / "runs", home, return_state=True).name == "Critical: a"
    assert survey.survey(tmp_path / "runs", home).is_empty
