"""Flow `analyse`: captures from file to MLflow, each step of a run after the one before it."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from tasks import stages
from tasks.captures import Capture
from tasks.lake import Step

# Told of each outcome as it comes; the command line sets it to draw progress.
listener: ContextVar[Callable[["Outcome"], None] | None] = ContextVar("listener", default=None)


@dataclass(frozen=True)
class Outcome:
    """What became of one capture: a step and its link, or an error."""

    path: Path
    step: Step | None = None
    link: str | None = None
    error: Exception | None = None
    seconds: float = 0.0


class CapturesFailed(Exception):
    """Some captures failed, the others are done; `outcomes` says which."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        failed = [outcome for outcome in outcomes if outcome.error]
        first = f"first {failed[0].path}: {failed[0].error}"
        super().__init__(f"{len(failed)} of {len(outcomes)} captures failed, {first}")
        self.outcomes = outcomes


@flow(name="analyse", log_prints=False)
def analyse(
    paths: list[Path],
    home: Path,
    run: str | None = None,
    step: int | None = None,
    tokenizer: Path | None = None,
) -> list[Outcome]:
    """Analyse captures; one that fails does not stop the others.

    The lake and, without MLFLOW_TRACKING_URI, the MLflow store are in `home`. Raises CapturesFailed
    at the end if any capture failed, so that the flow run shows it.
    """
    found: list[Capture] = []
    outcomes: list[Outcome] = []
    for path in paths:
        state = stages.identify_capture(path, run, step, tokenizer, return_state=True)
        result = state.result(raise_on_failure=False)
        if isinstance(result, Capture):
            found.append(result)
        else:
            outcomes.append(_tell(Outcome(path, error=result)))
    for capture, rival in _in_step_order(found):
        outcomes.append(_tell(_analyse_one(capture, rival, home)))
    _log_trends({outcome.step.run for outcome in outcomes if outcome.step and outcome.link}, home)
    if any(outcome.error for outcome in outcomes):
        raise CapturesFailed(outcomes)
    return outcomes


def _tell(outcome: Outcome) -> Outcome:
    if told := listener.get():
        told(outcome)
    return outcome


def _in_step_order(found: list[Capture]) -> Iterator[tuple[Capture, Path | None]]:
    """Captures by run and step, each with an earlier one that claims the same step, if any."""
    first: dict[tuple[str, int], Capture] = {}
    for capture in sorted(found, key=lambda c: (c.run, c.step)):
        rival = first.setdefault((capture.run, capture.step), capture)
        yield capture, rival.path if rival.id != capture.id else None


def _analyse_one(capture: Capture, rival: Path | None, home: Path) -> Outcome:
    started = time.monotonic()
    converted = stages.convert_capture(capture, home / "lake", rival, return_state=True)
    step = converted.result(raise_on_failure=False)
    if not isinstance(step, Step):
        return Outcome(capture.path, error=step)
    try:
        stages.compute_tables(step)
        with tempfile.TemporaryDirectory(prefix="timtrack-") as files:
            stages.draw_step(step, Path(files))
            link = stages.log_step(step, Path(files), home)
    except Exception as error:  # the other captures go on, and the flow run ends as failed
        return Outcome(capture.path, step, error=error)
    return Outcome(capture.path, step, link, seconds=time.monotonic() - started)


def _log_trends(runs: set[str], home: Path) -> None:
    for run in sorted(runs):
        with tempfile.TemporaryDirectory(prefix="timtrack-") as files:
            stages.log_trend(run, Path(files), home)
