"""Charts over the steps of runs, for `tim compare` and a run's trend."""

from typing import Any

import altair as alt
import polars as pl

from timtrack.tasks.messages.formatting import number, tokens
from timtrack.tasks.reports.charts.distributions import AS_POWERS, density_cells, powers_of_ten
from timtrack.tasks.reports.charts.theme import QUIET, TIPS, with_tips
from timtrack.tasks.verdicts.bands import Band

RUN = alt.Color("run:N").title("run").legend(symbolOpacity=1)


# Of `run_trend`, those that a comparison shows at first.
HEADLINE = ("kl_k3", "abs_logp_diff_p50", "frac_outside_5", "pearson_logp", "ess_token")
FROM_ZERO = ("kl_k1", "kl_k3", "abs_logp_diff_p50", "frac_outside_5", "tv")  # best there
WIDE = 20  # times from the lowest value to the highest, from which an axis is logarithmic
MOST_POINTS = 100  # steps of a run up to which each is a point with its numbers


def trend(run_trend: pl.DataFrame, changes: pl.DataFrame, bands: dict[str, Band]) -> Any:
    """Metrics over steps with 95 % intervals, a small chart each; a run is a colour.

    Dashed: the end of the healthy band; dotted: where a level changed. Where values differ by more
    than 20 times, the axis is logarithmic, so that a healthy run beside a broken one is no line at
    the bottom.
    """
    wide = _wide(run_trend)
    groups = (
        (True, pl.col("metric").is_in(wide)),
        (False, ~pl.col("metric").is_in(wide)),
    )
    charts = [
        _faceted(run_trend.filter(mine), changes.filter(mine), bands, is_log)
        for is_log, mine in groups
        if len(run_trend.filter(mine))
    ]
    title = alt.TitleParams(
        "Mismatch over training steps",
        subtitle=[
            "Shaded: 95 % intervals; dashed: end of the healthy band; dotted: a level changed."
        ],
    )
    return alt.vconcat(*charts).resolve_scale(color="shared").properties(title=title)


def _wide(run_trend: pl.DataFrame) -> list[str]:
    """Metrics that are best at 0, above it everywhere and differ by more than WIDE times."""
    rows = run_trend.filter(pl.col("metric").is_in(FROM_ZERO)).drop_nulls("value")
    by_metric = rows.group_by("metric", maintain_order=True)
    ends = by_metric.agg(low=pl.col("value").min(), high=pl.col("value").max())
    wide = ends.filter((pl.col("low") > 0) & (pl.col("high") > WIDE * pl.col("low")))
    return wide["metric"].to_list()


def _faceted(
    run_trend: pl.DataFrame, changes: pl.DataFrame, bands: dict[str, Band], is_log: bool
) -> Any:
    """One chart in facets: of a chart for each metric, Altair copies every part several times."""
    rows = with_tips(_bounded(run_trend, is_log), _step_tip)
    rows = pl.concat([rows, *_marks(run_trend, changes, bands)], how="diagonal_relaxed")
    base = alt.Chart(rows).encode(
        x=alt.X("step:Q").title("training step").axis(tickMinStep=1).scale(zero=False), color=RUN
    )
    scale = alt.Scale(type="log") if is_log else alt.Scale(zero=False)
    form = "~e" if is_log else ".3~g"
    y = alt.Y("value:Q").title(None).scale(scale).axis(format=form, tickCount=5)
    lines = base.transform_filter("isValid(datum.value)")
    steps = run_trend.group_by("run", "metric").len()["len"]
    points = lines.mark_point(filled=True, size=25).encode(y=y, **TIPS)
    layers = (
        lines.transform_filter("isValid(datum.high)")
        .mark_area(opacity=0.2, aria=False)
        .encode(y=alt.Y("low:Q").scale(scale), y2="high:Q"),
        lines.mark_line(aria=False).encode(y=y),
        *([points] if max(steps) <= MOST_POINTS else []),
        alt.Chart()
        .transform_filter("isValid(datum.healthy)")
        .mark_rule(color=QUIET, strokeDash=[6, 4], aria=False)
        .encode(y=alt.Y("healthy:Q").scale(scale)),
        base.transform_filter("isValid(datum.after)")
        .mark_rule(strokeDash=[2, 3], strokeWidth=2)
        .encode(**TIPS),
    )
    metrics = run_trend["metric"].unique(maintain_order=True).to_list()
    order = [*(name for name in HEADLINE if name in metrics), *metrics]
    return (
        alt.layer(*layers, data=rows)
        .properties(width=300, height=140)
        .facet(alt.Facet("metric:N").title(None).sort(list(dict.fromkeys(order))), columns=2)
        .resolve_scale(x="independent", y="independent")
    )


def _bounded(run_trend: pl.DataFrame, is_log: bool) -> pl.DataFrame:
    """Intervals as their ends; on a logarithmic axis none is below the lowest value."""
    low = pl.col("value") - pl.col("margin")
    if is_log:
        low = pl.max_horizontal(low, pl.col("value").min().over("metric"))
        low = pl.when(pl.col("margin").is_null()).then(None).otherwise(low)
    return run_trend.with_columns(low=low, high=pl.col("value") + pl.col("margin"))


def _step_tip(row: dict[str, Any]) -> str:
    interval = "" if row["margin"] is None else f" ± {number(row['margin'])}"
    return f"{row['run']} step {row['step']}: {row['metric']} {number(row['value'])}{interval}"


def _change_tip(row: dict[str, Any]) -> str:
    events = f" ({row['events']})" if row["events"] else ""
    levels = f"{number(row['before'])} before, {number(row['after'])} after"
    return f"{row['run']} step {row['step']}: {row['metric']} {levels}{events}"


def _marks(
    run_trend: pl.DataFrame, changes: pl.DataFrame, bands: dict[str, Band]
) -> list[pl.DataFrame]:
    """Further rows: the end of a metric's healthy band, and where its level changed."""
    lowest = run_trend.group_by("metric").agg(pl.col("value").min()).drop_nulls().rows()
    healthy = [
        {"metric": metric, "healthy": bands[metric].healthy}
        for metric, value in lowest  # of a curve far above it, it would squeeze the curve
        if metric in bands and value <= 3 * bands[metric].healthy
    ]
    schema = {"metric": pl.String(), "healthy": pl.Float64()}
    return [pl.DataFrame(healthy, schema=schema), with_tips(changes, _change_tip)]


RIDGES = 12  # steps of a run, at most


def ratio_ridge(ratio_histogram: pl.DataFrame) -> Any:
    """How r is spread at up to 12 steps of each run, one ridge below the other."""
    steps = ratio_histogram.select("run", "step").unique().sort("run", "step")
    index, last = pl.int_range(pl.len()).over("run"), pl.len().over("run") - 1
    place = index * (RIDGES - 1) // pl.max_horizontal(last, 1)
    one_per_place = steps.with_columns(place=place).unique(["run", "place"], keep="first")
    rows = (
        ratio_histogram.join(one_per_place.select("run", "step"), on=["run", "step"])
        .drop_nulls(["ratio_low", "ratio_high"])
        .with_columns(share=pl.col("share") / pl.col("share").max().over("run", "step"))
    )
    bars = rows.filter(pl.col("share") > 0)
    domain = [min(0.5, *bars["ratio_low"]), max(2.0, *bars["ratio_high"])]
    ticks = powers_of_ten(*domain)
    return (
        alt.Chart(rows.filter(pl.col("ratio_low") >= domain[0], pl.col("ratio_high") <= domain[1]))
        .mark_area(interpolate="step-after", opacity=0.7, aria=False)
        .encode(
            x=alt.X("ratio_low:Q")
            .scale(type="log", domain=domain, nice=False)
            .title("r = p_train / p_rollout")
            .axis(values=ticks, labelExpr=AS_POWERS),
            y=alt.Y("share:Q").title(None).axis(None),
            color=RUN,
        )
        .properties(width=300, height=34)
        .facet(
            row=alt.Row("step:O").title("training step").header(labelAngle=0, labelAlign="left"),
            column=alt.Column("run:N").title(None),
        )
        .properties(title="How r is spread, step by step (each to its own height)")
    )


def density(logp_density: pl.DataFrame) -> Any:
    """The two log-probs against each other, runs side by side, at each run's last step."""
    last = logp_density.filter(pl.col("step") == pl.col("step").max().over("run"))
    cells = density_cells(last).properties(width=280, height=280)
    return cells.facet(column=alt.Column("run:N").title(None)).properties(
        title="Log-probs of the same tokens at each run's last step"
    )


def position_heat(gap_by_position: pl.DataFrame) -> Any:
    """Mean gap by position in the response and training step."""
    widest = max([1e-9, *gap_by_position["kl_k1"].abs()])  # white is 0, whatever the runs have
    cells = (
        alt.Chart(with_tips(gap_by_position, _cell_tip))
        .mark_rect()
        .encode(
            x=alt.X("step:O").title("training step"),
            y=alt.Y("pos_bin:O").title("position in the response (from, tokens)"),
            color=alt.Color("kl_k1:Q")
            .scale(scheme="blueorange", domain=[-widest, widest])
            .title("k1 (nats)"),
            **TIPS,
        )
        .properties(width=300, height=200)
    )
    return cells.facet(column=alt.Column("run:N").title(None)).properties(
        title="Gap by position and step, mean of logp_rollout - logp_train"
    )


def _cell_tip(row: dict[str, Any]) -> str:
    return (
        f"{row['run']} step {row['step']}, positions from {row['pos_bin']}: k1 "
        f"{number(row['kl_k1'])} nats over {tokens(row['tokens'])}"
    )
