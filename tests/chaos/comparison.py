"""Holds a disturbed home against an undisturbed one, and both against what was written.

Every function gives what differs as sentences; none is what there should be.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from pathlib import Path

import polars as pl

from tests.chaos.ledger import Key, Ledger
from tests.chaos.operations import KEPT
from tests.chaos.seen import RunSeen, Seen, StepSeen


def differences(disturbed: Seen, undisturbed: Seen) -> list[str]:
    """What the disturbed home lacks, has twice or has otherwise than the undisturbed one."""
    return list(
        chain(
            *(_step(key, disturbed, step) for key, step in undisturbed.steps.items()),
            *(_whole(key, step) for key, step in disturbed.steps.items()),
            _pruned(disturbed),
            *(_logged(key, disturbed) for key in disturbed.steps),
            *(_run(run, disturbed, undisturbed) for run in undisturbed.mlflow),
            *(_single(run, there) for run, there in disturbed.mlflow.items()),
            _aside(disturbed, undisturbed),
            (f"left in the lake's staging: {name}" for name in sorted(disturbed.left)),
        )
    )


def _name(key: Key) -> str:
    return f"{key[0]!r} step {key[1]}"


def _step(key: Key, disturbed: Seen, expected: StepSeen) -> Iterator[str]:
    """A step that both must have."""
    step = disturbed.steps.get(key)
    if step is None:
        yield f"{_name(key)} is missing in the lake"
        return
    if step.tokens is not None and not _same(step.tokens, expected.tokens):
        yield f"{_name(key)}: the tokens differ"
    for table in sorted({*step.tables, *expected.tables}):
        if not _same(step.tables.get(table), expected.tables.get(table)):
            yield f"{_name(key)}: the table {table} differs"
    for fact in sorted({*step.facts, *expected.facts}):
        if step.facts.get(fact) != expected.facts.get(fact):
            yield f"{_name(key)}: {fact} is {step.facts.get(fact)!r}, " + (
                f"undisturbed {expected.facts.get(fact)!r}"
            )


def _same(frame: pl.DataFrame | None, expected: pl.DataFrame | None) -> bool:
    if frame is None or expected is None:
        return frame is expected
    return frame.schema == expected.schema and frame.equals(expected)


def _whole(key: Key, step: StepSeen) -> Iterator[str]:
    """A step that is there once, with its tokens or without any of what `tim prune` deletes."""
    if step.captures != 1:
        yield f"{_name(key)} has {step.captures} captures in the lake"
    if step.tokens is None and step.files:
        yield f"{_name(key)} was pruned, but {', '.join(sorted(step.files))} is left"


def _pruned(seen: Seen) -> Iterator[str]:
    """The last steps of each run keep their tokens."""
    for run, group in groupby(sorted(seen.steps), key=lambda key: key[0]):
        for key in list(group)[-KEPT:]:
            if seen.steps[key].tokens is None:
                yield f"{_name(key)} of the last {KEPT} of {run!r} has no tokens"


def _logged(key: Key, seen: Seen) -> Iterator[str]:
    """MLflow has of a step what the lake has."""
    run, number = key
    there = seen.mlflow.get(run)
    points = {} if there is None else {m: v for m, s, v in there.points if s == number}
    expected = seen.steps[key].logged
    wrong = sorted(m for m in {*points, *expected} if points.get(m) != expected.get(m))
    if wrong:
        first = f"{wrong[0]} is {points.get(wrong[0])}, {expected.get(wrong[0])} in the lake"
        yield f"{_name(key)}: {len(wrong)} metrics differ in MLflow from the lake, first {first}"


def _run(run: str, disturbed: Seen, undisturbed: Seen) -> Iterator[str]:
    """A run that both must have in MLflow, at the steps that the undisturbed one has."""
    there, expected = disturbed.mlflow.get(run), undisturbed.mlflow[run]
    if there is None:
        yield f"run {run!r} is missing in MLflow"
        return
    steps = {step for _, step, _ in expected.points}
    points = {point for point in there.points if point[1] in steps}
    if wrong := points ^ set(expected.points):
        yield f"run {run!r}: {len(wrong)} points differ in MLflow, first {min(wrong)}"
    if wrong := _at(there.artifacts, steps) ^ _at(expected.artifacts, steps):
        yield f"run {run!r}: {len(wrong)} artifacts are not in both, first {min(wrong)}"


def _at(artifacts: Iterable[str], steps: set[int]) -> set[str]:
    """Artifacts of these steps, and of the whole run."""
    parts = ((name, name.split("/")) for name in artifacts)
    return {name for name, part in parts if part[0] != "steps" or int(part[1]) in steps}


def _single(run: str, there: RunSeen) -> Iterator[str]:
    """One MLflow run, each point in it once."""
    if there.runs != 1:
        yield f"run {run!r} is {there.runs} runs in MLflow"
    times = Counter((m, s) for (m, s, _), n in there.points.items() for _ in range(n))
    if doubled := sorted(point for point, n in times.items() if n > 1):
        yield f"run {run!r}: {len(doubled)} points are doubled in MLflow, first {doubled[0]}"


def _aside(disturbed: Seen, undisturbed: Seen) -> Iterator[str]:
    """The same captures are set aside."""
    for path in sorted(disturbed.aside ^ undisturbed.aside):
        where = "undisturbed" if path in undisturbed.aside else "disturbed"
        yield f"{path!r} is set aside only in the {where} home"


def unlike_written(seen: Mapping[str, Seen], ledger: Ledger, root: Path) -> list[str]:
    """What homes, by their names, hold otherwise than the captures that are there say."""
    return [
        f"{name}: {what}"
        for name, home in seen.items()
        for what in chain(_captures(home, ledger, root), _made_up(home, ledger))
    ]


def _captures(home: Seen, ledger: Ledger, root: Path) -> Iterator[str]:
    """Every good capture is a step with its numbers, every broken one is set aside."""
    for capture in ledger.there:
        path, step = str(capture.path.relative_to(root)), home.steps.get(capture.key)
        if capture.rows is None:
            if path not in home.aside:
                yield f"{path!r} is broken, but not set aside"
        elif path in home.aside:
            yield f"{path!r} is good, but set aside"
        elif step is None:
            yield f"{path!r} is good, but no step of the lake"
        elif step.tokens is not None and step.rows != capture.rows:
            yield f"{path!r} says other numbers than the lake"


def _made_up(home: Seen, ledger: Ledger) -> Iterator[str]:
    """No step is other than a capture that was there at some time."""
    for key, step in home.steps.items():
        if step.tokens is not None and not ledger.could_be(key, step.rows):
            yield f"{_name(key)} is of no capture that was ever written"
        elif key not in ledger.written:
            yield f"{_name(key)} was never written"
