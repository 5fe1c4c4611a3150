"""Charts of how ratios and log-probs are distributed; the report starts with them."""

import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from timtrack.tasks.messages import formatting
from timtrack.tasks.reports.charts.theme import (
    BLUE,
    INK,
    ORANGE,
    RED,
    TIPS,
    band,
    rule,
    titled,
    with_tips,
)

EDGE = 10**0.15  # width of the bars that stand for all beyond the axis, as a factor
TAIL = 0.001  # share of the tokens at either end that the outermost bars may gather
NARROWEST = 2.0  # the axis of r shows at least [1/2, 2]
SPIKE = 0.5  # share of one bar from which the others would not be seen beside it


def ratio_histogram(ratio_histogram: pl.DataFrame, step_metrics: pl.DataFrame) -> alt.LayerChart:
    """How r is spread, with 1, the bands [1/2, 2] and [1/5, 5], and what lies out of the axis."""
    bars = _ratio_bars(ratio_histogram)
    domain = [min(1 / NARROWEST, *bars["left"]), max(NARROWEST, *bars["right"])]
    marks = [
        *(band(a, b, opacity) for a, b, opacity in ((0.2, 5, 0.10), (0.5, 2, 0.16))),
        _histogram(
            with_tips(bars, _ratio_tip),
            alt.X("left:Q")
            .scale(type="log", domain=domain, nice=False)
            .title("r = p_train / p_rollout (log axis)")
            .axis(values=powers_of_ten(*domain), labelExpr=AS_POWERS),
        ),
        *(rule(at, RED, [6, 4]) for at in (0.2, 5)),
        *(rule(at, ORANGE, [2, 3]) for at in (0.5, 2)),
        rule(1, INK, [1, 0]),
    ]
    return titled(
        alt.layer(*marks),
        "Ratio of the two probabilities of each token",
        ratio_caption(step_metrics.row(0, named=True)),
    )


AS_POWERS = "datum.value < 1e-3 ? format(datum.value, '~e') : format(datum.value, '.4~g')"


def powers_of_ten(low: float, high: float) -> list[float]:
    """Up to 8 powers of ten, 1 among them; of less than two decades some values between."""
    decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    if len(decades) < 3:
        return [value for value in (0.1, 0.2, 0.5, 0.7, 1, 1.4, 2, 5, 10) if low <= value <= high]
    every = math.ceil(len(decades) / 8)
    return [10.0**decade for decade in decades if decade % every == 0]


def _ratio_bars(table: pl.DataFrame) -> pl.DataFrame:
    """Bins with tokens; those of the outermost 0.1 % of the tokens are one bar at either end."""
    bars = table.filter(pl.col("tokens") > 0).with_columns(
        left=pl.coalesce("ratio_low", pl.col("ratio_high") / EDGE),
        right=pl.coalesce("ratio_high", pl.col("ratio_low") * EDGE),
        upto=pl.col("share").cum_sum(),
    )
    low = (pl.col("upto") <= TAIL) & (pl.col("right") < 1 / NARROWEST)
    high = (pl.col("upto") - pl.col("share") >= 1 - TAIL) & (pl.col("left") > NARROWEST)
    ends = [_end(bars.filter(low), -1), _end(bars.filter(high), 1)]
    return pl.concat([ends[0], bars.filter(~low & ~high), ends[1]], how="diagonal")


def _end(rows: pl.DataFrame, side: int) -> pl.DataFrame:
    """The bins of one end as one bar, no wider than EDGE."""
    if rows.is_empty():
        return rows
    near = rows["right"].max() if side < 0 else rows["left"].min()
    left, right = (near / EDGE, near) if side < 0 else (near, near * EDGE)  # type: ignore[operator]
    return pl.DataFrame(
        {
            "left": [left],
            "right": [right],
            "tokens": [rows["tokens"].sum()],
            "share": [rows["share"].sum()],
            "ratio_low": [rows["ratio_low"].min()] if side > 0 else [None],
            "ratio_high": [rows["ratio_high"].max()] if side < 0 else [None],
        },
        schema_overrides={"ratio_low": pl.Float64, "ratio_high": pl.Float64},
    )


def _ratio_tip(row: Mapping[str, Any]) -> str:
    low, high = row["ratio_low"], row["ratio_high"]
    where = (
        f"r below {formatting.number(high)}"
        if low is None
        else f"r from {formatting.number(low)}"
        if high is None
        else f"r {formatting.number(low)} to {formatting.number(high)}"
    )
    return f"{where}: {_counted(row)}"


def _counted(row: Mapping[str, Any]) -> str:
    return f"{formatting.tokens(row['tokens'])}, {formatting.share(row['share'])}"


def _histogram(bars: pl.DataFrame, x: alt.X) -> alt.Chart:
    """Bars from `left` to `right`, as high as their share; on a log axis where one towers."""
    y = alt.Y("share:Q").title("share of trained tokens").axis(format="~%")
    floor = 0.0
    shares: list[float] = bars["share"].to_list()
    if max(shares) > SPIKE and len(shares) > 1:
        floor = 10.0 ** math.floor(math.log10(min(shares)) - 0.05)
        y = y.scale(type="log", domain=[floor, 1], nice=False).title("share of tokens (log axis)")
        y = y.axis(format="~%", tickCount=6)
    return (
        alt.Chart(bars.select("left", "right", "share", "tip"))
        .mark_bar(color=BLUE)
        .encode(x=x, x2="right:Q", y=y, y2=alt.datum(floor), **TIPS)
    )


def logp_diff_histogram(
    logp_diff_histogram: pl.DataFrame, step_metrics: pl.DataFrame
) -> alt.LayerChart:
    """How large |ln r| is, at every scale."""
    numbers = step_metrics.row(0, named=True)
    [equal] = logp_diff_histogram.filter(bin=-1)["share"]
    bars = logp_diff_histogram.filter(pl.col("bin") >= 0, pl.col("tokens") > 0)
    caption = [
        "Further left is better; dotted: a factor of 2, dashed: of 5.",
        f"median {formatting.number(numbers['abs_logp_diff_p50'])} nats, 99 % below "
        f"{formatting.number(numbers['abs_logp_diff_p99'])}; "
        f"{formatting.share(equal)} of the tokens exactly equal",
    ]
    marks = [rule(math.log(2), ORANGE, [2, 3]), rule(math.log(5), RED, [6, 4])]
    if len(bars):
        x = alt.X("left:Q").scale(type="log", nice=False).title("|ln r| (nats, log axis)")
        edges = bars.rename({"diff_low": "left", "diff_high": "right"})
        x = x.axis(values=[10.0**power for power in range(-7, 3)], format="~e")
        marks.insert(0, _histogram(with_tips(edges, _diff_tip), x))
    return titled(alt.layer(*marks), "How large the gap of a token is", caption)


def _diff_tip(row: Mapping[str, Any]) -> str:
    below = formatting.share(row["tokens_low"] / row["tokens"])
    where = f"{formatting.number(row['left'])} to {formatting.number(row['right'])} nats"
    return f"|ln r| {where}: {_counted(row)}; r < 1 in {below} of them"


def prob_diff_histogram(
    prob_diff_histogram: pl.DataFrame, step_metrics: pl.DataFrame
) -> alt.LayerChart | None:
    """How |p_train - p_rollout| is spread over [0, 1]; none where all are in its first bin."""
    if prob_diff_histogram.filter(pl.col("tokens") > 0)["bin"].max() == 0:
        return None
    bars = prob_diff_histogram.filter(pl.col("tokens") > 0).rename(
        {"diff_low": "left", "diff_high": "right"}
    )
    x = alt.X("left:Q").title("|p_train - p_rollout|").scale(domain=[0, 1])
    mean = formatting.number(step_metrics["abs_prob_diff_mean"].item())
    [near] = prob_diff_histogram.filter(bin=0)["share"]
    return titled(
        alt.layer(_histogram(with_tips(bars, _prob_tip), x)),
        "Difference of the two probabilities of each token",
        [
            "At 0 the engines agree; at 1 one is sure of what the other excludes.",
            f"mean |p_train - p_rollout| = {mean}; below 0.02: {formatting.share(near)} of tokens",
        ],
    )


def _prob_tip(row: Mapping[str, Any]) -> str:
    return f"{formatting.number(row['left'])} to {formatting.number(row['right'])}: {_counted(row)}"


def lowest(logp_density: pl.DataFrame) -> float:
    """Where both axes of log-probs begin [nats]."""
    return min(*logp_density["rollout_low"], *logp_density["train_low"])


def density_cells(logp_density: pl.DataFrame) -> alt.Chart:
    """Counts of tokens in cells of half a nat, the engines' log-probs against each other.

    Opacity shows the count, so that few tokens are faint on a light page and on a dark one.
    """
    axis = alt.Scale(domain=[lowest(logp_density), 0], nice=False)
    most = max(2, *logp_density["tokens"])
    opacity = alt.Scale(type="log", domain=[1, most], range=[0.18, 1])
    return (
        alt.Chart(with_tips(logp_density, _cell_tip))
        .transform_calculate(right="datum.rollout_low + 0.5", top="datum.train_low + 0.5")
        .mark_rect(color=BLUE)
        .encode(
            x=alt.X("rollout_low:Q").title("log-prob by the rollout engine (nats)").scale(axis),
            x2="right:Q",
            y=alt.Y("train_low:Q").title("log-prob by the trainer (nats)").scale(axis),
            y2="top:Q",
            opacity=alt.Opacity("tokens:Q").scale(opacity).title("tokens"),
            **TIPS,
        )
    )


def _cell_tip(row: Mapping[str, Any]) -> str:
    places = (row["rollout_low"], row["train_low"])
    rollout, train = (f"{low:g} to {low + 0.5:g}" for low in places)
    return f"rollout {rollout}, train {train} nats: {formatting.tokens(row['tokens'])}"


def logp_density(
    logp_density: pl.DataFrame, worst_tokens: pl.DataFrame, step_metrics: pl.DataFrame
) -> alt.LayerChart:
    """The log-probs against each other: counts in cells, y = x, the widest gaps as points."""
    low = lowest(logp_density)
    points = with_tips(worst_tokens.head(30), _worst_tip)
    widest = (
        alt.Chart(points.select("logp_rollout", "logp_train", "tip"))
        .mark_point(color=RED, size=22, strokeWidth=1.5, clip=True)
        .encode(x="logp_rollout:Q", y="logp_train:Q", **TIPS)
    )
    diagonal = alt.Chart(pl.DataFrame({"a": [low, 0.0], "b": [low, 0.0]}))
    line = diagonal.mark_line(color=INK, strokeDash=[6, 4], strokeWidth=1, aria=False)
    numbers = step_metrics.row(0, named=True)
    correlations = ", ".join(
        f"{label} {formatting.number(numbers[name])}"
        for label, name in (
            ("Pearson of log-probs", "pearson_logp"),
            ("of probabilities", "pearson_prob"),
            ("Spearman", "spearman"),
        )
    )
    return titled(
        alt.layer(density_cells(logp_density), line.encode(x="a:Q", y="b:Q"), widest),
        "Log-probs of the same tokens by the two engines",
        ["Closer to the dashed line y = x is better; circles: the 30 widest gaps.", correlations],
        width=340,
        height=300,
    )


def _worst_tip(row: Mapping[str, Any]) -> str:
    token = "" if row["token"] is None else f" {row['token']!r}"
    gap = f"{formatting.nats(row['logp_rollout'])} → {formatting.nats(row['logp_train'])}"
    return f"row {row['row']}, position {row['pos']}{token}: {gap}"


def ratio_caption(metrics: Mapping[str, Any]) -> list[str]:
    """What the ratio histogram shows, in words made from the step's numbers."""
    outside, low, high = (metrics[f"frac_{side}_5"] for side in ("outside", "low", "high"))
    if outside == 0:
        where = "no token lies outside [1/5, 5]"
    else:
        where = (
            f"{formatting.share(outside)} of tokens lie outside [1/5, 5]: "
            f"{formatting.share(low)} below, {formatting.share(high)} above"
        )
    return [
        "Closer to r = 1 (black) is better; dotted: a factor of 2, dashed: of 5 (if in sight).",
        f"{where}; mean r = {formatting.number(metrics['ratio_mean'])}",
    ]
