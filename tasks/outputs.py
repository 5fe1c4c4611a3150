"""What the stages draw and log: charts, pages, tables, MLflow.

Everything here takes seconds to import, so stages import it when they run. Through this one module:
MLflow brings pandas, which other threads would find half imported.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from timtrack.tasks.backlog import survey
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.lake.steps import Step, all_steps, is_pruned, set_mark, steps_between
from timtrack.tasks.referee import records
from timtrack.tasks.reports import cells, run_page, step_page
from timtrack.tasks.reports.charts import over_steps
from timtrack.tasks.reports.charts.export import pictures, save_charts
from timtrack.tasks.reports.charts.step import draw_charts
from timtrack.tasks.tables import frameworks
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step, parity_tables
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tables.stored import are_computed, stored_tables
from timtrack.tasks.tracking.tracker import Tracker
from timtrack.tasks.verdicts import alerts, change_points, summary
from timtrack.tasks.verdicts.assessment import Assessment, assess
from timtrack.tasks.verdicts.bands import Bands, family
from timtrack.tasks.verdicts.numbers import logged

# What a table's CSV begins with, where it has them: MLflow shows the first columns.
TOLD_FIRST = ("pos", "token", "ratio", "p_rollout", "p_train", "logp_rollout", "logp_train")


def compute_tables(step: Step) -> None:
    """Compute the step's tables with DuckDB, unless this version of the SQL did."""
    if not are_computed(step):
        write_tables(step, sql_version(), compute_step(step))


def draw_step(step: Step, into: Path, bands: Bands) -> None:
    """Report, charts, `summary.json`, `samples.json` and tables as CSV, into a folder."""
    try:
        _draw(step, into, bands)
    except Exception:
        if not is_pruned(step):
            raise
        shutil.rmtree(into)  # its tokens went while they were read: without them
        _draw(step, into, bands)


def _draw(step: Step, into: Path, bands: Bands) -> None:
    into.mkdir(parents=True)
    computed = stored_tables(step)
    assessment = assess(step.facts(), computed, bands)
    drawn = draw_charts(computed)
    save_charts(drawn, into)
    step_page.write(step, computed, drawn, assessment, into)
    summary.write(step, assessment, into / "summary.json")
    records.write_files(step, into / "referee")
    (into / "tables").mkdir()
    for name, table in computed.items():
        cells.write_csv(_tokens_first(table), into / "tables" / f"{name}.csv")


def _tokens_first(table: pl.DataFrame) -> pl.DataFrame:
    """A table of single tokens with what is asked of them first; any other as it is."""
    if not {"token", "ratio"} <= {*table.columns}:
        return table
    first = [name for name in TOLD_FIRST if name in table.columns]
    return table.select(*first, pl.exclude(first))


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
        _draw(step, files, bands)
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
    chosen = bands.for_family(family(steps[-1].facts()))
    drawn = {"run_trend": over_steps.trend(trend, changes, chosen)}
    save_charts(pictures(drawn), into)
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
    chosen = [step for run in runs for step in steps_between(home / "lake", run, *steps)]
    compared = run_page.compare(chosen, runs, baseline)
    with tempfile.TemporaryDirectory(prefix="timtrack-") as folder:
        files = Path(folder)
        run_page.write(compared, files, bands)
        if output:
            output.write_text((files / "comparison.html").read_text())
        tracker = Tracker(home)
        return tracker.link(tracker.log_comparison(runs, files))
