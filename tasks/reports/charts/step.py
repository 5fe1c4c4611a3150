"""One chart per table, under the table's name: tables in, Altair chart out, nothing computed.

A function's parameters are the tables it draws; the first one gives the chart its name. Captions
are made from the numbers, so that a healthy step reads as healthy.
"""

import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import altair as alt
import polars as pl

from timtrack.tasks.messages import formatting
from timtrack.tasks.reports import cells
from timtrack.tasks.reports.charts.distributions import (
    logp_density,
    prob_diff_histogram,
    ratio_histogram,
)
from timtrack.tasks.reports.charts.frontier import correction_frontier
from timtrack.tasks.reports.charts.theme import (
    BLUE,
    INK,
    QUIET,
    RED,
    WIDTH,
    Tables,
    largest,
    rule,
    titled,
)
from timtrack.tasks.verdicts.diagnoses import culprit


def gap_by_position(gap_by_position: pl.DataFrame) -> alt.Chart:
    """Mean gap along the response."""
    chart = (
        alt.Chart(gap_by_position)
        .mark_line(interpolate="step-after", color=BLUE, point=len(gap_by_position) == 1)
        .encode(
            x=alt.X("pos_bin:Q").title("position in the response (tokens)"),
            y=alt.Y("kl_k1:Q").title("mean of logp_rollout - logp_train (nats)"),
            tooltip=["pos_bin:Q", "tokens:Q", "kl_k1:Q", "kl_k3:Q", "frac_outside_5:Q"],
        )
    )
    caption = "k1 estimate of KL(rollout || train), by 32 tokens"
    return titled(chart, "Gap along the response", [caption])


LINKS = ["engine", "engine + staleness", "staleness", "staleness + codec", "codec"]


def attribution(attribution: pl.DataFrame) -> Any:
    """The parts of kl_k1 by where they come from."""
    chart = (
        alt.Chart(attribution)
        .mark_bar(color=BLUE, size=26)
        .encode(
            x=alt.X("k1:Q").title("part of KL(rollout || train), k1 (nats)"),
            y=alt.Y("component:N").title(None).sort(LINKS),
            tooltip=["component:N", "k1:Q", "abs_p50:Q", "abs_p99:Q", "share_abs:Q"],
        )
    )
    said = ", ".join(
        f"{row['component']} {formatting.share(row['share_abs'] or 0)}"
        for row in attribution.sort("share_abs", descending=True).to_dicts()
    )
    caption = f"parts of the total |ln r|, below 0 where they work against it: {said}"
    return titled(chart, "Where the gap comes from", [caption], WIDTH, 120)


def gap_by_rollout_prob(gap_by_rollout_prob: pl.DataFrame) -> Any:
    """Median gap by the probability that the rollout engine gave the token."""
    edges = [*gap_by_rollout_prob["prob_from"].to_list(), 1.0]
    buckets = [f"{formatting.number(a)} to {formatting.number(b)}" for a, b in pairwise(edges)]
    bars = (
        alt.Chart(gap_by_rollout_prob.with_columns(bucket=pl.Series(buckets)))
        .mark_bar(color=BLUE)
        .encode(
            x=alt.X("bucket:N").title("p_rollout of the token").sort(buckets).axis(labelAngle=0),
            y=alt.Y("abs_logp_diff_p50:Q").title("median |ln r| (nats)"),
            tooltip=["bucket:N", "tokens:Q", "abs_logp_diff_p50:Q", "share_abs_logp_diff:Q"],
        )
    )
    carried = gap_by_rollout_prob.drop_nulls("share_abs_logp_diff")
    caption = "there is no gap"
    if len(carried):
        widest = carried.row(by_predicate=largest("share_abs_logp_diff"), named=True)
        caption = (
            f"the largest part of the total |ln r|, "
            f"{formatting.share(widest['share_abs_logp_diff'])}, lies in "
            f"the bucket from {formatting.number(widest['prob_from'])}, which holds "
            f"{widest['tokens']:,} tokens"
        )
    return titled(bars, "Gap by how sure the rollout engine was", [caption])


def lag_scan(lag_scan: pl.DataFrame, alignment: pl.DataFrame) -> Any:
    """How well the engines' log-probs fit to each other when one is read some tokens later."""
    line = (
        alt.Chart(lag_scan)
        .mark_line(point=True, color=BLUE)
        .encode(
            x=alt.X("lag:O").title("lag (tokens)").axis(labelAngle=0),
            y=alt.Y("abs_logp_diff_mean:Q").title("mean |difference| (nats)"),
            tooltip=["lag:O", "tokens:Q", "abs_logp_diff_mean:Q", "r2_rollout:Q", "r2_train:Q"],
        )
    )
    best = lag_scan.row(by_predicate=largest("abs_logp_diff_mean", sign=-1), named=True)["lag"]
    caption = f"lowest at lag {best}"
    if alignment.filter(pl.col("is_found"), name="shift").height:
        caption = "two measures agree on a shift: see the table `alignment`"
    elif best != 0:
        caption += ", but no second measure agrees: no shift is believed"
    return titled(line, "Do the log-probs belong to each other?", [caption], height=160)


def culprits(culprits: pl.DataFrame) -> Any:
    """The slices that carry most more than their share of the gap, with intervals."""
    shown = culprits.filter(pl.col("excess") > 0, pl.col("share_abs_logp_diff") >= 1e-3).head(12)
    names = pl.Series([culprit(row) for row in shown.to_dicts()], dtype=pl.String)
    shown = shown.with_columns(what=names)
    y = alt.Y("what:N").title(None).sort(shown["what"].to_list())
    tooltip = ["what:N", "tokens:Q", "share_tokens:Q", "share_abs_logp_diff:Q", "q_value:Q"]
    points = (
        alt.Chart(shown)
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("lift:Q").title("lift: share of total |ln r| over share of tokens"),
            y=y,
            color=alt.condition("datum.survives", alt.value(RED), alt.value(QUIET)),
            tooltip=tooltip,
        )
    )
    resampled = shown.drop_nulls("lift_low")
    rules = alt.Chart(resampled).mark_rule().encode(x="lift_low:Q", x2="lift_high:Q", y=y)
    bars = [rules] if len(resampled) else []
    caption = "lines: 95 % intervals between prompt groups; "
    caption += (
        "red: survives a false-discovery correction"
        if shown["survives"].any()
        else "none survives a false-discovery correction"
        if culprits["q_value"].is_not_null().any()
        else "too few prompt groups to test any"
    )
    if shown.is_empty():
        caption = "no slice with a thousandth of the total |ln r| carries more than its share"
    height = 22 * max(2, len(shown))
    chart = alt.layer(rule(1, INK, [6, 4]), *bars, points)
    return titled(chart, "Which tokens carry more than their share", [caption], height=height)


def draw_charts(tables: Tables) -> dict[str, Any]:
    """Every chart whose tables are all there and have rows, by name.

    Its text is made printable: a PNG is made of an SVG, which as XML holds no control character.
    """
    drawn: dict[str, Callable[..., Any]] = {chart.__name__: chart for chart in DRAWN}
    wanted = {name: list(inspect.signature(chart).parameters) for name, chart in drawn.items()}
    return {
        name: chart(*(cells.legible(tables[table]) for table in wanted[name]))
        for name, chart in drawn.items()
        if all(table in tables and len(tables[table]) for table in wanted[name])
    }


DRAWN = (
    ratio_histogram,
    prob_diff_histogram,
    logp_density,
    gap_by_position,
    gap_by_rollout_prob,
    culprits,
    lag_scan,
    attribution,
    correction_frontier,
)
