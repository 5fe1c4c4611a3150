"""The comparison page: runs over their steps.

One rule: whether the inputs match comes before any difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages import cells
from timtrack.tasks.reports import html
from timtrack.tasks.reports.charts import over_steps
from timtrack.tasks.reports.charts.export import Picture, pictures
from timtrack.tasks.tables.query import run_queries, run_query
from timtrack.tasks.verdicts import change_points
from timtrack.tasks.verdicts.bands import Band, Bands
from timtrack.tasks.verdicts.comparison import sentences

TABLES = (
    *("run_trend", "run_pairs", "token_trend", "position_trend", "ratio_histogram"),
    *("logp_density", "gap_by_position", "attribution"),
)
PROMPTS = """
select run, step, hash(list(distinct hash(prompt_ids) order by hash(prompt_ids))) as prompts
from sequences
where prompt_ids is not null
group by run, step
"""
# How many steps old the weights of the typical rollout are, and were at the step before.
WEIGHTS = """
select *, lag(age) over (partition by run order by step) as before
from (
    select run, step, median(step - policy_version_min) as age
    from sequences
    where policy_version_min is not null
    group by run, step
)
order by run, step
"""
STANDING_OUT = 40  # tokens and changes listed


@dataclass(frozen=True)
class Comparison:
    """Runs' tables over the chosen steps; the others are compared with `baseline`."""

    runs: Sequence[str]
    baseline: str | None
    steps: Sequence[Step]
    tables: Mapping[str, pl.DataFrame]
    changes: pl.DataFrame
    inputs: Sequence[str]


def compare(steps: Sequence[Step], runs: Sequence[str], baseline: str | None) -> Comparison:
    """The comparison of these steps of these runs."""
    all_steps = list(steps)
    tables = run_queries(all_steps, {name: f"from {name}" for name in TABLES})
    if baseline:
        tables["run_pairs"] = _from(baseline, tables["run_pairs"])
    changes = change_points.of_runs(tables["run_trend"], events(all_steps))
    return Comparison(runs, baseline, all_steps, tables, changes, inputs(all_steps, runs))


def events(steps: Sequence[Step]) -> dict[str, list[dict[str, Any]]]:
    """What happened to each run: its `events.jsonl`, and where the rollouts' weights got older."""
    by_run = {step.run: change_points.events(Path(step.facts()["source"])) for step in steps}
    ages = run_query(list(steps), WEIGHTS)
    for run, step, age, before in ages.filter(pl.col("age") != pl.col("before")).iter_rows():
        event = f"rollouts by weights {age:g} steps old, {before:g} before"
        by_run[run].append({"step": step, "event": event})
    return by_run


def _from(baseline: str, pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs with the baseline only, each as the other run minus the baseline."""
    first = pairs.filter(pl.col("run") == baseline)
    second = pairs.filter(pl.col("other") == baseline).select(
        run="other",
        other="run",
        metric="metric",
        steps="steps",
        value="other_value",
        other_value="value",
        difference=-pl.col("difference"),
        is_paired="is_paired",
        se="se",
        margin="margin",
        share_higher=1 - pl.col("share_higher"),
    )
    return pl.concat([first, second])


def inputs(steps: Sequence[Step], runs: Sequence[str]) -> list[str]:
    """Whether the runs scored the same: same files, same prompts, or neither, for each pair."""
    if len(runs) < 2:
        return ["one run, nothing to match"]
    digests = {(step.run, step.step): step.facts()["sha256"] for step in steps}
    answer = run_query(list(steps), PROMPTS)
    prompts = {(row["run"], row["step"]): row["prompts"] for row in answer.to_dicts()}
    numbers = {run: {step.step for step in steps if step.run == run} for run in runs}
    return [
        _match(a, b, sorted(numbers[a] & numbers[b]), digests, prompts)
        for a, b in combinations(runs, 2)
    ]


def _match(
    a: str,
    b: str,
    common: list[int],
    digests: Mapping[tuple[str, int], str],
    prompts: Mapping[tuple[str, int], int],
) -> str:
    if not common:
        return f"{a} and {b} have no step in common: nothing can be compared step by step"
    same = sum(digests[a, n] == digests[b, n] for n in common)
    shared = [n for n in common if (a, n) in prompts and (b, n) in prompts]
    alike = sum(prompts[a, n] == prompts[b, n] for n in shared)
    if same == len(common):
        return f"{a} and {b}: the same captures, byte for byte, at all {same} common steps"
    if not shared:
        return f"{a} and {b}: {len(common)} common steps, prompts unknown: only distributions"
    sentence = f"{a} and {b}: the same prompts at {alike} of {len(common)} common steps"
    if alike == len(common):
        return f"{sentence}; responses may differ (`tim diff` says for which tokens)"
    return f"{sentence}: at the others, differences may be those of the prompts"


def page(comparison: Comparison, bands: Bands) -> str:
    """The comparison as one self-contained page."""
    tables = comparison.tables
    limits = bands.for_family("default")
    charts = pictures(
        {
            **_trends(tables["run_trend"], comparison.changes, limits),
            "ratio_ridge": over_steps.ratio_ridge(tables["ratio_histogram"]),
            "density": over_steps.density(tables["logp_density"]),
            "position_heat": over_steps.position_heat(tables["gap_by_position"]),
        }
    )
    moved = (pl.col("kl_k1_slope") * pl.col("tokens")).abs()
    by_slope = tables["token_trend"].sort(moved, descending=True)
    over = {"changes": comparison.changes, "run_pairs": _intervals(tables)}
    moving = {
        "token_trend": by_slope.head(STANDING_OUT),
        "position_trend": tables["position_trend"],
    }
    sections = [
        _section("Over steps", ["trend"], charts, over, ["other_trends"]),
        _section("How r is spread", ["ratio_ridge", "density"], charts, {}),
        _section("Where it moves", ["position_heat"], charts, moving),
    ]
    numbers = sorted({step.step for step in comparison.steps})
    against = f", against {comparison.baseline}" if comparison.baseline else ""
    return html.render(
        "compare.html",
        {"groups": []},
        pictures=charts,
        title=" · ".join(comparison.runs),
        answers=sentences(tables["run_pairs"], tables["attribution"]),
        steps_line=f"{len(comparison.steps)} steps from {numbers[0]} to {numbers[-1]}{against}",
        inputs=comparison.inputs,
        onsets=change_points.sentences(comparison.changes, tables["run_trend"]),
        sections=[section for section in sections if section["charts"] or section["tables"]],
    )


def _trends(trend: pl.DataFrame, changes: pl.DataFrame, bands: dict[str, Band]) -> dict[str, Any]:
    """Charts of the headline, and of the other metrics."""
    is_first = pl.col("metric").is_in(over_steps.HEADLINE)
    parts = {"trend": is_first, "other_trends": ~is_first}
    return {
        name: over_steps.trend(trend.filter(part), changes.filter(part), bands)
        for name, part in parts.items()
        if len(trend.filter(part))
    }


def _section(
    title: str,
    names: list[str],
    drawn: Mapping[str, Picture],
    listed: Mapping[str, pl.DataFrame],
    folded: Sequence[str] = (),
) -> dict[str, Any]:
    """A heading with the charts that were drawn and the tables that have rows."""
    tables = [(name, html.table(name, frame)) for name, frame in listed.items() if len(frame)]
    charts = {
        "charts": [n for n in names if n in drawn],
        "folded": [n for n in folded if n in drawn],
    }
    return {"title": title, **charts, "tables": tables}


def _intervals(found: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Differences with their 95 % intervals."""
    margin = pl.col("margin")
    return found["run_pairs"].with_columns(
        low=pl.col("difference") - margin, high=pl.col("difference") + margin
    )


def write(comparison: Comparison, folder: Path, bands: Bands) -> None:
    """The page and its tables as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.html").write_text(page(comparison, bands))
    cells.write_csv(comparison.changes, folder / "changes.csv")
    for name in ("run_trend", "run_pairs", "token_trend", "position_trend"):
        cells.write_csv(comparison.tables[name], folder / f"{name}.csv")
