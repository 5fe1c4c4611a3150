"""Seconds by stage as a picture: `python chart.py build/bench/last.json FILE.png` draws again."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
from tally import STAGES, WHOLE, Tally

from timtrack.tasks.reports.charts.theme import BLUE, INK, QUIET

WIDTH = 640  # px of the bars; with the names of the stages about 800
DRAWN = {"timtrack": BLUE, "script": QUIET}


def save(tallies: Mapping[str, Tally], file: Path) -> None:
    """A panel for each size, with an axis of its own."""
    panels = [_panel(size, of) for size, of in tallies.items()]
    drawn = alt.vconcat(*panels, spacing=24)
    drawn.save(file, scale_factor=2)


def _panel(size: str, of: Tally) -> Any:
    table = pl.DataFrame(
        [
            {"stage": stage, "who": who, "seconds": of["seconds"][who][stage]}
            for who in DRAWN
            if who in of["seconds"]
            for stage in (*STAGES, WHOLE)
            if stage in of["seconds"][who]
        ]
    )
    bars = alt.Chart(table, title=f"{size}: {of['tokens'] / 1e6:.1f} M tokens").encode(
        x=alt.X("seconds:Q").title("seconds").axis(tickCount=6),
        y=alt.Y("stage:N").title(None).sort([*STAGES, WHOLE]).axis(ticks=False, domain=False),
        yOffset=alt.YOffset("who:N").sort(list(DRAWN)),
    )
    colors = alt.Scale(domain=list(DRAWN), range=list(DRAWN.values()))
    color = alt.Color("who:N").scale(colors).title(None).legend(orient="top-right")
    text = bars.mark_text(align="left", dx=4, fontSize=10, color=INK)
    labels = text.encode(text=alt.Text("seconds:Q", format=".2f"))
    layered = alt.layer(bars.mark_bar().encode(color=color), labels)
    return layered.properties(width=WIDTH, height=alt.Step(13))


if __name__ == "__main__":
    save(json.loads(Path(sys.argv[1]).read_text())["sizes"], Path(sys.argv[2]))
