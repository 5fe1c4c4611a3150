"""How a run stands (healthy, warning, critical) after its steps.

A status worsens after a few worse steps in a row and improves after more better ones, so that noise
around a threshold is reported once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from timtrack.tasks.lake.steps import Step, is_bypass
from timtrack.tasks.messages.formatting import number
from timtrack.tasks.tables.compute import tables_of
from timtrack.tasks.verdicts import early
from timtrack.tasks.verdicts.alert_rules import LEVELS, Alerts
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import LEVELS as BAND_LEVELS
from timtrack.tasks.verdicts.gate import Rule
from timtrack.tasks.verdicts.numbers import LOGGED_FROM, logged

NOT_MEASURED = "not measured"


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
