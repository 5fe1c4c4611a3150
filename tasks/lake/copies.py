"""Files known to hold a step's bytes: its source after a touch, and copies elsewhere."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timtrack.tasks.captures.source import Stamp
from timtrack.tasks.lake.steps import Step, has_mark, set_mark


def remember_source(step: Step, path: Path, stamp: Stamp) -> None:
    """Remember that a file holds the step's bytes: its own after a touch, or a copy elsewhere.

    It need not be read again to know that.
    """
    if knows_source(step, step.facts(), path, stamp):
        return
    for other in step.path.glob(f"seen-{_hash_of(path)}-*"):
        other.unlink(missing_ok=True)
    set_mark(step, _seen(path, stamp))


def knows_source(step: Step, facts: dict[str, Any], path: Path, stamp: Stamp) -> bool:
    """Whether a file with this size and time is known to hold the step's bytes."""
    known = [facts[name] for name in ("bytes", "mtime_ns", "ctime_ns") if name in facts]
    own = str(path.absolute()) == facts["source"] and list(stamp[: len(known)]) == known
    return own or has_mark(step, _seen(path, stamp))


def known_copies(lake: Path) -> dict[str, Path]:
    """The folder of the step whose bytes a path was seen to hold, by the path's hash."""
    marks = lake.glob("run=*/step=*/capture=*/seen-*-*-*")
    return {mark.name.split("-")[1]: mark.parent for mark in marks}


def copy_of(known: Mapping[str, Path], path: Path) -> Path | None:
    """The folder of the step whose bytes a path was seen to hold; `known` are `known_copies`."""
    return known.get(_hash_of(path))


def _hash_of(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:12]


def _seen(path: Path, stamp: Stamp) -> str:
    return f"seen-{_hash_of(path)}-{'-'.join(map(str, stamp))}"
