"""Pruning: tokens go, numbers stay, and nothing is analysed again because of it."""

import os

import pytest

from tests import formats
from tests.given import batch_fields, ingest, with_other_sql
from timtrack.flows.cli.main import main
from timtrack.tasks.backlog import survey
from timtrack.tasks.captures.capture import identify
from timtrack.tasks.captures.discovery import find_captures
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import prune_tokens, write_tables
from timtrack.tasks.lake.steps import all_steps, find_step, is_pruned, prunable_bytes
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tables.stored import are_computed


@pytest.fixture
def five_steps(saved, home, tmp_path):
    """Five steps of run a and one of run b, with tables; their captures are still there."""
    for run, number in (*(("a", n) for n in range(1, 6)), ("b", 1)):
        path = saved(
            {**batch_fields(seed=number), "global_step": number},
            f"runs/{run}/step_{number}/step_batch.pt",
        )
        os.utime(path, (number * 1e9 / 10, number * 1e9 / 10))
        step = ingest(path, home / "lake")
        write_tables(step, sql_version(), compute_step(step))
    return tmp_path / "runs"


def with_tokens(home):
    return [(s.run, s.step) for s in all_steps(home / "lake") if not is_pruned(s)]


def test_prune_only_says_what_would_go(five_steps, home, capsys):
    assert main(["--home", str(home), "prune", "--keep-last", "2"]) == 0
    out = capsys.readouterr().out
    freed = [prunable_bytes(step) for step in all_steps(home / "lake")[:3]]
    assert f"a step 1: {freed[0] / 1000:.1f} kB\n" in out
    told = f"token tables of 3 of 6 steps, {sum(freed) / 1000:.1f} kB, would be deleted"
    assert f"{told} (--yes does it)" in out
    assert len(with_tokens(home)) == 6


def test_prune_keeps_the_last_steps_of_each_run_and_all_numbers(five_steps, home):
    steps = all_steps(home / "lake")
    before = run_query(steps, "from step_metrics order by run, step")
    assert main(["--home", str(home), "prune", "--keep-last", "2", "--yes"]) == 0
    assert with_tokens(home) == [("a", 4), ("a", 5), ("b", 1)]
    assert run_query(steps, "from step_metrics order by run, step").equals(before)
    left = run_query(steps, "select distinct run, step from tokens order by all").rows()
    assert left == [("a", 4), ("a", 5), ("b", 1)]
    assert survey.survey(five_steps, home).pending == []
    for path in find_captures(five_steps):
        assert find_step(home / "lake", identify(Source(path)))


def test_prune_leaves_no_empty_folder_of_a_step_in_parts(home, tmp_path):
    step = ingest(formats.prime_rl(tmp_path, formats.a_batch(), 3), home / "lake")
    assert (step.path / "tokens").is_dir()
    prune_tokens(step)
    assert is_pruned(step)
    assert sorted(path.name for path in step.path.iterdir()) == ["capture.json", "pruned"]


def test_prune_by_age_and_run(five_steps, home):
    arguments = ["--home", str(home), "prune", "--older-than", "1", "--run", "b", "--yes"]
    assert main(arguments) == 0
    assert ("b", 1) not in with_tokens(home)
    assert len(with_tokens(home)) == 5


def test_pruned_steps_keep_tables_of_older_sql(five_steps, home, monkeypatch):
    """They cannot be made again; steps with tokens are computed by the new SQL."""
    main(["--home", str(home), "prune", "--keep-last", "2", "--yes"])
    with_other_sql(monkeypatch)
    steps = all_steps(home / "lake")
    assert [are_computed(s) for s in steps] == [True, True, True, False, False, False]
    found = run_query(steps, "select run, step from step_metrics order by run, step").rows()
    assert found == [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("a", 5), ("b", 1)]


def test_steps_without_tables_are_never_pruned(saved, home, capsys):
    for number in (1, 2):
        ingest(saved(batch_fields(seed=number)), home / "lake", step=number)
    assert main(["--home", str(home), "prune", "--keep-last", "1", "--yes"]) == 0
    assert "token tables of 0 of 2 steps" in capsys.readouterr().out
    assert len(with_tokens(home)) == 2
