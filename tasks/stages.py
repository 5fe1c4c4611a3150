"""The pipeline's Prefect tasks. Each is a name, a retry policy and one line of glue code.

One rule: tasks pass paths and small dataclasses, never tables. Only what can fail for outside
reasons is retried; a bad capture stays bad.
"""

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from timtrack.tasks.backlog import survey
from timtrack.tasks.backlog.survey import Backlog
from timtrack.tasks.captures.capture import Capture
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake import conversion
from timtrack.tasks.lake.copies import remember_source
from timtrack.tasks.lake.publish import settle_step, write_tables
from timtrack.tasks.lake.steps import (
    NoSuchStep,
    Step,
    all_steps,
    find_step,
    is_pruned,
    set_mark,
    steps_between,
)
from timtrack.tasks.messages.errors import Rival, printable
from timtrack.tasks.messages.formatting import encodable, markdown
from timtrack.tasks.referee import records
from timtrack.tasks.reports import cells, run_page, step_page
from timtrack.tasks.reports.charts import over_steps
from timtrack.tasks.reports.charts.export import save_charts, save_page
from timtrack.tasks.reports.charts.step import draw_charts
from timtrack.tasks.tables import frameworks
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tables.stored import are_computed, stored_tables

# Here, not where it is used: MLflow brings pandas, which other threads would find half imported.
from timtrack.tasks.tracking.tracker import Tracker
from timtrack.tasks.verdicts import alerts, change_points, summary
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import Bands, family
from timtrack.tasks.verdicts.numbers import logged


def _is_outside(_task: Any, _run: Any, state: Any) -> bool:
    """Retry what MLflow or the disk may get over, not what the lake does not have."""
    return not isinstance(state.result(raise_on_failure=False), NoSuchStep)


def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Retry what can pass by itself: a file system or a server that does not answer."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError) and not isinstance(error, PermissionError)


# What reads captures and writes the lake.
RETRIED: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_condition_fn": _may_pass,
}


def _identified(parameters: dict[str, Any]) -> str:
    """The name of a task run, which is in every line of its log."""
    return printable(f"identify {parameters['source'].path}")


@task(task_run_name=_identified, **RETRIED)  # type: ignore[arg-type] # a plain function will do
def identify_capture(
    source: Source,
    run: str | None = None,
    step: int | None = None,
    tokenizer: Path | None = None,
) -> Capture:
    """Open a capture far enough to know its run, step and digest."""
    return conversion.identify(source, run, step, tokenizer)


@task(task_run_name="convert {capture.name}", **RETRIED)
def convert_capture(capture: Capture, into: Path, rival: Path | None = None) -> Step:
    """Turn a capture into a step of the lake, unless it is one already."""
    if rival:
        raise Rival(
            f"{capture.path} and {rival} are different captures of {capture.name}; "
            "give one of them its own --run, or remove it",
            rival,
        )
    if there := find_step(into, capture):
        remember_source(there, capture.path, capture.stamp)
        return settle_step(there)
    return conversion.whole(capture, into)


@task(task_run_name="convert part {part} of {capture.name}", **RETRIED)
def convert_part(capture: Capture, folder: Path, part: int) -> conversion.Part:
    """One part of a capture that came in shards, into a folder aside."""
    return conversion.part(capture, folder, part)


@task(task_run_name="publish {capture.name}", **RETRIED)
def publish_parts(capture: Capture, folder: Path, parts: list[conversion.Part], into: Path) -> Step:
    """The parts in a folder, once all are there, as a step of the lake."""
    if there := find_step(into, capture):  # at a retry
        return settle_step(there)
    return conversion.published(capture, folder, parts, into)


@task(task_run_name="compute tables of {step.name}", cache_policy=NO_CACHE)
def compute_tables(step: Step) -> None:
    """Compute the step's tables with DuckDB, unless this version of the SQL did.

    Raises BadTables.
    """
    if not are_computed(step):
        write_tables(step, sql_version(), compute_step(step))


@task(task_run_name="draw {step.name}", cache_policy=NO_CACHE)
def draw_step(step: Step, into: Path, bands: Bands) -> None:
    """Report, charts, `summary.json`, `samples.json` and tables as CSV, into a folder for MLflow.

    Reads the tables that `compute_tables` stored.
    """
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
        cells.write_csv(table, into / "tables" / f"{name}.csv")


@task(
    task_run_name="log {step.name}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[1, 5, 15],
)
def log_step(step: Step, files: Path, home: Path, bands: Bands, parity: Sequence[str]) -> str:
    """Metrics and files to MLflow; a link to the run, which the Prefect UI shows too.

    With `parity`, also what these frameworks log, under their names.
    """
    tracker = Tracker(home)
    computed = stored_tables(step)
    numbers = {f"mismatch/{name}": value for name, value in logged(computed).items()}
    numbers |= frameworks.metrics(computed, parity)
    numbers |= records.metrics_of(step)
    run_id = tracker.log_step(step, numbers, files, sql_version())
    link = tracker.link(run_id)
    note = summary.markdown(step, assess(step.facts(), computed, bands), link)
    tracker.note(run_id, step.step, note)
    create_markdown_artifact(
        key=_slug(f"{step.run}-step-{step.step}"),
        markdown=note,
        description=f"Train-inference mismatch of {markdown(step.name)}",
    )
    for mark in survey.logged_marks(home, parity):  # last: until then the step counts as not logged
        set_mark(step, mark)
    return link


@task(task_run_name="renew {step.name}", cache_policy=NO_CACHE)
def renew_step(step: Step, home: Path, bands: Bands) -> None:
    """Page, `summary.json` and numbers of a logged step again, with what a referee found since.

    Raises TrackingError for a step that is not logged.
    """
    tracker = Tracker(home)
    tracker.require_step(step)
    with tempfile.TemporaryDirectory(prefix="timtrack-") as folder:
        files = Path(folder) / "step"
        _draw(step, files, bands)
        tracker.add_to_step(step, records.metrics_of(step), files)


@task(
    task_run_name="draw the trend of {run}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=10,
)
def log_trend(run: str, into: Path, home: Path, bands: Bands) -> None:
    """The run's metrics over its steps: chart and table, to the run's artifacts in MLflow."""
    steps = [step for step in all_steps(home / "lake") if step.run == run]
    trend = run_query(steps, "from run_trend")
    changes = change_points.of_runs(trend, run_page.events(steps))
    chosen = bands.for_family(family(steps[-1].facts()))
    drawn = {"run_trend": over_steps.trend(trend, changes, chosen)}
    save_charts(drawn, into)
    cells.write_csv(changes, into / "changes.csv")
    save_page(drawn, into / "run_trend.html")
    cells.write_csv(trend, into / "run_trend.csv")
    Tracker(home).log_files(run, into, "trend")


@task(task_run_name="judge {run}", cache_policy=NO_CACHE)
def judge_run(run: str, home: Path, rules: alerts.Alerts) -> alerts.Change | None:
    """How the run stands after its last steps; if that changed, an event for Prefect's automations.

    `timtrack.mismatch.<level>`, about the resource `timtrack.run.<run>`, with before, since,
    reasons and the run's name as payload.
    """
    return alerts.update(home, run, rules, _tell_prefect)


def _tell_prefect(change: alerts.Change) -> None:
    level = change.now.level.replace(" ", "-")
    emit_event(
        f"timtrack.mismatch.{level}",
        resource={
            "prefect.resource.id": f"timtrack.run.{quote(change.run, safe='')}",
            "prefect.resource.name": change.run,
        },
        payload={"run": change.run, "before": change.before, "text": change.text}
        | asdict(change.now),
    )


@task(
    task_run_name="tag {run}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=10,
)
def tag_run(run: str, home: Path) -> None:
    """The run's status as tags of its MLflow run."""
    status = alerts.told(home)[run]
    tags = {"mismatch.status": status.level, "mismatch.status_since": str(status.since)}
    Tracker(home).tag(run, tags)


@task(
    task_run_name="compare {runs}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=10,
    retry_condition_fn=_is_outside,
)
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


@task(task_run_name="show the status of the runs", cache_policy=NO_CACHE)
def show_statuses(home: Path) -> None:
    """How each run stands, as one Prefect artifact that is renewed when one changes.

    Prefect's UI takes every text in a table for Markdown.
    """
    rows = [
        {"run": markdown(run), **asdict(status), "reasons": markdown("; ".join(status.reasons))}
        for run, status in alerts.told(home).items()
    ]
    create_table_artifact(key="timtrack-status", table=rows, description="Status of the runs")


@task(task_run_name="show the backlog of {root}", cache_policy=NO_CACHE)
def show_backlog(root: Path, seen: Backlog, taken: list[Step], seconds: float) -> None:
    """How far the watcher is and how fast, as a Prefect artifact that each sweep renews."""
    create_markdown_artifact(
        key=f"watch-{_slug(root.name) or 'captures'}",
        markdown=encodable(survey.markdown(root, seen, taken, seconds)),
        description=markdown(f"Captures below {root}"),
    )


def _slug(text: str) -> str:
    """Prefect's artifact keys: lower case letters, numbers and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
