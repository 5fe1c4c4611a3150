"""Steps that are stuck in the lake: their tables cannot be computed, or MLflow rejects them.

One record in the step's directory, `refused.json`. It applies to the tables or the MLflow store
that it names: other SQL, another store or a new capture is a new attempt.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.system import durable
from timtrack.tasks.tables.catalogue import sql_version

NAME = "refused.json"
AGAIN = 3600.0  # seconds after which MLflow is asked again: a server's limits can be changed


@dataclass(frozen=True)
class Refusal:
    """Why a step goes no further."""

    by: str  # the tables' version, or the mark of MLflow (tasks/backlog/survey.py)
    error: str
    since: str  # ISO 8601, UTC
    tried: float  # seconds since 1970
    tries: int


def add(step: Step, by: str, error: str) -> None:
    """Note another refusal."""
    before = _read(step)
    same = before if before and before.by == by else None
    since = same.since if same else datetime.now(UTC).isoformat()
    refusal = Refusal(by, error, since, time.time(), same.tries + 1 if same else 1)
    durable.write(step.path / NAME, json.dumps(asdict(refusal), indent=1) + "\n")


def clear(step: Step) -> None:
    """Forget a refusal after success."""
    (step.path / NAME).unlink(missing_ok=True)


def of(step: Step, marks: Iterable[str]) -> Refusal | None:
    """What keeps a step now, if its tables or MLflow, known by these marks, refused it."""
    refusal = _read(step)
    if refusal is None or refusal.by not in (sql_version(), *marks):
        return None
    return refusal


def keeps(step: Step, marks: Iterable[str]) -> bool:
    """Whether a step need not be tried now."""
    refusal = of(step, marks)
    if refusal is None:
        return False
    return refusal.by == sql_version() or 0 <= time.time() - refusal.tried < AGAIN


def _read(step: Step) -> Refusal | None:
    try:
        return Refusal(**json.loads((step.path / NAME).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
