"""Watching a folder: what the lake lacks is analysed, again and again until the writer is done."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.analyse import CapturesFailed, Outcome, analyse
from tasks import captures, lake, tables
from tasks.tokens import BadCapture


def pending(root: Path, home: Path, tried: set[Path]) -> list[Path]:
    """Captures below `root`, `tried` ones aside, that the lake lacks or has without tables."""
    try:
        found = captures.find(root)
    except BadCapture:
        return []  # nothing there yet
    return [path for path in found if path not in tried and not _is_analysed(path, home / "lake")]


def follow(
    root: Path, home: Path, finished: Callable[[], bool], every: float = 0.5
) -> Iterator[Outcome]:
    """Analyse captures as they appear below `root`, until `finished` and none is left.

    Captures must be written atomically. One that fails is told and not tried again.
    """
    tried: set[Path] = set()
    while True:
        last = finished()  # asked first: what was written before it was true is still found
        paths = pending(root, home, tried)
        if paths:
            tried.update(paths)
            yield from _outcomes(paths, home)
        elif last:
            return
        else:
            time.sleep(every)


def _outcomes(paths: list[Path], home: Path) -> list[Outcome]:
    try:
        return analyse(paths, home)
    except CapturesFailed as failed:
        return failed.outcomes


def _is_analysed(path: Path, into: Path) -> bool:
    try:
        step = lake.find(into, captures.identify(path))
    except BadCapture:
        return False
    return step is not None and tables.are_computed(step)
