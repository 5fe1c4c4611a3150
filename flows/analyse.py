"""Flow `analyse`: captures from file to MLflow, each step of a run after the one before it."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from tasks import backlog, lake, stages
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


class NotLogged(Exception):
    """The step is in the lake, but MLflow does not have it."""


class CapturesFailed(Exception):
    """Some captures failed, the others are done; `outcomes` says which."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        failed = [outcome for outcome in outcomes if outcome.error]
        first = f"first {failed[0].path}: {failed[0].error}"
        super().__init__(f"{len(failed)} of {len(outcomes)} captures failed, {first}")
        self.outcomes = outcomes


@flow(name="analyse")
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
    outcomes = take_on(paths, home, run=run, step=step, tokenizer=tokenizer)
    runs = {outcome.step.run for outcome in outcomes if outcome.link and outcome.step}
    # With other SQL or another store than before, MLflow lacks the other steps of these runs too.
    tried = {outcome.step for outcome in outcomes}
    left = [step for step in backlog.unlogged(home, runs) if step not in tried]
    return raise_if_failed(outcomes + take_on([], home, unlogged=left))


def raise_if_failed(outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes, unless one of them is an error."""
    if any(outcome.error for outcome in outcomes):
        raise CapturesFailed(outcomes)
    return outcomes


def take_on(
    paths: list[Path], home: Path, unlogged: Sequence[Step] = (), **given: Any
) -> list[Outcome]:
    """Captures from file to MLflow in step order, then lake steps that MLflow still lacks.

    The lake never waits for MLflow: after the first step that cannot be logged, the others are
    converted without trying, and the next call catches up.
    """
    found: list[Capture] = []
    outcomes: list[Outcome] = []
    for path in paths:
        state = stages.identify_capture(path, return_state=True, **given)
        result = state.result(raise_on_failure=False)
        if isinstance(result, Capture):
            found.append(result)
        else:
            outcomes.append(_tell(Outcome(path, error=result)))
    log = _Log(home)
    for capture, rival in _in_step_order(found, home / "lake"):
        outcomes.append(_tell(log.outcome(capture.path, *_converted(capture, rival, home))))
    for step in (step for step in unlogged if step.path.exists()):  # not replaced just now
        outcomes.append(_tell(log.outcome(Path(step.facts()["source"]), step, None)))
    log.trends()
    return outcomes


def _tell(outcome: Outcome) -> Outcome:
    if told := listener.get():
        told(outcome)
    return outcome


def _in_step_order(found: list[Capture], into: Path) -> Iterator[tuple[Capture, Path | None]]:
    """Captures by run and step, each with another file that holds another capture of that step."""
    sources = {(step.run, step.step): Path(step.facts()["source"]) for step in lake.steps(into)}
    first: dict[tuple[str, int], Capture] = {}
    for capture in sorted(found, key=lambda c: (c.run, c.step)):
        rival = first.setdefault((capture.run, capture.step), capture)
        if rival.id != capture.id:
            yield capture, rival.path
        else:
            source = sources.get((capture.run, capture.step), capture.path)
            taken = source != capture.path and source.exists() and not lake.find(into, capture)
            yield capture, source if taken else None


def _converted(
    capture: Capture, rival: Path | None, home: Path
) -> tuple[Step | None, Exception | None]:
    """The step in the lake, or why there is none."""
    try:
        step = stages.convert_capture(capture, home / "lake", rival)
    except Exception as error:  # the other captures go on, and the flow run ends as failed
        return None, error
    return step, None


class _Log:
    """Logs steps until MLflow fails, and says of the others that they wait."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.failure: Exception | None = None
        self.runs: dict[str, None] = {}  # logged to, in order

    def outcome(self, path: Path, step: Step | None, error: Exception | None) -> Outcome:
        """What became of a capture, once its step is logged or cannot be."""
        if step is None:
            return Outcome(path, error=error)
        with tempfile.TemporaryDirectory(prefix="timtrack-") as files:
            try:
                stages.compute_tables(step)
                stages.draw_step(step, Path(files))
            except Exception as failure:  # this step's own; the others go on
                return Outcome(path, step, error=failure)
            return self._logged(path, step, Path(files))

    def _logged(self, path: Path, step: Step, files: Path) -> Outcome:
        if self.failure:
            waits = NotLogged(f"analysed, waits for MLflow, which failed before: {self.failure}")
            return Outcome(path, step, error=waits)
        try:
            link = stages.log_step(step, files, self.home)
        except Exception as failure:  # whatever server or network says
            self.failure = failure
            error = NotLogged(f"analysed, not logged to MLflow: {failure}")
            return Outcome(path, step, error=error)
        self.runs[step.run] = None
        return Outcome(path, step, link)

    def trends(self) -> None:
        """The curves of the runs that were logged to."""
        for run in self.runs:
            with tempfile.TemporaryDirectory(prefix="timtrack-") as files:
                # A failure shows in Prefect; the steps are logged, the next one draws it anew.
                stages.log_trend(run, Path(files), self.home, return_state=True)
