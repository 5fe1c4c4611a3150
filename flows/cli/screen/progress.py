"""Captures that are analysed in a terminal: a progress bar, then the outcomes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from timtrack.flows import execution
from timtrack.flows.analyse import analyse
from timtrack.flows.outcomes import CapturesFailed, Outcome, listener, ready_listener
from timtrack.flows.settings import Settings
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
    """Run `analyse` behind a progress bar; its outcomes, failed ones too.

    `ready` is called of each step before it is logged, and may print: the bar ends before.
    `given`: run, step and tokenizer, as it takes them.
    """
    plain = execution.is_plain(len(paths), settings.runner)
    flow = analyse if plain else execution.as_flow(analyse, settings.runner)
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
