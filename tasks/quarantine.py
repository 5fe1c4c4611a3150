"""Captures that cannot be read: set aside with the reason, and left alone until they change.

One record a path, `<home>/quarantine/<hash of path>.json`, written whole or not at all. The capture
itself is never moved or touched.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks import durable
from tasks.captures import digest, stamp
from tasks.tokens import BadCapture


@dataclass(frozen=True)
class Record:
    """Why a capture is left alone."""

    path: str
    bytes: int
    mtime_ns: int
    sha256: str  # of the bytes that could not be read; empty if not even these could
    error: str
    first_tried: str  # ISO 8601, UTC
    last_tried: str
    tries: int  # with these or earlier bytes
    columns: str | None = None  # the mapping of names that it was read by


def records(home: Path) -> list[Record]:
    """Every record, by path; those whose capture is gone too."""
    found = map(_read, (home / "quarantine").glob("*.json"))
    return sorted(filter(None, found), key=lambda record: record.path)


def holds(home: Path, path: Path, columns: str | None = None) -> bool:
    """Whether the capture failed as it is now; one that was written to since is tried again.

    Any file of the capture counts, and another mapping of `columns` is another try.
    """
    record = _read(_file(home, path))
    if record is None:
        return False
    return record.columns == columns and (record.bytes, record.mtime_ns) == stamp(path, columns)


def add(home: Path, path: Path, error: str, columns: str | None = None) -> Record:
    """Set a capture aside, or count another try of it."""
    file, now = _file(home, path), datetime.now(UTC).isoformat()
    size, written = stamp(path, columns)
    before = _read(file)
    record = Record(
        path=str(path.absolute()),
        bytes=size,
        mtime_ns=written,
        sha256=_digest(path, columns),
        error=error,
        first_tried=before.first_tried if before else now,
        last_tried=now,
        tries=before.tries + 1 if before else 1,
        columns=columns,
    )
    durable.write(file, json.dumps(asdict(record), indent=2) + "\n")
    return record


def clear(home: Path, path: Path) -> None:
    """Forget a capture that was read after all."""
    _file(home, path).unlink(missing_ok=True)


def _read(file: Path) -> Record | None:
    """A record; None if there is none, or none that can be read: the capture is tried again."""
    try:
        return Record(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _digest(path: Path, columns: str | None) -> str:
    try:
        return digest(path, columns)
    except (OSError, BadCapture):
        return ""


def _file(home: Path, path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return home / "quarantine" / f"{name}.json"
