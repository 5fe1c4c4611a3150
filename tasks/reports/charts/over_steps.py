"""Charts over the steps of runs, for `tim compare` and a run's trend."""

from typing import Any

import altair as alt
import polars as pl

from timtrack.tasks.reports.charts.distributions import density_cells
from timtrack.tasks.reports.charts.theme import INK, QUIET, RED, titled
from timtrack.tasks.verdicts.bands import Band

RUN = alt.Color("run:N").title("run").legend(symbolOpacity=1)


def trend(run_trend: pl.DataFrame, changes: pl.DataFrame, bands: dict[str, Band]) -> Any:
    """The headline metrics over steps with 95 % intervals, a small chart each.

    Runs lie over each other; dashed: the end of the healthy band; dotted: where a level changed.
    One chart in facets: of a chart for each metric, Altair copies every part several times.
    """
    rows = pl.concat([run_trend, *_marks(run_trend, changes, bands)], how="diagonal_relaxed")
    base = alt.Chart(rows).encode(
        x=alt.X("step:Q").title("training step").axis(tickMinStep=1).scale(zero=False), color=RUN
    )
    y = alt.Y("value:Q").title(None).scale(zero=False).axis(format=".3~g")
    lines = base.transform_filter("isValid(datum.value)")
    layers = (
        lines.transform_filter("isValid(datum.margin)")
        .transform_calculate(low="datum.value - datum.margin", high="datum.value + datum.margin")
        .mark_area(opacity=0.2)
        .encode(y=alt.Y("low:Q"), y2="high:Q"),
        lines.mark_line(point=True).encode(
            y=y, tooltip=["run:N", "step:Q", "value:Q", "margin:Q", "clusters:Q"]
        ),
        alt.Chart()
        .transform_filter("isValid(datum.healthy)")
        .mark_rule(color=QUIET, strokeDash=[6, 4])
        .encode(y="healthy:Q"),
        base.transform_filter("isValid(datum.after)")
        .mark_rule(strokeDash=[2, 3], strokeWidth=2)
        .encode(tooltip=["run:N", "step:Q", "before:Q", "after:Q", "p_value:Q", "events:N"]),
    )
    order = run_trend["metric"].unique(maintain_order=True).to_list()
    return (
        alt.layer(*layers, data=rows)
        .properties(width=300, height=140)
        .facet(alt.Facet("metric:N").title(None).sort(order), columns=2)
        .resolve_scale(x="independent", y="independent")
        .properties(title="Mismatch over training steps, with 95 % intervals")
    )


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
    return [pl.DataFrame(healthy, schema=schema), changes]


RIDGES = 12


def ratio_ridge(ratio_histogram: pl.DataFrame) -> Any:
    """How r is spread at up to 12 steps of each run, one ridge below the other."""
    steps = ratio_histogram.select("run", "step").unique().sort("run", "step")
    place = (
        pl.int_range(pl.len()).over("run") * 11 // pl.max_horizontal(pl.len().over("run") - 1, 1)
    )
    chosen = steps.with_columns(place=place).unique(["run", "place"], keep="first")
    rows = (
        ratio_histogram.join(chosen.select("run", "step"), on=["run", "step"])
        .drop_nulls(["ratio_low", "ratio_high"])
        .with_columns(share=pl.col("share") / pl.col("share").max().over("run", "step"))
    )
    return (
        alt.Chart(rows)
        .mark_area(interpolate="step-after", opacity=0.7)
        .encode(
            x=alt.X("ratio_low:Q")
            .scale(type="log")
            .title("r = p_train / p_rollout")
            .axis(format="~e"),
            y=alt.Y("share:Q").title(None).axis(None),
            color=RUN,
            tooltip=["run:N", "step:Q", "ratio_low:Q", "tokens:Q"],
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
        alt.Chart(gap_by_position.with_columns(until=pl.col("pos_bin") + 32))
        .mark_rect()
        .encode(
            x=alt.X("step:O").title("training step"),
            y=alt.Y("pos_bin:O").title("position in the response (from, tokens)"),
            color=alt.Color("kl_k1:Q")
            .scale(scheme="blueorange", domain=[-widest, widest])
            .title("k1 (nats)"),
            tooltip=["run:N", "step:O", "pos_bin:Q", "tokens:Q", "kl_k1:Q", "kl_k3:Q"],
        )
        .properties(width=300, height=200)
    )
    return cells.facet(column=alt.Column("run:N").title(None)).properties(
        title="Gap by position and step, mean of logp_rollout - logp_train"
    )


def differences(run_pairs: pl.DataFrame) -> Any:
    """Differences of the runs' means in standard errors, for the metrics that have one."""
    rows = run_pairs.drop_nulls("se").with_columns(
        pair=pl.format("{} - {}", "other", "run"), z=pl.col("difference") / pl.col("se")
    )
    points = (
        alt.Chart(rows)
        .mark_point(filled=True, size=60, color=RED)
        .encode(
            x=alt.X("z:Q").title("difference in standard errors"),
            y=alt.Y("metric:N").title(None),
            tooltip=["pair:N", "metric:N", "difference:Q", "se:Q", "steps:Q"],
        )
    )
    zero = alt.Chart(pl.DataFrame({"at": [0.0]})).mark_rule(color=INK).encode(x="at:Q")
    caption = [f"{len(rows)} differences with an interval, clustered by prompt group"]
    height = 22 * max(2, rows["metric"].n_unique())
    return titled(alt.layer(zero, points), "Which differences stand out", caption, height=height)
