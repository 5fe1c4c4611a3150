"""What Prefect shows of a sweep: what the flow run is called, and whether its backlog is new."""

from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from timtrack.flows.outcomes import Outcome, warn
from timtrack.tasks.backlog import survey
from timtrack.tasks.backlog.survey import Backlog
from timtrack.tasks.messages.errors import printable
from timtrack.tasks.messages.formatting import encodable
from timtrack.tasks.system import durable


def is_news(home: Path, root: Path, seen: Backlog) -> bool:
    """Whether the look differs from the one that Prefect shows."""
    text = "\n".join([str(root.absolute()), survey.sentence(seen), *survey.troubles(seen)])
    file = home / "shown.txt"
    try:
        if file.read_text() == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass
    durable.write(file, encodable(text))
    return True


def name_sweep(outcomes: list[Outcome]) -> None:
    """Have the flow run be called by what happened in it."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(context.flow_run.id, name=name_of(outcomes))
    except Exception as error:  # its server does not answer
        warn(f"the sweep was not named: {error}")


def name_of(outcomes: list[Outcome]) -> str:
    """A sweep in a few words: the number of captures, their runs and steps."""
    if not outcomes:
        return "sweep: nothing new"
    steps: dict[str, list[int]] = {}
    for outcome in outcomes:
        if outcome.step and not outcome.error:
            steps.setdefault(outcome.step.run, []).append(outcome.step.step)
    failures = sum(1 for outcome in outcomes if outcome.error)
    done = len(outcomes) - failures
    counts = [f"{done} new"] * (done > 0) + [f"{failures} failed"] * (failures > 0)
    runs = [f"{run} {_span(of_run)}" for run, of_run in steps.items()]
    return printable(", ".join([f"sweep: {', '.join(counts)}", *few(runs)]))


def _span(steps: list[int]) -> str:
    low, high = min(steps), max(steps)
    return str(low) if low == high else f"{low}-{high}"


def few(names: list[str]) -> list[str]:
    """The first three, and how many more there are."""
    return names[:3] + ([f"and {len(names) - 3} more"] if len(names) > 3 else [])
