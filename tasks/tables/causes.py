"""The causes of `sql/causes.toml`, as SQL over `signatures` and `run_signatures`."""

import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timtrack.tasks.tables.comments import filled

FILE = Path(__file__).parents[2] / "sql" / "causes.toml"
FIX = "fix_"
SHARED = "shared"  # the table of conditions that causes name


@dataclass(frozen=True)
class Condition:
    """Something that a number of a step's or a run's signatures tells."""

    sql: str
    says: str  # with columns in braces
    why: str  # the threshold


@dataclass(frozen=True)
class Signature:
    """The conditions that identify a cause, in one step or over steps."""

    strength: float
    needs: tuple[Condition, ...]
    supports: tuple[Condition, ...]
    contradicts: tuple[Condition, ...]
    yields_to: tuple[str, ...]
    sentence: str
    look: str  # SQL, with {where}

    def sql(self, cause: str, way: int) -> str:
        """Whether each of the conditions holds, as a struct; NULL for a support that is unknown."""
        lists = {
            "needs": map(_holds, self.needs),
            "supports": (f"({one.sql})" for one in self.supports),
            "contradicts": map(_holds, self.contradicts),
        }
        hold = ", ".join(f"'{kind}': [{', '.join(of)}]::boolean[]" for kind, of in lists.items())
        others = ", ".join(f"'{other}'" for other in self.yields_to)
        return (
            f"{{ 'cause': '{cause}', 'way': {way}, 'strength': {self.strength}, {hold}, "
            f"'yields_to': [{others}]::varchar[] }}"
        )


@dataclass(frozen=True)
class Definition:
    """One cause of `causes.toml`; see there for the fields."""

    id: str
    name: str
    group: str
    has_false_r: bool  # r is then no ratio of probabilities of what was sampled
    in_step: tuple[Signature, ...]  # any of them identifies it
    over_steps: tuple[Signature, ...]
    alike: tuple[str, ...]  # ids of those that a capture can hardly tell from it
    undecidable: str  # why it cannot be told from what a capture has, if so
    experiment: str
    fix: str
    fixes: Mapping[str, str]  # by framework
    threads: tuple[str, ...]


Shared = Mapping[str, Mapping[str, str]]


def _holds(condition: Condition) -> str:
    return f"coalesce({condition.sql}, false)"


@functools.cache
def definitions() -> dict[str, Definition]:
    """Every cause by id, in the file's order."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(FILE.read_text())
    shared = tables.pop(SHARED)
    return {name: _definition(name, table, shared) for name, table in tables.items()}


def undecidable() -> list[Definition]:
    """The causes that no single step tells from others."""
    return [cause for cause in definitions().values() if cause.undecidable]


def _definition(name: str, table: Mapping[str, Any], shared: Shared) -> Definition:
    told = {key: table[key] for key in ("sentence", "look") if key in table}
    return Definition(
        name,
        name=table["name"],
        group=table["group"],
        has_false_r=table.get("false_r", False),
        in_step=_signatures(table, shared),
        over_steps=_signatures(told | table.get("over_steps", {}), shared),
        alike=tuple(table.get("alike", ())),
        undecidable=table.get("undecidable", ""),
        experiment=table["experiment"],
        fix=table["fix"],
        fixes={k.removeprefix(FIX): v for k, v in table.items() if k.startswith(FIX)},
        threads=tuple(table["threads"]),
    )


def _signatures(table: Mapping[str, Any], shared: Shared) -> tuple[Signature, ...]:
    """A table's own, and its others, which yield to the same causes."""
    ways = [table, *({**table, **other} for other in table.get("otherwise", ()))]
    return tuple(_signature(way, shared) for way in ways if "needs" in way)


def _signature(table: Mapping[str, Any], shared: Shared) -> Signature:
    needs, supports, contradicts = (
        _conditions(table.get(kind, ()), shared) for kind in ("needs", "supports", "contradicts")
    )
    return Signature(
        table["strength"],
        needs,
        supports,
        contradicts,
        yields_to=tuple(table.get("yields_to", ())),
        sentence=table["sentence"],
        look=table.get("look", ""),
    )


def _conditions(listed: Iterable[Mapping[str, str] | str], shared: Shared) -> tuple[Condition, ...]:
    tables = (shared[one] if isinstance(one, str) else one for one in listed)
    return tuple(Condition(table["if"], table["says"], table["why"]) for table in tables)


def expand(sql: str) -> str:
    """SQL with every cause's conditions in place of its comment `causes` or `run causes`."""
    causes = definitions().values()
    parts = {
        "causes": lambda: (sql for one in causes for sql in _ways(one.id, one.in_step)),
        "run causes": lambda: (sql for one in causes for sql in _ways(one.id, one.over_steps)),
    }
    return filled(sql, parts)


def _ways(cause: str, signatures: Iterable[Signature]) -> list[str]:
    return [signature.sql(cause, way) for way, signature in enumerate(signatures)]
