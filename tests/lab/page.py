"""The lab on one page: reward curves, a heat map of what was kept, the answers."""

from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from tests.lab import sentences
from tests.lab.grid import CORRECTIONS, MISMATCHES
from timtrack.tasks.messages.formatting import number, share
from timtrack.tasks.reports import html
from timtrack.tasks.reports.charts.export import pictures
from timtrack.tasks.reports.charts.theme import INK, TIPS, with_tips

HERE = Path(__file__).parent
WIDE = [-1.5, 2.5]  # of the heat map's colours: numbers stay legible on all that occurs


def page(table: pl.DataFrame, found: dict[str, sentences.Rows]) -> str:
    """The page as HTML, without network or siblings; `found` as `sentences.tables` gives it."""
    seeds = table["seed"].n_unique()
    return html.render(
        "lab.html",
        {"groups": []},
        folder=HERE,
        title="Corrections put to the test, on a toy",
        about=f"{len(table)} runs of a 100,000-parameter decoder, {table['steps'].max()} steps "
        f"each, {seeds} seeds; the table lab of lab.duckdb",
        answers=sentences.answers(found),
        pictures=pictures({"kept": kept(table), "curves": curves(table)}),
        tables={"lab": html.table("lab", table.drop("rewards"))},
    )


def kept(table: pl.DataFrame) -> Any:
    """Heat map: of the reward that the clean run gains, the share that is left, mean over seeds."""
    grouped = table.group_by("mismatch", "correction", maintain_order=True)
    cells = grouped.agg(pl.col("kept").mean(), runs=pl.len(), low=pl.col("kept").min())
    base = alt.Chart(with_tips(cells, _cell_tip)).encode(
        x=alt.X("correction:N").title(None).sort(list(CORRECTIONS)).axis(labelAngle=-35),
        y=alt.Y("mismatch:N")
        .title(None)
        .sort(list(MISMATCHES))
        .axis(labelLimit=240, minExtent=215),
    )
    colour = alt.Color("kept:Q").title("kept").scale(scheme="redblue", domain=WIDE)
    squares = base.mark_rect().encode(color=colour, **TIPS)
    texts = base.mark_text(color=INK, aria=False).encode(text=alt.Text("kept:Q").format(".0%"))
    title = alt.TitleParams(
        "Reward kept", subtitle=["1 is what the clean run of the seed gains; mean over seeds."]
    )
    return alt.layer(squares, texts).properties(title=title, width=460, height=300)


def _cell_tip(row: dict[str, Any]) -> str:
    return (
        f"{row['mismatch']}, {row['correction']}: {share(row['kept'])} of the clean run's gain is "
        f"kept, in the worst of {row['runs']} runs {share(row['low'])}"
    )


def curves(table: pl.DataFrame) -> Any:
    """Mean reward of the rollouts over steps, a small chart a mismatch, a line a correction."""
    steps = pl.int_ranges(1, pl.col("steps") + 1).alias("step")
    long = table.select("mismatch", "correction", steps, reward="rewards").explode("step", "reward")
    lines = long.group_by("mismatch", "correction", "step", maintain_order=True).agg(
        pl.col("reward").mean()
    )
    title = alt.TitleParams("Reward over steps", subtitle=["Of the rollouts, mean over seeds."])
    return (
        alt.Chart(with_tips(lines, _point_tip))
        .mark_line(point=alt.OverlayMarkDef(size=14))
        .encode(
            x=alt.X("step:Q").title("step").axis(tickMinStep=1),
            y=alt.Y("reward:Q").title("mean reward"),
            color=alt.Color("correction:N").sort(list(CORRECTIONS)).title("correction"),
            **TIPS,
        )
        .properties(width=250, height=130)
        .facet(alt.Facet("mismatch:N").title(None).sort(list(MISMATCHES)), columns=2)
        .properties(title=title)
    )


def _point_tip(row: dict[str, Any]) -> str:
    where = f"{row['mismatch']}, {row['correction']}, step {row['step']}"
    return f"{where}: reward {number(row['reward'])}"
