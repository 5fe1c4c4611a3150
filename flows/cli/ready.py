"""What of given captures needs no analysis: those that are no captures, and those that are done.

Everything that takes seconds to start (Prefect, MLflow, charts) is left out here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timtrack.flows.outcomes import Outcome
from timtrack.flows.settings import Settings
from timtrack.tasks.backlog import asked, survey
from timtrack.tasks.captures.capture import Capture
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake import conversion
from timtrack.tasks.lake.steps import find_step, has_mark, mark_text
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.tables.stored import are_computed

FEW = 4  # captures; more are read side by side, by the flow


def settled(
    paths: Sequence[Path], home: Path, settings: Settings, columns: str | None, **given: Any
) -> list[Outcome] | None:
    """The outcomes of captures that need no further work; None if any of them does."""
    if not 0 < len(paths) <= FEW:
        return None
    outcomes = [_settled(Source(path, columns), home, settings, given) for path in paths]
    known = [outcome for outcome in outcomes if outcome]
    if len(known) < len(outcomes):
        return None
    runs = {outcome.step.run for outcome in known if outcome.step}
    is_left = runs and (
        asked.is_due(home)
        or survey.unlogged(home, runs, settings.parity)
        or runs & {*survey.unsettled(home, survey.settlements(home))}
    )
    return None if is_left else known


def _settled(
    source: Source, home: Path, settings: Settings, given: Mapping[str, Any]
) -> Outcome | None:
    try:
        capture = conversion.identify(source, **given)
    except TimtrackError as error:
        return Outcome(source.path, error=error)
    except OSError:  # it may pass: the flow tries again
        return None
    return _done(capture, home, settings)


def _done(capture: Capture, home: Path, settings: Settings) -> Outcome | None:
    """The outcome of a capture that the lake and MLflow have."""
    step = find_step(home / "lake", capture)
    if step is None or not are_computed(step) or step.facts()["source"] != str(capture.path):
        return None
    marks = survey.logged_marks(home, settings.parity)
    link = mark_text(step, marks[0])
    if not link or not all(has_mark(step, mark) for mark in marks):
        return None
    return Outcome(capture.path, step, link)
