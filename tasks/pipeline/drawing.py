"""What the stages compute and draw of a step: tables, charts, its page. Imports no MLflow."""

import shutil
from pathlib import Path

import polars as pl

from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.lake.steps import Step, all_steps, is_pruned
from timtrack.tasks.messages import cells
from timtrack.tasks.reports import run_page, step_page
from timtrack.tasks.reports.charts import over_steps
from timtrack.tasks.reports.charts.export import pictures, save_charts
from timtrack.tasks.reports.charts.step import draw_charts
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tables.stored import are_computed, stored_tables
from timtrack.tasks.verdicts import change_points, rescoring, summary
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import Bands, family

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
    charts = draw_charts(computed)
    save_charts(charts, into)
    step_page.write(step, computed, charts, assessment, into)
    summary.write(step, assessment, into / "summary.json")
    rescoring.write_files(step, into / "referee")
    (into / "tables").mkdir()
    for name, table in computed.items():
        cells.write_csv(_tokens_first(table), into / "tables" / f"{name}.csv")


def _tokens_first(table: pl.DataFrame) -> pl.DataFrame:
    """A table of single tokens with what is asked of them first; any other as it is."""
    if not {"token", "ratio"} <= {*table.columns}:
        return table
    first = [name for name in TOLD_FIRST if name in table.columns]
    return table.select(*first, pl.exclude(first))


def draw_trend(run: str, into: Path, home: Path, bands: Bands) -> None:
    """The run's metrics over its steps and when they changed: chart and tables, into a folder."""
    steps = [step for step in all_steps(home / "lake") if step.run == run]
    trend = run_query(steps, "from run_trend")
    changes = change_points.of_runs(trend, run_page.events(steps))
    limits = bands.for_family(family(steps[-1].facts()))
    save_charts(pictures({"run_trend": over_steps.trend(trend, changes, limits)}), into)
    cells.write_csv(changes, into / "changes.csv")
    cells.write_csv(trend, into / "run_trend.csv")
