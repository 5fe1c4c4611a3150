"""Which steps prime-rl's trace stream holds, and where the records of each are.

`<run>/monitors/file/traces/` has one stream of all episodes, and one of annotations per process:
the orchestrator's say at which step a trace was shipped, the trainer's have its log-probs. A step
of it is a capture under a name that is no file: `traces/stream#13`.

One rule: only the indexes are read here. They only grow, so what was read of one is kept and what
came since is added; a process that forgets it reads it again.
"""

import math
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers import zstd_stream
from timtrack.tasks.system.clock import seconds_since_write
from timtrack.tasks.system.regular import opened

NAMED = re.compile(r"stream#(\d{1,16})")
INDEX = "stream.index.jsonl"
TRAINER = "trainer"
# The trainer writes all of a step's records at once, before it updates.
QUIET = 30.0  # seconds without a new one after which a step has all of its records
# A cohort is shipped at once; traces of the same step from long before are an earlier attempt's.
ATTEMPT = 60.0  # seconds

LATEST = 1e11  # seconds since 1970; what is no time is taken for the first
# Beyond these a row is none of prime-rl's.
MOST_CHUNKS, LONGEST_CHUNK, LAST_STEP = 10**6, 1 << 48, 1 << 53
HEAD = 512  # bytes by which an index is known to be the one that was read

Place = tuple[int, int]  # chunk and offset
LOCK = threading.RLock()


@dataclass(frozen=True)
class Shipped:
    """The orchestrator's record of a trace that went into a batch."""

    step: int
    seconds: float  # since 1970
    producer: str  # whose stream of annotations it is in
    place: Place
    row: int  # bytes of its row in the index


@dataclass(frozen=True)
class Traced:
    """A trace of a step: the places of its episode and of its later annotations."""

    id: str
    episode: Place
    shipped: Shipped
    trained: tuple[Place, ...]  # the trainer's records, a branch each


@dataclass
class _Known:
    """What is known of one folder of traces."""

    read: dict[Path, int] = field(default_factory=dict)  # bytes, of each index
    heads: dict[Path, bytes] = field(default_factory=dict)  # what each begins with
    episodes: dict[str, Place] = field(default_factory=dict)
    shipped: dict[str, Shipped] = field(default_factory=dict)
    trained: dict[str, list[Place]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)  # bytes of the trainer's rows of a trace
    by_step: dict[int, dict[str, None]] = field(default_factory=dict)  # traces that were trained on
    last_trained: int = -1  # step of the trainer's latest record


_KNOWN: dict[Path, _Known] = {}


def names_a_step(path: Path) -> bool:
    """Whether a path is `traces/stream#<step>`."""
    return bool(NAMED.fullmatch(path.name)) and not path.exists()


def exists(path: Path) -> bool:
    """Whether the stream has records of the trainer for this step."""
    with LOCK:
        return bool(_attempts(_known(path.parent), _step(path))[0])


def steps(index: Path) -> list[Path]:
    """The steps of a stream that have all their records, as captures; `index` is its INDEX."""
    with LOCK:
        known = _known(index.parent)
        numbers = {step for step, traces in known.by_step.items() if traces}
        if not _is_quiet(index.parent):
            numbers.discard(known.last_trained)
        return [index.with_name(f"stream#{step}") for step in sorted(numbers)]


def stamp(path: Path) -> tuple[int, int]:
    """Bytes of the step's rows in the indexes, and its shipping time [ns]; raises BadCapture."""
    with LOCK:
        known = _known(path.parent)
        ids, _ = _attempts(known, _step(path))
        if not ids:
            raise BadCapture(f"{path.parent} has no records of the trainer for step {_step(path)}")
        shipped = max(known.shipped[trace].seconds for trace in ids)
        rows = sum(known.shipped[trace].row + known.rows[trace] for trace in ids)
        return rows, int(shipped * 1e9)


def age(path: Path) -> float:
    """Seconds since the step was shipped; since anything was annotated, where that is to come."""
    since = time.time() - stamp(path)[1] / 1e9
    return since if since >= 0 else _quiet_for(path.parent)


def traces(path: Path) -> tuple[list[Traced], int]:
    """The step's traces in the order of the stream, and how many of an earlier attempt there are.

    Raises BadCapture if there are none.
    """
    with LOCK:
        stamp(path)
        known = _known(path.parent)
        ids, earlier = _attempts(known, _step(path))
        if lost := [trace for trace in ids if trace not in known.episodes]:
            raise BadCapture(f"{len(lost)} of {len(ids)} traces are not in {INDEX}: {lost[0]}, ...")
        found = [
            Traced(trace, known.episodes[trace], known.shipped[trace], tuple(known.trained[trace]))
            for trace in ids
        ]
        return sorted(found, key=lambda trace: (trace.episode, trace.id)), earlier


def _step(path: Path) -> int:
    match = NAMED.fullmatch(path.name)
    if not match:
        raise BadCapture(f"{path.name} does not name a step of a stream, as stream#13 does")
    return int(match[1])


def _attempts(known: _Known, step: int) -> tuple[list[str], int]:
    """The traces of a step's last attempt, and how many others there are, of earlier ones."""
    ids = sorted(known.by_step.get(step, ()), key=lambda trace: known.shipped[trace].seconds)
    seconds = [known.shipped[trace].seconds for trace in ids]
    gaps = [at for at in range(1, len(ids)) if seconds[at] - seconds[at - 1] > ATTEMPT]
    first = gaps[-1] if gaps else 0
    return ids[first:], first


def _is_quiet(folder: Path) -> bool:
    return _quiet_for(folder) > QUIET


def _quiet_for(folder: Path) -> float:
    """Seconds since the trainer annotated anything."""
    index = zstd_stream.index_of(folder / "annotations" / TRAINER)
    return seconds_since_write(index.stat()) if index.exists() else math.inf


def _known(folder: Path) -> _Known:
    """What the indexes say now."""
    folder = folder.absolute()
    known = _KNOWN.setdefault(folder, _Known())
    annotated = sorted((folder / "annotations").glob("*.index.jsonl"))
    if any(_is_another(known, index) for index in (folder / INDEX, *annotated)):
        known = _KNOWN[folder] = _Known()
    for row, place, _ in _fresh(known, folder / INDEX):
        ids = row.get("trace_ids")
        known.episodes |= dict.fromkeys(map(str, ids if isinstance(ids, list) else ()), place)
    for index in annotated:
        producer = index.name.removesuffix(".index.jsonl")
        for row, place, size in _fresh(known, index):
            _note(known, producer, row, place, size)
    return known


def _note(known: _Known, producer: str, row: dict[str, Any], place: Place, size: int) -> None:
    """One annotation: when its trace was shipped, or that the trainer scored a branch of it."""
    trace, ship = str(row.get("trace_id")), inside(row, "info", "ship")
    step, seconds = ship.get("step"), ship.get("time")
    if _is_count(step, LAST_STEP):
        before = known.shipped.get(trace)
        if before:
            known.by_step.get(before.step, {}).pop(trace, None)
        at = 0.0
        if isinstance(seconds, int | float) and 0 <= seconds < LATEST:
            at = float(seconds)
        known.shipped[trace] = Shipped(step, at, producer, place, size)
    elif producer == TRAINER:
        known.trained.setdefault(trace, []).append(place)
        known.rows[trace] = known.rows.get(trace, 0) + size
    else:
        return
    if trace in known.trained and trace in known.shipped:
        of_trace = known.shipped[trace].step
        known.by_step.setdefault(of_trace, {})[trace] = None
        known.last_trained = of_trace


def inside(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """A nested object; an empty one if missing."""
    value: Any = row
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _is_another(known: _Known, index: Path) -> bool:
    """Whether an index is not the one that was read: shorter, or it begins otherwise."""
    read, head = known.read.get(index, 0), known.heads.get(index, b"")
    if not read:
        return False
    return not index.is_file() or index.stat().st_size < read or _head(index, len(head)) != head


def _head(index: Path, count: int) -> bytes:
    with opened(index) as file:
        return file.read(count)


def _fresh(known: _Known, index: Path) -> list[tuple[dict[str, Any], Place, int]]:
    """The rows that came since the last look, each with its record's place and its own bytes."""
    start = known.read.get(index, 0)
    found = []
    for end, row in zstd_stream.rows(index, start):
        chunk, offset = row.get("chunk"), row.get("offset")
        if _is_count(chunk, MOST_CHUNKS) and _is_count(offset, LONGEST_CHUNK):
            found.append((row, (chunk, offset), end - start))
        start = end
    known.read[index] = start
    if start and index not in known.heads:
        known.heads[index] = _head(index, min(start, HEAD))
    return found


def _is_count(value: Any, end: int) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < end
