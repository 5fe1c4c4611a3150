"""One chart per table, under the table's name: tables in, Altair chart out, nothing computed.

A function's parameters are the tables it draws; the first one gives the chart its name. Captions
are made from the numbers, so that a healthy step reads as healthy.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from tasks import notation

Tables = Mapping[str, pl.DataFrame]

BLUE, ORANGE, RED, INK, QUIET = "#2b6cb0", "#dd6b20", "#c53030", "#1a202c", "#718096"
WIDTH, HEIGHT = 640, 280  # px


@alt.theme.register("timtrack", enable=True)
def _theme() -> alt.theme.ThemeConfig:
    return {
        "background": "white",
        "config": {
            "font": "system-ui, sans-serif",
            "title": {"anchor": "start", "fontSize": 15, "subtitleColor": QUIET, "offset": 12},
            "axis": {"gridColor": "#edf2f7", "labelColor": INK, "titleFontWeight": "normal"},
            "view": {"stroke": None},
        },
    }


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
        *(_band(low, high, opacity) for low, high, opacity in ((0.2, 5, 0.10), (0.5, 2, 0.16))),
        bars,
        *(_rule(at, RED, [6, 4]) for at in (0.2, 5)),
        *(_rule(at, ORANGE, [2, 3]) for at in (0.5, 2)),
        _rule(1, INK, [1, 0]),
    ]
    return _titled(
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
    mean = notation.number(step_metrics["abs_prob_diff_mean"].item())
    return _titled(
        alt.layer(bars),
        "Difference of the two probabilities of each token",
        [f"mean |p_train - p_rollout| = {mean}"],
    )


def logp_density(
    logp_density: pl.DataFrame, worst_tokens: pl.DataFrame, step_metrics: pl.DataFrame
) -> alt.LayerChart:
    """The log-probs against each other: counts in cells, y = x, the widest gaps as points."""
    low = min(logp_density["rollout_low"].to_list() + logp_density["train_low"].to_list())
    axis = alt.Scale(domain=[low, 0], nice=False)
    cells = (
        alt.Chart(logp_density)
        .transform_calculate(right="datum.rollout_low + 0.5", top="datum.train_low + 0.5")
        .mark_rect()
        .encode(
            x=alt.X("rollout_low:Q").title("log-prob by the rollout engine (nats)").scale(axis),
            x2="right:Q",
            y=alt.Y("train_low:Q").title("log-prob by the trainer (nats)").scale(axis),
            y2="top:Q",
            color=alt.Color("tokens:Q").scale(type="log", scheme="blues").title("tokens"),
            tooltip=["rollout_low:Q", "train_low:Q", "tokens:Q"],
        )
    )
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
        f"{label} {notation.number(numbers[name])}"
        for label, name in (
            ("Pearson of log-probs", "pearson_logp"),
            ("of probabilities", "pearson_prob"),
            ("Spearman", "spearman"),
        )
    )
    return _titled(
        alt.layer(cells, line, widest),
        "Log-probs of the same tokens by the two engines",
        [correlations, "dashed: y = x; circles: the 30 widest gaps"],
        width=420,
        height=420,
    )


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
    return _titled(chart, "Gap along the response", [caption])


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
        f"{row['component']} {notation.share(row['share_abs'] or 0)}"
        for row in attribution.sort("share_abs", descending=True).to_dicts()
    )
    return _titled(
        chart, "Where the gap comes from", [f"share of the total |ln r|: {said}"], WIDTH, 120
    )


def run_trend(run_trend: pl.DataFrame) -> alt.FacetChart:
    """The headline metrics over steps, a small chart each."""
    chart = (
        alt.Chart(run_trend)
        .mark_line(point=True)
        .encode(
            x=alt.X("step:Q").title("training step").axis(tickMinStep=1),
            y=alt.Y("value:Q").title("in its unit").scale(zero=False).axis(format=".3~g"),
            color=alt.Color("run:N").title("run"),
            tooltip=["run:N", "step:Q", "metric:N", "value:Q"],
        )
        .properties(width=260, height=130)
        .facet(facet=alt.Facet("metric:N").title(None), columns=2)
        .resolve_scale(y="independent")
    )
    return chart.properties(title="Mismatch over training steps")


def draw(tables: Tables) -> dict[str, Any]:
    """Every chart whose tables are all there and have rows, by name."""
    drawn: dict[str, Callable[..., Any]] = {chart.__name__: chart for chart in DRAWN}
    wanted = {name: list(inspect.signature(chart).parameters) for name, chart in drawn.items()}
    return {
        name: chart(*(tables[table] for table in wanted[name]))
        for name, chart in drawn.items()
        if all(table in tables and len(tables[table]) for table in wanted[name])
    }


DRAWN = (
    ratio_histogram,
    prob_diff_histogram,
    logp_density,
    gap_by_position,
    attribution,
    run_trend,
)


def save(charts: Mapping[str, Any], folder: Path, page: str) -> None:
    """A PNG and a Vega-Lite JSON for each chart, and one page that shows them all offline."""
    for name, chart in charts.items():
        chart.save(folder / f"{name}.png", scale_factor=2)
        (folder / f"{name}.vl.json").write_text(json.dumps(chart.to_dict()))
    together = alt.vconcat(*charts.values()).resolve_scale(color="independent")
    together.save(folder / page, inline=True)


def ratio_caption(metrics: Mapping[str, Any]) -> list[str]:
    """What the ratio histogram shows, in words made from the step's numbers."""
    outside, low, high = (metrics[f"frac_{side}_5"] for side in ("outside", "low", "high"))
    if outside == 0:
        where = "no token lies outside [1/5, 5]"
    else:
        where = (
            f"{notation.share(outside)} of tokens lie outside [1/5, 5]: "
            f"{notation.share(low)} below, {notation.share(high)} above"
        )
    return [
        f"{where}; mean r = {notation.number(metrics['ratio_mean'])}",
        "black: r = 1; dotted: 1/2 and 2; dashed: 1/5 and 5",
    ]


EDGE = 10**0.15  # width of the bars that stand for all beyond the axis, as a factor


def _band(low: float, high: float, opacity: float) -> alt.Chart:
    frame = pl.DataFrame({"low": [float(low)], "high": [float(high)]})
    return alt.Chart(frame).mark_rect(color=QUIET, opacity=opacity).encode(x="low:Q", x2="high:Q")


def _rule(at: float, color: str, dash: list[int]) -> alt.Chart:
    frame = pl.DataFrame({"at": [float(at)]})
    return (
        alt.Chart(frame).mark_rule(color=color, strokeDash=dash, strokeWidth=1.5).encode(x="at:Q")
    )


def _titled(
    chart: Any, title: str, caption: list[str], width: int = WIDTH, height: int = HEIGHT
) -> Any:
    return chart.properties(
        title=alt.TitleParams(title, subtitle=caption), width=width, height=height
    )
