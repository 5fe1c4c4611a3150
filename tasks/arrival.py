"""Whether a capture has arrived whole, or is still being written.

A file that can be read is whole: the formats that say where they end are read to that end. One that
cannot is whole, and bad, when a marker says so or nobody wrote to it for a while.
"""

from pathlib import Path

from timtrack.tasks import captures
from timtrack.tasks.system.isolation import Stopped, apart

# Seconds without a write after which an unreadable file is called bad, not unfinished.
QUIET = 30.0

# Written last into a capture's folder by: prime-rl; verl's rollout dumps.
MARKERS = ("STABLE", "meta.json")


def is_whole(
    path: Path, quiet: float = QUIET, marker: str | None = None, columns: str | None = None
) -> bool:
    """Whether a file can be taken on: what is wrong with it now will not mend itself.

    With `marker` (a name beside the capture; `{name}` and `{stem}` are the capture's), only when
    that file is there.
    """
    if not captures.exists(path):
        return False
    written = captures.stamp(path, columns)[1]
    if marker is not None:
        return _says_so(marker, path, written)
    if any(_says_so(known, path, written) for known in MARKERS):
        return True
    since, between = captures.ages(path, columns)
    if since > quiet:
        return True
    # Files that were written long after others of the same capture: a trainer writes it anew.
    return between <= quiet and _reads_to_its_end(path, columns)


def _says_so(marker: str, path: Path, written: int) -> bool:
    """Whether the marker is there, and not one of an earlier file of this name."""
    beside = path.parent / marker.replace("{name}", path.name).replace("{stem}", path.stem)
    return beside.exists() and beside.stat().st_mtime_ns >= written


def _reads_to_its_end(path: Path, columns: str | None) -> bool:
    try:
        return bool(apart(_can_be_read, path, columns, size=captures.size(path, columns)))
    except Stopped:
        raise
    except Exception:  # what is wrong is told once it is taken on
        return False


def _can_be_read(path: Path, columns: str | None) -> bool:
    if not captures.says_its_end(path, columns):
        return False
    captures.read(path, columns)
    return True
