"""Chart of what each correction keeps against how much it distorts."""

from typing import Any, Literal

import altair as alt
import polars as pl

from timtrack.tasks.messages.formatting import number, share
from timtrack.tasks.reports.charts.theme import (
    BLUE,
    INK,
    RED,
    TIPS,
    WIDTH,
    titled,
    with_tips,
)
from timtrack.tasks.verdicts.advice import advise

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
        alt.Chart(with_tips(points, _tip).select(*DRAWN, "tip").reverse())
        .mark_circle(size=55, opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=alt.Color("state:N")
            .scale(domain=list(STATES), range=list(STATES.values()))
            .legend(orient="bottom", title=None),
            **TIPS,
        )
    )
    labels = alt.Chart(_labels(points, widest)).encode(x=x, y=y, text="label:N")
    names = [
        labels.transform_filter(f"datum.side == '{side}'").mark_text(
            align=align, dx=shift, dy=-rise, fontSize=10, color=INK
        )
        for side, (align, shift, rise) in SIDES.items()
    ]
    recommended = f"; red: {advice.setting}" if advice.setting else ""
    subtitle = f"{points['unusable'].null_count()} of {len(points)} settings are usable"
    caption = ["Up keeps more, left is nearer to r.", f"{subtitle}{recommended}"]
    title = "What a correction would keep, and how far it is from r"
    return titled(alt.layer(dots, *names), title, caption, height=FRONTIER)


def _tip(row: dict[str, Any]) -> str:
    bounded = row["frac_tok_truncated_high"] + row["frac_tok_truncated_low"]
    why = f"; not usable: {row['unusable']}" if row["unusable"] else ""
    return (
        f"{row['setting']}: drops {share(row['frac_tok_dropped'])}, truncates {share(bounded)}, "
        f"ESS {number(row['ess_token'])}, bias {number(row['bias_l1_vs_r'])}{why}"
    )


DRAWN = ("setting", "state", "bias_l1_vs_r", "ess_token")

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
    boxes = [spot["box"] for spot in spots.values()]
    labels = []
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
        free = (side for side, box in sides.items() if _is_free(box, boxes))
        if side := next(free, None):
            boxes.append(sides[side])
            place = {name: spot[name] for name in ("bias_l1_vs_r", "ess_token")}
            labels.append({**place, "label": label, "side": side})
    return pl.DataFrame(labels)


Box = tuple[float, float, float]  # from, to, and how far down [px]


def _is_free(box: Box, taken: list[Box]) -> bool:
    """Whether a line of text has room there, inside the chart."""
    start, end, down = box
    others = (a < end and start < b and abs(down - at) < 10 for a, b, at in taken)
    return start >= 0 and end <= WIDTH and not any(others)
