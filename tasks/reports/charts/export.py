"""Exporting charts: SVG and Vega-Lite JSON."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import vl_convert
from markupsafe import Markup

from timtrack.tasks.messages import formatting
from timtrack.tasks.reports.charts.theme import INK, QUIET

HEAD, LINE = 26, 17  # px: of a title, of a line of its caption


@dataclass(frozen=True)
class Picture:
    """A chart, drawn once: an SVG without title and caption, which a page sets as text."""

    title: str
    caption: tuple[str, ...]
    svg: str
    width: int  # px
    height: int  # px
    spec: Mapping[str, Any]  # Vega-Lite, with title and caption

    @property
    def inline(self) -> Markup:
        """The picture for a page, as wide as there is room. Its text was escaped as XML."""
        return Markup(self.svg)

    @property
    def file(self) -> str:
        """The picture as an SVG file of its own, title and caption in it."""
        wrapped = [line for text in self.caption for line in textwrap.wrap(text, self.width // 7)]
        above = HEAD + LINE * len(wrapped) + 8
        font = 'font-family="system-ui, sans-serif"'
        lines = "".join(
            f'<text x="8" y="{HEAD + LINE * (i + 1)}" {font} font-size="12" fill="{QUIET}">'
            f"{escape(line)}</text>"
            for i, line in enumerate(wrapped)
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" '
            f'height="{self.height + above}"><rect width="100%" height="100%" fill="white"/>'
            f'<text x="8" y="{HEAD}" {font} font-size="15" font-weight="bold" fill="{INK}">'
            f'{escape(self.title)}</text>{lines}<g transform="translate(0,{above})">{self.svg}</g>'
            "</svg>\n"
        )


def start() -> None:
    """Start the engine that draws, which takes a third of a second: while another process works."""
    vl_convert.vegalite_to_svg({"data": {"values": []}, "mark": "point"})


def pictures(charts: Mapping[str, Any]) -> dict[str, Picture]:
    """Every chart drawn, by name."""
    return {name: _picture(name, chart) for name, chart in charts.items()}


def _picture(name: str, chart: Any) -> Picture:
    spec = chart.to_dict()
    title = spec.get("title", {})
    title = title if isinstance(title, dict) else {"text": title}
    bare = {key: value for key, value in spec.items() if key != "title"} | {"background": None}
    svg = _slim(_own_names(vl_convert.vegalite_to_svg(bare), name))
    size = re.search(r'width="(\d+)" height="(\d+)"', svg)
    assert size
    caption = tuple(title.get("subtitle", ()))
    return Picture(title.get("text", ""), caption, svg, int(size[1]), int(size[2]), spec)


def _own_names(svg: str, name: str) -> str:
    """The SVG's ids made its own: several pictures stand on one page."""
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)


GEOMETRY = re.compile(r' (?:d|transform|x|y|width|height)="[^"]*"')
DIGITS = re.compile(r"(\d+\.\d\d)\d+")
ROLES = re.compile(r' role="graphics-[a-z]+"| aria-roledescription="[^"]*"')
OF_GROUP = re.compile(r'(<g\b[^>]*?) aria-label="[^"]*"')


def _slim(svg: str) -> str:
    """Half the bytes: places to 0.01 px, marks with their text as `data-tip`, no roles.

    The whole picture is one image to a screen reader.
    """
    svg = OF_GROUP.sub(r"\1", ROLES.sub("", svg)).replace(" aria-label=", " data-tip=")
    return GEOMETRY.sub(lambda place: DIGITS.sub(r"\1", place[0]), svg)


def save_charts(drawn: Mapping[str, Picture], folder: Path) -> None:
    """An SVG and a Vega-Lite JSON for each chart."""
    for name, picture in drawn.items():
        (folder / f"{name}.svg").write_text(picture.file)
        (folder / f"{name}.vl.json").write_text(formatting.as_json(picture.spec))
