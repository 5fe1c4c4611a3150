"""The targets, what was measured, and whether they are met."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tally import ALIKE, WHOLE, Tally

DATA = ("load + Parquet", "tables")
Tallies = Mapping[str, Tally]


@dataclass(frozen=True)
class Target:
    """A number of a size (None: it has none), and what it may be at most."""

    title: str
    measured: Callable[[Tallies, str], float | None]
    at_most: Mapping[str, float]


def _seconds(of: Tally, name: str) -> float | None:
    """Load, Parquet and tables of a contestant, what it has of them; None if ours failed there."""
    if name not in of["seconds"] or "tables" not in of["seconds"]["timtrack"]:
        return None
    return sum(of["seconds"][name].get(stage, 0.0) for stage in DATA)


def _against(name: str) -> Callable[[Tallies, str], float | None]:
    def measured(tallies: Tallies, size: str) -> float | None:
        return _ratio(_seconds(tallies[size], "timtrack"), _seconds(tallies[size], name))

    return measured


def _alike(tallies: Tallies, size: str) -> float | None:
    """Load, Parquet and the numbers that the script makes too, against the script's."""
    ours, theirs = (tallies[size]["seconds"].get(name, {}) for name in ("timtrack", "script"))
    if ALIKE not in ours or not theirs:
        return None
    return _ratio(ours["load + Parquet"] + ours[ALIKE], _seconds(tallies[size], "script"))


def _whole(tallies: Tallies, size: str) -> float | None:
    """All stages, charts and report too, against the script with its plots."""
    ours, theirs = (tallies[size]["seconds"].get(name, {}) for name in ("timtrack", "script"))
    return _ratio(ours.get(WHOLE), theirs.get(WHOLE))


def _memory(tallies: Tallies, size: str) -> float | None:
    of = tallies[size]
    return None if of["failed"] else of["memory"]["timtrack"][WHOLE]


def _memory_against_script(tallies: Tallies, size: str) -> float | None:
    script = tallies[size]["memory"].get("script", {})
    return _ratio(_memory(tallies, size), script.get(WHOLE))


def _per_token_against_medium(tallies: Tallies, size: str) -> float | None:
    if size != "large" or "medium" not in tallies:
        return None
    costs = (_per_token(tallies[name]) for name in (size, "medium"))
    return _ratio(*costs)


def _per_token(of: Tally) -> float | None:
    return _ratio(_seconds(of, "timtrack"), of["tokens"])


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


TARGETS = (
    Target("whole / the script's", _whole, {"small": 0.8}),
    Target("load + Parquet + tables [s]", lambda t, s: _seconds(t[s], "timtrack"), {"small": 0.7}),
    Target("... / the script's", _against("script"), {"small": 0.35, "medium": 0.7}),
    Target("... only its numbers / the script's", _alike, {"medium": 0.3}),
    Target("... / the floor", _against("floor"), {}),
    Target("... per token / medium's", _per_token_against_medium, {"large": 1.2}),
    Target("own memory [MB]", _memory, {"small": 800, "medium": 800, "large": 800}),
    Target("... / the script's", _memory_against_script, {}),
    Target(
        "tokens.parquet [bytes per token]",
        lambda tallies, size: tallies[size]["bytes_per_token"],
        {"small": 12, "medium": 12, "large": 12},
    ),
)


def of_sizes(tallies: Tallies) -> str:
    """A line per number and size."""
    lines = [f"{'target':36}{'size':8}{'measured':>10}{'at most':>10}"]
    for target in TARGETS:
        for size in tallies:
            measured = target.measured(tallies, size)
            if measured is not None:
                limit = target.at_most.get(size)
                lines.append(f"{target.title:36}{size:8}{measured:10.2f}{_judged(measured, limit)}")
    failed = [size for size, of in tallies.items() if of["failed"]]
    return "\n".join([*lines, *(f"{'completes':36}{s:8}{'no':>10}{'':12}not met" for s in failed)])


def of_answers(answers: list[dict[str, Any]]) -> str:
    """A line per question to the lake, with the parts of its time."""
    lines = [
        f"{'question':44}{'listing':>9}{'connect':>9}{'query':>9}{'all [s]':>9}{'at most':>10}"
    ]
    for a in answers:
        query = a["seconds"] - a["listing"] - a["connecting"]
        parts = (a["listing"], a["connecting"], query, a["seconds"])
        numbers = "".join(f"{part:9.3f}" for part in parts)
        lines.append(f"{a['title']:44}{numbers}{_judged(a['seconds'], a['target'])}")
    return "\n".join(lines)


def _judged(measured: float, limit: float | None) -> str:
    if limit is None:
        return f"{'-':>10}"
    return f"{limit:10.2f}  {'met' if measured <= limit else 'not met'}"
