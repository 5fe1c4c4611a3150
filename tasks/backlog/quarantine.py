"""Quarantine: captures that failed, why, and what must change before they are tried again.

One record per path, `<home>/quarantine/<hash of path>.json`, written atomically. The capture itself
is never moved or modified.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from timtrack.tasks.captures import paths
from timtrack.tasks.captures.source import Source
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.system import durable

# What a reading depends on: of each file its size [bytes], when it was written and changed [ns];
# None of one that is not there.
State = dict[str, list[int] | None]
STREAM = "records of the step"  # of prime-rl's stream, which has many steps in its files


@dataclass(frozen=True)
class Record:
    """Why a capture is left alone, or tried again and again."""

    path: str
    error: str
    first_tried: str  # ISO 8601, UTC
    last_tried: str
    tries: int
    held: bool = True  # until `state` changes; else it is tried again at each sweep
    columns: str | None = None  # the mapping of names that it was read by
    state: State | None = None


def state(source: Source, others: Iterable[Path] = ()) -> State:
    """The state that reading the capture depends on; to be taken before it is read."""
    if source.stream:
        return {STREAM: _stream_stamp(source)}
    beside = paths.tokenizer_beside(source.path.absolute())
    return stamps([*source.files(), *([beside] if beside else []), *others])


def stamps(files: Iterable[Path]) -> dict[str, list[int] | None]:
    """Size and time of files, as a state has them."""
    return {str(file.absolute()): _stamp(file) for file in files}


def records(home: Path) -> list[Record]:
    """Every record, by path; those whose capture is gone too."""
    entries = map(_read, (home / "quarantine").glob("*.json"))
    return sorted(filter(None, entries), key=lambda record: record.path)


def holds(home: Path, source: Source) -> bool:
    """Whether the capture failed in its present state, read with these columns.

    A change of any file that its reading depended on takes it up again.
    """
    record = _read(_file(home, source.path))
    if record is None or not record.held or record.state is None:
        return False
    if record.columns != source.columns:
        return False
    own = state(source)
    others = [Path(file) for file in record.state if file not in own and file != STREAM]
    return state(source, others) == record.state


def add(
    home: Path,
    source: Source,
    error: str,
    before: State | None = None,
    held: bool = True,
) -> Record:
    """Quarantine a capture, or count another try; `before` is its state before the reading."""
    file, now = _file(home, source.path), datetime.now(UTC).isoformat()
    earlier = _read(file)
    record = Record(
        path=str(source.path.absolute()),
        error=error,
        first_tried=earlier.first_tried if earlier else now,
        last_tried=now,
        tries=earlier.tries + 1 if earlier else 1,
        held=held,
        columns=source.columns,
        state=state(source) if before is None else before,
    )
    durable.write(file, json.dumps(asdict(record), indent=2) + "\n")
    return record


def clear(home: Path, path: Path) -> None:
    """Forget a capture that was read after all."""
    _file(home, path).unlink(missing_ok=True)


def _stamp(file: Path) -> list[int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _stream_stamp(source: Source) -> list[int] | None:
    try:
        return list(source.stamp())
    except (OSError, BadCapture):
        return None


def _read(file: Path) -> Record | None:
    """A record; None if missing or unreadable, so that the capture is retried."""
    try:
        record = Record(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (record.path, record.error, record.first_tried, record.last_tried)
    is_sound = all(isinstance(text, str) and "\0" not in text for text in texts)
    return record if is_sound and isinstance(record.state, dict | None) else None


def _file(home: Path, path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return home / "quarantine" / f"{name}.json"
