"""Disks that are full and folders that may not be written: told clearly, nothing half-published."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.given import batch_fields
from timtrack.flows.cli.main import main
from timtrack.flows.outcomes import CapturesFailed
from timtrack.flows.watch import watch
from timtrack.tasks.backlog import quarantine, survey
from timtrack.tasks.captures import completeness
from timtrack.tasks.captures.completeness import is_complete
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake import conversion
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.readers import registry


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_full_disk_publishes_nothing_and_is_mended_by_more_room(
    small_disk, home, saved, capsys, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    capture = saved(batch_fields(rows=200), "runs/a/step_3/step_batch.pt")
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (small_disk_free(small_disk) - 20_000))
    there = small_disk / "timtrack"
    command = ["--home", str(there), "watch", str(capture.parents[2]), "--once"]
    assert main(command) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert all_steps(there / "lake") == []
    assert list((there / "lake").glob("run=*/*/*")) == []
    assert not any(record.held for record in quarantine.records(there))
    filler.unlink()
    assert main(command) == 0
    assert [step.step for step in all_steps(there / "lake")] == [3]


def small_disk_free(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def test_a_home_that_may_not_be_written_is_said_at_once(capsys):
    for verb in (["watch", "/"], ["ingest", "x.pt"], ["demo"]):
        assert main(["--home", "/proc/timtrack", *verb]) == 2
        assert "cannot write to /proc/timtrack" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_capture_that_may_not_be_read_stops_no_other(saved, tmp_path, home, monkeypatch):
    """It is neither set aside nor forgotten: permissions can change without the file."""
    locked = saved(batch_fields(seed=1) | {"global_step": 1}, "runs/a/step_1/step_batch.pt")
    saved(batch_fields(seed=2) | {"global_step": 2}, "runs/a/step_2/step_batch.pt")
    root, really_open = tmp_path / "runs", registry.open_batch

    def refused(path, seen):  # as for a user who may not read it; these tests may be root's
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, seen)

    with monkeypatch.context() as patched:
        for module in (completeness, conversion):  # a process apart would not be patched
            patched.setattr(module, "apart", lambda function, *given, size, **how: function(*given))
        patched.setattr(registry, "open_batch", refused)
        assert not is_complete(Source(locked), quiet=60)
        with pytest.raises(CapturesFailed, match="Permission denied"):
            watch(root, home, quiet=0)
    assert [step.step for step in all_steps(home / "lake")] == [2]
    seen = survey.survey(root, home)
    assert (seen.held, seen.pending) == ([], [Source(locked)])
    assert "Permission denied" in seen.failing[0].error
    watch(root, home)
    assert [step.step for step in all_steps(home / "lake")] == [1, 2]
