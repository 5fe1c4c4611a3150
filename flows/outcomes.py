"""Outcomes of captures, and the listeners that hear of each one while a flow runs."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import OneLine, TimtrackError, printable
from timtrack.tasks.verdicts.alerts import Change

# Told of each outcome as it comes; the command line sets it to draw progress.
listener: ContextVar[Callable[["Outcome"], None] | None] = ContextVar("listener", default=None)

# Told of each step once its tables are there.
ready_listener: ContextVar[Callable[[Step], None] | None] = ContextVar("ready", default=None)

# Told of each run whose status changed.
change_listener: ContextVar[Callable[[Change], None] | None] = ContextVar("changes", default=None)


@dataclass(frozen=True)
class Outcome:
    """What became of one capture: a step and its link, or an error."""

    path: Path
    step: Step | None = None
    link: str | None = None
    error: Exception | None = None
    is_again: bool = False  # in place of another capture of the step


class NotLogged(OneLine):
    """The step is in the lake, but MLflow does not have it."""


class Refused(NotLogged):
    """MLflow answers, but does not take this step; the others go on."""


class SweepFailed(TimtrackError):
    """A sweep that Prefect must show as failed; `outcomes` says what became of its captures."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        super().__init__(outcomes)  # its only argument: what is pickled is made again from these
        self.outcomes = outcomes


class CapturesFailed(SweepFailed):
    """Some captures failed, the others are done; `outcomes` says which."""

    def __str__(self) -> str:
        failures = [outcome for outcome in self.outcomes if outcome.error]
        first = printable(f"first {failures[0].path}: {failures[0].error}")
        return f"{len(failures)} of {len(self.outcomes)} captures failed, {first}"


def raise_if_failed(outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes, unless one of them is an error."""
    if any(outcome.error for outcome in outcomes):
        raise CapturesFailed(outcomes)
    return outcomes


def tell_of(outcome: Outcome) -> Outcome:
    """Report one outcome to the listeners, and return it."""
    if listen := listener.get():
        listen(outcome)
    return outcome


def tell_ready(step: Step) -> None:
    """Report a step whose tables are there to its listener, before it is logged."""
    if listen := ready_listener.get():
        listen(step)


def warn(text: str) -> None:
    """A line in the flow's log, where Prefect shows it."""
    from prefect.logging import get_logger

    get_logger("timtrack").warning("%s", printable(text))
