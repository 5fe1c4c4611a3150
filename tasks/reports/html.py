"""What all pages share: the templates of page/, tables, and a CSP that runs only their script."""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from timtrack.tasks.messages import formatting
from timtrack.tasks.messages.errors import printable
from timtrack.tasks.tables.catalogue import catalogue

PAGE = Path(__file__).parent / "page"
LONGEST = 30  # rows of a table on a page; the rest is in its CSV


def render(
    template: str,
    data: Mapping[str, Any],
    where: str = "",
    folder: Path = PAGE,
    **values: Any,
) -> str:
    """A page: a template with its values, and `data` for its script. `where` ends its queries.

    Values are escaped; what comes as Markup was escaped where it was made. The template may lie in
    a `folder` of its own; those that it extends are ours.
    """
    script = _asset("page.js")
    return str(
        _environment(where, folder)
        .get_template(template)
        .render(
            **values,
            style=_asset("page.css"),
            script=script,
            hashes=_digest(script),
            data=_in_script(data),
        )
    )


def table(name: str, frame: pl.DataFrame) -> Markup:
    """Any table; long ones are cut and say so."""
    body = Markup().join(_row(row) for row in frame.head(LONGEST).iter_rows())
    hidden = len(frame) - LONGEST
    more = Markup('<p class="quiet">{} more rows in {}.csv</p>').format(hidden, name)
    html = scrolled(name, head(frame.columns), body)
    return html + more if hidden > 0 else html


def _row(row: Sequence[Any]) -> Markup:
    return Markup("<tr>{}</tr>").format(Markup().join(map(_cell, row)))


def _cell(value: Any) -> Markup:
    """Numbers to four digits, to six in `data-v` to sort by; of lists the first few."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return Markup("<td>{}</td>").format("–" if value is None else _printable(str(value)))
    if isinstance(value, list):
        return Markup("<td>{}</td>").format(", ".join(_printable(str(item)) for item in value[:8]))
    if isinstance(value, float):
        cell = Markup('<td class="n" data-v="{:.6g}">{}</td>')
        return cell.format(value, formatting.number(value))
    return Markup('<td class="n" data-v="{}">{:,}</td>').format(value, value)


def _printable(text: str) -> str:
    return text if printable(text) == text == text.strip() else repr(text)


def head(names: Sequence[str]) -> Markup:
    """The cells of a table's head."""
    return Markup().join(Markup("<th>{}</th>").format(name) for name in names)


def scrolled(name: str, cells: Markup, body: Markup) -> Markup:
    """A table that sorts by click and scrolls by itself where it is too wide."""
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{0}">'
        '<table class="sortable {0}"><thead><tr>{1}</tr></thead><tbody>{2}</tbody></table></div>'
    ).format(name, cells, body)


def _in_script(value: Any) -> str:
    """JSON that cannot end the script that it stands in, whatever the model wrote.

    What is not finite is null: JSON has no infinity.
    """
    return formatting.as_json(value, separators=(",", ":")).replace("<", "\\u003c")


@functools.cache
def _asset(name: str) -> str:
    return (PAGE / name).read_text()


def _digest(script: str) -> str:
    """A script as the page's policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _shown(value: Any) -> Any:
    """What a template puts into a page: text in one line, without what HTML cannot hold."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


def _environment(where: str, folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, PAGE]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.filters |= {
        "number": formatting.number,
        # A run is called what its capture says: quoted, as it will be pasted into a shell.
        "sql": lambda name: formatting.command(f"from {name}{where}"),
        "query": formatting.command,
        "words": lambda name: name.replace("_", " "),
        "about": lambda name: catalogue()[name].title.split(". ")[0].rstrip("."),
    }
    return environment
