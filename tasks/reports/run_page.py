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
    asked = list(steps)
    found = run_queries(asked, {name: f"from {name}" for name in TABLES})
    if baseline:
        found["run_pairs"] = _from(baseline, found["run_pairs"])
    changes = change_points.of_runs(found["run_trend"], events(asked))
    return Comparison(runs, baseline, asked, found, changes, inputs(asked, runs))


def events(steps: Sequence[Step]) -> dict[str, list[dict[str, Any]]]:
    """What happened to each run: its `events.jsonl`, and where the rollouts' weights got older."""
    told = {step.run: change_points.events(Path(step.facts()["source"])) for step in steps}
    ages = run_query(list(steps), WEIGHTS)
    for run, step, age, before in ages.filter(pl.col("age") != pl.col("before")).iter_rows():
        event = f"rollouts by weights {age:g} steps old, {before:g} before"
        told[run].append({"step": step, "event": event})
    return told


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
    asked = [n for n in common if (a, n) in prompts and (b, n) in prompts]
    alike = sum(prompts[a, n] == prompts[b, n] for n in asked)
    if same == len(common):
        return f"{a} and {b}: the same captures, byte for byte, at all {same} common steps"
    if not asked:
        return f"{a} and {b}: {len(common)} common steps, prompts unknown: only distributions"
    said = f"{a} and {b}: the same prompts at {alike} of {len(common)} common steps"
    if alike == len(common):
        return f"{said}; responses may differ (`tim diff` says for which tokens)"
    return f"{said}: at the others, differences may be those of the prompts"


def page(comparison: Comparison, bands: Bands) -> str:
    """The comparison as one self-contained page."""
    found = comparison.tables
    chosen = bands.for_family("default")
    drawn = pictures(
        {
            **_trends(found["run_trend"], comparison.changes, chosen),
            "ratio_ridge": over_steps.ratio_ridge(found["ratio_histogram"]),
            "density": over_steps.density(found["logp_density"]),
            "position_heat": over_steps.position_heat(found["gap_by_position"]),
        }
    )
    moved = (pl.col("kl_k1_slope") * pl.col("tokens")).abs()
    by_slope = found["token_trend"].sort(moved, descending=True)
    over = {"changes": comparison.changes, "run_pairs": _intervals(found)}
    moving = {
        "token_trend": by_slope.head(STANDING_OUT),
        "position_trend": found["position_trend"],
    }
    sections = [
        _section("Over steps", ["trend"], drawn, over, ["other_trends"]),
        _section("How r is spread", ["ratio_ridge", "density"], drawn, {}),
        _section("Where it moves", ["position_heat"], drawn, moving),
    ]
    numbers = sorted({step.step for step in comparison.steps})
    held = f", against {comparison.baseline}" if comparison.baseline else ""
    return html.render(
        "compare.html",
        {"groups": []},
        pictures=drawn,
        title=" · ".join(comparison.runs),
        answers=sentences(found["run_pairs"], found["attribution"]),
        steps_line=f"{len(comparison.steps)} steps from {numbers[0]} to {numbers[-1]}{held}",
        inputs=comparison.inputs,
        onsets=change_points.sentences(comparison.changes, found["run_trend"]),
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
    there = [(name, html.table(name, frame)) for name, frame in listed.items() if len(frame)]
    charts = {
        "charts": [n for n in names if n in drawn],
        "folded": [n for n in folded if n in drawn],
    }
    return {"title": title, **charts, "tables": there}


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
