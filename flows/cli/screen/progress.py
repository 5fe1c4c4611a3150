"""Flows in a terminal: a progress bar, then the outcomes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from timtrack.flows import execution, runner
from timtrack.flows.analyse import analyse
from timtrack.flows.cli.screen.outcomes import Tellers, tell_hindrance
from timtrack.flows.follow import Hindrance, follow
from timtrack.flows.outcomes import (
    CapturesFailed,
    Outcome,
    change_listener,
    listener,
    ready_listener,
)
from timtrack.flows.settings import Settings
from timtrack.flows.watched import Watched
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import printable

COLUMNS = (
    TextColumn("{task.description}", markup=False),  # it holds names from outside
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)


def analyse_with_progress(
    paths: list[Path],
    home: Path,
    settings: Settings,
    ready: Callable[[Step], None] | None = None,
    **given: Any,
) -> list[Outcome]:
    """Run the flow `analyse` behind a progress bar; its outcomes, failed ones too.

    `ready` is called of each step before it is logged, and may print: the bar ends before.
    `given`: run, step and tokenizer, as the flow takes them.
    """
    plain = settings.runner == runner.DEFAULT and execution.is_plain(len(paths))
    flow = analyse.fn if plain else analyse.with_options(task_runner=runner.made(settings.runner))
    parity, bands = ",".join(settings.parity), settings.bands.own
    console = Console(stderr=True)
    quiet = not console.is_terminal
    with Progress(*COLUMNS, console=console, transient=True, disable=quiet) as progress:
        bar = progress.add_task("analyse" if plain else "starting Prefect", total=len(paths))

        def told(outcome: Outcome) -> None:
            name = outcome.step.name if outcome.step else outcome.path.name
            progress.update(bar, advance=1, description=printable(name))

        def is_ready(step: Step) -> None:
            if ready:
                progress.stop()
                ready(step)

        token, waiting = listener.set(told), ready_listener.set(is_ready)
        try:
            return list(flow(paths, home.absolute(), parity=parity, bands=bands, **given))
        except CapturesFailed as failed:
            return failed.outcomes
        finally:
            listener.reset(token)
            ready_listener.reset(waiting)


def watch_with_progress(
    watched: Watched, home: Path, once: bool, every: float, on: str, tellers: Tellers
) -> bool:
    """Follow a folder, telling of each finished capture and changed run; True if any failed."""
    token = listener.set(tellers.of_capture)
    changes = change_listener.set(tellers.of_run)
    try:
        failed = False
        for told in follow(watched, home, lambda: once, every, on):
            if isinstance(told, Hindrance):
                tell_hindrance(told, once)
            failed = failed or told.error is not None
        return failed
    finally:
        listener.reset(token)
        change_listener.reset(changes)
