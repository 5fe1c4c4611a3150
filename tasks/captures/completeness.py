"""Whether a capture is complete or still being written.

A readable file is complete; formats that mark their end are read to that end. An unreadable one is
complete, and corrupt, once a marker says so or nobody has written to it for a while.
"""

from timtrack.tasks.captures.source import Source
from timtrack.tasks.system.isolation import Stopped, apart

# Seconds without a write after which an unreadable file counts as corrupt, not as incomplete.
QUIET = 30.0

# Written last into a capture's folder by: prime-rl; verl's rollout dumps.
MARKERS = ("STABLE", "meta.json")


def is_complete(source: Source, quiet: float = QUIET, marker: str | None = None) -> bool:
    """Whether a capture is ready: a remaining fault will not go away by waiting.

    With `marker` (a name beside the capture; `{name}` and `{stem}` are the capture's), only when
    that file is there.
    """
    if not source.exists():
        return False
    written = source.stamp()[1]
    if marker is not None:
        return _says_so(marker, source, written)
    if any(_says_so(known, source, written) for known in MARKERS):
        return True
    since, between = source.ages()
    if since > quiet:
        return True
    # Files that were written long after others of the same capture: a trainer writes it anew.
    return between <= quiet and _reads_to_its_end(source)


def _says_so(marker: str, source: Source, written: int) -> bool:
    """Whether the marker is there, and not one of an earlier file of this name."""
    path = source.path
    beside = path.parent / marker.replace("{name}", path.name).replace("{stem}", path.stem)
    return beside.exists() and beside.stat().st_mtime_ns >= written


def _reads_to_its_end(source: Source) -> bool:
    try:
        return bool(apart(_can_be_read, source, size=source.bytes()))
    except Stopped:
        raise
    except Exception:  # what is wrong is told once it is taken on
        return False


def _can_be_read(source: Source) -> bool:
    if not source.says_its_end():
        return False
    source.open()
    return True
