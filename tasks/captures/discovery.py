"""Finding the captures below a directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from timtrack.tasks.captures import paths
from timtrack.tasks.captures.paths import Pattern
from timtrack.tasks.captures.source import Source
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers import registry
from timtrack.tasks.system import walk


@dataclass(frozen=True)
class Found:
    """One look at a folder: captures in step order, and folders that could not be read, and why."""

    captures: list[Path]
    closed: Mapping[Path, str]


def find_captures(path: Path, pattern: Pattern | None = None) -> list[Path]:
    """The captures below a directory in step order, or the file itself; raises BadCapture if none.

    With a pattern those that match it, else those that a reader recognises. A `.npz` beside a
    `.pt` of the same name is the same batch in another container: left out.
    """
    if path.is_dir():
        found = captures_below(path, pattern)
        return found.captures or _none_there(path, pattern, found)
    if not Source(path).exists():
        raise BadCapture(f"{path} does not exist")
    captures = _captures_of(path)
    if not captures:
        raise BadCapture(f"{path} has no step yet that the trainer is done with")
    return captures


def captures_below(root: Path, pattern: Pattern | None = None) -> Found:
    """The captures below a folder, maybe none, as `find_captures` gives them."""

    def wanted(file: Path) -> bool:
        return pattern.matches(file, root) if pattern else registry.by_name(file) is not None

    looked = walk.below(root, wanted)
    captures = {capture for file in looked.files for capture in _captures_of(file)}
    twins = {
        file for file in captures if file.suffix == ".npz" and file.with_suffix(".pt") in captures
    }
    return Found(sorted(captures - twins, key=paths.natural), looked.closed)


def _none_there(path: Path, pattern: Pattern | None, found: Found) -> NoReturn:
    closed = ""
    if found.closed:
        folder, why = next(iter(found.closed.items()))
        closed = f"; {len(found.closed)} folders could not be read, first {folder}: {why}"
    if pattern:
        raise BadCapture(f"no file under {path} matches the pattern {pattern.text}{closed}")
    raise BadCapture(
        f"no capture under {path}{closed}; `tim formats` says which files are taken, others can "
        "be named one by one, or by --pattern"
    )


def _captures_of(file: Path) -> list[Path]:
    """The captures that a file stands for: itself, or the steps of a stream."""
    reader = registry.by_name(file)
    if reader is None or reader.stream is None:
        return [file]
    try:
        return reader.stream.steps(file)
    except OSError:  # an index that cannot be read now keeps no other capture waiting
        return []
