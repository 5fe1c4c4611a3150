"""What the stages log to MLflow. It takes seconds to import, so stages do so when they log."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from timtrack.tasks.backlog import asked, survey
from timtrack.tasks.lake.steps import Step, steps_between
from timtrack.tasks.tables import frameworks
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import parity_tables
from timtrack.tasks.tables.stored import stored_tables
from timtrack.tasks.tracking import store
from timtrack.tasks.tracking.tracker import Tracker
from timtrack.tasks.verdicts import alerts, rescoring, summary
from timtrack.tasks.verdicts.assessment import Assessment, assess
from timtrack.tasks.verdicts.bands import Bands
from timtrack.tasks.verdicts.numbers import logged


def prepare() -> None:
    """Import what a store needs, and read the SQL."""
    store.prepare()
    sql_version()


def open_store(home: Path) -> None:
    """Open MLflow's store, which is made if it is not there."""
    Tracker(home)


def log_step(
    step: Step, files: Path, home: Path, bands: Bands, parity: Sequence[str], followed: bool
) -> tuple[str, str, Assessment]:
    """Metrics and files to MLflow; a link to the run, the note on it and what it says."""
    tracker = Tracker(home)
    computed = stored_tables(step)
    numbers = {f"mismatch/{name}": value for name, value in logged(computed).items()}
    numbers |= frameworks.metrics(parity_tables(step, parity), parity)
    numbers |= rescoring.metrics_of(step)
    run_id = tracker.log_step(step, numbers, files, sql_version(), followed)
    assessment = assess(step.facts(), computed, bands)
    note = summary.markdown(step, assessment)
    tracker.note(run_id, step.step, note)
    return tracker.link(run_id), note, assessment


def renew_step(step: Step, home: Path, bands: Bands) -> None:
    """Page, `summary.json` and numbers of a logged step again; raises TrackingError."""
    from timtrack.tasks.pipeline.drawing import draw_step

    tracker = Tracker(home)
    tracker.require_step(step)
    with tempfile.TemporaryDirectory(prefix="timtrack-") as folder:
        files = Path(folder) / "step"
        draw_step(step, files, bands)
        tracker.add_to_step(step, rescoring.metrics_of(step), files)


def log_files(run: str, home: Path, files: Path, folder: str) -> None:
    """Files to a folder of the run's artifacts."""
    Tracker(home).log_files(run, files, folder)


def tag_run(run: str, home: Path) -> None:
    """The run's status as tags of its MLflow run."""
    status = alerts.told(home)[run]
    tags = {"mismatch.status": status.level, "mismatch.status_since": str(status.since)}
    Tracker(home).tag(run, tags)


def compare_runs(
    runs: list[str],
    home: Path,
    steps: tuple[int | None, int | None],
    baseline: str | None,
    output: Path | None,
    bands: Bands,
) -> str:
    """The comparison page with its tables, to MLflow and to `output`; a link to it."""
    from timtrack.tasks.reports import run_page

    selection = [step for run in runs for step in steps_between(home / "lake", run, *steps)]
    compared = run_page.compare(selection, runs, baseline)
    with tempfile.TemporaryDirectory(prefix="timtrack-") as folder:
        files = Path(folder)
        run_page.write(compared, files, bands)
        if output:
            output.write_text((files / "comparison.html").read_text())
        tracker = Tracker(home)
        return tracker.link(tracker.log_comparison(runs, files))


def lost_runs(home: Path) -> list[Step]:
    """The steps of runs that MLflow does not have any more; they count as not logged from then on.

    Runs that a watcher left as running when it was killed are ended.
    """
    before = asked.look(home)
    tracker = Tracker(home)
    lost = survey.forget(home, tracker.runs())
    tracker.finish()
    asked.note(home, before)
    return lost
