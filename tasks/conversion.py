"""Captures into the lake, read in a process apart (tasks/system/isolation.py).

One rule: whatever ends the process that reads a capture is that capture's fault, as BadCapture.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from timtrack.tasks import captures
from timtrack.tasks.captures import Capture
from timtrack.tasks.lake.publish import BadPlace, finish_step, write_part, write_step
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.system.isolation import TOO_LONG, Died, Stopped, apart
from timtrack.tasks.tokens import BadCapture, Check


def identify(
    path: Path,
    run: str | None = None,
    step: int | None = None,
    tokenizer: Path | None = None,
    columns: str | None = None,
) -> Capture:
    """`captures.identify`."""
    size = captures.size(path, columns)
    found: Capture = _read(size, captures.identify, path, run, step, tokenizer, columns)
    return found


def whole(capture: Capture, into: Path) -> Step:
    """A capture as a step of the lake."""
    step: Step = _read(capture.bytes, _whole, capture, into)
    return step


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


def _read(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return apart(function, *arguments, size=size)
    except Died as death:
        why = WHY.get(death.how, "what it holds breaks a library that reads it")
        raise BadCapture(f"{death}: {why}") from None
    except (OSError, BadCapture, BadPlace, Stopped):
        raise
    except Exception as error:  # no reader expects it
        raise BadCapture(f"{type(error).__name__} while it was read: {error}") from error


def _whole(capture: Capture, into: Path) -> Step:
    return write_step(into, capture, **captures.reading(capture))


def _part(capture: Capture, folder: Path, number: int) -> Check:
    reading = captures.reading(capture)
    decode = {name: reading[name] for name in ("decode",) if name in reading}
    return write_part(folder, capture, reading["batch"], number, **decode)


def _published(capture: Capture, folder: Path, parts: list[Check], into: Path) -> Step:
    reading = captures.reading(capture)
    reading.pop("decode", None)
    return finish_step(into, folder, capture, parts=parts, **reading)
