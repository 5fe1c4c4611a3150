"""Does a run need a person? Its status by rules over its last steps, told only when it changes.

Rules come from `alerts.toml`, or are the bands of the report. A status gets worse after a few steps
in a row that are worse, and better after more that are better: what scatters about a bound is told
once.
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from tasks import bands, gate, lake, summary, tables
from tasks.gate import Rule
from tasks.lake import Step
from tasks.notation import number

NAME = "alerts.toml"  # in the home
LEVELS = ("healthy", "warning", "critical")
COUNTS = ("after", "recover")
NOT_MEASURED = "not measured"
KEYS = {*COUNTS, *LEVELS[1:]}


class BadAlerts(ValueError):
    """A file of alerts is not what it should be."""


@dataclass(frozen=True)
class Alerts:
    """When a step is a warning or critical; without rules, by the bands of its family."""

    rules: Mapping[str, tuple[Rule, ...]] | None = None  # by level
    after: int = 2  # worse steps in a row that make a run worse
    recover: int = 5  # better steps in a row that make it better


@dataclass(frozen=True)
class Status:
    """How a run stands, since which step, and why."""

    level: str  # of LEVELS, or not measured
    since: int  # first step of the unbroken streak
    reasons: tuple[str, ...]
    last_good: int | None = None  # the step before it that was better, if any


@dataclass(frozen=True)
class Seen:
    """One step: how bad it is, an index of LEVELS, and which of its numbers say so."""

    step: int
    level: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """A run's status is another than what was told last."""

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


def read(path: Path) -> Alerts:
    """The rules of a file; raises BadAlerts."""
    try:
        told = tomllib.loads(path.read_text())
        if unknown := set(told) - KEYS:
            raise BadAlerts(f"unknown {', '.join(sorted(unknown))}; there are {sorted(KEYS)}")
        rules = {level: _rules(told.get(level, [])) for level in LEVELS[1:]}
        counts = {key: _steps(key, told[key]) for key in COUNTS if key in told}
        return Alerts(rules=rules if any(rules.values()) else None, **counts)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValueError) as error:
        raise BadAlerts(f"{path}: {error}") from error


def of_home(home: Path, given: Path | None = None) -> Alerts:
    """The rules of a file that was asked for, else of the home's, else the bands."""
    if given is None and not (home / NAME).exists():
        return Alerts()
    return read(given or home / NAME)


def _steps(key: str, count: Any) -> int:
    if type(count) is not int or count < 1:
        raise BadAlerts(f"{key} is {count!r}, expected a whole number of steps from 1 on")
    return count


def _rules(texts: Any) -> tuple[Rule, ...]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadAlerts(f"{texts!r} is not a list of rules like 'kl_k3 < 0.01'")
    rules = tuple(gate.parse(text) for text in texts)
    known = tables.catalogue()["step_metrics"].columns
    for rule in rules:
        if rule.over:
            raise BadAlerts(f"{rule.text!r}: an alert is about single steps, without {rule.over}()")
        if rule.metric not in known and not rule.metric.startswith("whatif/"):
            raise BadAlerts(f"{rule.text!r}: step_metrics has no {rule.metric}")
    return rules


def unjudged(home: Path, alerts: Alerts) -> list[str]:
    """Runs whose last step was not judged yet, or by other rules."""
    known = _records(home)
    return [
        run
        for run, steps in _by_run(home).items()
        if known.get(run, {}).get("judged") != _judgement(steps[-1], alerts)
    ]


def update(home: Path, run: str, alerts: Alerts, tell: Callable[[Change], None]) -> Change | None:
    """Judge a run by its last steps; `tell` is called if its status is not what was told last.

    What was told is remembered after `tell` came back: whoever is killed in between is told again.
    """
    with FileLock(home / ".status.lock"):
        steps = _by_run(home)[run]
        before = told(home).get(run)
        now = judged(before, steps, alerts)
        change = Change(run, before.level if before else LEVELS[0], now)
        matters = now.level != change.before and {now.level, change.before} & set(LEVELS[1:])
        if matters:
            tell(change)
        _remember(home, run, now, _judgement(steps[-1], alerts))
    return change if matters else None


def _by_run(home: Path) -> dict[str, list[Step]]:
    """The analysed steps of each run, in order."""
    found: dict[str, list[Step]] = {}
    for step in lake.steps(home / "lake"):
        if tables.are_computed(step):
            found.setdefault(step.run, []).append(step)
    return found


def _judgement(step: Step, alerts: Alerts) -> str:
    """What a judgement was made of: another one is needed when this changes."""
    return f"step {step.step} {step.capture} {hashlib.sha256(repr(alerts).encode()).hexdigest()}"


def judged(before: Status | None, steps: Sequence[Step], alerts: Alerts) -> Status:
    """The status after these steps of a run, which are in order."""
    measured = [step for step in steps if step.facts()["measurement"] != "bypass"]
    if not measured:
        return Status(NOT_MEASURED, steps[-1].step, ("both engines' log-probs are the same bits",))
    backwards = (Seen(step.step, *_level(step, alerts)) for step in reversed(measured))
    return standing(before, backwards, alerts)


def standing(before: Status | None, backwards: Iterable[Seen], alerts: Alerts) -> Status:
    """The status that a run gets after its steps, the last one first: worse soon, better late.

    Steps are looked at as far back as the streak goes, however many of them are new.
    """
    was = LEVELS.index(before.level) if before and before.level in LEVELS else 0
    earlier = iter(backwards)
    last = list(islice(earlier, max(alerts.after, alerts.recover)))
    recent, longer = last[: alerts.after], last[: alerts.recover]
    worse, better = min(one.level for one in recent), max(one.level for one in longer)
    if worse > was:
        return _begun(worse, chain(last, earlier), lambda level: level >= worse)
    if better < was and len(longer) == alerts.recover:
        return replace(
            _begun(better, chain(last, earlier), lambda level: level <= better), last_good=None
        )
    if before and before.level == LEVELS[was]:
        return before
    return Status(LEVELS[0], last[-1].step, ())


def _begun(level: int, backwards: Iterable[Seen], holds: Callable[[int], bool]) -> Status:
    """A status with the first step of its streak, and the last one before it."""
    steps = iter(backwards)
    newest = first = next(steps)
    for step in steps:
        if not holds(step.level):
            return Status(LEVELS[level], first.step, newest.reasons, last_good=step.step)
        first = step
    return Status(LEVELS[level], first.step, newest.reasons)


def _level(step: Step, alerts: Alerts) -> tuple[int, tuple[str, ...]]:
    """How bad one step is, an index of LEVELS, and which of its numbers say so."""
    numbers = summary.logged(tables.of(step, summary.LOGGED_FROM))
    if alerts.rules is None:
        readings = bands.readings(step.facts(), numbers)
        worst = max((bands.LEVELS.index(reading.level) for reading in readings), default=0)
        told = [r for r in readings if worst and r.level == bands.LEVELS[worst]]
        said = (f"{r.band.metric} {number(r.value)} (healthy {r.band.bound})" for r in told)
        return worst, tuple(said)
    for level in (2, 1):
        broken = [rule for rule in alerts.rules[LEVELS[level]] if _breaks(rule, numbers)]
        if broken:
            said = (f"{r.metric} {_shown(numbers.get(r.metric))}, not {r.text}" for r in broken)
            return level, tuple(said)
    return 0, ()


def _breaks(rule: Rule, numbers: Mapping[str, Any]) -> bool:
    """What is undefined breaks its rule: it is never silently well."""
    value = numbers.get(rule.metric)
    return value is None or not rule.holds(value)


def _shown(value: float | None) -> str:
    return "is undefined" if value is None else number(value)


def told(home: Path) -> dict[str, Status]:
    """What was told last of each run."""
    return {
        run: Status(
            record["level"], record["since"], tuple(record["reasons"]), record.get("last_good")
        )
        for run, record in _records(home).items()
    }


def _records(home: Path) -> dict[str, dict[str, Any]]:
    files = sorted((home / "status").glob("*.json"))
    return {record["run"]: record for record in (json.loads(file.read_text()) for file in files)}


def _remember(home: Path, run: str, status: Status, judgement: str) -> None:
    folder = home / "status"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{quote(run, safe='')}.json"
    aside = file.with_suffix(".new")
    aside.write_text(json.dumps({"run": run, **asdict(status), "judged": judgement}, indent=1))
    aside.replace(file)
