"""All formats, and which reader opens a file, by name or by contents."""

import functools
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from timtrack.tasks.messages.errors import BadCapture, TimtrackError
from timtrack.tasks.messages.formatting import listed
from timtrack.tasks.readers import nemo_rl, one_sided, skyrl, step_batch
from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.readers.prime_rl import token_exports, traces
from timtrack.tasks.readers.reader import Reader, Stream
from timtrack.tasks.readers.slime import merged, per_rank
from timtrack.tasks.tokens.table import Batch

GROUP = "timtrack.readers"  # entry points of other packages
OWN = (
    nemo_rl.READER,
    token_exports.READER,
    traces.READER,
    skyrl.READER,
    merged.READER,
    per_rank.READER,
)


class BadReader(TimtrackError):
    """A package registered something that is not a Reader."""


@functools.cache
def readers() -> tuple[Reader, ...]:
    """Every format; the first that knows a file opens it, so `step_batch` is last.

    Raises BadReader.
    """
    others = (_loaded(point) for point in entry_points(group=GROUP))
    return (*OWN, *others, step_batch.READER)


def _loaded(point: EntryPoint) -> Reader:
    try:
        reader = point.load()
    except Exception as error:  # whatever the package does when it is imported
        raise BadReader(f"{point.value}, registered as {GROUP}: {error}") from error
    if not isinstance(reader, Reader):
        kind = type(reader).__name__
        raise BadReader(f"{point.value}, registered as {GROUP}, is a {kind}, expected a Reader")
    return reader


def by_name(file: Path) -> Reader | None:
    """The reader that takes a file for one of its own by where it lies and how it is called."""
    return next((reader for reader in readers() if reader.recognises(file)), None)


def by_contents(seen: Contents) -> Reader | None:
    """The reader that opens a file; None if none does, or half of what it needs is there."""
    reader = next((reader for reader in readers() if reader.opens(seen)), None)
    return None if reader is step_batch.READER and one_sided.advice_on(seen) else reader


def stream_of(path: Path) -> Stream | None:
    """The stream that a path names a step of."""
    streams = (reader.stream for reader in readers() if reader.stream)
    return next((stream for stream in streams if stream.names_a_step(path)), None)


def open_batch(path: Path, seen: Contents) -> Batch:
    """Open a capture that was looked at; raises BadCapture."""
    reader = by_contents(seen)
    if reader is None:
        unknown = f"no reader knows this file; it has {listed(seen.top)}"
        raise BadCapture(one_sided.advice_on(seen) or unknown)
    return reader.open_batch(path, seen)
