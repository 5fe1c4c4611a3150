"""Charts of how ratios and log-probs are distributed; the report starts with them."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from timtrack.tasks.messages import formatting
from timtrack.tasks.reports.charts.theme import BLUE, INK, ORANGE, RED, band, rule, titled


def ratio_histogram(ratio_histogram: pl.DataFrame, step_metrics: pl.DataFrame) -> alt.LayerChart:
    """How r is spread, with 1, the bands [1/2, 2] and [1/5, 5], and what lies out of the axis."""
    r = alt.X("left:Q").scale(type="log", domain=[1e-10 / EDGE, 1e3 * EDGE], nice=False)
    bars = (
        alt.Chart(ratio_histogram)
        .transform_calculate(
            left=f"isValid(datum.ratio_low) ? datum.ratio_low : datum.ratio_high / {EDGE}",
            right=f"isValid(datum.ratio_high) ? datum.ratio_high : datum.ratio_low * {EDGE}",
        )
        .mark_bar(color=BLUE)
        .encode(
            x=r.title("r = p_train / p_rollout (log axis; outermost bars: all beyond)").axis(
                values=[10.0**e for e in range(-10, 4)], format="~e"
            ),
            x2="right:Q",
            y=alt.Y("share:Q").title("share of trained tokens").axis(format="~%"),
            y2=alt.datum(0),
            tooltip=[
                alt.Tooltip("ratio_low:Q", format=".3g"),
                alt.Tooltip("ratio_high:Q", format=".3g"),
                "tokens:Q",
                alt.Tooltip("share:Q", format=".3~%"),
            ],
        )
    )
    layers = [
        *(band(low, high, opacity) for low, high, opacity in ((0.2, 5, 0.10), (0.5, 2, 0.16))),
        bars,
        *(rule(at, RED, [6, 4]) for at in (0.2, 5)),
        *(rule(at, ORANGE, [2, 3]) for at in (0.5, 2)),
        rule(1, INK, [1, 0]),
    ]
    return titled(
        alt.layer(*layers),
        "Ratio of the two probabilities of each token",
        ratio_caption(step_metrics.row(0, named=True)),
    )


def prob_diff_histogram(
    prob_diff_histogram: pl.DataFrame, step_metrics: pl.DataFrame
) -> alt.LayerChart:
    """How |p_train - p_rollout| is spread over [0, 1]."""
    bars = (
        alt.Chart(prob_diff_histogram)
        .mark_bar(color=BLUE)
        .encode(
            x=alt.X("diff_low:Q").title("|p_train - p_rollout|").scale(domain=[0, 1]),
            x2="diff_high:Q",
            y=alt.Y("share:Q").title("share of trained tokens").axis(format="~%"),
            y2=alt.datum(0),
            tooltip=[
                "diff_low:Q",
                "diff_high:Q",
                "tokens:Q",
                alt.Tooltip("share:Q", format=".3~%"),
            ],
        )
    )
    mean = formatting.number(step_metrics["abs_prob_diff_mean"].item())
    return titled(
        alt.layer(bars),
        "Difference of the two probabilities of each token",
        [f"mean |p_train - p_rollout| = {mean}"],
    )


def lowest(logp_density: pl.DataFrame) -> float:
    """Where both axes of log-probs begin [nats]."""
    return min(*logp_density["rollout_low"], *logp_density["train_low"])


def density_cells(logp_density: pl.DataFrame, tooltip: list[str]) -> alt.Chart:
    """Counts of tokens in cells of half a nat, the engines' log-probs against each other."""
    axis = alt.Scale(domain=[lowest(logp_density), 0], nice=False)
    return (
        alt.Chart(logp_density)
        .transform_calculate(right="datum.rollout_low + 0.5", top="datum.train_low + 0.5")
        .mark_rect()
        .encode(
            x=alt.X("rollout_low:Q").title("log-prob by the rollout engine (nats)").scale(axis),
            x2="right:Q",
            y=alt.Y("train_low:Q").title("log-prob by the trainer (nats)").scale(axis),
            y2="top:Q",
            color=alt.Color("tokens:Q").scale(type="log", scheme="blues").title("tokens"),
            tooltip=tooltip,
        )
    )


def logp_density(
    logp_density: pl.DataFrame, worst_tokens: pl.DataFrame, step_metrics: pl.DataFrame
) -> alt.LayerChart:
    """The log-probs against each other: counts in cells, y = x, the widest gaps as points."""
    low = lowest(logp_density)
    cells = density_cells(logp_density, ["rollout_low:Q", "train_low:Q", "tokens:Q"])
    widest = (
        alt.Chart(worst_tokens.head(30))
        .mark_point(color=RED, size=18, strokeWidth=1, clip=True)
        .encode(
            x="logp_rollout:Q",
            y="logp_train:Q",
            tooltip=["row:Q", "pos:Q", "token:N", "logp_rollout:Q", "logp_train:Q", "ratio:Q"],
        )
    )
    diagonal = alt.Chart(pl.DataFrame({"a": [low, 0.0], "b": [low, 0.0]}))
    line = diagonal.mark_line(color=INK, strokeDash=[6, 4], strokeWidth=1).encode(x="a:Q", y="b:Q")
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
        alt.layer(cells, line, widest),
        "Log-probs of the same tokens by the two engines",
        [correlations, "dashed: y = x; circles: the 30 widest gaps"],
        width=420,
        height=420,
    )


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
        f"{where}; mean r = {formatting.number(metrics['ratio_mean'])}",
        "black: r = 1; dotted: 1/2 and 2; dashed: 1/5 and 5",
    ]


EDGE = 10**0.15  # width of the bars that stand for all beyond the axis, as a factor
