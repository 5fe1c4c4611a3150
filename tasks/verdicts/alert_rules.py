"""When a run is a warning or critical: the rules of `alerts.toml`, or the bands of the report."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.verdicts import gate
from timtrack.tasks.verdicts.bands import OURS, Bands
from timtrack.tasks.verdicts.gate import Rule

NAME = "alerts.toml"  # in the home
LEVELS = ("healthy", "warning", "critical")
COUNTS = ("after", "recover")
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


def read(path: Path, bands: Bands = OURS) -> Alerts:
    """The rules of a file; raises BadAlerts."""
    try:
        content = tomllib.loads(path.read_text())
        if unknown := set(content) - KEYS:
            raise BadAlerts(f"unknown {', '.join(sorted(unknown))}; there are {sorted(KEYS)}")
        rules = {level: _rules(content.get(level, [])) for level in LEVELS[1:]}
        counts = {key: _steps(key, content[key]) for key in COUNTS if key in content}
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
    columns = catalogue()["step_metrics"].columns
    for rule in rules:
        if rule.over:
            raise BadAlerts(f"{rule.text!r}: an alert is about single steps, without {rule.over}()")
        if rule.metric not in columns and not rule.metric.startswith("whatif/"):
            raise BadAlerts(f"{rule.text!r}: step_metrics has no {rule.metric}")
    return rules
