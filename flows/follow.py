"""The loop around the flow `watch` on one machine: it scans the disk and sweeps if there is work.

Schedules and workers run the flow itself.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timtrack.flows import runner
from timtrack.flows.outcomes import Outcome, Refused, SweepFailed, warn
from timtrack.flows.watch import watch
from timtrack.flows.watched import Watched
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import BadCapture, BadTables
from timtrack.tasks.system import isolation

LONGEST_PAUSE = 300.0  # seconds between tries while MLflow or a disk fails
LONGEST_LOOK = 30.0  # seconds between looks at the disk while these fail
HEARTBEAT = 600.0  # seconds without work after which a sweep tells Prefect that all is well


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
