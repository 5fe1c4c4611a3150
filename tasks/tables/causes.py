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
OF_SIGNATURE = ("strength", "needs", "supports", "contradicts", "yields_to", "otherwise")


@dataclass(frozen=True)
class Condition:
    """Something that a number of a step's or a run's signatures tells."""

    sql: str
    says: str  # with columns in braces
    why: str  # the threshold


@dataclass(frozen=True)
class Told:
    """What a cause, or one signature of it, means and asks for; see `causes.toml`."""

    sentence: str
    experiment: str
    fix: str
    fixes: Mapping[str, str]  # by framework
    look: str  # SQL, with {where}
    threads: tuple[str, ...]
    alike: tuple[str, ...]  # ids of those that a capture can hardly tell from it


@dataclass(frozen=True)
class Signature:
    """The conditions that identify a cause, in one step or over steps."""

    strength: float
    needs: tuple[tuple[Condition, ...], ...]  # of each, one at least
    supports: tuple[Condition, ...]
    contradicts: tuple[Condition, ...]
    yields_to: tuple[str, ...]
    told: Told

    def sql(self, cause: str, way: int) -> str:
        """Whether each of the conditions holds, as a struct; NULL where it is unknown."""
        needs = ", ".join(_flags(need) for need in self.needs)
        hold = f"'needs': [{needs}], 'supports': {_flags(self.supports)}, "
        hold += f"'contradicts': {_flags(self.contradicts)}"
        others = ", ".join(f"'{other}'" for other in self.yields_to)
        return (
            f"{{ 'cause': '{cause}', 'way': {way}, 'strength': {self.strength}, {hold}, "
            f"'yields_to': [{others}]::varchar[] }}"
        )

    @property
    def alternatives(self) -> tuple[Condition, ...]:
        """The conditions of all its needs."""
        return tuple(condition for need in self.needs for condition in need)


@dataclass(frozen=True)
class Definition:
    """One cause of `causes.toml`; see there for the fields."""

    id: str
    name: str
    group: str
    has_false_r: bool  # r is then no ratio of probabilities of what was sampled
    in_step: tuple[Signature, ...]  # any of them identifies it
    over_steps: tuple[Signature, ...]
    undecidable: str  # why it cannot be told from what a capture has, if so
    told: Told


Shared = Mapping[str, Mapping[str, Any]]


def _flags(conditions: Iterable[Condition]) -> str:
    return f"[{', '.join(f'({one.sql})' for one in conditions)}]::boolean[]"


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
    own = {key: value for key, value in table.items() if key not in (*OF_SIGNATURE, "alike")}
    return Definition(
        name,
        name=table["name"],
        group=table["group"],
        has_false_r=table.get("false_r", False),
        in_step=_signatures(table, shared),
        over_steps=_signatures(own | table.get("over_steps", {}), shared),
        undecidable=table.get("undecidable", ""),
        told=_told(table),
    )


def _told(table: Mapping[str, Any]) -> Told:
    return Told(
        table["sentence"],
        table["experiment"],
        table["fix"],
        fixes={k.removeprefix(FIX): v for k, v in table.items() if k.startswith(FIX) and v},
        look=table.get("look", ""),
        threads=tuple(table["threads"]),
        alike=tuple(table.get("alike", ())),
    )


def _signatures(table: Mapping[str, Any], shared: Shared) -> tuple[Signature, ...]:
    """A table's own, and its others, which have of it what they leave out."""
    ways = [table, *({**table, **other} for other in table.get("otherwise", ()))]
    return tuple(_signature(way, shared) for way in ways if "needs" in way)


def _signature(table: Mapping[str, Any], shared: Shared) -> Signature:
    def conditions(listed: Iterable[Mapping[str, Any] | str]) -> tuple[Condition, ...]:
        return tuple(_condition(shared[one] if isinstance(one, str) else one) for one in listed)

    needs = (shared[one] if isinstance(one, str) else one for one in table["needs"])
    return Signature(
        table["strength"],
        needs=tuple(conditions(need.get("any", [need])) for need in needs),
        supports=conditions(table.get("supports", ())),
        contradicts=conditions(table.get("contradicts", ())),
        yields_to=tuple(table.get("yields_to", ())),
        told=_told(table),
    )


def _condition(table: Mapping[str, str]) -> Condition:
    return Condition(table["if"], table["says"], table["why"])


def expand(sql: str) -> str:
    """SQL with every cause's conditions in place of its comment `causes` or `run causes`."""
    causes = definitions().values()
    parts = {
        "causes": lambda: (way for one in causes for way in _ways(one.id, one.in_step)),
        "run causes": lambda: (way for one in causes for way in _ways(one.id, one.over_steps)),
    }
    return filled(sql, parts)


def _ways(cause: str, signatures: Iterable[Signature]) -> list[str]:
    return [signature.sql(cause, way) for way, signature in enumerate(signatures)]
