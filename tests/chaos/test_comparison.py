"""The judge finds what it is there for, and nothing where nothing is."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from tests.chaos.comparison import differences, unlike_written
from tests.chaos.ledger import Capture, Ledger
from tests.chaos.seen import RunSeen, Seen, StepSeen

ROWS = ("digest-of-row-0",)
ROOT = Path("/runs")


def a_step(kl: float = 0.5) -> StepSeen:
    return StepSeen(
        captures=1,
        files=frozenset({"tokens", "sequences"}),
        tokens=pl.DataFrame({"row": [0], "pos": [0], "logp_train": [-1.0]}),
        rows=ROWS,
        tables={"step_metrics": pl.DataFrame({"kl_k1": [kl]})},
        logged={"mismatch/kl_k1": kl},
        facts={"tokens": 1},
    )


@pytest.fixture
def home():
    """Two steps of a run, logged; a capture that is set aside."""
    points = Counter({("mismatch/kl_k1", 1, 0.5): 1, ("mismatch/kl_k1", 2, 0.5): 1})
    artifacts = frozenset({"steps/1/report.html", "steps/2/report.html", "trend/run_trend.svg"})
    return Seen(
        steps={("a", 1): a_step(), ("a", 2): a_step()},
        mlflow={"a": RunSeen(1, points, artifacts)},
        aside=frozenset({"b/step_1/step_batch.pt"}),
        left=frozenset(),
    )


@pytest.fixture
def ledger():
    """What `home` is made from."""
    made = Ledger()
    for step in (1, 2):
        made.add(Capture("a", step, ROOT / f"a/step_{step}/step_batch.pt", rows=ROWS))
    made.add(Capture("b", 1, ROOT / "b/step_1/step_batch.pt"))
    return made


def with_step(home: Seen, number: int = 2, **other) -> Seen:
    """The home with a step as it should not be."""
    key = ("a", number)
    return replace(home, steps={**home.steps, key: replace(home.steps[key], **other)})


def with_run(home: Seen, **other) -> Seen:
    """The home with its MLflow run as it should not be."""
    return replace(home, mlflow={"a": replace(home.mlflow["a"], **other)})


def test_a_home_does_not_differ_from_itself(home, ledger):
    assert differences(home, home) == []
    assert unlike_written({"undisturbed": home}, ledger, ROOT) == []


def test_a_missing_step_is_found(home, ledger):
    lacking = replace(home, steps={("a", 1): home.steps["a", 1]})
    assert differences(lacking, home) == ["'a' step 2 is missing in the lake"]
    [found] = unlike_written({"disturbed": lacking}, ledger, ROOT)
    assert found == "disturbed: 'a/step_2/step_batch.pt' is good, but no step of the lake"


@pytest.mark.parametrize("value", [0.5, 0.6])
def test_a_doubled_point_is_found(home, value):
    points = home.mlflow["a"].points + Counter({("mismatch/kl_k1", 2, value): 1})
    found = differences(with_run(home, points=points), home)
    assert "run 'a': 1 points are doubled in MLflow, first ('mismatch/kl_k1', 2)" in found


def test_a_second_mlflow_run_is_found(home):
    assert differences(with_run(home, runs=2), home) == ["run 'a' is 2 runs in MLflow"]


def test_a_changed_number_is_found(home, ledger):
    tokens = home.steps["a", 2].tokens.with_columns(logp_train=-1.5)
    changed = with_step(home, tokens=tokens, rows=("another",))
    assert differences(changed, home) == ["'a' step 2: the tokens differ"]
    assert unlike_written({"disturbed": changed}, ledger, ROOT) == [
        "disturbed: 'a/step_2/step_batch.pt' says other numbers than the lake",
        "disturbed: 'a' step 2 is of no capture that was ever written",
    ]


def test_a_changed_table_is_found_there_and_in_mlflow(home):
    other = a_step(kl=0.6)
    changed = with_step(home, tables=other.tables, logged=other.logged)
    assert differences(changed, home) == [
        "'a' step 2: the table step_metrics differs",
        "'a' step 2: 1 metrics differ in MLflow from the lake, "
        "first mismatch/kl_k1 is 0.5, 0.6 in the lake",
    ]


def test_a_point_that_is_not_in_the_lake_is_found(home):
    points = home.mlflow["a"].points - Counter({("mismatch/kl_k1", 2, 0.5): 1})
    found = differences(with_run(home, points=points), home)
    assert "run 'a': 1 points differ in MLflow, first ('mismatch/kl_k1', 2, 0.5)" in found


def test_another_fact_is_found(home):
    changed = with_step(home, facts={"tokens": 2})
    assert differences(changed, home) == ["'a' step 2: tokens is 2, undisturbed 1"]


def test_a_missing_artifact_is_found(home):
    artifacts = home.mlflow["a"].artifacts - {"trend/run_trend.svg"}
    [found] = differences(with_run(home, artifacts=artifacts), home)
    assert found == "run 'a': 1 artifacts are not in both, first trend/run_trend.svg"


def test_leftovers_are_found(home):
    changed = replace(with_step(home, captures=2), left=frozenset({"17@host@1a2b"}))
    assert differences(changed, home) == [
        "'a' step 2 has 2 captures in the lake",
        "left in the lake's staging: 17@host@1a2b",
    ]


def test_pruned_tokens_are_no_difference_but_half_of_them_is(home, ledger, monkeypatch):
    monkeypatch.setattr("tests.chaos.comparison.KEPT", 1)
    pruned = with_step(home, 1, tokens=None, rows=(), files=frozenset())
    assert differences(pruned, home) == []
    assert unlike_written({"disturbed": pruned}, ledger, ROOT) == []
    half = with_step(pruned, 1, files=frozenset({"sequences"}))
    assert differences(half, home) == ["'a' step 1 was pruned, but sequences is left"]


def test_tokens_of_the_last_steps_that_are_gone_are_found(home):
    pruned = with_step(home, tokens=None, rows=(), files=frozenset())
    assert differences(pruned, home) == ["'a' step 2 of the last 6 of 'a' has no tokens"]


def test_a_broken_capture_that_is_not_set_aside_is_found(home, ledger):
    changed = replace(home, aside=frozenset())
    assert differences(changed, home) == [
        "'b/step_1/step_batch.pt' is set aside only in the undisturbed home"
    ]
    [found] = unlike_written({"disturbed": changed}, ledger, ROOT)
    assert found == "disturbed: 'b/step_1/step_batch.pt' is broken, but not set aside"


def test_a_step_of_a_deleted_capture_is_held_against_what_was_written(home, ledger):
    ledger.note(("gone", 1), ROWS)
    kept = replace(home, steps={**home.steps, ("gone", 1): a_step()})
    assert unlike_written({"disturbed": kept}, ledger, ROOT) == []
    made_up = replace(home, steps={**home.steps, ("never", 1): a_step()})
    [found] = unlike_written({"disturbed": made_up}, ledger, ROOT)
    assert found == "disturbed: 'never' step 1 is of no capture that was ever written"


def test_a_part_counts_only_of_what_is_written_in_parts(ledger):
    whole = ("row-0", "row-1")
    ledger.note(("lines", 1), whole, grows=True)
    ledger.note(("whole", 1), whole)
    assert ledger.could_be(("lines", 1), whole[:1])
    assert not ledger.could_be(("lines", 1), ("row-2",))
    assert not ledger.could_be(("whole", 1), whole[:1])
