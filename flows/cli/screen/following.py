"""A folder that is followed in a terminal: a line for each outcome, as it comes."""

from pathlib import Path

from timtrack.flows.cli.screen.outcomes import Tellers, tell_hindrance
from timtrack.flows.follow import Hindrance, follow
from timtrack.flows.outcomes import change_listener, listener
from timtrack.flows.watched import Watched


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
