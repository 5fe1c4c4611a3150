"""Flow `watch`: analyse what the lake is missing, in step order. Safe to kill and restart.

`follow` is the loop around it on one machine: it scans the disk, and runs the flow only when there
is something to do. Schedules and workers run the flow itself.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from timtrack.flows import runner
from timtrack.flows.analyse import forget_lost, tell_of_runs
from timtrack.flows.outcomes import CapturesFailed, Outcome, Refused, SweepFailed, warn
from timtrack.flows.pipeline import take_on
from timtrack.flows.referee import rescore
from timtrack.flows.settings import Settings
from timtrack.flows.sweep_names import few, is_news, name_sweep
from timtrack.tasks import stages
from timtrack.tasks.backlog import quarantine, survey
from timtrack.tasks.backlog.quarantine import State
from timtrack.tasks.backlog.survey import Backlog
from timtrack.tasks.captures.completeness import QUIET, is_complete
from timtrack.tasks.captures.paths import Pattern
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.staging import sweep_staging
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import BadCapture, BadTables, Rival
from timtrack.tasks.system import isolation
from timtrack.tasks.tables import frameworks
from timtrack.tasks.verdicts import alerts as alerts_module
from timtrack.tasks.verdicts.alerts import LEVELS, Change, Status

LONGEST_PAUSE = 300.0  # seconds between tries while MLflow or a disk fails
LONGEST_LOOK = 30.0  # seconds between looks at the disk while these fail
HEARTBEAT = 600.0  # seconds without work after which a sweep tells Prefect that all is well


@flow(name="watch", task_runner=runner.made(runner.DEFAULT))
def watch(
    root: Path,
    home: Path,
    quiet: float = QUIET,
    pattern: str | None = None,
    marker: str | None = None,
    alerts: Path | None = None,
    columns: str | None = None,
    parity: str | None = None,
    bands: Path | None = None,
    critical_fails: bool = False,
    referee: Path | None = None,
    referee_every: int = 10,
    follows: bool = False,
) -> Any:
    """One sweep: captures below `root` that are new or changed, and steps that MLflow still lacks.

    A capture that cannot be read is set aside until it changes, unless it was written to in the
    last `quiet` seconds. `pattern` says how captures are called (tasks/captures/paths.py),
    `marker` which file beside one says that it is complete, `alerts` when a run is a warning
    (tasks/verdicts/alerts.py), `columns` what a home-made dump calls its fields
    (tasks/readers/columns.py), `parity` the frameworks under whose names numbers are logged too
    (default: TIMTRACK_PARITY), `bands` a file of bands that take precedence (default:
    TIMTRACK_BANDS), `referee` a folder of checkpoints, with which a few sequences of every
    `referee_every`-th step are scored again. With `follows`, runs that were logged to are marked
    as running in MLflow, by a process that ends that itself.

    Returns the outcomes, list[Outcome], in a state that is called `Critical: <runs>` or
    `Warning: <runs>` for as long as there are such runs. With `critical_fails`, as deployed, the
    sweep in which a run becomes critical fails (RunBecameCritical); so does one in which a capture
    failed (CapturesFailed). Both carry the outcomes.
    """
    began, settings = time.monotonic(), Settings.read(parity=parity, bands=bands)
    sweep_staging(home / "lake")
    forget_lost(home)
    watched = Watched(
        root, quiet, pattern, marker, columns=columns, parity=",".join(settings.parity)
    )
    seen = watched.look(home)
    complete = watched.complete(seen)
    before = {source.path: quarantine.state(source) for source in complete}
    outcomes = take_on(complete, home, settings, seen.unlogged, watched.named, follows)
    for outcome in outcomes:
        _note(home, outcome, columns, before.get(outcome.path))
    rescore(outcomes, home, settings, referee, referee_every)
    taken = [outcome.step for outcome in outcomes if outcome.step]
    after = watched.look(home)
    if is_news(home, root, after) or outcomes:
        stages.show_backlog(root, after, taken, time.monotonic() - began)
    logged = {outcome.step.run for outcome in outcomes if outcome.link and outcome.step}
    changes = tell_of_runs(home, logged | set(seen.unsettled), settings.bands, alerts)
    if outcomes or changes:
        stages.show_statuses(home, return_state=True)  # a failure shows in Prefect
    name_sweep(outcomes)
    return _ended(outcomes, changes, alerts_module.told(home), critical_fails)


def _note(home: Path, outcome: Outcome, columns: str | None, before: State | None) -> None:
    """Leave a bad capture alone until it changes; if that cannot be noted, it is tried again."""
    path, error = outcome.path, outcome.error
    try:
        if outcome.step:
            quarantine.clear(home, path)
        elif error and Source(path, columns).exists():
            if isinstance(error, Rival) and error.other and before is not None:
                before = before | quarantine.stamps([error.other])
            held = isinstance(error, BadCapture)
            quarantine.add(home, Source(path, columns), str(error), before, held)
    except OSError as failed:  # the disk is full, or the capture went away
        warn(f"{path} was not set aside: {failed}")


class RunBecameCritical(SweepFailed):
    """A run became critical in this sweep, whose captures were analysed."""

    def __str__(self) -> str:
        return f"a run became critical; {len(self.outcomes)} captures were analysed"


def _ended(
    outcomes: list[Outcome],
    changes: list[Change],
    statuses: Mapping[str, Status],
    critical_fails: bool,
) -> Any:
    """The outcomes, in a state that names the worst runs for as long as they are so."""
    texts = [change.text for change in changes if change.now.level in LEVELS[1:]]
    named = {level: [r for r, s in statuses.items() if s.level == level] for level in LEVELS[1:]}
    worst = next((level for level in reversed(LEVELS[1:]) if named[level]), None)
    name = f"{worst.capitalize()}: {_names(named[worst])}" if worst else None
    became = any(change.now.level == LEVELS[-1] for change in changes)
    if any(outcome.error for outcome in outcomes):
        return _failed(CapturesFailed(outcomes), name, texts)
    if became and critical_fails:
        return _failed(RunBecameCritical(outcomes), name, texts)
    return Completed(name=name, message="; ".join(texts), data=outcomes) if name else outcomes


def _failed(error: SweepFailed, name: str | None, texts: list[str]) -> Any:
    return Failed(name=name or "Failed", message="; ".join([*texts, str(error)]), data=error)


def _names(runs: list[str]) -> str:
    """A few of them."""
    return ", ".join(few(runs))


@dataclass(frozen=True)
class Watched:
    """What is watched; the fields are parameters of the flow `watch`."""

    root: Path
    quiet: float = QUIET
    pattern: str | None = None
    marker: str | None = None
    alerts: Path | None = None
    columns: str | None = None
    parity: str | None = None
    bands: Path | None = None
    referee: Path | None = None
    referee_every: int = 10
    follows: bool = False

    def look(self, home: Path) -> Backlog:
        """What is still to be done."""
        parity = frameworks.parse(self.parity or "")
        return survey.survey(self.root, home, self.pattern, self.columns, parity)

    def complete(self, seen: Backlog) -> list[Source]:
        """The pending captures that are not still being written."""
        return [source for source in seen.pending if self._is_complete(source)]

    def _is_complete(self, source: Source) -> bool:
        try:
            return is_complete(source, self.quiet, self.marker)
        except isolation.Stopped:
            raise
        except Exception:  # gone since, or no longer what it was: the others are asked
            return False

    def named(self, source: Source) -> dict[str, object]:
        """Run and step of a capture, if the pattern says them."""
        return Pattern(self.pattern).reads(source.path, self.root) if self.pattern else {}


@dataclass(frozen=True)
class Hindrance:
    """A sweep that could not be made: a server or a disk does not answer. It is tried again."""

    error: Exception
    pause: float  # seconds until then


class NothingDone(Exception):
    """A sweep that changed nothing; Prefect shows which of its tasks failed."""


Work = tuple[list[Source], list[Step], list[str]]  # captures, steps not logged, runs not told of
NO_WORK: Work = ([], [], [])


@dataclass
class _Pace:
    """When to retry failed work: at once if something is new, else later."""

    every: float
    pause: float
    again: float = 0.0
    tried: Work = NO_WORK
    in_vain: bool = False

    def waits(self, work: Work) -> bool:
        """Whether nothing changed since the last failure and the pause is not over."""
        return self.in_vain and work == self.tried and time.monotonic() < self.again

    def tries(self, work: Work, in_vain: bool) -> None:
        """This was tried; the pause grows while it is in vain."""
        self.pause = min(2 * self.pause, LONGEST_PAUSE) if in_vain else self.every
        self.again = time.monotonic() + self.pause
        self.tried, self.in_vain = work, in_vain


def follow(
    watched: Watched,
    home: Path,
    finished: Callable[[], bool] = lambda: False,
    every: float = 2.0,
    on: str = runner.DEFAULT,
) -> Iterator[Outcome | Hindrance]:
    """Sweep whenever there is something to do, until `finished` and nothing more can be done.

    Each sweep is a run of the flow `watch` with the task runner `on`. Nothing that a capture, a
    path or a server does ends it. Runs that it marked as running end with it.
    """
    try:
        yield from _swept_again(watched, home, finished, every, on)
    finally:
        if watched.follows:
            _finish(home)


def _finish(home: Path) -> None:
    """End the runs that this process marked as running in MLflow, if it logged any."""
    if "timtrack.tasks.tracking.tracker" not in sys.modules:
        return
    from timtrack.tasks.tracking.run_tags import process, still_follows
    from timtrack.tasks.tracking.tracker import Tracker

    try:
        Tracker(home).finish(lambda by: by != process() and still_follows(by))
    except Exception as error:  # whatever server or network says: the next sweep does it
        warn(f"runs were left as running in MLflow: {error}")


def _swept_again(
    watched: Watched, home: Path, finished: Callable[[], bool], every: float, on: str
) -> Iterator[Outcome | Hindrance]:
    sweep = watch.with_options(task_runner=runner.made(on))
    pace, swept = _Pace(every, every), time.monotonic()
    while True:
        last = finished()  # asked first: what was written before it was true is still found
        work, rests = pace.tried, every
        try:
            seen = watched.look(home)
            work = (watched.complete(seen), seen.unlogged, seen.unsettled)
            beats = not last and time.monotonic() - swept > HEARTBEAT
            idle = not any(work) or pace.waits(work)
            if not idle or beats:
                swept = time.monotonic()
                outcomes = _swept(sweep, watched, home)
                yield from outcomes
                idle = _is_in_vain(work, pace.tried, outcomes)
                pace.tries(work, in_vain=idle and any(work))
        except Exception as error:  # whatever a server or a disk says
            if isolation.is_stopping():  # Prefect could not even tell that it was interrupted
                raise KeyboardInterrupt from error
            runner.mend_server()
            pace.tries(work, in_vain=True)
            idle, rests = True, min(pace.pause, LONGEST_LOOK)
            yield Hindrance(error, pace.pause)
        if idle and last:
            return
        if idle:
            isolation.rest()
            time.sleep(rests)


def _is_in_vain(work: Work, before: Work, outcomes: list[Outcome]) -> bool:
    """Whether a sweep left something that only the outside can mend; raises NothingDone."""
    if not any(work):
        return True
    if work == before and not any(outcome.error for outcome in outcomes):
        raise NothingDone(_said(*work))
    return work == before or _waits(outcomes)


def _said(complete: list[Source], unlogged: list[Step], unsettled: list[str]) -> str:
    counts = {
        "captures": len(complete),
        "steps not logged": len(unlogged),
        "runs without trend or status": len(unsettled),
    }
    left = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"two sweeps left {left}; Prefect shows the task that failed"


def _waits(outcomes: list[Outcome]) -> bool:
    """Whether something is to be tried again that only the outside can mend."""
    noted = BadCapture | BadTables | Refused
    return any(o.error and not isinstance(o.error, noted) for o in outcomes)


def _swept(sweep: Callable[..., Any], watched: Watched, home: Path) -> list[Outcome]:
    try:
        return list(sweep(home=home, critical_fails=True, **vars(watched)))
    except SweepFailed as failed:
        return failed.outcomes
