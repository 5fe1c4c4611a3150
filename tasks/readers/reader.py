"""The `Reader` of a format. Other packages register one by the entry point `timtrack.readers`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.tokens.table import Batch


@dataclass(frozen=True)
class Stream:
    """Captures that are no files of their own, but the steps of a file that goes on growing."""

    steps: Callable[[Path], list[Path]]  # of a file, those that are complete, as paths beside it
    names_a_step: Callable[[Path], bool]
    exists: Callable[[Path], bool]
    stamp: Callable[[Path], tuple[int, int]]  # bytes, and when the step was written [ns]
    age: Callable[[Path], float]  # seconds since then
    look: Callable[[Path], Contents]
    digest: Callable[[Path], str]


@dataclass(frozen=True)
class Reader:
    """One format: its description for people, and how its captures are recognised and opened.

    A format needs `recognises`, `opens` and `open_batch`; what else it has is said where its
    captures are several files, or have no end of their own.
    """

    name: str
    files: str  # what its files are called
    needs: str  # what to switch on in the framework
    gives: str  # columns beside the log-probs
    opens: Callable[[Contents], bool]  # by its contents, whatever its name
    open_batch: Callable[[Path, Contents], Batch]  # without reading its rows; raises BadCapture
    recognises: Callable[[Path], bool] = lambda _: False  # by its name, found in a directory
    companions: Callable[[Path], list[Path]] = lambda _: []  # further files of the capture
    says_its_end: Callable[[Path], bool] = lambda _: True  # complete once it can be read
    supersedes: Callable[[Path, Path], bool] = lambda _path, _other: False  # by a restart
    stream: Stream | None = None
