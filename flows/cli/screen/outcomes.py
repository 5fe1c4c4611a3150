"""Terminal output for captures: one line as each is done, a table at the end."""

import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from timtrack.flows.cli.printing import about, as_json, complain, say
from timtrack.tasks.tables.stored import stored_tables
from timtrack.tasks.verdicts import summary
from timtrack.tasks.verdicts.assessment import Assessment, assess
from timtrack.tasks.verdicts.bands import Bands
from timtrack.tasks.verdicts.numbers import metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from timtrack.flows.follow import Hindrance
    from timtrack.flows.outcomes import Outcome
    from timtrack.tasks.lake.steps import Step
    from timtrack.tasks.verdicts.alerts import Change
from timtrack.flows.cli.screen.grids import print_table, print_wrapped, say_wrapped


def show_outcomes(outcomes: list["Outcome"], bands: Bands, shown: "Collection[Step]" = ()) -> None:
    """The headline of each analysed step, one line each, then what failed and why.

    A single step is printed in full, unless it was `shown` already.
    """
    analysed = [outcome for outcome in outcomes if outcome.step and not outcome.error]
    steps = [outcome.step for outcome in analysed if outcome.step]
    if len(steps) > 1:
        rows = [[*_line(step), _assessed(step, bands).status] for step in steps]
        print_table(["run", "step", *summary.SHORT, "verdict"], rows)
        _tell_notes(steps)
    for step in steps if len(steps) == 1 else ():
        if step not in shown:
            show_step(step, bands)
    for outcome in outcomes:
        if outcome.error:
            complain(f"failed: {about(outcome.path, str(outcome.error))}")
    if links := dict.fromkeys(outcome.link for outcome in analysed):
        served = "" if os.environ.get("MLFLOW_TRACKING_URI") else ", served by `tim ui`"
        say(f"MLflow{served}:", *(f"  {link}" for link in links))


def show_step(step: "Step", bands: Bands) -> None:
    """Headline, verdict, findings and notes of one step."""
    assessment = _assessed(step, bands)
    where = {"run": step.run, "step": str(step.step)}
    say(assessment.status.upper())
    say_wrapped(*(f"{label}: {text}" for label, text in assessment.verdict.lines.items()), "")
    print_wrapped({**where, **summary.headline(assessment.numbers)}.items())
    say("")
    marks = {True: "!", False: "-"}
    say_wrapped(*(f"{marks[finding.matters]} {finding.text}" for finding in assessment.findings))
    say("")
    _tell_notes([step])


def facts(outcome: "Outcome", bands: Bands) -> dict[str, Any]:
    """What became of one capture, for a program."""
    step, error = outcome.step, outcome.error
    return {
        "capture": str(outcome.path),
        "run": step and step.run,
        "step": step and step.step,
        "again": outcome.is_again,
        "error": None if error is None else str(error),
        "mlflow": outcome.link,
        "summary": summary.content(step, _assessed(step, bands)) if step and not error else None,
    }


def tell(outcome: "Outcome") -> None:
    """One line for one capture."""
    if outcome.error:
        complain(f"failed: {about(outcome.path, str(outcome.error))}")
    else:
        assert outcome.step
        numbers = zip(summary.SHORT, _line(outcome.step)[2:], strict=True)
        said = ", ".join(f"{name} {value}" for name, value in numbers)
        again = ", taken again, in place of what was there" if outcome.is_again else ""
        say(f"{_named(outcome)}{again}: {said}")


def _named(outcome: "Outcome") -> str:
    """Run and step; in quotes where the name could be taken for the beginning of a message."""
    if outcome.step is None:
        return ""
    plain = re.fullmatch(r"[\w./@+~-]+( [\w./@+~-]+)*", outcome.step.run)
    return outcome.step.name if plain else f"{outcome.step.run!r} step {outcome.step.step}"


@dataclass(frozen=True)
class Tellers:
    """What is printed of each finished capture, and of each run whose status changed."""

    of_capture: Callable[["Outcome"], None]
    of_run: Callable[["Change"], None]


def objects(bands: Bands) -> Tellers:
    """For programs: an object a line."""
    return Tellers(
        lambda outcome: as_json(facts(outcome, bands), indent=None),
        lambda change: as_json(
            {"run": change.run, "was": change.before, **asdict(change.now)}, indent=None
        ),
    )


def tell_hindrance(hindrance: "Hindrance", is_last: bool) -> None:
    """One line for a sweep that could not be made."""
    error = hindrance.error
    again = "given up" if is_last else f"tried again in {hindrance.pause:.0f} s"
    complain(f"no sweep: {type(error).__name__}: {error}; {again}")


def tell_change(change: "Change") -> None:
    """One line for a run whose status changed."""
    say(f"{change.now.level.upper()}: {change.text} (was {change.before})")


LINES = Tellers(tell, tell_change)  # for people


def _line(step: "Step") -> list[str]:
    numbers = metrics(stored_tables(step))
    printed = [summary.HEADLINE[name](numbers[name]) for name in summary.SHORT]
    return [step.run, str(step.step), *printed]


def _assessed(step: "Step", bands: Bands) -> Assessment:
    return assess(step.facts(), stored_tables(step), bands)


def _tell_notes(steps: "Sequence[Step]") -> None:
    """What is to be known of the captures, each note once."""
    said: dict[str, list[str]] = {}
    for step in steps:
        for note in step.facts()["notes"]:
            said.setdefault(note, []).append(step.name)
    for note, names in said.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say(f"note: {names[0]}{more}: {note}")
