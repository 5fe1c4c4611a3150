"""The pipeline's stages. Each is a name, a rule for retries and one line of glue code.

One rule: stages pass paths and small dataclasses, never tables. Only what can fail for outside
reasons is retried; a bad capture stays bad.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from timtrack.tasks.backlog import survey
from timtrack.tasks.backlog.survey import Backlog
from timtrack.tasks.captures.capture import Capture
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake import conversion
from timtrack.tasks.lake.copies import remember_source
from timtrack.tasks.lake.publish import settle_step
from timtrack.tasks.lake.steps import (
    NoSuchStep,
    Step,
    all_steps,
    find_step,
    mark_text,
    set_mark,
)
from timtrack.tasks.messages.errors import Rival, printable
from timtrack.tasks.messages.formatting import encodable, markdown
from timtrack.tasks.pipeline import tracking
from timtrack.tasks.pipeline.stage import Retries, is_shown, stage
from timtrack.tasks.verdicts import alerts
from timtrack.tasks.verdicts.alert_rules import Alerts

if TYPE_CHECKING:
    from timtrack.tasks.verdicts.bands import Bands


def _drawing() -> Any:
    """The module that draws, for those who wait for a page and for no server.

    Where threads draw and log side by side, MLflow comes first: it brings pandas, which the charts'
    library would find half imported.
    """
    if is_shown():
        from timtrack.tasks.pipeline import outputs  # noqa: F401
    from timtrack.tasks.pipeline import drawing

    return drawing


def _is_outside(error: Exception) -> bool:
    """What MLflow or the disk may get over, not what the lake does not have."""
    return not isinstance(error, NoSuchStep)


def _may_pass(error: Exception) -> bool:
    """What can pass by itself: a file system or a server that does not answer."""
    return isinstance(error, OSError) and not isinstance(error, PermissionError)


OF_FILES = Retries((1, 5), _may_pass)  # what reads captures and writes the lake
OF_MLFLOW = Retries((10, 10, 10))


def _identified(parameters: dict[str, Any]) -> str:
    """The name of a task run, which is in every line of its log."""
    return printable(f"identify {parameters['source'].path}")


@stage(_identified, OF_FILES)
def identify_capture(
    source: Source,
    run: str | None = None,
    step: int | None = None,
    tokenizer: Path | None = None,
) -> Capture:
    """Open a capture far enough to know its run, step and digest."""
    return conversion.identify(source, run, step, tokenizer)


@stage("convert {capture.name}", OF_FILES)
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


@stage("convert part {part} of {capture.name}", OF_FILES)
def convert_part(capture: Capture, folder: Path, part: int) -> conversion.Part:
    """One part of a capture that came in shards, into a folder aside."""
    return conversion.part(capture, folder, part)


@stage("publish {capture.name}", OF_FILES)
def publish_parts(capture: Capture, folder: Path, parts: list[conversion.Part], into: Path) -> Step:
    """The parts in a folder, once all are there, as a step of the lake."""
    if step := find_step(into, capture):  # at a retry
        return settle_step(step)
    return conversion.published(capture, folder, parts, into)


@stage("compute tables of {step.name}")
def compute_tables(step: Step) -> None:
    """Compute the step's tables with DuckDB, unless this version of the SQL did.

    Raises BadTables.
    """
    _drawing().compute_tables(step)


@stage("draw {step.name}")
def draw_step(step: Step, into: Path, bands: "Bands") -> None:
    """Report, charts, `summary.json`, `samples.json` and tables as CSV, into a folder for MLflow.

    Reads the tables that `compute_tables` stored.
    """
    _drawing().draw_step(step, into, bands)


@stage("log {step.name}", Retries((1, 5, 15)))
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
    link, note, assessment = tracking.outputs(
        "log_step", step, files, home, bands, parity, followed
    )
    if is_shown():
        from prefect.artifacts import create_markdown_artifact

        create_markdown_artifact(
            key=_slug(step.run) or "run",
            markdown=note,
            description=markdown(f"{step.name}: {assessment.told}"),
        )
    for mark in survey.logged_marks(home, parity):  # last of all: until then it is not logged
        set_mark(step, mark, link)
    return str(link)


@stage("renew {step.name}")
def renew_step(step: Step, home: Path, bands: "Bands") -> None:
    """Page, `summary.json` and numbers of a logged step again, with what a referee found since.

    Raises TrackingError for a step that is not logged.
    """
    tracking.outputs("renew_step", step, home, bands)


@stage("draw the trend of {run}", OF_MLFLOW)
def log_trend(run: str, into: Path, home: Path, bands: "Bands") -> None:
    """The run's metrics over its steps: chart and table, to the run's artifacts in MLflow."""
    _drawing().draw_trend(run, into, home, bands)
    tracking.outputs("log_files", run, home, into, "trend")


@stage("judge {run}")
def judge_run(run: str, home: Path, rules: Alerts) -> alerts.Change | None:
    """How the run stands after its last steps; if that changed, an event for Prefect's automations.

    `timtrack.mismatch.<level>`, about the resource `timtrack.run.<run>`, with before, since,
    reasons and the run's name as payload.
    """
    return alerts.update(home, run, rules, _tell_prefect)


def _tell_prefect(change: alerts.Change) -> None:
    if not is_shown():
        return
    from prefect.events import emit_event

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


@stage("tag {run}", OF_MLFLOW)
def tag_run(run: str, home: Path) -> None:
    """The run's status as tags of its MLflow run."""
    tracking.outputs("tag_run", run, home)


@stage("compare {runs}", Retries(OF_MLFLOW.pauses, _is_outside))
def compare_runs(
    runs: list[str],
    home: Path,
    steps: tuple[int | None, int | None],
    baseline: str | None,
    output: Path | None,
    bands: "Bands",
) -> str:
    """The comparison page with its tables, to MLflow and to `output`; a link to it."""
    return str(tracking.outputs("compare_runs", runs, home, steps, baseline, output, bands))


def lost_runs(home: Path) -> list[Step]:
    """The steps of runs that were deleted in MLflow, which count as not logged from then on.

    Runs that a watcher left as running when it was killed are ended there.
    """
    lost: list[Step] = tracking.outputs("lost_runs", home)
    return lost


@stage("show the status of the runs")
def show_statuses(home: Path) -> None:
    """How each run stands, as one Prefect artifact that is renewed when one changes.

    Prefect's UI takes every text in a table for Markdown.
    """
    from prefect.artifacts import create_table_artifact

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


@stage("show the backlog of {root}")
def show_backlog(root: Path, seen: Backlog, taken: list[Step], seconds: float) -> None:
    """How far the watcher is and how fast, as a Prefect artifact that is renewed on a change."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(
        key=f"watch-{_slug(root.name) or 'captures'}",
        markdown=encodable(survey.markdown(root, seen, taken, seconds)),
        description=markdown(f"{root}: {survey.sentence(seen)}"),
    )


def _slug(text: str) -> str:
    """Prefect's artifact keys: lower case letters, numbers and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
