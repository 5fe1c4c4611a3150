"""What is still to be done: captures that the lake lacks, steps that MLflow lacks.

One rule: everything is read off the disk. Nothing is remembered between two looks, so any process
may be killed at any point and another goes on where the files say that it stopped.
"""

import hashlib
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks import captures, lake, notation, parity, places, quarantine, tables
from tasks.lake import Step
from tasks.places import Pattern
from tasks.quarantine import Record
from tasks.tokens import BadCapture


@dataclass(frozen=True)
class Backlog:
    """One look at a folder of captures and at the lake."""

    found: int  # captures
    analysed: int  # of these, in the lake with current tables
    pending: list[Path]  # neither analysed nor set aside
    held: list[Record]  # set aside, unchanged since
    unlogged: list[Step]  # in the lake, not yet in MLflow as it is set up now

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.pending and not self.unlogged


def survey(
    root: Path, home: Path, pattern: str | None = None, columns: str | None = None
) -> Backlog:
    """Compare the captures below `root` with the lake and the quarantine in `home`.

    A capture counts as analysed without being read again if the lake knows its path with the same
    size, time and tokenizer; whatever else is there is identified by its bytes when it is taken on.
    """
    steps = lake.steps(home / "lake")
    known = {facts["source"]: (step, facts) for step in steps for facts in [step.facts()]}
    found = _found(root, Pattern(pattern) if pattern else None)
    held = [record for record in quarantine.records(home) if _is_held(home, record, root, columns)]
    aside = {record.path for record in held}
    analysed = [path for path in found if _is_analysed(path, known.get(str(path.absolute())))]
    done = {*map(str, (path.absolute() for path in analysed)), *aside}
    pending = [path for path in found if str(path.absolute()) not in done]
    return Backlog(len(found), len(analysed), pending, held, unlogged(home, steps=steps))


def unlogged(
    home: Path, runs: set[str] | None = None, steps: list[Step] | None = None
) -> list[Step]:
    """Steps (of these runs) that MLflow lacks: as it is set up, and with the tables as they are."""
    marks = logged_marks(home)
    looked_at = lake.steps(home / "lake") if steps is None else steps
    wanted = (step for step in looked_at if runs is None or step.run in runs)
    return [step for step in wanted if not all(lake.has_mark(step, mark) for mark in marks)]


def counts(seen: Backlog) -> dict[str, float | int]:
    """The look in numbers; `lag_seconds` is how long the oldest pending capture has waited."""
    times = [captures.stamp(path)[1] / 1e9 for path in seen.pending if captures.exists(path)]
    return {
        "found": seen.found,
        "analysed": seen.analysed,
        "pending": len(seen.pending),
        "quarantined": len(seen.held),
        "not_logged": len(seen.unlogged),
        "lag_seconds": round(max(0.0, time.time() - min(times)), 1) if times else 0.0,
    }


def markdown(root: Path, seen: Backlog, taken: list[Step], seconds: float) -> str:
    """The look after a sweep as a page: what it took on in that time, what is set aside and why."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    tokens = sum(step.facts()["tokens"] for step in taken if step.path.exists())
    lines = [f"# Captures below {notation.code(str(root))}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in counts(seen).items()]
    lines += [
        f"| last sweep ended | {now} |",
        f"| it took [s] | {seconds:.1f} |",
        f"| steps in it | {len(taken)} |",
        f"| tokens in it | {tokens} |",
        f"| tokens per second | {tokens / seconds:.0f} |",
        "",
    ]
    return "\n".join([*lines, *map(_item, seen.held)])


def _item(record: Record) -> str:
    tried = f"tried {record.tries} times, last {record.last_tried}"
    return f"- {notation.code(record.path)} ({tried}): {notation.markdown(record.error)}"


def logged_marks(home: Path) -> list[str]:
    """The marks of a step whose tables, as they are now, are in MLflow as it is set up now.

    One for our metrics, and one for each framework whose names are asked for.
    """
    store = os.environ.get("MLFLOW_TRACKING_URI") or _local(home / "mlflow.db")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "")
    known = f"{tables.version()} {store} {experiment}".encode()
    mark = f"logged-{hashlib.sha256(known).hexdigest()[:12]}"
    return [mark, *(f"{mark}-{framework}" for framework in parity.asked())]


def _local(database: Path) -> str:
    """The local store, another one when the file was deleted and made anew."""
    return f"{database.absolute()} {database.stat().st_ino if database.exists() else 'absent'}"


def _found(root: Path, pattern: Pattern | None) -> list[Path]:
    try:
        return captures.find(root, pattern)
    except BadCapture:
        return []  # nothing there yet


def _is_held(home: Path, record: Record, root: Path, columns: str | None) -> bool:
    path = Path(record.path)
    below = path.is_relative_to(root.absolute())
    return below and captures.exists(path) and quarantine.holds(home, path, columns)


def _is_analysed(path: Path, known: tuple[Step, dict[str, Any]] | None) -> bool:
    if known is None:
        return False
    step, facts = known
    columns = facts.get("columns")
    try:
        same = lake.recognises(step, facts, captures.stamp(path, columns))
    except BadCapture:  # a stream that was begun anew between two looks
        return False
    used = [Path(facts["tokenizer"])] if facts["tokenizer"] else []
    there = [file for file in used if file.is_file()]
    expected = places.tokenizer_beside(path.absolute()) or next(iter(there), None)
    return (
        same
        and captures.identity(facts["sha256"], expected, columns) == step.capture
        and tables.are_computed(step)
    )
