"""What the stages log to MLflow. It takes seconds to import, so stages do so when they log."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from timtrack.tasks.backlog import survey
from timtrack.tasks.drawing import draw_step
from timtrack.tasks.lake.steps import Step, all_steps, set_mark, steps_between
from timtrack.tasks.messages import cells
from timtrack.tasks.referee import records
from timtrack.tasks.reports import run_page
from timtrack.tasks.reports.charts import over_steps
from timtrack.tasks.reports.charts.export import pictures, save_charts
from timtrack.tasks.tables import frameworks
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import parity_tables
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tables.stored import stored_tables
from timtrack.tasks.tracking.tracker import Tracker
from timtrack.tasks.verdicts import alerts, change_points, summary
from timtrack.tasks.verdicts.assessment import Assessment, assess
from timtrack.tasks.verdicts.bands import Bands, family
from timtrack.tasks.verdicts.numbers import logged


def log_step(
    step: Step, files: Path, home: Path, bands: Bands, parity: Sequence[str], followed: bool
) -> tuple[str, str, Assessment]:
    """Metrics and files to MLflow; a link to the run, the note on it and what it says."""
    tracker = Tracker(home)
    computed = stored_tables(step)
    numbers = {f"mismatch/{name}": value for name, value in logged(computed).items()}
    numbers |= frameworks.metrics(parity_tables(step, parity), parity)
    numbers |= records.metrics_of(step)
    run_id = tracker.log_step(step, numbers, files, sql_version(), followed)
    assessment = assess(step.facts(), computed, bands)
    note = summary.markdown(step, assessment)
    tracker.note(run_id, step.step, note)
    return tracker.link(run_id), note, assessment


def renew_step(step: Step, home: Path, bands: Bands) -> None:
    """Page, `summary.json` and numbers of a logged step again; raises TrackingError."""
    tracker = Tracker(home)
    tracker.require_step(step)
    with tempfile.TemporaryDirectory(prefix="timtrack-") as folder:
        files = Path(folder) / "step"
        draw_step(step, files, bands)
        tracker.add_to_step(step, records.metrics_of(step), files)


def note_logged(step: Step, home: Path, parity: Sequence[str], link: str) -> None:
    """Mark a step as logged, last of all: until then it counts as not logged."""
    for mark in survey.logged_marks(home, parity):
        set_mark(step, mark, link)


def log_trend(run: str, into: Path, home: Path, bands: Bands) -> None:
    """The run's metrics over its steps: chart and table, to the run's artifacts in MLflow."""
    steps = [step for step in all_steps(home / "lake") if step.run == run]
    trend = run_query(steps, "from run_trend")
    changes = change_points.of_runs(trend, run_page.events(steps))
    limits = bands.for_family(family(steps[-1].facts()))
    charts = {"run_trend": over_steps.trend(trend, changes, limits)}
    save_charts(pictures(charts), into)
    cells.write_csv(changes, into / "changes.csv")
    cells.write_csv(trend, into / "run_trend.csv")
    Tracker(home).log_files(run, into, "trend")


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
    selection = [step for run in runs for step in steps_between(home / "lake", run, *steps)]
    compared = run_page.compare(selection, runs, baseline)
    with tempfile.TemporaryDirectory(prefix="timtrack-") as folder:
        files = Path(folder)
        run_page.write(compared, files, bands)
        if output:
            output.write_text((files / "comparison.html").read_text())
        tracker = Tracker(home)
        return tracker.link(tracker.log_comparison(runs, files))
