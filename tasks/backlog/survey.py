"""What is left to do: captures missing from the lake, steps missing from MLflow.

One rule: all state is read from disk. Nothing is remembered between two scans, so any process can
be killed at any point, and the next one continues where the files say it stopped.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from timtrack.tasks.backlog import quarantine, refusals
from timtrack.tasks.backlog.quarantine import Record
from timtrack.tasks.backlog.refusals import Refusal
from timtrack.tasks.captures import paths
from timtrack.tasks.captures.capture import identity
from timtrack.tasks.captures.discovery import captures_below
from timtrack.tasks.captures.paths import Pattern
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.copies import copy_of, known_copies, knows_source
from timtrack.tasks.lake.steps import Step, all_steps, clear_mark, has_mark
from timtrack.tasks.messages import formatting
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.system import durable
from timtrack.tasks.tables import frameworks
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.stored import are_computed

MLFLOW = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Backlog:
    """One look at a folder of captures and at the lake."""

    found: int  # captures
    analysed: int  # of these, in the lake with current tables
    pending: list[Source]  # neither analysed nor set aside
    held: list[Record]  # set aside, unchanged since
    unlogged: list[Step]  # in the lake, not yet in MLflow as it is set up now
    failing: list[Record]  # pending ones that were tried and could not be opened, say
    refused: list[tuple[Step, Refusal]]  # in the lake, and kept there; not among the unlogged
    unsettled: list[str]  # runs of which trend and status are not those of their logged steps
    closed: Mapping[Path, str]  # folders that could not be read, and why

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.pending or self.unlogged or self.unsettled)


def survey(
    root: Path,
    home: Path,
    pattern: str | None = None,
    columns: str | None = None,
    parity: Sequence[str] = (),
) -> Backlog:
    """Compare the captures below `root` with the lake and the quarantine in `home`.

    A capture counts as analysed without being read again if the lake knows its path with the same
    size, time and tokenizer; whatever else is there is identified by its bytes when it is taken on.
    With `parity`, a step is only logged once its numbers under these frameworks' names are, too.
    """
    steps = all_steps(home / "lake")
    looked = captures_below(root, Pattern(pattern) if pattern else None)
    captures, known = looked.captures, _Known(home, steps)
    noted = [record for record in quarantine.records(home) if _is_there(record, root)]
    held = [
        record for record in noted if quarantine.holds(home, Source(Path(record.path), columns))
    ]
    analysed = [path for path in captures if known.is_analysed(path)]
    done = {*map(str, (path.absolute() for path in analysed)), *(record.path for record in held)}
    pending = [Source(path, columns) for path in captures if str(path.absolute()) not in done]
    waiting = {str(source.path.absolute()) for source in pending}
    marks = logged_marks(home, parity)
    lacking = _lacking(steps, marks)
    return Backlog(
        found=len(captures),
        analysed=len(analysed),
        pending=pending,
        held=held,
        unlogged=[step for step in lacking if not refusals.keeps(step, marks)],
        failing=[record for record in noted if record.path in waiting],
        refused=[(step, why) for step in lacking if (why := refusals.of(step, marks))],
        unsettled=unsettled(home, settlements(home, steps)),
        closed=looked.closed,
    )


def is_made_of(step: Step, path: Path) -> bool:
    """Whether a step was made of this file, judged by size and time without reading it."""
    facts = _facts(step)
    return facts.get("source") == str(path.absolute()) and _is_analysed(path, step, facts)


def unlogged(home: Path, runs: set[str], parity: Sequence[str] = ()) -> list[Step]:
    """Steps of these runs that MLflow lacks, under its present configuration and tables."""
    marks = logged_marks(home, parity)
    steps = (step for step in all_steps(home / "lake") if step.run in runs)
    return [step for step in _lacking(steps, marks) if not refusals.keeps(step, marks)]


def _lacking(steps: Iterable[Step], marks: list[str]) -> list[Step]:
    """Steps without one of the marks; only these can be refused."""
    return [step for step in steps if not all(has_mark(step, mark) for mark in marks)]


def settlements(home: Path, steps: list[Step] | None = None) -> dict[str, str]:
    """By run, which of its steps are logged: what trend and status are made from."""
    mark = logged_mark(home)
    digests: dict[str, Any] = {}
    for step in all_steps(home / "lake") if steps is None else steps:
        if has_mark(step, mark):
            digest = digests.setdefault(step.run, hashlib.sha256(mark.encode()))
            digest.update(f"{step.step} {step.capture}\n".encode())
    return {run: digest.hexdigest() for run, digest in digests.items()}


def unsettled(home: Path, now: Mapping[str, str]) -> list[str]:
    """Runs whose steps changed since their trend and status were last reported."""
    return [run for run, key in now.items() if _settled(home, run) != key]


def settle(home: Path, run: str, key: str) -> None:
    """Record that a run's trend and status were reported for these steps (`settlements`)."""
    durable.write(_settlement(home, run), key)


def _settled(home: Path, run: str) -> str | None:
    try:
        return _settlement(home, run).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _settlement(home: Path, run: str) -> Path:
    return home / "settled" / f"{quote(run, safe='')}.txt"


def forget(home: Path, kept: set[str]) -> list[Step]:
    """Steps that were logged, of runs that MLflow has no more: they count as not logged again."""
    mark = logged_mark(home)
    marks = logged_marks(home, frameworks.FRAMEWORKS)
    steps = [step for step in all_steps(home / "lake") if step.run not in kept]
    lost = [step for step in steps if has_mark(step, mark)]
    for step in lost:
        for mark in marks:
            clear_mark(step, mark)
    return lost


def counts(seen: Backlog) -> dict[str, float | int]:
    """The look in numbers; `lag_seconds` is how long the oldest pending capture has waited."""
    waited = [_waited(source) for source in seen.pending]
    return {
        "found": seen.found,
        "analysed": seen.analysed,
        "pending": len(seen.pending),
        "quarantined": len(seen.held),
        "not_logged": len({*seen.unlogged, *(step for step, _ in seen.refused)}),
        "lag_seconds": round(max(waited, default=0.0), 1),
    }


def _waited(source: Source) -> float:
    try:
        return source.ages()[0]
    except (OSError, BadCapture):  # gone since
        return 0.0


def troubles(seen: Backlog) -> list[str]:
    """What cannot be done, a line each: what it is, since when, and why."""
    records = [("set aside", r) for r in seen.held] + [("tried again", r) for r in seen.failing]
    lines = [_line(f"{what}: {r.path}", r.first_tried, r.tries, r.error) for what, r in records]
    lines += [
        _line(f"goes no further: {step.name}", why.since, why.tries, why.error)
        for step, why in seen.refused
    ]
    lines += [f"cannot be looked into: {folder}: {why}" for folder, why in seen.closed.items()]
    return lines


def _line(what: str, since: str, tries: int, error: str) -> str:
    times = "once" if tries == 1 else f"{tries} times"
    return f"{what} (since {since[:19]}, tried {times}): {error}"


def sentence(seen: Backlog) -> str:
    """The look in a line: what is done, what waits, what cannot be done."""
    numbers = counts(seen)
    parts = [f"{numbers['analysed']} of {numbers['found']} captures analysed"]
    names = {"pending": "pending", "quarantined": "set aside", "not_logged": "not logged"}
    parts += [f"{numbers[name]} {text}" for name, text in names.items() if numbers[name]]
    return ", ".join(parts)


def markdown(root: Path, seen: Backlog, taken: list[Step], seconds: float) -> str:
    """A sweep as Markdown: what it analysed, what is quarantined and why."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    tokens = sum(step.facts()["tokens"] for step in taken if step.path.exists())
    lines = [f"# Captures below {formatting.code(str(root))}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in counts(seen).items()]
    lines += [
        f"| last sweep ended | {now} |",
        f"| it took [s] | {seconds:.1f} |",
        f"| steps in it | {len(taken)} |",
        f"| tokens in it | {tokens} |",
        f"| tokens per second | {tokens / seconds:.0f} |",
        "",
    ]
    lines += [f"- {formatting.markdown(trouble)}" for trouble in troubles(seen)]
    return "\n".join(lines)


def logged_marks(home: Path, parity: Sequence[str]) -> list[str]:
    """Of a step that is logged: one mark for our metrics, and one for each framework's names."""
    mark = logged_mark(home)
    return [mark, *(f"{mark}-{framework}" for framework in parity)]


def logged_mark(home: Path) -> str:
    """The marker of a step whose present tables are in MLflow's present store."""
    store = os.environ.get(MLFLOW) or _local(home / "mlflow.db")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "")
    key = f"{sql_version()} {store} {experiment}".encode()
    return f"logged-{hashlib.sha256(key).hexdigest()[:12]}"


def mlflow_server() -> str | None:
    """The address of MLflow's server, if one is set; else there is a local store."""
    store = os.environ.get(MLFLOW, "")
    return store if store.startswith("http") else None


def _local(database: Path) -> str:
    """The local store, another one when the file was deleted and made anew."""
    return f"{database.absolute()} {database.stat().st_ino if database.exists() else 'absent'}"


def _is_there(record: Record, root: Path) -> bool:
    path = Path(record.path)
    return path.is_relative_to(root.absolute()) and Source(path).exists()


def _facts(step: Step) -> dict[str, Any]:
    """What the step says of itself; nothing if it is replaced just now."""
    try:
        return step.facts()
    except FileNotFoundError:
        return {}


class _Known:
    """Which captures the lake has, by where they lie."""

    def __init__(self, home: Path, steps: list[Step]) -> None:
        self._lake = home / "lake"
        self._by_folder = {step.path: (step, facts) for step in steps if (facts := _facts(step))}
        known = self._by_folder.values()
        self._by_path = {facts["source"]: (step, facts) for step, facts in known}

    @cached_property
    def _copies(self) -> dict[str, Path]:
        return known_copies(self._lake)

    def is_analysed(self, path: Path) -> bool:
        """Whether the lake has the file's content, judged without reading it."""
        known = self._by_path.get(str(path.absolute()))
        if known is None and (copied := copy_of(self._copies, path)):
            known = self._by_folder.get(copied)
        return known is not None and _is_analysed(path, *known)


def _is_analysed(path: Path, step: Step, facts: dict[str, Any]) -> bool:
    columns = facts.get("columns")
    try:
        same = knows_source(step, facts, path, Source(path, columns).stamp())
    except (BadCapture, OSError):  # gone, or a stream that was begun anew, between two looks
        return False
    used = [Path(facts["tokenizer"])] if facts["tokenizer"] else []
    existing = [file for file in used if file.is_file()]
    expected = paths.tokenizer_beside(path.absolute()) or next(iter(existing), None)
    return (
        same
        and identity(facts["sha256"], expected, columns) == step.capture
        and (are_computed(step) or refusals.keeps(step, ()))
    )
