"""One chart per table, under the table's name: tables in, Altair chart out, nothing computed.

A function's parameters are the tables it draws; the first one gives the chart its name. Captions
are made from the numbers, so that a healthy step reads as healthy.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import altair as alt
import polars as pl
import vl_convert

from timtrack.tasks import notation
from timtrack.tasks.reports import cells
from timtrack.tasks.verdicts.advice import advise
from timtrack.tasks.verdicts.findings import culprit

Tables = Mapping[str, pl.DataFrame]

BLUE, ORANGE, RED, INK, QUIET = "#2b6cb0", "#dd6b20", "#c53030", "#1a202c", "#718096"
WIDTH, HEIGHT = 640, 280  # px

# Tables are binned or cut; Altair's limit of 5,000 rows is for those that are not.
alt.data_transformers.disable_max_rows()


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
    mean = notation.number(step_metrics["abs_prob_diff_mean"].item())
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
        f"{label} {notation.number(numbers[name])}"
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
        f"{row['component']} {notation.share(row['share_abs'] or 0)}"
        for row in attribution.sort("share_abs", descending=True).to_dicts()
    )
    caption = f"parts of the total |ln r|, below 0 where they work against it: {said}"
    return titled(chart, "Where the gap comes from", [caption], WIDTH, 120)


def gap_by_rollout_prob(gap_by_rollout_prob: pl.DataFrame) -> Any:
    """Median gap by the probability that the rollout engine gave the token."""
    edges = [*gap_by_rollout_prob["prob_from"].to_list(), 1.0]
    buckets = [f"{notation.number(a)} to {notation.number(b)}" for a, b in pairwise(edges)]
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
        widest = carried.row(by_predicate=_largest("share_abs_logp_diff"), named=True)
        caption = (
            f"the largest part of the total |ln r|, "
            f"{notation.share(widest['share_abs_logp_diff'])}, lies in "
            f"the bucket from {notation.number(widest['prob_from'])}, which holds "
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
    best = lag_scan.row(by_predicate=_largest("abs_logp_diff_mean", sign=-1), named=True)["lag"]
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
    chart = alt.layer(_rule(1, INK, [6, 4]), *bars, points)
    return titled(chart, "Which tokens carry more than their share", [caption], height=height)


FRONTIER = 360  # px, its height
STATES = {"not usable": "#a0aec0", "usable": BLUE, "recommended": RED}


def correction_frontier(
    corrections: pl.DataFrame, alignment: pl.DataFrame, step_metrics: pl.DataFrame
) -> Any:
    """What corrections keep against what they distort: a point each, named where there is room."""
    tables = {"corrections": corrections, "alignment": alignment, "step_metrics": step_metrics}
    advice = advise(tables)
    best = pl.col("setting") == pl.lit(advice.setting, pl.String)
    usable = pl.col("unusable").is_null()
    state = pl.when(best).then(pl.lit("recommended")).when(usable).then(pl.lit("usable"))
    points = corrections.with_columns(state=state.otherwise(pl.lit("not usable")))
    points = points.sort(pl.col("state") != "recommended", maintain_order=True)  # named first
    widest = 1.05 * max(*points["bias_l1_vs_r"], 1e-3)
    x = alt.X("bias_l1_vs_r:Q").title("bias: mean |coefficient - r|").axis(format="~g")
    y = alt.Y("ess_token:Q").title("effective share of the tokens (ESS)")
    x, y = x.scale(domain=[0, widest], nice=False), y.scale(domain=[LOWEST, HIGHEST], nice=False)
    dots = (
        alt.Chart(points.reverse())
        .mark_circle(size=55, opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=alt.Color("state:N")
            .scale(domain=list(STATES), range=list(STATES.values()))
            .legend(orient="bottom", title=None),
            tooltip=[
                "setting:N",
                "unusable:N",
                alt.Tooltip("frac_tok_dropped:Q", format=".3~%"),
                alt.Tooltip("frac_tok_truncated_high:Q", format=".3~%"),
                alt.Tooltip("weight_mean:Q", format=".4g"),
                alt.Tooltip("ess_token:Q", format=".4g"),
                alt.Tooltip("bias_l1_vs_r:Q", format=".4g"),
            ],
        )
    )
    labels = alt.Chart(_labels(points, widest)).encode(x=x, y=y, text="label:N")
    names = [
        labels.transform_filter(f"datum.side == '{side}'").mark_text(
            align=align, dx=shift, dy=-rise, fontSize=10, color=INK
        )
        for side, (align, shift, rise) in SIDES.items()
    ]
    caption = textwrap.wrap(advice.text, 110)
    title = "What a correction would keep, and how far it is from r"
    return titled(alt.layer(dots, *names), title, caption, height=FRONTIER)


LOWEST, HIGHEST = -0.04, 1.05  # of the frontier's ESS axis: points at 0 and 1 are whole
# Where a name stands beside its point: alignment, and how far to the right and up [px].
SIDES: dict[str, tuple[Literal["left", "right"], int, int]] = {
    "right": ("left", 7, 0),
    "left": ("right", -7, 0),
    "above": ("left", 0, 12),
}


def _labels(points: pl.DataFrame, widest: float) -> pl.DataFrame:
    """Names beside their points, those at one place together, and none over another."""
    spots: dict[tuple[int, int], dict[str, Any]] = {}
    for row in points.to_dicts():
        across = WIDTH * row["bias_l1_vs_r"] / widest
        down = FRONTIER * (HIGHEST - row["ess_token"]) / (HIGHEST - LOWEST)
        spot = spots.setdefault((round(across / 8), round(down / 8)), {**row, "names": []})
        spot["names"].append(row["setting"])
        spot |= {"box": (across - 4, across + 4, down)}
    taken = [spot["box"] for spot in spots.values()]
    shown = []
    for spot in spots.values():
        more = len(spot["names"]) - 1
        label = spot["names"][0] + (f" +{more}" if more else "")
        left, right, down = spot["box"]
        length = 5.3 * len(label) + 4
        sides = {
            "right": (right, right + length, down),
            "left": (left - length, left, down),
            "above": (left + 4, right + length, down - 12),
        }
        free = (side for side, box in sides.items() if _is_free(box, taken))
        if side := next(free, None):
            taken.append(sides[side])
            place = {name: spot[name] for name in ("bias_l1_vs_r", "ess_token")}
            shown.append({**place, "label": label, "side": side})
    return pl.DataFrame(shown)


Box = tuple[float, float, float]  # from, to, and how far down [px]


def _is_free(box: Box, taken: list[Box]) -> bool:
    """Whether a line of text has room there, inside the chart."""
    start, end, down = box
    others = (a < end and start < b and abs(down - at) < 10 for a, b, at in taken)
    return start >= 0 and end <= WIDTH and not any(others)


def _largest(column: str, sign: int = 1) -> pl.Expr:
    """True for the first row that has the column's largest (or smallest) value."""
    return pl.int_range(pl.len()) == (sign * pl.col(column)).arg_max()


def draw(tables: Tables) -> dict[str, Any]:
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


def save(charts: Mapping[str, Any], folder: Path) -> None:
    """A PNG and a Vega-Lite JSON for each chart."""
    for name, chart in charts.items():
        chart.save(folder / f"{name}.png", scale_factor=2)
        (folder / f"{name}.vl.json").write_text(notation.as_json(chart.to_dict()))


def save_page(charts: Mapping[str, Any], path: Path) -> None:
    """One page that shows the charts offline."""
    together = alt.vconcat(*charts.values()).resolve_scale(color="independent")
    path.write_text(PAGE.format(vega=vega(), chart=in_script(together.to_dict())))


PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>timtrack charts</title>
<script>{vega}</script>
<div id="charts"></div>
<script>vegaEmbed("#charts", {chart}, {{mode: "vega-lite"}});</script>
</html>
"""


@functools.cache
def vega() -> str:
    """Vega, Vega-Lite and vega-embed in one script. Bundling takes a second: once a process."""
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg] # its stub is wrong
    return bundle.replace("</script>", "<\\/script>")


def in_script(value: Any) -> str:
    """JSON that cannot end the script that it stands in, whatever the model wrote.

    What is not finite is null: JSON has no infinity.
    """
    return notation.as_json(value, separators=(",", ":")).replace("<", "\\u003c")


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


def titled(
    chart: Any, title: str, caption: list[str], width: int = WIDTH, height: int = HEIGHT
) -> Any:
    """A chart with its title, the caption below it, and its size."""
    return chart.properties(
        title=alt.TitleParams(title, subtitle=caption), width=width, height=height
    )
