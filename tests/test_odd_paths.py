"""Names and things in a watched folder that are no captures: none ends or stops a watcher."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.watch import Source, watch
from tasks import alerts, captures, durable, lake, quarantine
from tasks.hook import save_step_batch
from tasks.tokens import BadCapture
from tests.given import batch_fields, ingest


@pytest.fixture
def root(tmp_path):
    """A watched folder with one good capture."""
    save_step_batch(tmp_path / "runs" / "good", 3, batch_fields())
    return tmp_path / "runs"


def renamed(path: Path, name: bytes) -> Path:
    """A file or folder under a name that is not UTF-8."""
    return path.rename(path.with_name(os.fsdecode(name)))


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_no_ranks_capture(kind, root, tmp_path):
    first = save_step_batch(root / "ranks", 3, batch_fields(), 0, 2)
    odd = first.with_name("step_batch.rank_1.pt")
    os.mkfifo(odd) if kind == "pipe" else odd.mkdir()
    assert captures.parts(first) == [first]
    step = ingest(first, tmp_path / "lake")
    assert "files of 1 of 2 ranks are there" in step.facts()["notes"]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadCapture, match="is not a file"):
        captures.sha256_of(tmp_path / "pipe")


def test_a_name_that_is_not_utf8_is_set_aside_like_any_other(root, home):
    bad = root / "bad" / "step_1" / "step_batch.pt"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"nonsense")
    bad = renamed(bad.parents[1], b"bad\xff") / "step_1" / "step_batch.pt"
    quarantine.add(home, bad, "nonsense")
    assert quarantine.holds(home, bad)
    assert [record.path for record in quarantine.records(home)] == [str(bad)]
    assert bad not in Source(root).look(home).pending


@pytest.mark.parametrize("left", ["", "{", "[]", '{"path": "x"}'])
def test_a_record_that_a_power_cut_left_empty_is_none(left, root, home):
    path = root / "good" / "step_3" / "step_batch.pt"
    quarantine.add(home, path, "why")
    [record] = (home / "quarantine").iterdir()
    record.write_text(left)
    assert quarantine.records(home) == []
    assert not quarantine.holds(home, path)
    assert quarantine.add(home, path, "why").tries == 1


@pytest.mark.parametrize("left", ["", "{"])
def test_a_status_that_a_power_cut_left_empty_is_told_anew(left, home):
    (home / "status").mkdir(parents=True)
    (home / "status" / "a.json").write_text(left)
    assert alerts.told(home) == {}


def test_new_folders_of_the_lake_and_records_are_synced_with_their_parents(
    root, tmp_path, monkeypatch
):
    synced = []
    monkeypatch.setattr(lake, "sync", lambda path: synced.append(path))
    monkeypatch.setattr(durable, "sync", lambda path: synced.append(path))
    step = ingest(root / "good" / "step_3" / "step_batch.pt", tmp_path / "lake")
    assert {step.path.parent, step.path.parents[1], tmp_path / "lake"} <= set(synced)
    durable.write(tmp_path / "records" / "one.json", "{}")
    assert synced[-1] == tmp_path / "records"


def test_names_that_are_not_utf8_are_printed(root, tmp_path):
    odd = renamed(root / "good" / "step_3" / "step_batch.pt", b"step_batch\xff.pt")
    tim = [sys.executable, "-m", "flows.cli", "--home", str(tmp_path / "home"), "inspect", odd]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(tim, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_sweep_goes_on_beside_names_that_are_not_utf8(root, home):
    save_step_batch(root / "other", 3, batch_fields(seed=1))
    odd = renamed(root / "other", b"other\xff") / "step_3" / "step_batch.pt"
    state = watch(root, home, quiet=0, return_state=True)
    assert state.type.value == "FAILED"  # of the one
    assert [step.run for step in lake.steps(home / "lake")] == ["good"]
    assert [record.path for record in quarantine.records(home)] == [str(odd)]
    assert watch(root, home, quiet=0) == []
