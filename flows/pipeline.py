"""The pipeline: `take_on` hands each capture's stages to the flow's task runner.

Steps are prepared concurrently and logged in order; the lake never waits for MLflow.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timtrack.flows import execution
from timtrack.flows.outcomes import NotLogged, Outcome, Refused, tell_of, tell_ready, warn
from timtrack.flows.settings import Settings
from timtrack.tasks.backlog import refusals, survey
from timtrack.tasks.captures.capture import Capture
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import parts_of
from timtrack.tasks.lake.staging import scratch_folder
from timtrack.tasks.lake.steps import Step, all_steps, find_step, has_other_capture
from timtrack.tasks.messages.errors import BadTables
from timtrack.tasks.pipeline import stages
from timtrack.tasks.tables.catalogue import sql_version

AHEAD = 8  # captures begun beyond the one that is being logged


def take_on(
    sources: list[Source],
    home: Path,
    settings: Settings,
    unlogged: Sequence[Step] = (),
    given: Callable[[Source], dict[str, Any]] = lambda source: {},
    followed: bool = False,
) -> list[Outcome]:
    """Captures from file to MLflow in step order, then lake steps that MLflow still lacks.

    `given` says what is known of a capture besides its files: run, step, tokenizer; runs that
    are `followed` are marked as running in MLflow. The flow's task
    runner prepares steps side by side; MLflow is told of them in order. The lake never waits for
    MLflow: after the first step that cannot be logged, the others are converted without trying, and
    the next call catches up.
    """
    captures, outcomes = _identified(sources, given)
    into = home / "lake"
    files = scratch_folder(into)
    work, log = _Work(files, settings), _Log(home, settings, followed)
    try:
        fresh = (work.begin(*pair, into) for pair in _in_step_order(captures, into))
        outcomes += [log.outcome(begun) for begun in _ahead(fresh)]
        done = {outcome.step for outcome in outcomes}
        steps = (step for step in unlogged if step not in done and step.path.exists())
        waiting = map(work.take_up, steps)  # but not what was done or replaced just now
        outcomes += [log.outcome(begun) for begun in _ahead(waiting)]
    finally:
        shutil.rmtree(files, ignore_errors=True)
    return outcomes


def _identified(
    sources: list[Source], given: Callable[[Source], dict[str, Any]]
) -> tuple[list[Capture], list[Outcome]]:
    """The captures, and what became of the files that are none."""
    futures = [(s.path, execution.submit(stages.identify_capture, s, **given(s))) for s in sources]
    results = [(path, _result(future)) for path, future in futures]
    failures = [tell_of(Outcome(p, error=r)) for p, r in results if isinstance(r, Exception)]
    return [result for _, result in results if isinstance(result, Capture)], failures


def _result(future: Any) -> Any:
    """A task's result, or what it raised."""
    try:
        return future.result(raise_on_failure=False)
    except Exception as error:  # the runner itself: a worker process died
        return error


def _in_step_order(found: list[Capture], into: Path) -> Iterator[tuple[Capture, Path | None]]:
    """Captures by run and step, each with another file that holds another capture of that step."""
    keys = {(capture.run, capture.step) for capture in found}
    stored = [step for step in all_steps(into) if (step.run, step.step) in keys]
    sources = {(step.run, step.step): Path(step.facts()["source"]) for step in stored}
    first: dict[tuple[str, int], Capture] = {}
    for capture in sorted(found, key=lambda c: (c.run, c.step)):
        rival = first.setdefault((capture.run, capture.step), capture)
        if rival.id != capture.id:
            yield capture, rival.path
        else:
            source = sources.get((capture.run, capture.step), capture.path)
            yield capture, source if _is_taken(capture, source, into) else None


def _is_taken(capture: Capture, source: Path, into: Path) -> bool:
    """Whether the step belongs to another capture whose file still exists.

    A rank's file is no other one: the first one of a step may come last.
    """
    if source in capture.source.files() or not Source(source).exists() or find_step(into, capture):
        return False
    return not capture.source.supersedes(source)


@dataclass(frozen=True)
class _Begun:
    """A capture in progress; `step` is its step in the lake, once there is one."""

    path: Path
    step: Any  # Step, or the future of one
    tables: Any
    drawn: Any
    files: Path
    parts: Sequence[Any] = ()  # futures of what the step is put together from
    is_again: bool = False

    def end(self) -> tuple[Step | None, Exception | None]:
        """The step once it is ready to be logged, and the error if it is not."""
        parts = [_result(part) for part in self.parts]  # all: none goes on in a folder that goes
        if error := next((part for part in parts if isinstance(part, Exception)), None):
            return None, error
        step = self.step if isinstance(self.step, Step) else _result(self.step)
        if not isinstance(step, Step):
            return None, step
        failures = (r for r in map(_result, (self.tables, self.drawn)) if isinstance(r, Exception))
        return step, next(failures, None)


class _Work:
    """Hands the stages of captures to the flow's task runner."""

    def __init__(self, files: Path, settings: Settings) -> None:
        self.files = files
        self.settings = settings
        self.begun = 0

    def begin(self, capture: Capture, rival: Path | None, into: Path) -> _Begun:
        """From the file on."""
        is_again = has_other_capture(into, capture)
        if capture.shards > 1 and not rival and not find_step(into, capture):
            job = self._in_parts(capture, into)
        else:
            converted = execution.submit(stages.convert_capture, capture, into, rival)
            job = self._further(capture.path, converted)
        return replace(job, is_again=is_again)

    def _in_parts(self, capture: Capture, into: Path) -> _Begun:
        """A capture in shards: its parts side by side, wherever the task runner has room."""
        folder = self.files / f"parts-{self.begun}"
        folder.mkdir(parents=True)
        numbers = range(parts_of(capture))
        convert = stages.convert_part
        parts: list[Any] = [execution.submit(convert, capture, folder, n) for n in numbers]
        whole = execution.submit(stages.publish_parts, capture, folder, parts, into)
        return replace(self._further(capture.path, whole), parts=parts)

    def take_up(self, step: Step) -> _Begun:
        """From the lake on."""
        return self._further(Path(step.facts()["source"]), step)

    def _further(self, path: Path, step: Any) -> _Begun:
        self.begun += 1
        files = self.files / str(self.begun)
        computed = execution.submit(stages.compute_tables, step)
        if execution.is_done_now(computed):  # who waits for the answer need not wait for charts
            tell_ready(step if isinstance(step, Step) else step.result())
        bands = self.settings.bands
        drawing = execution.submit(stages.draw_step, step, files, bands, after=[computed])
        return _Begun(path, step, computed, drawing, files)


def _ahead(work: Iterator[_Begun]) -> Iterator[_Begun]:
    """Begins a few before the first is asked for, not all: what they draw waits on the disk."""
    queue: deque[_Begun] = deque()
    for one in work:
        queue.append(one)
        if len(queue) > AHEAD:
            yield queue.popleft()
    yield from queue


class _Log:
    """Logs steps until MLflow does not answer, and says of the others that they wait."""

    def __init__(self, home: Path, settings: Settings, followed: bool) -> None:
        self.home = home
        self.settings = settings
        self.followed = followed
        self.failure: Exception | None = None

    def outcome(self, begun: _Begun) -> Outcome:
        """What became of a capture, once its step is logged or cannot be."""
        step, error = begun.end()
        if step and isinstance(error, BadTables):
            _note_refusal(step, sql_version(), error)
        if step is None or error:
            return tell_of(Outcome(begun.path, step, error=error))
        if not execution.is_done_now(begun.tables):  # else it was announced before its charts
            tell_ready(step)
        try:
            logged = self._logged(begun.path, step, begun.files)
            return tell_of(replace(logged, is_again=begun.is_again))
        finally:
            shutil.rmtree(begun.files, ignore_errors=True)

    def _logged(self, path: Path, step: Step, files: Path) -> Outcome:
        if self.failure:
            waits = NotLogged(f"analysed, waits for MLflow, which failed before: {self.failure}")
            return Outcome(path, step, error=waits)
        try:
            bands, parity = self.settings.bands, self.settings.parity
            how = (self.home, bands, parity, self.followed)
            link = execution.call(stages.log_step, step, files, *how)
        except Exception as failure:  # whatever server or network says
            return Outcome(path, step, error=self._not_logged(step, failure))
        refusals.clear(step)
        return Outcome(path, step, link)

    def _not_logged(self, step: Step, failure: Exception) -> NotLogged:
        """Blames the step if MLflow accepts other steps, else MLflow."""
        if _mlflow_answers(self.home):
            _note_refusal(step, survey.logged_mark(self.home), failure)
            return Refused(f"analysed, refused by MLflow: {failure}")
        self.failure = failure
        return NotLogged(f"analysed, not logged to MLflow: {failure}")


def _mlflow_answers(home: Path) -> bool:
    from timtrack.tasks.tracking.tracker import Tracker

    try:
        return Tracker(home).answers()
    except Exception:  # a local store that cannot be made
        return False


def _note_refusal(step: Step, by: str, error: Exception) -> None:
    try:
        refusals.add(step, by, str(error))
    except OSError as failed:  # the disk is full, or the step was replaced
        warn(f"{step.name}: refusal not noted: {failed}")
