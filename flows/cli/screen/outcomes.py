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
    from timtrack.flows.follow import Hindrance
    from timtrack.flows.outcomes import Outcome
    from timtrack.tasks.verdicts.alerts import Change
from timtrack.flows.cli.screen.grids import print_table, print_wrapped


def show_outcomes(outcomes: list["Outcome"], bands: Bands) -> None:
    """The headline of each analysed step, one line each, then what failed and why."""
    analysed = [outcome for outcome in outcomes if outcome.step and not outcome.error]
    if len(analysed) == 1:
        print_wrapped(_headline(analysed[0]).items())
    elif analysed:
        rows = [[*_line(outcome), _assessed(outcome, bands).status] for outcome in analysed]
        print_table(["run", "step", *summary.SHORT, "verdict"], rows)
    if len(analysed) == 1:
        _tell_findings(analysed[0], bands)
    _tell_notes(analysed)
    for outcome in outcomes:
        if outcome.error:
            complain(f"failed: {about(outcome.path, str(outcome.error))}")
    if links := dict.fromkeys(outcome.link for outcome in analysed):
        served = "" if os.environ.get("MLFLOW_TRACKING_URI") else ", served by `tim ui`"
        say(f"MLflow{served}:", *(f"  {link}" for link in links))


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
        "summary": summary.content(step, _assessed(outcome, bands)) if step and not error else None,
    }


def tell(outcome: "Outcome") -> None:
    """One line for one capture."""
    if outcome.error:
        complain(f"failed: {about(outcome.path, str(outcome.error))}")
    else:
        numbers = zip(summary.SHORT, _line(outcome)[2:], strict=True)
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


def _headline(outcome: "Outcome") -> dict[str, str]:
    assert outcome.step
    numbers = metrics(stored_tables(outcome.step))
    where = {"run": outcome.step.run, "step": str(outcome.step.step)}
    return {**where, **summary.headline(numbers)}


def _line(outcome: "Outcome") -> list[str]:
    assert outcome.step
    numbers = metrics(stored_tables(outcome.step))
    printed = [summary.HEADLINE[name](numbers[name]) for name in summary.SHORT]
    return [outcome.step.run, str(outcome.step.step), *printed]


def _assessed(outcome: "Outcome", bands: Bands) -> Assessment:
    assert outcome.step
    return assess(outcome.step.facts(), stored_tables(outcome.step), bands)


def _tell_findings(outcome: "Outcome", bands: Bands) -> None:
    """What the diagnoses say, what matters marked."""
    assessment = _assessed(outcome, bands)
    say("", assessment.status.upper())
    say(*(f"{label}: {text}" for label, text in assessment.verdict.lines.items()), "")
    say(*(f"{'!' if finding.matters else '-'} {finding.text}" for finding in assessment.findings))
    say("")


def _tell_notes(analysed: list["Outcome"]) -> None:
    """What is to be known of the captures, each note once."""
    said: dict[str, list[str]] = {}
    for outcome in analysed:
        assert outcome.step
        for note in outcome.step.facts()["notes"]:
            said.setdefault(note, []).append(outcome.step.name)
    for note, names in said.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say(f"note: {names[0]}{more}: {note}")
