"""The causes of `sql/causes.toml`, as SQL over `signatures`."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "sql" / "causes.toml"
FIX = "fix_"


@dataclass(frozen=True)
class Condition:
    """Something that a number of `signatures` tells."""

    sql: str
    says: str  # with columns in braces
    why: str  # the threshold


@dataclass(frozen=True)
class Definition:
    """One table of `causes.toml`; see there for the fields."""

    id: str
    name: str
    group: str
    strength: float
    needs: tuple[Condition, ...]
    supports: tuple[Condition, ...]
    contradicts: tuple[Condition, ...]
    yields_to: tuple[str, ...]
    sentence: str
    experiment: str
    fix: str
    fixes: Mapping[str, str]  # by framework
    threads: tuple[str, ...]

    @property
    def sql(self) -> str:
        """Whether each of the conditions holds, as a struct; NULL for a support that is unknown."""
        lists = {
            "needs": map(_holds, self.needs),
            "supports": (f"({one.sql})" for one in self.supports),
            "contradicts": map(_holds, self.contradicts),
        }
        hold = ", ".join(f"'{kind}': [{', '.join(of)}]::boolean[]" for kind, of in lists.items())
        others = ", ".join(f"'{other}'" for other in self.yields_to)
        return (
            f"{{ 'cause': '{self.id}', 'strength': {self.strength}, {hold}, "
            f"'yields_to': [{others}]::varchar[] }}"
        )


def _holds(condition: Condition) -> str:
    return f"coalesce({condition.sql}, false)"


@functools.cache
def definitions() -> dict[str, Definition]:
    """Every cause by id, in the file's order."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(FILE.read_text())
    return {name: _definition(name, table) for name, table in tables.items()}


def _definition(name: str, table: Mapping[str, Any]) -> Definition:
    return Definition(
        name,
        name=table["name"],
        group=table["group"],
        strength=table["strength"],
        needs=_conditions(table["needs"]),
        supports=_conditions(table.get("supports", ())),
        contradicts=_conditions(table.get("contradicts", ())),
        yields_to=tuple(table.get("yields_to", ())),
        sentence=table["sentence"],
        experiment=table["experiment"],
        fix=table["fix"],
        fixes={k.removeprefix(FIX): v for k, v in table.items() if k.startswith(FIX)},
        threads=tuple(table["threads"]),
    )


def _conditions(tables: Any) -> tuple[Condition, ...]:
    return tuple(Condition(table["if"], table["says"], table["why"]) for table in tables)


def expand(sql: str) -> str:
    """SQL with every cause's conditions in place of its comment `causes`."""
    return sql.replace("/* causes */", ",\n".join(cause.sql for cause in definitions().values()))
