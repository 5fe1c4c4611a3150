"""The answer to a query on standard output: for people, or as the form that was asked for."""

import polars as pl

from timtrack.flows.cli.printing import say
from timtrack.flows.cli.screen import forms
from timtrack.flows.cli.screen.grids import cell_text, print_table

EXPLAINED = ["explain_key", "explain_value"]  # what `explain` gives: a drawing of the plan


def print_frame(frame: pl.DataFrame, form: str, more: int = 0) -> None:
    """A table for people, or in another form; `more` rows were not fetched."""
    if not frame.width:
        return
    if form != "table":
        forms.print_form(frame, form)
        return
    if frame.columns == EXPLAINED:
        say(*(line for plan in frame[EXPLAINED[1]] for line in plan.splitlines()))
        return
    print_table(frame.columns, [[cell_text(value) for value in row] for row in frame.iter_rows()])
    if more:
        say(f"... {more:,} more row{'s' * (more > 1)}")
