"""Flow `watch`: analyse what the lake lacks, in step order. It may be killed and run again.

`follow` is the loop around it for one machine: a plain look at the disk, and a flow run only when
there is something to do. Schedules and workers run the flow itself.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prefect import flow

from flows.analyse import CapturesFailed, Outcome, raise_if_failed, take_on
from tasks import backlog, captures, lake, quarantine, stages
from tasks.tokens import BadCapture

# Seconds without a write after which an unreadable file is called bad, not unfinished.
QUIET = 30.0
LONGEST_PAUSE = 300.0  # seconds between tries while MLflow does not answer


@flow(name="watch")
def watch(root: Path, home: Path, quiet: float = QUIET) -> list[Outcome]:
    """One sweep: captures below `root` that are new or changed, and steps that MLflow still lacks.

    A capture that cannot be read is set aside until it changes, unless it was written to in the
    last `quiet` seconds. Raises CapturesFailed at the end if any failed.
    """
    lake.sweep_staging(home / "lake")
    seen = backlog.survey(root, home)
    paths = [path for path in seen.pending if not is_unfinished(path, quiet)]
    outcomes = take_on(paths, home, unlogged=seen.unlogged)
    for outcome in outcomes:
        if isinstance(outcome.error, BadCapture) and outcome.path.exists():
            quarantine.add(home, outcome.path, str(outcome.error))
        elif outcome.step:
            quarantine.clear(home, outcome.path)
    stages.show_backlog(root, home)
    return raise_if_failed(outcomes)


def is_unfinished(path: Path, quiet: float) -> bool:
    """Whether a file was written to a moment ago and cannot be read yet."""
    if not path.exists() or time.time() - path.stat().st_mtime > quiet:
        return False
    try:
        captures.read(path)
    except BadCapture:
        return True
    return False


def follow(
    root: Path,
    home: Path,
    finished: Callable[[], bool] = lambda: False,
    every: float = 2.0,
    quiet: float = QUIET,
) -> Iterator[Outcome]:
    """Sweep whenever there is something to do, until `finished` and nothing is left."""
    pause = every
    while True:
        last = finished()  # asked first: what was written before it was true is still found
        seen = backlog.survey(root, home)
        if any(not is_unfinished(path, quiet) for path in seen.pending) or seen.unlogged:
            outcomes = _swept(root, home, quiet)
            yield from outcomes
            stuck = any(outcome.step and outcome.error for outcome in outcomes)
            pause = min(2 * pause, LONGEST_PAUSE) if stuck else every
            if stuck:
                time.sleep(pause)
        elif last:
            return
        else:
            time.sleep(every)


def _swept(root: Path, home: Path, quiet: float) -> list[Outcome]:
    try:
        return watch(root, home, quiet)
    except CapturesFailed as failed:
        return failed.outcomes
