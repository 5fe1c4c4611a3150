"""What a file is: format, run and step, fields and shapes, and what is missing to read it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timtrack.tasks.captures.capture import run_and_step
from timtrack.tasks.captures.source import Source
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers import columns as by_columns
from timtrack.tasks.readers import registry
from timtrack.tasks.readers.rows.fields import shown
from timtrack.tasks.tokens.checks import Check
from timtrack.tasks.tokens.table import Batch

DEPTH = 3  # of nested mappings and lists that are listed
FIELDS = 60  # at most


@dataclass(frozen=True)
class Inspection:
    """A file as far as it can be understood; `problem` says why it cannot be read."""

    format: str | None
    facts: Mapping[str, str]
    fields: Mapping[str, str]
    notes: tuple[str, ...]
    problem: str | None


def inspect_file(source: Source) -> Inspection:
    """Inspect a file by reading it to its end; raises BadCapture for an unknown format."""
    if source.columns:
        names = by_columns.parse(source.columns).names
        return replace(_read(source, {}, source.open), format=by_columns.NAME, fields=dict(names))
    contents = source.look()
    reader = registry.by_contents(contents)
    facts = {"container": contents.container}
    report = _read(source, facts, lambda: registry.open_batch(source.path, contents))
    return replace(
        report, format=reader.name if reader else None, fields=dict(_fields(contents.top))
    )


def _read(source: Source, facts: dict[str, str], opened: Callable[[], Batch]) -> Inspection:
    """What a reading gives."""
    files, folder = source.files(), source.path.parent.parent
    if len(files) > 1:
        facts["with"] = ", ".join(str(file.relative_to(folder)) for file in files[1:])
    notes: tuple[str, ...] = ()
    problem = None
    try:
        batch = opened()
        notes = batch.notes
        facts |= _said(source.path, batch)
        facts |= _counted(batch)
    except BadCapture as error:
        problem = str(error)
    return Inspection(None, facts, {}, notes, problem)


def _said(path: Path, batch: Batch) -> dict[str, str]:
    """Run and step, as `tim ingest` would have them."""
    try:
        run, step = run_and_step(path, batch)
        return {"run": run, "step": str(step)}
    except BadCapture as error:
        return {"run": batch.run or "-", "step": f"- ({error})"}


def _counted(batch: Batch) -> dict[str, str]:
    check = Check()
    for _ in check.watch(batch.blocks()):
        pass
    verdict = check.verdict()
    return {
        "rollouts": f"{verdict.rows:,}",
        "tokens": f"{verdict.tokens:,}, {verdict.trained_tokens:,} of them trained on",
        "log-probs": ", ".join(["rollout", "train", *batch.views]),
    }


def _fields(top: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and what stands under them, nested ones with a dot; of a list its first entry."""
    fields: list[tuple[str, str]] = []
    todo = [(str(name), value, 1) for name, value in list(top.items())[::-1]]
    while todo and len(fields) < FIELDS:
        name, value, depth = todo.pop()
        fields.append((name, _shown(value)))
        inside = value[0] if isinstance(value, list) and value else value
        if isinstance(inside, dict) and depth < DEPTH:
            todo += [(f"{name}.{key}", item, depth + 1) for key, item in list(inside.items())[::-1]]
    return fields


def _shown(value: Any) -> str:
    if isinstance(value, int | float | bool):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:40]}...")
    if isinstance(value, list) and value:
        return f"{shown(value)}, first {_shown(value[0])}"
    return shown(value)
