"""What of given captures needs no analysis: those that are no captures, and those that are done.

Everything that takes seconds to start (Prefect, MLflow, charts) is left out here, but for the time
in which another process opens a new capture. MLflow starts in a third one then, unless Prefect runs
the flow.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timtrack.flows import execution
from timtrack.flows.outcomes import Outcome
from timtrack.flows.settings import Settings
from timtrack.tasks.backlog import asked, survey
from timtrack.tasks.captures import paths as places
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake import conversion
from timtrack.tasks.lake.steps import Step, all_steps, find_step, has_mark, mark_text
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.pipeline import tracking
from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.tables.stored import are_computed


def _import_flow() -> None:
    importlib.import_module("timtrack.flows.cli.screen.progress")
    if not execution.is_plain(1):
        for module in ("prefect", "timtrack.tasks.pipeline.outputs"):
            importlib.import_module(module)


def _start_drawing() -> None:
    importlib.import_module("timtrack.tasks.pipeline.drawing")
    from timtrack.tasks.reports.charts import export

    export.start()


# What a new capture needs once it is open.
NEXT: tuple[Callable[[], object], ...] = (_import_flow, catalogue, _start_drawing)


@dataclass(frozen=True)
class Given:
    """What is known of captures besides their files."""

    run: str | None = None
    step: int | None = None
    tokenizer: Path | None = None


def settled(
    paths: Sequence[Path], home: Path, settings: Settings, columns: str | None, **given: Any
) -> list[Outcome] | None:
    """The outcomes of captures that need no further work; None if any of them does."""
    if not 0 < len(paths) <= execution.FEW:  # more are read side by side, by the flow
        return None
    look = _Look(home, settings, Given(**given))
    outcomes = [look.outcome(Source(path, columns)) for path in paths]
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


@dataclass(frozen=True)
class _Look:
    """A look at the home's steps, for captures that share what is given."""

    home: Path
    settings: Settings
    given: Given

    def outcome(self, source: Source) -> Outcome | None:
        """Of a capture that needs no further work; None if it does."""
        if step := self._known(source):
            return self._done(source.path, step)
        is_plain = execution.is_plain(1, self.settings.runner)
        if is_plain:
            tracking.start()
        try:
            capture = conversion.identify(source, **vars(self.given), meanwhile=prepare_next)
        except TimtrackError as error:
            return Outcome(source.path, error=error)
        except OSError:  # it may pass: the flow tries again
            return None
        step = find_step(self.home / "lake", capture)
        if done := step and self._done(capture.path, step):
            return done
        if is_plain:
            tracking.open_store(self.home)
        return None

    def _known(self, source: Source) -> Step | None:
        """The step that was made of this file, if the file was not written to since."""
        if self.given.tokenizer is not None or source.columns is not None:
            return None
        folder, number = places.run_and_step(source.path.absolute())
        place = (
            self.given.run or folder.name,
            number if self.given.step is None else self.given.step,
        )
        steps = (s for s in all_steps(self.home / "lake") if (s.run, s.step) == place)
        return next((step for step in steps if survey.is_made_of(step, source.path)), None)

    def _done(self, path: Path, step: Step) -> Outcome | None:
        """The outcome of a capture that the lake and MLflow have."""
        if not are_computed(step) or step.facts()["source"] != str(path.absolute()):
            return None
        marks = survey.logged_marks(self.home, self.settings.parity)
        link = mark_text(step, marks[0])
        if not link or not all(has_mark(step, mark) for mark in marks):
            return None
        return Outcome(path.absolute(), step, link)


def prepare_next(is_answered: Callable[[], bool]) -> None:
    """Do what a new capture needs next until it is open, so that a bad file fails early."""
    for do in NEXT:
        if is_answered():
            return
        do()
