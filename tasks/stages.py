"""The pipeline's Prefect tasks. Each is a name, a retry policy and one line of glue code.

One rule: tasks pass paths and small dataclasses, never tables. Only what can fail for outside
reasons is retried; a bad capture stays bad.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

from timtrack.tasks.backlog import survey
from timtrack.tasks.backlog.survey import Backlog
from timtrack.tasks.captures.capture import Capture
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake import conversion
from timtrack.tasks.lake.copies import remember_source
from timtrack.tasks.lake.publish import settle_step
from timtrack.tasks.lake.steps import NoSuchStep, Step, all_steps, find_step, mark_text
from timtrack.tasks.messages.errors import Rival, printable
from timtrack.tasks.messages.formatting import encodable, markdown
from timtrack.tasks.verdicts import alerts
from timtrack.tasks.verdicts.alert_rules import Alerts

if TYPE_CHECKING:
    from timtrack.tasks.verdicts.bands import Bands


def is_shown() -> bool:
    """Whether Prefect runs this; outside of its runs there is nobody to show anything to."""
    return bool(FlowRunContext.get() or TaskRunContext.get())


def _drawing() -> Any:
    """The module that draws, for those who wait for a page and for no server.

    Where threads draw and log side by side, MLflow comes first: it brings pandas, which the charts'
    library would find half imported.
    """
    if is_shown():
        from timtrack.tasks import outputs  # noqa: F401
    from timtrack.tasks import drawing

    return drawing


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
    if step := find_step(into, capture):
        remember_source(step, capture.path, capture.stamp)
        return settle_step(step)
    return conversion.whole(capture, into)


@task(task_run_name="convert part {part} of {capture.name}", **RETRIED)
def convert_part(capture: Capture, folder: Path, part: int) -> conversion.Part:
    """One part of a capture that came in shards, into a folder aside."""
    return conversion.part(capture, folder, part)


@task(task_run_name="publish {capture.name}", **RETRIED)
def publish_parts(capture: Capture, folder: Path, parts: list[conversion.Part], into: Path) -> Step:
    """The parts in a folder, once all are there, as a step of the lake."""
    if step := find_step(into, capture):  # at a retry
        return settle_step(step)
    return conversion.published(capture, folder, parts, into)


@task(task_run_name="compute tables of {step.name}", cache_policy=NO_CACHE)
def compute_tables(step: Step) -> None:
    """Compute the step's tables with DuckDB, unless this version of the SQL did.

    Raises BadTables.
    """
    _drawing().compute_tables(step)


@task(task_run_name="draw {step.name}", cache_policy=NO_CACHE)
def draw_step(step: Step, into: Path, bands: "Bands") -> None:
    """Report, charts, `summary.json`, `samples.json` and tables as CSV, into a folder for MLflow.

    Reads the tables that `compute_tables` stored.
    """
    _drawing().draw_step(step, into, bands)


@task(
    task_run_name="log {step.name}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[1, 5, 15],
)
def log_step(
    step: Step,
    files: Path,
    home: Path,
    bands: "Bands",
    parity: Sequence[str],
    followed: bool = False,
) -> str:
    """Metrics and files to MLflow; a link to the run.

    With `parity`, also what these frameworks log, under their names. A run that is `followed` is
    marked as running. Prefect keeps the run's note as an artifact, a version a step.
    """
    from timtrack.tasks import outputs

    link, note, assessment = outputs.log_step(step, files, home, bands, parity, followed)
    if is_shown():
        create_markdown_artifact(
            key=_slug(step.run) or "run",
            markdown=note,
            description=markdown(f"{step.name}: {assessment.told}"),
        )
    outputs.note_logged(step, home, parity, link)
    return link


@task(task_run_name="renew {step.name}", cache_policy=NO_CACHE)
def renew_step(step: Step, home: Path, bands: "Bands") -> None:
    """Page, `summary.json` and numbers of a logged step again, with what a referee found since.

    Raises TrackingError for a step that is not logged.
    """
    from timtrack.tasks import outputs

    outputs.renew_step(step, home, bands)


@task(
    task_run_name="draw the trend of {run}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=10,
)
def log_trend(run: str, into: Path, home: Path, bands: "Bands") -> None:
    """The run's metrics over its steps: chart and table, to the run's artifacts in MLflow."""
    from timtrack.tasks import outputs

    outputs.log_trend(run, into, home, bands)


@task(task_run_name="judge {run}", cache_policy=NO_CACHE)
def judge_run(run: str, home: Path, rules: Alerts) -> alerts.Change | None:
    """How the run stands after its last steps; if that changed, an event for Prefect's automations.

    `timtrack.mismatch.<level>`, about the resource `timtrack.run.<run>`, with before, since,
    reasons and the run's name as payload.
    """
    return alerts.update(home, run, rules, _tell_prefect)


def _tell_prefect(change: alerts.Change) -> None:
    if not is_shown():
        return
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
    from timtrack.tasks import outputs

    outputs.tag_run(run, home)


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
    bands: "Bands",
) -> str:
    """The comparison page with its tables, to MLflow and to `output`; a link to it."""
    from timtrack.tasks import outputs

    return outputs.compare_runs(runs, home, steps, baseline, output, bands)


@task(task_run_name="show the status of the runs", cache_policy=NO_CACHE)
def show_statuses(home: Path) -> None:
    """How each run stands, as one Prefect artifact that is renewed when one changes.

    Prefect's UI takes every text in a table for Markdown.
    """
    links = _reports(home)
    rows = [
        {
            "run": markdown(run),
            "status": status.level,
            "since": status.since,
            "last good": status.last_good,
            "reason": markdown("; ".join(status.reasons)),
            "report": links.get(run, ""),
        }
        for run, status in alerts.told(home).items()
    ]
    create_table_artifact(key="timtrack-status", table=rows, description=alerts.counted(home))


def _reports(home: Path) -> dict[str, str]:
    """By run, a link to the report of its latest step, where MLflow has a server."""
    mark = survey.logged_mark(home)
    links = {step.run: mark_text(step, mark) for step in all_steps(home / "lake")}
    if not survey.mlflow_server():
        return {}
    page = "/artifacts/report.html?"
    return {run: f"[report]({link.replace('?', page, 1)})" for run, link in links.items() if link}


@task(task_run_name="show the backlog of {root}", cache_policy=NO_CACHE)
def show_backlog(root: Path, seen: Backlog, taken: list[Step], seconds: float) -> None:
    """How far the watcher is and how fast, as a Prefect artifact that is renewed on a change."""
    create_markdown_artifact(
        key=f"watch-{_slug(root.name) or 'captures'}",
        markdown=encodable(survey.markdown(root, seen, taken, seconds)),
        description=markdown(f"{root}: {survey.sentence(seen)}"),
    )


def _slug(text: str) -> str:
    """Prefect's artifact keys: lower case letters, numbers and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
