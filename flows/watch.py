"""Flow `watch`: analyse what the lake is missing, in step order. Safe to kill and restart."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from timtrack.flows import runner
from timtrack.flows.analyse import forget_lost, tell_of_runs
from timtrack.flows.outcomes import CapturesFailed, Outcome, SweepFailed, warn
from timtrack.flows.pipeline import take_on
from timtrack.flows.referee import rescore
from timtrack.flows.settings import Settings
from timtrack.flows.sweep_names import few, is_news, name_sweep
from timtrack.flows.watched import Watched
from timtrack.tasks.backlog import quarantine
from timtrack.tasks.backlog.quarantine import State
from timtrack.tasks.captures.completeness import QUIET
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.staging import sweep_staging
from timtrack.tasks.messages.errors import BadCapture, Rival
from timtrack.tasks.pipeline import stages
from timtrack.tasks.verdicts import alerts as alerts_module
from timtrack.tasks.verdicts.alert_rules import LEVELS
from timtrack.tasks.verdicts.alerts import Change
from timtrack.tasks.verdicts.standing import Status


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
    (tasks/verdicts/alert_rules.py), `columns` what a home-made dump calls its fields
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
    steps = [outcome.step for outcome in outcomes if outcome.step]
    after = watched.look(home)
    if is_news(home, root, after) or outcomes:
        stages.show_backlog.task(root, after, steps, time.monotonic() - began)
    logged = {outcome.step.run for outcome in outcomes if outcome.link and outcome.step}
    changes = tell_of_runs(home, logged | set(seen.unsettled), settings.bands, alerts)
    if outcomes or changes:
        stages.show_statuses.task(home, return_state=True)  # a failure shows in Prefect
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
            is_bad = isinstance(error, BadCapture)
            quarantine.add(home, Source(path, columns), str(error), before, is_bad)
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
    runs = {level: [r for r, s in statuses.items() if s.level == level] for level in LEVELS[1:]}
    worst = next((level for level in reversed(LEVELS[1:]) if runs[level]), None)
    name = f"{worst.capitalize()}: {_names(runs[worst])}" if worst else None
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
