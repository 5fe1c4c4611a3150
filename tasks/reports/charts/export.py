"""Exporting charts: PNG, Vega-Lite JSON, a page that works offline."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from timtrack.tasks.messages import formatting


def save_charts(charts: Mapping[str, Any], folder: Path) -> None:
    """A PNG and a Vega-Lite JSON for each chart."""
    for name, chart in charts.items():
        chart.save(folder / f"{name}.png", scale_factor=2)
        (folder / f"{name}.vl.json").write_text(formatting.as_json(chart.to_dict()))


def save_page(charts: Mapping[str, Any], path: Path) -> None:
    """One page that shows the charts offline."""
    together = alt.vconcat(*charts.values()).resolve_scale(color="independent")
    path.write_text(PAGE.format(vega=vega_bundle(), chart=in_script(together.to_dict())))


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
def vega_bundle() -> str:
    """Vega, Vega-Lite and vega-embed in one script. Bundling takes a second: once a process."""
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg] # its stub is wrong
    return bundle.replace("</script>", "<\\/script>")


def in_script(value: Any) -> str:
    """JSON that cannot end the script that it stands in, whatever the model wrote.

    What is not finite is null: JSON has no infinity.
    """
    return formatting.as_json(value, separators=(",", ":")).replace("<", "\\u003c")
