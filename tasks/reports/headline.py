"""The headline numbers of a step's page: the table, and what its intervals are."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from timtrack.tasks.messages import formatting
from timtrack.tasks.reports import html
from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.verdicts import numbers, summary
from timtrack.tasks.verdicts.assessment import Assessment

AVERAGES_OF_R = " A few tokens decide the averages of r here: these have no interval."


def table(assessment: Assessment) -> Markup:
    """The headline numbers with interval, definition and how they stand."""
    values = assessment.numbers
    levels = {reading.band.metric: reading.level for reading in assessment.readings}
    defined = catalogue()["step_metrics"].columns
    rows = []
    for name, printed in summary.HEADLINE.items():
        error, t = values.get(f"{name}_se"), values.get(numbers.interval_of(name))
        interval = f"± {printed(t * error)}" if error and t else ""  # no spread says nothing
        level = levels.get(name, "")
        cells = (summary.LABELS[name], name, values[name], printed(values[name]))
        rows.append((*cells, error or "", interval, level, level, defined[name]))
    body = Markup().join(
        Markup(
            '<tr><td>{}</td><td class="column"><code>{}</code></td>'
            '<td class="n" data-v="{}">{}</td><td class="n" data-v="{}">{}</td>'
            '<td class="{}">{}</td><td class="about">{}</td></tr>'
        ).format(*row)
        for row in rows
    )
    head = ("number", "column", "value", "95 %", "status", "what it is")
    return html.scrolled("headline", html.head(head), body)


def intervals(values: Mapping[str, Any]) -> str:
    """What the intervals of the headline are, or why there are none."""
    if "interval_t" not in values:
        return "No intervals: these tables are of an earlier version."
    groups = (
        f"{values['clusters']:,} prompt groups (rollouts, where prompts are unknown), "
        f"{formatting.number(values['clusters_effective'])} effective by their tokens"
    )
    if values["interval_t"] is None:
        return f"No intervals: there are {groups}, and fewer than 5 say too little about others."
    return f"Intervals are 95 %, by Student's t over {groups}." + (
        AVERAGES_OF_R if values.get("interval_t_of_r") is None else ""
    )
