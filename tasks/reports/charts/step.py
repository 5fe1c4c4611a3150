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

from timtrack.tasks.messages import cells, formatting
from timtrack.tasks.reports.charts.distributions import (
    logp_density,
    logp_diff_histogram,
    prob_diff_histogram,
    ratio_histogram,
)
from timtrack.tasks.reports.charts.export import Picture, pictures
from timtrack.tasks.reports.charts.frontier import correction_frontier
from timtrack.tasks.reports.charts.theme import (
    BLUE,
    INK,
    QUIET,
    RED,
    TIPS,
    WIDTH,
    Tables,
    largest,
    rule,
    titled,
    with_tips,
)
from timtrack.tasks.verdicts.diagnoses import culprit

FEWEST = 30  # tokens of a stretch from which its mean says something


def gap_along_response(gap_along_response: pl.DataFrame) -> Any:
    """Mean gap along the response, in stretches of equal tokens, with 95 % intervals."""
    stretches = with_tips(gap_along_response, _stretch_tip).with_columns(
        until=pl.col("pos_to") + 1, color=pl.when(pl.col("tokens") < FEWEST).then(pl.lit(QUIET))
    )
    stretches = stretches.with_columns(pl.col("color").fill_null(BLUE))
    base = alt.Chart(stretches).encode(
        x=alt.X("pos_from:Q").title("position in the response (tokens)").scale(nice=False),
        x2="until:Q",
        color=alt.Color("color:N").scale(None),
        **TIPS,
    )
    y = alt.Y("abs_logp_diff_mean:Q").title("mean |ln r| (nats)").axis(format=".4~g")
    marks = [base.mark_rule(strokeWidth=3, strokeCap="butt").encode(y=y)]
    caption = "no intervals: each stretch has tokens of fewer than 5 effective prompt groups"
    if len(bounded := stretches.drop_nulls("abs_logp_diff_high")):
        caption = "shaded: 95 % intervals between prompt groups"
        area = base.mark_rect(opacity=0.2).encode(
            y="abs_logp_diff_low:Q", y2="abs_logp_diff_high:Q"
        )
        marks.insert(0, area.properties(data=bounded))
    if (stretches["tokens"] < FEWEST).any():
        caption += f"; grey: fewer than {FEWEST} tokens"
    captions = ["A flat line: where a token stands does not matter.", caption]
    return titled(alt.layer(*marks), "Gap along the response", captions)


def _stretch_tip(row: dict[str, Any]) -> str:
    low, high = row["abs_logp_diff_low"], row["abs_logp_diff_high"]
    numbers = (formatting.number(low), formatting.number(high))
    interval = f" (95 % {numbers[0]} to {numbers[1]})" if high is not None else ""
    return (
        f"positions {row['pos_from']} to {row['pos_to']}, {formatting.tokens(row['tokens'])}: "
        f"mean |ln r| {formatting.number(row['abs_logp_diff_mean'])} nats{interval}"
    )


LINKS = ["engine", "engine + staleness", "staleness", "staleness + codec", "codec"]


def attribution(attribution: pl.DataFrame) -> Any:
    """The parts of kl_k1 by where they come from."""
    chart = (
        alt.Chart(with_tips(attribution, _link_tip))
        .mark_bar(color=BLUE, size=22)
        .encode(
            x=alt.X("k1:Q").title("part of KL(rollout || train), k1 (nats)").axis(tickCount=6),
            y=alt.Y("component:N").title(None).sort(LINKS),
            **TIPS,
        )
    )
    links = ", ".join(
        f"{row['component']} {formatting.share(row['share_abs'] or 0)}"
        for row in attribution.sort("share_abs", descending=True).to_dicts()
    )
    caption = [
        "The links of the chain rollout → train, scored on the same tokens, add up to the gap.",
        f"parts of the total |ln r|, below 0 where they work against it: {links}",
    ]
    return titled(chart, "Where the gap comes from", caption, height=120)


def _link_tip(row: dict[str, Any]) -> str:
    return (
        f"{row['component']}: k1 {formatting.number(row['k1'])} nats, median |gap| "
        f"{formatting.number(row['abs_p50'])}, 99 % below {formatting.number(row['abs_p99'])}"
    )


def gap_by_rollout_prob(gap_by_rollout_prob: pl.DataFrame) -> Any:
    """Median gap by the probability that the rollout engine gave the token."""
    edges = [*gap_by_rollout_prob["prob_from"].to_list(), 1.0]
    buckets = [f"{formatting.number(a)}–{formatting.number(b)}" for a, b in pairwise(edges)]
    table = gap_by_rollout_prob.with_columns(bucket=pl.Series(buckets))
    bars = (
        alt.Chart(with_tips(table, _bucket_tip))
        .mark_bar(color=BLUE)
        .encode(
            x=alt.X("bucket:N")
            .title("p_rollout of the token")
            .sort(buckets)
            .axis(labelAngle=0, labelFontSize=10),
            y=alt.Y("abs_logp_diff_p50:Q").title("median |ln r| (nats)").axis(format=".4~g"),
            **TIPS,
        )
    )
    carried = gap_by_rollout_prob.drop_nulls("share_abs_logp_diff")
    caption = "there is no gap"
    if len(carried):
        widest = carried.row(by_predicate=largest("share_abs_logp_diff"), named=True)
        caption = (
            f"{formatting.share(widest['share_abs_logp_diff'])} of the total |ln r| lies in the "
            f"bucket from {formatting.number(widest['prob_from'])}, of "
            f"{formatting.tokens(widest['tokens'])}"
        )
    captions = ["Rounding noise falls to the right: sure tokens hardly move.", caption]
    return titled(bars, "Gap by how sure the rollout engine was", captions)


def _bucket_tip(row: dict[str, Any]) -> str:
    part = row["share_abs_logp_diff"]
    return (
        f"p_rollout {row['bucket']}: {formatting.tokens(row['tokens'])}, median |ln r| "
        f"{formatting.number(row['abs_logp_diff_p50'])} nats"
        + ("" if part is None else f", {formatting.share(part)} of the total")
    )


def lag_scan(lag_scan: pl.DataFrame, alignment: pl.DataFrame) -> Any:
    """How well the engines' log-probs fit to each other when one is read some tokens later."""
    line = (
        alt.Chart(with_tips(lag_scan, _lag_tip))
        .mark_line(point=True, color=BLUE)
        .encode(
            x=alt.X("lag:O").title("lag (tokens)").axis(labelAngle=0),
            y=alt.Y("abs_logp_diff_mean:Q").title("mean |difference| (nats)"),
            **TIPS,
        )
    )
    best = lag_scan.row(by_predicate=largest("abs_logp_diff_mean", sign=-1), named=True)["lag"]
    caption = f"lowest at lag {best}"
    if alignment.filter(pl.col("is_found"), name="shift").height:
        caption = "two measures agree on a shift: see the table `alignment`"
    elif best != 0:
        caption += ", but no second measure agrees: no shift is believed"
    captions = ["Log-probs of the same tokens fit best at lag 0.", caption]
    return titled(line, "Do the log-probs belong to each other?", captions, height=160)


def _lag_tip(row: dict[str, Any]) -> str:
    gap = formatting.number(row["abs_logp_diff_mean"])
    return (
        f"lag {row['lag']:+d}: mean |difference| {gap} nats over {formatting.tokens(row['tokens'])}"
    )


CULPRITS = 10  # slices in the chart


def culprits(culprits: pl.DataFrame) -> Any:
    """The slices that carry most more than their share of the gap, with intervals."""
    table = culprits.filter(pl.col("excess") > 0, pl.col("share_abs_logp_diff") >= 1e-3)
    rows = table.head(CULPRITS)
    names = pl.Series([_named(row) for row in rows.to_dicts()], dtype=pl.String)
    rows = with_tips(rows.with_columns(what=names), _culprit_tip)
    y = alt.Y("what:N").title(None).sort(rows["what"].to_list()).axis(labelLimit=250)
    points = (
        alt.Chart(rows)
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("lift:Q").title("lift: share of total |ln r| over share of tokens"),
            y=y,
            color=alt.condition("datum.survives", alt.value(RED), alt.value(QUIET)),
            **TIPS,
        )
    )
    resampled = rows.drop_nulls("lift_low")
    rules = alt.Chart(resampled).mark_rule(aria=False).encode(x="lift_low:Q", x2="lift_high:Q", y=y)
    bars = [rules] if len(resampled) else []
    captions = [
        "At 1 (dashed) a slice carries its share; lines: 95 % intervals between prompt groups.",
        "red: survives a false-discovery correction"
        if rows["survives"].any()
        else "none survives a false-discovery correction"
        if culprits["q_value"].is_not_null().any()
        else "too few prompt groups to test any",
    ]
    if rows.is_empty():
        captions = ["no slice with a thousandth of the total |ln r| carries more than its share"]
    height = 22 * max(2, len(rows))
    chart = alt.layer(rule(1, INK, [6, 4]), *bars, points)
    title = "Which tokens carry more than their share"
    return titled(chart, title, captions, WIDTH - 110, height)


def _named(row: dict[str, Any]) -> str:
    return culprit(row).replace("Rollout probability", "p_rollout")


def _culprit_tip(row: dict[str, Any]) -> str:
    return (
        f"{row['what']}: {formatting.share(row['share_abs_logp_diff'])} of the total |ln r| with "
        f"{formatting.share(row['share_tokens'])} of the tokens ({row['tokens']:,}), lift "
        f"{formatting.number(row['lift'])}"
    )


def draw_charts(tables: Tables) -> dict[str, Picture]:
    """The charts of a step, drawn, by name."""
    return pictures(charts_of(tables))


def charts_of(tables: Tables) -> dict[str, Any]:
    """Every chart whose tables are all there and have rows, by name; some have nothing to show.

    Its text is made printable: XML, as which it is drawn, holds no control character.
    """
    charts = {}
    for chart in DRAWN:
        wanted = list(inspect.signature(chart).parameters)
        if all(table in tables and len(tables[table]) for table in wanted):
            charts[chart.__name__] = chart(*(cells.legible(tables[table]) for table in wanted))
    return {name: chart for name, chart in charts.items() if chart is not None}


DRAWN: tuple[Callable[..., Any], ...] = (
    ratio_histogram,
    logp_diff_histogram,
    logp_density,
    prob_diff_histogram,
    gap_along_response,
    gap_by_rollout_prob,
    culprits,
    lag_scan,
    attribution,
    correction_frontier,
)
