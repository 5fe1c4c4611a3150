"""Run status (healthy, warning, critical) by rules over its last steps, reported only on change.

Rules come from `alerts.toml`, or are the bands of the report. A status worsens after a few worse
steps in a row and improves after more better ones, so that noise around a threshold is reported
once.
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from timtrack.tasks.lake.steps import Step, all_steps, is_bypass
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.messages.formatting import number
from timtrack.tasks.system import durable
from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.tables.compute import tables_of
from timtrack.tasks.tables.stored import are_computed
from timtrack.tasks.verdicts import early, gate
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import LEVELS as BAND_LEVELS
from timtrack.tasks.verdicts.bands import OURS, Bands
from timtrack.tasks.verdicts.gate import Rule
from timtrack.tasks.verdicts.numbers import LOGGED_FROM, logged

NAME = "alerts.toml"  # in the home
LEVELS = ("healthy", "warning", "critical")
COUNTS = ("after", "recover")
NOT_MEASURED = "not measured"
KEYS = {*COUNTS, *LEVELS[1:]}


class BadAlerts(TimtrackError):
    """A file of alerts is not what it should be."""


@dataclass(frozen=True)
class Alerts:
    """When a step is a warning or critical; without rules, by the bands of its family."""

    rules: Mapping[str, tuple[Rule, ...]] | None = None  # by level
    bands: Bands = OURS
    after: int = 2  # worse steps in a row that make a run worse
    recover: int = 5  # better steps in a row that make it better


@dataclass(frozen=True)
class Status:
    """How a run stands, since which step, and why."""

    level: str  # of LEVELS, or not measured
    since: int  # first step of those that made it so
    reasons: tuple[str, ...]
    last_good: int | None = None  # the last healthy step before it, if any


@dataclass(frozen=True)
class Seen:
    """One step: how bad it is, an index of LEVELS, and which of its numbers say so."""

    step: int
    level: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """A run's status differs from the one last reported."""

    run: str
    before: str
    now: Status

    @property
    def text(self) -> str:
        """In a line."""
        now = self.now
        why = f": {'; '.join(now.reasons)}" if now.reasons else ""
        good = "" if now.last_good is None else f" (last good step: {now.last_good})"
        return f"{self.run} is {now.level} since step {now.since}{good}{why}"


def read(path: Path, bands: Bands = OURS) -> Alerts:
    """The rules of a file; raises BadAlerts."""
    try:
        told = tomllib.loads(path.read_text())
        if unknown := set(told) - KEYS:
            raise BadAlerts(f"unknown {', '.join(sorted(unknown))}; there are {sorted(KEYS)}")
        rules = {level: _rules(told.get(level, [])) for level in LEVELS[1:]}
        counts = {key: _steps(key, told[key]) for key in COUNTS if key in told}
        return Alerts(rules=rules if any(rules.values()) else None, bands=bands, **counts)
    except (OSError, ValueError, RecursionError, TimtrackError) as error:
        raise BadAlerts(f"{path}: {error}") from error


def of_home(home: Path, given: Path | None = None, bands: Bands = OURS) -> Alerts:
    """The rules of a file that was asked for, else of the home's, else the bands."""
    if given is None and not (home / NAME).exists():
        return Alerts(bands=bands)
    return read(given or home / NAME, bands)


def _steps(key: str, count: Any) -> int:
    if type(count) is not int or count < 1:
        raise BadAlerts(f"{key} is {count!r}, expected a whole number of steps from 1 on")
    return count


def _rules(texts: Any) -> tuple[Rule, ...]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadAlerts(f"{texts!r} is not a list of rules like 'kl_k3 < 0.01'")
    rules = tuple(gate.parse(text) for text in texts)
    known = catalogue()["step_metrics"].columns
    for rule in rules:
        if rule.over:
            raise BadAlerts(f"{rule.text!r}: an alert is about single steps, without {rule.over}()")
        if rule.metric not in known and not rule.metric.startswith("whatif/"):
            raise BadAlerts(f"{rule.text!r}: step_metrics has no {rule.metric}")
    return rules


def unjudged(home: Path, alerts: Alerts) -> list[str]:
    """Runs with a step that was not judged yet, or judged by other rules."""
    known = _records(home)
    return [
        run
        for run, steps in _by_run(home).items()
        if known.get(run, {}).get("judged") != _judgements(steps, alerts)[-1]
    ]


def update(home: Path, run: str, alerts: Alerts, tell: Callable[[Change], None]) -> Change | None:
    """Judge a run by its steps; `tell` is called if its status differs from the last reported one.

    What was told is remembered after `tell` came back: whoever is killed in between is told again.
    """
    with FileLock(home / ".status.lock"):
        steps = _by_run(home)[run]
        record = _records(home).get(run)
        before = _status(record) if record else None
        judgements = _judgements(steps, alerts)
        known = record.get("judged") if record else None
        # Steps that came late or were read anew change how it stood: all are judged again.
        seen = judgements.index(known) + 1 if known in judgements else 0
        now = judged(before if seen else None, steps, alerts, seen)
        change = Change(run, before.level if before else LEVELS[0], now)
        matters = now.level != change.before and {now.level, change.before} & set(LEVELS[1:])
        if matters:
            tell(change)
        _remember(home, run, now, judgements[-1])
    return change if matters else None


def _by_run(home: Path) -> dict[str, list[Step]]:
    """The analysed steps of each run, in order."""
    found: dict[str, list[Step]] = {}
    for step in all_steps(home / "lake"):
        if are_computed(step):
            found.setdefault(step.run, []).append(step)
    return found


def _judgements(steps: Iterable[Step], alerts: Alerts) -> list[str]:
    """After each step, what a judgement is made of: another one is needed when this changes."""
    made = hashlib.sha256(repr(alerts).encode())
    judgements = []
    for step in steps:
        made.update(f"{step.step} {step.capture}\n".encode())
        judgements.append(f"step {step.step} {made.hexdigest()}")
    return judgements


def judged(before: Status | None, steps: Sequence[Step], alerts: Alerts, seen: int = 0) -> Status:
    """The status of a run after its steps, in order; the first `seen` led to `before`."""
    measured = [(place, step) for place, step in enumerate(steps) if not is_bypass(step.facts())]
    if not measured:
        return Status(NOT_MEASURED, steps[-1].step, ("both engines' log-probs are the same bits",))
    forwards = _Levels([step for _, step in measured], alerts)
    return standing(before, forwards, alerts, sum(place < seen for place, _ in measured))


class _Levels(Sequence[Seen]):
    """How bad each step is; a step is read when it is asked for, once.

    By the bands, a step that is healthy itself is a warning where the run's numbers begin to grow.
    """

    def __init__(self, steps: Sequence[Step], alerts: Alerts) -> None:
        self._steps, self._alerts = steps, alerts
        self._read: dict[int, Seen] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if place not in self._read:
            step = self._steps[place]
            level, reasons = _level(step, self._alerts)
            if not level and self._alerts.rules is None and step.step in self._early:
                level, reasons = 1, (self._early[step.step],)
            self._read[place] = Seen(step.step, level, reasons)
        return self._read[place]

    @cached_property
    def _early(self) -> dict[int, str]:
        return early.warnings(self._steps)


def standing(before: Status | None, steps: Sequence[Seen], alerts: Alerts, seen: int = 0) -> Status:
    """The status of a run after its steps, in order; the first `seen` led to `before`.

    One step after the other, so that it does not matter how many of them a sweep finds.
    """
    status = before
    for end in range(seen + 1, len(steps) + 1):
        status = _after(status, steps, end, alerts)
    return status or Status(LEVELS[0], steps[-1].step, ())


def _after(before: Status | None, steps: Sequence[Seen], end: int, alerts: Alerts) -> Status:
    """The status after the last of the first `end` steps: worse soon, better late."""
    was = LEVELS.index(before.level) if before and before.level in LEVELS else 0
    recent = steps[max(0, end - alerts.after) : end]
    longer = steps[max(0, end - alerts.recover) : end]
    worse, better = min(one.level for one in recent), max(one.level for one in longer)
    newest = recent[-1]
    if worse > was:
        good = _last_good(steps, end - len(recent))
        return Status(LEVELS[worse], recent[0].step, newest.reasons, last_good=good)
    if better < was and len(longer) == alerts.recover:
        good = _last_good(steps, end - len(longer)) if better else None
        return Status(LEVELS[better], longer[0].step, newest.reasons, last_good=good)
    if before and before.level == LEVELS[was]:
        return before
    return Status(LEVELS[0], newest.step, ())


def _last_good(steps: Sequence[Seen], end: int) -> int | None:
    """The last of the first `end` steps that is healthy."""
    return next((steps[i].step for i in range(end - 1, -1, -1) if not steps[i].level), None)


def _level(step: Step, alerts: Alerts) -> tuple[int, tuple[str, ...]]:
    """How bad one step is, an index of LEVELS, and which of its numbers say so."""
    if alerts.rules is None:
        assessment = assess(step.facts(), tables_of(step), alerts.bands)
        return BAND_LEVELS.index(assessment.level), assessment.reasons
    numbers = logged(tables_of(step, LOGGED_FROM))
    for level in (2, 1):
        broken = [rule for rule in alerts.rules[LEVELS[level]] if _breaks(rule, numbers)]
        if broken:
            reasons = (f"{r.metric} {_shown(numbers.get(r.metric))}, not {r.text}" for r in broken)
            return level, tuple(reasons)
    return 0, ()


def _breaks(rule: Rule, numbers: Mapping[str, Any]) -> bool:
    """What is undefined breaks its rule: it is never silently well."""
    value = numbers.get(rule.metric)
    return value is None or not rule.holds(value)


def _shown(value: float | None) -> str:
    return "is undefined" if value is None else number(value)


def told(home: Path) -> dict[str, Status]:
    """The last reported status of each run."""
    return {run: _status(record) for run, record in _records(home).items()}


def _status(record: Mapping[str, Any]) -> Status:
    level, since, reasons = (record[name] for name in ("level", "since", "reasons"))
    return Status(level, since, tuple(reasons), record.get("last_good"))


def _records(home: Path) -> dict[str, dict[str, Any]]:
    found = map(_record, sorted((home / "status").glob("*.json")))
    return {record["run"]: record for record in found if record}


def _record(file: Path) -> dict[str, Any] | None:
    """A run's status record; None if a power cut truncated it, so that the run is judged again."""
    try:
        return dict(json.loads(file.read_text()))
    except (FileNotFoundError, ValueError):
        return None


def _remember(home: Path, run: str, status: Status, judgement: str) -> None:
    file = home / "status" / f"{quote(run, safe='')}.json"
    durable.write(file, json.dumps({"run": run, **asdict(status), "judged": judgement}, indent=1))
