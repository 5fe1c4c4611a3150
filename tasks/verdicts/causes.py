"""The causes of a step's mismatch in words: evidence, the deciding experiment, the fix."""

import math
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from timtrack.tasks.lake.steps import Step, require_tokens
from timtrack.tasks.messages.formatting import number, share, signed
from timtrack.tasks.tables.catalogue import catalogue, tables_named
from timtrack.tasks.tables.causes import Condition, definitions
from timtrack.tasks.tables.compute import computed_tables
from timtrack.tasks.tables.database import literal
from timtrack.tasks.tables.stored import stored_tables

NEEDED = {"causes", "signatures"}  # tables
VERSION = 1


@dataclass(frozen=True)
class Evidence:
    """What a number of `signatures` says, and why its threshold is where it is."""

    text: str
    why: str
    columns: tuple[str, ...]

    def sql(self, run: str, step: int) -> str:
        """The query that gives its numbers."""
        where = f"run = {literal(run)} and step = {step}"
        return f"select {', '.join(self.columns)} from signatures where {where}"


@dataclass(frozen=True)
class Cause:
    """A cause whose signature fits a step."""

    id: str
    name: str
    group: str
    confidence: float  # 0 to 1, no probability: see the table `causes`
    sentence: str
    evidence: tuple[Evidence, ...]
    against: tuple[Evidence, ...]
    experiment: str
    fix: str
    fixes: Mapping[str, str]  # by framework
    threads: tuple[str, ...]

    def as_dict(self, run: str, step: int) -> dict[str, Any]:
        """For machines; `diagnosis_version` changes with the meaning of a field."""
        return {
            "diagnosis_version": VERSION,
            "cause": self.id,
            "name": self.name,
            "group": self.group,
            "confidence": self.confidence,
            "sentence": self.sentence,
            "evidence": [_as_dict(one, run, step) for one in self.evidence],
            "against": [_as_dict(one, run, step) for one in self.against],
            "experiment": self.experiment,
            "fix": {"any": self.fix, **self.fixes},
            "threads": list(self.threads),
        }


def _as_dict(evidence: Evidence, run: str, step: int) -> dict[str, str]:
    return {"text": evidence.text, "why": evidence.why, "sql": evidence.sql(run, step)}


def causes_of(tables: Mapping[str, pl.DataFrame]) -> tuple[Cause, ...]:
    """The causes that fit, the likeliest first; none of tables of older SQL."""
    if not tables.keys() >= NEEDED or tables["causes"].is_empty():
        return ()
    numbers = tables["signatures"].row(0, named=True)
    rows = tables["causes"].sort("rank").to_dicts()
    return tuple(_cause(row, numbers) for row in rows if row["cause"] in definitions())


def diagnose(step: Step) -> tuple[Cause, ...]:
    """The causes that fit a step, from its tables; those that lack are computed, and not stored.

    Raises NoSuchStep where the tokens are gone and the tables are of older SQL.
    """
    stored = stored_tables(step, NEEDED)
    if stored.keys() >= NEEDED:
        return causes_of(stored)
    require_tokens(step)
    return causes_of(computed_tables(step, tables_named(" ".join(NEEDED))))


def _cause(row: Mapping[str, Any], numbers: Mapping[str, Any]) -> Cause:
    known = definitions()[row["cause"]]
    supports = _holding(known.supports, row["supports"])
    against = _holding(known.contradicts, row["contradicts"])
    return Cause(
        known.id,
        known.name,
        known.group,
        row["confidence"],
        filled(known.sentence, numbers),
        tuple(_evidence(one, numbers) for one in (*known.needs, *supports)),
        tuple(_evidence(one, numbers) for one in against),
        known.experiment,
        known.fix,
        known.fixes,
        known.threads,
    )


def _holding(conditions: tuple[Condition, ...], digits: str) -> list[Condition]:
    return [one for one, digit in zip(conditions, digits, strict=True) if digit == "1"]


def _evidence(condition: Condition, numbers: Mapping[str, Any]) -> Evidence:
    named = re.findall(r"[a-z_0-9]+", f"{condition.sql} {condition.says}")
    columns = catalogue()["signatures"].columns
    used = dict.fromkeys(name for name in named if name in columns)
    return Evidence(filled(condition.says, numbers), condition.why, tuple(used))


PRINTED: dict[str, Callable[[float], str]] = {
    "": number,
    "number": number,
    "share": share,
    "signed": signed,
    "factor": lambda level: number(math.exp(level)),
    "inverse": lambda level: number(math.exp(-level)),
    "count": lambda value: f"{value:,.0f}",
}


def filled(text: str, numbers: Mapping[str, Any]) -> str:
    """The text with its columns, `{name}` or `{name:kind}`, as people read them."""
    parts = []
    for words, name, kind, _ in string.Formatter().parse(text):
        parts.append(words)
        if name is not None:
            value = numbers[name]
            is_text = isinstance(value, str)
            parts.append(
                "unknown" if value is None else value if is_text else PRINTED[kind or ""](value)
            )
    return "".join(parts)
