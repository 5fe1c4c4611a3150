"""Converting captures to steps of the lake, in a separate process (tasks/system/isolation.py).

One rule: whatever kills the process that reads a capture is an error of that capture: BadCapture.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timtrack.tasks.captures.capture import Capture, reading
from timtrack.tasks.captures.capture import identify as identify_here
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import BadPlace, finish_step, write_part, write_step
from timtrack.tasks.lake.steps import Step, pick_step
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.system.isolation import TOO_LONG, Died, Meanwhile, Stopped, apart
from timtrack.tasks.tokens.checks import Check


def identify(
    source: Source,
    run: str | None = None,
    step: int | None = None,
    tokenizer: Path | None = None,
    meanwhile: Meanwhile | None = None,
) -> Capture:
    """As `identify` of tasks/captures/capture.py; `meanwhile` is called while the process reads."""
    arguments = (source, run, step, tokenizer)
    capture: Capture = _read(source.bytes(), identify_here, *arguments, meanwhile=meanwhile)
    return capture


def whole(capture: Capture, into: Path) -> Step:
    """A capture as a step of the lake."""
    step: Step = _read(capture.bytes, _whole, capture, into)
    return step


Part = Check  # what was seen of one


def part(capture: Capture, folder: Path, number: int) -> Check:
    """One part of a capture that came in shards, into a folder aside."""
    check: Check = _read(capture.bytes, _part, capture, folder, number)
    return check


def published(capture: Capture, folder: Path, parts: list[Check], into: Path) -> Step:
    """The parts in a folder as a step of the lake."""
    step: Step = _read(capture.bytes, _published, capture, folder, parts, into)
    return step


WHY = {
    "SIGBUS": "it was cut short while it was read; try again when it is complete",
    "SIGKILL": "it may need more memory than there is",
    TOO_LONG: "it took many times the processor time that captures of its size take",
}


def _read(
    size: int, function: Callable[..., Any], *arguments: Any, meanwhile: Meanwhile | None = None
) -> Any:
    try:
        return apart(function, *arguments, size=size, meanwhile=meanwhile)
    except Died as death:
        why = WHY.get(death.how, "what it holds breaks a library that reads it")
        raise BadCapture(f"{death}: {why}") from None
    except (OSError, BadCapture, BadPlace, Stopped):
        raise
    except Exception as error:  # no reader expects it
        raise BadCapture(f"{type(error).__name__} while it was read: {error}") from error


def _whole(capture: Capture, into: Path) -> Step:
    return write_step(into, capture, **reading(capture))


def _part(capture: Capture, folder: Path, number: int) -> Check:
    arguments = reading(capture)
    decode = {name: arguments[name] for name in ("decode",) if name in arguments}
    return write_part(folder, capture, arguments["batch"], number, **decode)


def _published(capture: Capture, folder: Path, parts: list[Check], into: Path) -> Step:
    arguments = reading(capture)
    arguments.pop("decode", None)
    return finish_step(into, folder, capture, parts=parts, **arguments)


def is_file(what: str, columns: str | None = None) -> bool:
    """Whether a verb that takes a capture's file or a run was given a file."""
    source = Source(Path(what), columns)
    return source.exists() and not source.path.is_dir()


@contextmanager
def step_of(
    what: str,
    lake: Path,
    step: int | None = None,
    columns: str | None = None,
    run: str | None = None,
) -> Iterator[Step]:
    """A run's step in the lake, or a capture file's step, converted into a temporary lake.

    `run` is what a file's run is to be called. Raises NoSuchStep and BadCapture.
    """
    if not is_file(what, columns):
        yield pick_step(lake, what, step)
        return
    with tempfile.TemporaryDirectory(prefix="timtrack-") as aside:
        capture = identify(Source(Path(what), columns), run=run, step=step)
        yield whole(capture, Path(aside))
