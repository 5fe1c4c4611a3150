"""Colours, sizes, titles and captions of all charts."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

Tables = Mapping[str, pl.DataFrame]
BLUE, ORANGE, RED, INK, QUIET = "#2b6cb0", "#dd6b20", "#c53030", "#1a202c", "#718096"
GRID = "#edf2f7"
WIDTH, HEIGHT = 480, 250  # px: a chart is as wide as half of a page, and readable on a phone

# Tables are binned or cut; Altair's limit of 5,000 rows is for those that are not.
alt.data_transformers.disable_max_rows()


@alt.theme.register("timtrack", enable=True)
def _theme() -> alt.theme.ThemeConfig:
    return {
        "background": "white",
        "padding": {"left": 12, "right": 12, "top": 5, "bottom": 5},  # browsers' fonts are wider
        "config": {
            "font": "system-ui, sans-serif",
            "title": {"anchor": "start", "fontSize": 15, "subtitleColor": QUIET, "offset": 12},
            "axis": {
                "gridColor": GRID,
                "labelColor": INK,
                "labelFontSize": 11,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
            },
            "legend": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"},
            "view": {"stroke": None},
        },
    }


def largest(column: str, sign: int = 1) -> pl.Expr:
    """True for the first row that has the column's largest (or smallest) value."""
    return pl.int_range(pl.len()) == (sign * pl.col(column)).arg_max()


def with_tips(frame: pl.DataFrame, tip: Any) -> pl.DataFrame:
    """The table with `tip`, the text of each row's mark: `tip` makes it from the row as a dict."""
    return frame.with_columns(pl.Series("tip", [tip(row) for row in frame.to_dicts()], pl.String))


# A mark's text is its tooltip, and its label in the SVG, which a page's script shows.
TIPS: dict[str, Any] = {"tooltip": "tip:N", "description": "tip:N"}


def band(low: float, high: float, opacity: float) -> alt.Chart:
    """A shaded stretch of the x axis."""
    frame = pl.DataFrame({"low": [float(low)], "high": [float(high)]})
    mark = alt.Chart(frame).mark_rect(color=QUIET, opacity=opacity, clip=True, aria=False)
    return mark.encode(x="low:Q", x2="high:Q")


def rule(at: float, color: str, dash: list[int]) -> alt.Chart:
    """A vertical line at one x."""
    frame = pl.DataFrame({"at": [float(at)]})
    mark = alt.Chart(frame).mark_rule(
        color=color, strokeDash=dash, strokeWidth=1.5, clip=True, aria=False
    )
    return mark.encode(x="at:Q")


def titled(
    chart: Any, title: str, caption: list[str], width: int = WIDTH, height: int = HEIGHT
) -> Any:
    """A chart with its title, the caption below it, and its size."""
    return chart.properties(
        title=alt.TitleParams(title, subtitle=caption), width=width, height=height
    )
