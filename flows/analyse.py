"""Analyse captures, from file to MLflow, the steps of each run in order."""

import tempfile
from pathlib import Path

from timtrack.flows import execution
from timtrack.flows.outcomes import Outcome, change_listener, raise_if_failed, warn
from timtrack.flows.pipeline import take_on
from timtrack.flows.settings import Settings
from timtrack.tasks.backlog import asked, survey
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.pipeline import stages
from timtrack.tasks.verdicts import alert_rules, alerts
from timtrack.tasks.verdicts.alert_rules import Alerts, BadAlerts
from timtrack.tasks.verdicts.alerts import Change
from timtrack.tasks.verdicts.bands import Bands


def analyse(
    paths: list[Path],
    home: Path,
    run: str | None = None,
    step: int | None = None,
    tokenizer: Path | None = None,
    columns: str | None = None,
    parity: str | None = None,
    bands: Path | None = None,
) -> list[Outcome]:
    """Analyse captures; one that fails does not stop the others.

    The lake and, without MLFLOW_TRACKING_URI, the MLflow store are in `home`. `parity` names
    frameworks under whose names numbers are logged too (default: TIMTRACK_PARITY), `bands` a file
    of bands that take precedence (default: TIMTRACK_BANDS). Raises CapturesFailed
    at the end if any capture failed, so that the flow run shows it.
    """
    settings = Settings.read(parity=parity, bands=bands)
    given = {"run": run, "step": step, "tokenizer": tokenizer}
    sources = [Source(path, columns) for path in paths]
    outcomes = take_on(sources, home, settings, given=lambda source: given)
    runs = {outcome.step.run for outcome in outcomes if outcome.link and outcome.step}
    # With other SQL or another store than before, MLflow lacks the other steps of these runs too.
    tried = {outcome.step for outcome in outcomes}
    left = [step for step in survey.unlogged(home, runs, settings.parity) if step not in tried]
    outcomes += take_on([], home, settings, unlogged=left)
    logged = {outcome.step.run for outcome in outcomes if outcome.link and outcome.step}
    tell_of_runs(home, logged, settings.bands)
    forget_lost(home)
    return raise_if_failed(outcomes)


def tell_of_runs(
    home: Path, runs: set[str], bands: Bands, given: Path | None = None
) -> list[Change]:
    """Trend and status of the runs that were logged to; of those whose status changed, how.

    Raises BadAlerts for a bad file of rules. A run that cannot be told of (which shows in Prefect)
    or is killed before is told of by the next sweep.
    """
    logged = survey.settlements(home)  # before: what is logged meanwhile is told of then
    drawn = {run for run in sorted(runs) if _is_trend_drawn(run, home, bands)}
    changes = _judged(home, bands, given)
    for run in sorted(drawn & logged.keys()):
        if execution.is_done(stages.tag_run, run, home):
            survey.settle(home, run, logged[run])
    return changes


def forget_lost(home: Path) -> None:
    """Have runs that were deleted in MLflow logged again by the next sweep, if it can be asked.

    Runs that a watcher left as running when it was killed are ended there.
    """
    if not all_steps(home / "lake") or not asked.is_due(home):
        return
    try:
        lost = stages.lost_runs(home)
    except Exception as error:  # whatever server or network says: the sweep goes on
        warn(f"MLflow was not asked for its runs: {error}")
        return
    if lost:
        runs = ", ".join(sorted({step.run for step in lost}))
        warn(f"{runs}: not in MLflow any more, logged again")


def _is_trend_drawn(run: str, home: Path, bands: Bands) -> bool:
    with tempfile.TemporaryDirectory(prefix="timtrack-") as files:
        return execution.is_done(stages.log_trend, run, Path(files), home, bands)


def _judged(home: Path, bands: Bands, given: Path | None) -> list[Change]:
    """The runs whose status changed.

    Of a file of rules that was good once, the last good ones are kept: it may be half written.
    """
    rules = _rules(home, bands, given)
    runs = alerts.unjudged(home, rules)
    judged = (execution.call(stages.judge_run, run, home, rules) for run in runs)
    changes = [change for change in judged if change]
    if announce := change_listener.get():
        for change in changes:
            announce(change)
    return changes


_good_rules: dict[tuple[Path, Path | None], Alerts] = {}  # of this process


def _rules(home: Path, bands: Bands, given: Path | None) -> Alerts:
    try:
        _good_rules[home, given] = alert_rules.of_home(home, given, bands)
    except BadAlerts as error:
        if (home, given) not in _good_rules:
            raise
        warn(f"{error}; judged by the rules that it had before")
    return _good_rules[home, given]
