"""The status of each run, as it was last told: judged again when its steps change, told on change.

The rules are alert_rules.py's, how a run stands by them is standing.py's.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from timtrack.tasks.lake.steps import Step, all_steps
from timtrack.tasks.system import durable
from timtrack.tasks.tables.stored import are_computed
from timtrack.tasks.verdicts.alert_rules import LEVELS, Alerts
from timtrack.tasks.verdicts.standing import Status, judged


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


def unjudged(home: Path, alerts: Alerts) -> list[str]:
    """Runs with a step that was not judged yet, or judged by other rules."""
    records = _records(home)
    return [
        run
        for run, steps in _by_run(home).items()
        if records.get(run, {}).get("judged") != _judgements(steps, alerts)[-1]
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
        judgement = record.get("judged") if record else None
        # Steps that came late or were read anew change how it stood: all are judged again.
        judged_steps = judgements.index(judgement) + 1 if judgement in judgements else 0
        now = judged(before if judged_steps else None, steps, alerts, judged_steps)
        change = Change(run, before.level if before else LEVELS[0], now)
        matters = now.level != change.before and {now.level, change.before} & set(LEVELS[1:])
        if matters:
            tell(change)
        _remember(home, run, now, judgements[-1])
    return change if matters else None


def _by_run(home: Path) -> dict[str, list[Step]]:
    """The analysed steps of each run, in order."""
    by_run: dict[str, list[Step]] = {}
    for step in all_steps(home / "lake"):
        if are_computed(step):
            by_run.setdefault(step.run, []).append(step)
    return by_run


def _judgements(steps: Iterable[Step], alerts: Alerts) -> list[str]:
    """After each step, what a judgement is made of: another one is needed when this changes."""
    digest = hashlib.sha256(repr(alerts).encode())
    judgements = []
    for step in steps:
        digest.update(f"{step.step} {step.capture}\n".encode())
        judgements.append(f"step {step.step} {digest.hexdigest()}")
    return judgements


def told(home: Path) -> dict[str, Status]:
    """The last reported status of each run."""
    return {run: _status(record) for run, record in _records(home).items()}


def counted(home: Path) -> str:
    """The number of runs at each level, the worst level first."""
    levels = [status.level for status in told(home).values()]
    counts = {level: levels.count(level) for level in (*reversed(LEVELS), *levels)}
    return ", ".join(f"{count} {level}" for level, count in counts.items() if count) or "no runs"


def _status(record: Mapping[str, Any]) -> Status:
    level, since, reasons = (record[name] for name in ("level", "since", "reasons"))
    return Status(level, since, tuple(reasons), record.get("last_good"))


def _records(home: Path) -> dict[str, dict[str, Any]]:
    records = map(_record, sorted((home / "status").glob("*.json")))
    return {record["run"]: record for record in records if record}


def _record(file: Path) -> dict[str, Any] | None:
    """A run's status record; None if a power cut truncated it, so that the run is judged again."""
    try:
        return dict(json.loads(file.read_text()))
    except (FileNotFoundError, ValueError):
        return None


def _remember(home: Path, run: str, status: Status, judgement: str) -> None:
    file = home / "status" / f"{quote(run, safe='')}.json"
    durable.write(file, json.dumps({"run": run, **asdict(status), "judged": judgement}, indent=1))
