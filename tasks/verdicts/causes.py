"""The causes of a step's mismatch in words: evidence, the deciding experiment, the fix."""

import math
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from timtrack.tasks.lake.conversion import step_of
from timtrack.tasks.lake.steps import Step, require_tokens, steps_between
from timtrack.tasks.messages.formatting import number, share, signed
from timtrack.tasks.tables.catalogue import catalogue, tables_named
from timtrack.tasks.tables.causes import Condition, Definition, Signature, definitions
from timtrack.tasks.tables.compute import computed_tables
from timtrack.tasks.tables.database import literal
from timtrack.tasks.tables.query import run_queries
from timtrack.tasks.tables.stored import stored_tables

NEEDED = {"causes", "signatures"}  # tables of a step
BESIDE = {"step_metrics", "attribution"}  # how bad it is, and which link of its chain carries most
OF_RUN = {"run_causes", "run_signatures"}  # tables of a run
VERSION = 1
# From it on a cause is likely, below it possible. Of captures that strangers made, names of 0.7
# and more were right in 112 of 144 when they were first seen, others in a third.
SURE = 0.7
TIMES_AS_FAR = (
    "'Times as far off' compares geometric means of tokens' gaps, each relative to those of tokens "
    "of the same probability."
)


@dataclass(frozen=True)
class Evidence:
    """What a number of `signatures` or `run_signatures` says, and why its threshold is there."""

    text: str
    why: str
    columns: tuple[str, ...]
    table: str

    def sql(self, run: str, step: int) -> str:
        """The query that gives its numbers."""
        where = _where(run, step if self.table == "signatures" else None)
        return f"select {', '.join(self.columns)} from {self.table} where {where}"


@dataclass(frozen=True)
class Alike:
    """A cause that a capture can hardly tell from another."""

    id: str
    name: str


@dataclass(frozen=True)
class Cause:
    """A cause whose signature fits a step."""

    id: str
    name: str
    group: str
    scope: str  # "step", or "run": told by how its steps follow each other
    confidence: float  # 0 to 1, no probability: see the table `causes`
    sentence: str
    evidence: tuple[Evidence, ...]
    against: tuple[Evidence, ...]
    experiment: str
    fix: str
    fixes: Mapping[str, str]  # by framework
    look: str  # SQL with {where}, which lists where it shows; empty if nothing does
    threads: tuple[str, ...]
    alike: tuple[Alike, ...]
    has_false_r: bool = False  # r is no ratio of probabilities of what was sampled

    @property
    def meaning(self) -> str:
        """The sentence, as a condition where it is only possible."""
        if self.confidence >= SURE:
            return self.sentence
        return f"If so, {self.sentence[0].lower()}{self.sentence[1:]}"

    @property
    def looks_alike(self) -> str:
        """The causes that a capture can hardly tell from it, as people read them; may be empty."""
        return "; ".join(f"{one.name} ({one.id})" for one in self.alike)

    def look_at(self, run: str, step: int) -> str:
        """The query that lists the rows or tokens at which it shows."""
        return self.look.replace("{where}", _where(run, step))

    def as_dict(self, run: str, step: int) -> dict[str, Any]:
        """For machines; `diagnosis_version` changes with the meaning of a field."""
        return {
            "diagnosis_version": VERSION,
            "cause": self.id,
            "name": self.name,
            "group": self.group,
            "scope": self.scope,
            "confidence": round(self.confidence, 3),
            "sentence": self.sentence,
            "evidence": [_as_dict(one, run, step) for one in self.evidence],
            "against": [_as_dict(one, run, step) for one in self.against],
            "alike": [{"cause": one.id, "name": one.name} for one in self.alike],
            "experiment": self.experiment,
            "fix": {"any": self.fix, **self.fixes},
            "look": self.look_at(run, step),
            "threads": list(self.threads),
        }


def _where(run: str, step: int | None) -> str:
    return f"run = {literal(run)}" + ("" if step is None else f" and step = {step}")


def _as_dict(evidence: Evidence, run: str, step: int) -> dict[str, str]:
    return {"text": evidence.text, "why": evidence.why, "sql": evidence.sql(run, step)}


def causes_of(tables: Mapping[str, pl.DataFrame]) -> tuple[Cause, ...]:
    """The causes that fit a step, the likeliest first; none of tables of older SQL."""
    return _causes(tables, "causes", "signatures")


def over_steps(steps: Sequence[Step]) -> tuple[Cause, ...]:
    """The causes that fit how the steps of one run follow each other; none of fewer than two."""
    if len(steps) < 2:
        return ()
    tables = run_queries(list(steps), {name: f"from {name}" for name in OF_RUN})
    return _causes(tables, "run_causes", "run_signatures")


@dataclass(frozen=True)
class Diagnosis:
    """The causes of a capture's file or a run's step, the likeliest first, and its tables."""

    step: Step  # gone from the disk if it is a file's
    facts: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame]  # NEEDED and BESIDE
    causes: tuple[Cause, ...]


def of(what: str, lake: Path, step: int | None = None, columns: str | None = None) -> Diagnosis:
    """Diagnose a capture's file or a run's step.

    Of a run without a `step`, the causes are those of its latest and those that fit all its steps;
    one that both name stands once, as the steps show it. Raises NoSuchStep and BadCapture.
    """
    with step_of(what, lake, step, columns) as opened:
        tables = _tables(opened, NEEDED | BESIDE)
        found = Diagnosis(opened, opened.facts(), tables, causes_of(tables))
    if step is not None or not opened.path.is_relative_to(lake):
        return found
    over = over_steps(steps_between(lake, opened.run, None, None))
    named = {cause.id for cause in over}
    both = (*over, *(cause for cause in found.causes if cause.id not in named))
    return replace(found, causes=tuple(sorted(both, key=lambda cause: -cause.confidence)))


def _causes(tables: Mapping[str, pl.DataFrame], named: str, signatures: str) -> tuple[Cause, ...]:
    if not tables.keys() >= {named, signatures} or tables[named].is_empty():
        return ()
    numbers = tables[signatures].row(0, named=True)
    rows = tables[named].sort("rank").to_dicts()
    known = ((row, definitions().get(row["cause"])) for row in rows)  # older SQL knew others
    return tuple(
        _cause(cause, row, numbers, signatures)
        for row, cause in known
        if cause and _ways(cause, signatures)
    )


def _ways(cause: Definition, table: str) -> tuple[Signature, ...]:
    return cause.in_step if table == "signatures" else cause.over_steps


def diagnose(step: Step) -> tuple[Cause, ...]:
    """The causes that fit a step, from its tables; those that lack are computed, and not stored.

    Raises NoSuchStep where the tokens are gone and the tables are of older SQL.
    """
    return causes_of(_tables(step, NEEDED))


def _tables(step: Step, wanted: set[str]) -> dict[str, pl.DataFrame]:
    stored = stored_tables(step, wanted)
    if stored.keys() >= wanted:
        return stored
    require_tokens(step)
    return computed_tables(step, tables_named(" ".join(wanted)))


def _cause(
    known: Definition, row: Mapping[str, Any], numbers: Mapping[str, Any], table: str
) -> Cause:
    ways = _ways(known, table)
    signature = ways[min(row.get("way", 0), len(ways) - 1)]
    told = signature.told
    needs = _holding(signature.alternatives, row["needs"])
    supports = _holding(signature.supports, row["supports"])
    against = _holding(signature.contradicts, row["contradicts"])
    return Cause(
        known.id,
        known.name,
        known.group,
        "step" if table == "signatures" else "run",
        row["confidence"],
        filled(told.sentence, numbers),
        _evidence((*needs, *supports), numbers, table),
        _evidence(against, numbers, table),
        told.experiment,
        told.fix,
        told.fixes,
        told.look,
        told.threads,
        tuple(Alike(one, definitions()[one].name) for one in told.alike),
        known.has_false_r,
    )


def _holding(conditions: tuple[Condition, ...], digits: str | None) -> list[Condition]:
    if digits is None:  # older SQL asked other conditions
        return []
    return [one for one, digit in zip(conditions, digits, strict=True) if digit == "1"]


def _evidence(
    conditions: Iterable[Condition], numbers: Mapping[str, Any], table: str
) -> tuple[Evidence, ...]:
    told = [_as_evidence(one, numbers, table) for one in conditions if _is_known(one.says, numbers)]
    return tuple({one.text: one for one in told}.values())


def _is_known(text: str, numbers: Mapping[str, Any]) -> bool:
    """Whether a number of the text is known, or it has none.

    What a need lets pass as unknown is no evidence.
    """
    named = [name for _, name, _, _ in string.Formatter().parse(text) if name]
    return not named or any(numbers[name] is not None for name in named)


def _as_evidence(condition: Condition, numbers: Mapping[str, Any], table: str) -> Evidence:
    names = re.findall(r"[a-z_0-9]+", f"{condition.sql} {condition.says}")
    columns = catalogue()[table].columns
    used = dict.fromkeys(name for name in names if name in columns)
    return Evidence(filled(condition.says, numbers), condition.why, tuple(used), table)


PRINTED: dict[str, Callable[[float], str]] = {
    "": number,
    "number": number,
    "share": share,
    "signed": signed,
    "factor": lambda level: number(math.exp(level)),
    "reciprocal": lambda value: number(1 / value),
    "inverse": lambda level: number(math.exp(-level)),
    "count": lambda value: f"{value:,.0f}",
}


def filled(text: str, numbers: Mapping[str, Any]) -> str:
    """The text with its columns, `{name}` or `{name:kind}`, as people read them."""
    parts = []
    for words, name, kind, _ in string.Formatter().parse(text):
        parts.append(words)
        if name is not None:
            value = numbers.get(name)
            is_text = isinstance(value, str)
            parts.append(
                "unknown" if value is None else value if is_text else PRINTED[kind or ""](value)
            )
    return "".join(parts)
