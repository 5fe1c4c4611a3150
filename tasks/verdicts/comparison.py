"""How two runs differ, in a few sentences: which is worse, by how much, and by which link.

One rule: "worse" is said only where KL, median gap and share far off do not contradict each other,
and the interval of one of their differences excludes 0, or the KL is higher at every step of many.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from timtrack.tasks.messages.formatting import factor, number, share
from timtrack.tasks.verdicts.sentences import leading_link

FEWEST = 8  # common steps at all of which a run is higher, from which no interval is needed
JUDGED = ("kl_k3", "abs_logp_diff_p50", "frac_outside_5")


def sentences(pairs: pl.DataFrame, attribution: pl.DataFrame | None) -> list[str]:
    """For each pair of runs with common steps, which is worse; from `run_pairs`, `attribution`."""
    return [_pair(metrics, attribution) for metrics in _pairs(pairs)]


def _pairs(pairs: pl.DataFrame) -> Iterator[Mapping[str, Any]]:
    """For each pair of runs its rows of `run_pairs`, by metric."""
    for pair in pairs.partition_by("run", "other", maintain_order=True):
        yield {row["metric"]: row for row in pair.to_dicts()}


def _pair(metrics: Mapping[str, Any], attribution: pl.DataFrame | None) -> str:
    row = metrics.get(JUDGED[0])
    if row is None or row["difference"] is None:
        first = next(iter(metrics.values()))
        return f"{first['run']} and {first['other']}: {JUDGED[0]} is undefined, neither is worse."
    runs = {row["run"]: row["value"], row["other"]: row["other_value"]}
    worse, better = sorted(runs, key=lambda run: -runs[run])
    steps = f"{row['steps']:,} common step{'s' * (row['steps'] != 1)}"
    kl = f"KL (k3) {number(runs[worse])} against {number(runs[better])} nats on average of {steps}"
    if not _is_sure(metrics):
        names = f"{row['run']} and {row['other']}"
        return f"{names} do not clearly differ (no interval excludes 0): {worse} has {kl}."
    outside = _outside(metrics, worse, better)
    link = _link(attribution, worse)
    return (
        f"{worse} is worse than {better}: {kl}{_times(runs[worse], runs[better])}{outside}.{link}"
    )


def _is_sure(metrics: Mapping[str, Any]) -> bool:
    rows = [metrics[name] for name in JUDGED if name in metrics]
    differing = [row for row in rows if row["difference"]]
    if len({row["difference"] > 0 for row in differing}) != 1:
        return False
    bounded = (row for row in differing if row["margin"] is not None)
    return any(abs(row["difference"]) > row["margin"] for row in bounded) or _is_higher(rows[0])


def _is_higher(row: Mapping[str, Any]) -> bool:
    """Whether one run is higher at every step, where there is no interval."""
    is_every = row["share_higher"] in (0, 1) and row["steps"] >= FEWEST
    return bool(row["margin"] is None and is_every and row["difference"])


def _times(high: float, low: float) -> str:
    return f", {factor(high / low)} times" if low > 0 and high / low >= 2 else ""


def _outside(metrics: Mapping[str, Any], worse: str, better: str) -> str:
    row = metrics.get("frac_outside_5")
    if row is None or row["value"] is None or row["other_value"] is None:
        return ""
    shares = {row["run"]: row["value"], row["other"]: row["other_value"]}
    return f"; {share(shares[worse])} against {share(shares[better])} of tokens outside [1/5, 5]"


def _link(attribution: pl.DataFrame | None, run: str) -> str:
    """The link of the chain that carries most of a run's gap, on average over its steps."""
    if attribution is None:
        return ""
    links = attribution.filter(pl.col("run") == run).group_by("component")
    link = leading_link(links.agg(pl.col("share_abs").mean()))
    if link is None:
        return ""
    component, part = link
    return f" By its further views, {share(part)} of {run}'s gap is the link {component}."
