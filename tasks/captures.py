"""What is a capture: which files are, which reader opens one, which run and step it belongs to.

One rule: a capture's identity is its content. Two files with the same bytes are the same capture.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timtrack.tasks import places
from timtrack.tasks.notation import listed
from timtrack.tasks.places import Pattern
from timtrack.tasks.readers import columns as by_columns
from timtrack.tasks.readers import nemo_rl, one_sided, skyrl, step_batch
from timtrack.tasks.readers.containers import contents
from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.readers.prime_rl import stream, token_exports, traces
from timtrack.tasks.readers.rows.fields import LONGEST_INT
from timtrack.tasks.readers.slime import merged, per_rank
from timtrack.tasks.system import regular, walk
from timtrack.tasks.system.clock import seconds_since_write
from timtrack.tasks.tokens import SCHEMA_VERSION, BadCapture, Batch

# By name, the first that knows a file opens it; `step_batch` takes what no other does.
READERS = {
    reader.NAME: reader
    for reader in (nemo_rl, token_exports, traces, skyrl, merged, per_rank, step_batch)
}

NO_NAME = "__HIVE_DEFAULT_PARTITION__"  # how a folder says that it has no name
# The lake and MLflow name folders and tags after a run.
LONGEST_NAME = 80  # bytes; three characters each once quoted


Stamp = tuple[int, int, int]  # size [bytes], time of the last write, of the last change [ns]


@dataclass(frozen=True)
class Capture:
    """A file that was opened far enough to know what it is."""

    path: Path
    run: str
    step: int
    sha256: str
    bytes: int
    mtime_ns: int
    ctime_ns: int
    tokenizer: Path | None
    columns: str | None = None  # mapping of a home-made dump's names
    shards: int = 1  # parts that can be read apart, a rank's each

    @property
    def name(self) -> str:
        """Run and step, as people say it."""
        return f"{self.run} step {self.step}"

    @property
    def stamp(self) -> Stamp:
        """`stamp` as it was when the capture was identified."""
        return self.bytes, self.mtime_ns, self.ctime_ns

    @property
    def id(self) -> str:
        """16 hex digits; other bytes, tokenizer, columns or version of the table give another."""
        return identity(self.sha256, self.tokenizer, self.columns)


def identity(sha256: str, tokenizer: Path | None, columns: str | None = None) -> str:
    """The id of a capture with these bytes, and this tokenizer beside it."""
    used = sha256_of(tokenizer) if tokenizer else ""
    parts = (sha256, used, SCHEMA_VERSION, *([columns] if columns else []))
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Found:
    """One look at a folder: captures in step order, and folders that could not be read, and why."""

    captures: list[Path]
    closed: Mapping[Path, str]


def find(path: Path, pattern: Pattern | None = None) -> list[Path]:
    """The captures under a directory in step order, or the file itself; raises BadCapture if none.

    With a pattern those that match it, else those that a reader recognises. A `.npz` beside a
    `.pt` of the same name is the same batch in another container: left out.
    """
    if path.is_dir():
        below_it = below(path, pattern)
        return below_it.captures or _none_there(path, pattern, below_it)
    if not exists(path):
        raise BadCapture(f"{path} does not exist")
    found = _captures_of(path)
    if not found:
        raise BadCapture(f"{path} has no step yet that the trainer is done with")
    return found


def exists(path: Path) -> bool:
    """Whether a capture is there: a file, or a step of a stream."""
    return stream.exists(path) if stream.names_a_step(path) else path.exists()


def below(root: Path, pattern: Pattern | None = None) -> Found:
    """The captures below a folder, maybe none, as `find` gives them."""

    def wanted(file: Path) -> bool:
        return pattern.matches(file, root) if pattern else _by_name(file) is not None

    looked = walk.below(root, wanted)
    found = {capture for file in looked.files for capture in _captures_of(file)}
    twins = {file for file in found if file.suffix == ".npz" and file.with_suffix(".pt") in found}
    return Found(sorted(found - twins, key=places.natural), looked.closed)


def _none_there(path: Path, pattern: Pattern | None, found: Found) -> Any:
    if found.closed:
        folder, why = next(iter(found.closed.items()))
        many = f"; {len(found.closed)} folders could not be read, first {folder}: {why}"
    else:
        many = ""
    if pattern:
        raise BadCapture(f"no file under {path} matches the pattern {pattern.text}{many}")
    raise BadCapture(
        f"no capture under {path}{many}; `tim formats` says which files are taken, others can be "
        "named one by one, or by --pattern"
    )


def _captures_of(file: Path) -> list[Path]:
    """The captures that a file stands for: itself, or the steps of a stream."""
    if not traces.recognises(file):
        return [file]
    try:
        return stream.steps(file)
    except OSError:  # an index that cannot be read now keeps no other capture waiting
        return []


def _by_name(file: Path) -> Any:
    """The reader that takes a file for one of its own by where it lies and how it is called."""
    return next((reader for reader in READERS.values() if reader.recognises(file)), None)


def parts(path: Path, columns: str | None = None) -> list[Path]:
    """All files of a capture, itself first: the other ranks' of a sharded one, say."""
    if columns:
        return [path, *by_columns.companions(path, by_columns.parse(columns))]
    reader = _by_name(path)
    return [path, *(reader.companions(path) if reader else ())]


def stamp(path: Path, columns: str | None = None) -> Stamp:
    """By what a capture's files are known to be as they were, without being read.

    What copies a file's time keeps its time of the last write, not that of the last change.
    """
    if stream.names_a_step(path):
        return (*stream.stamp(path), 0)
    there = (part for part in parts(path, columns) if part == path or part.exists())
    stats = [part.stat() for part in there]
    changed = max(s.st_ctime_ns for s in stats)
    return sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats), changed


def size(path: Path, columns: str | None = None) -> int:
    """Bytes of a capture's files, as far as they are there."""
    try:
        return stamp(path, columns)[0]
    except (OSError, BadCapture):
        return 0


def ages(path: Path, columns: str | None = None) -> tuple[float, float]:
    """Seconds since the last write to a capture's files, and between it and the first of them.

    The first: of the file that was left alone for longest. 0 for a capture that is gone.
    """
    if stream.names_a_step(path):
        return stream.age(path), 0.0
    files = parts(path, columns)
    found = [seconds_since_write(file.stat()) for file in files if file.exists()]
    return (min(found), max(found) - min(found)) if found else (0.0, 0.0)


def says_its_end(path: Path, columns: str | None = None) -> bool:
    """Whether a capture that can be read is whole: not so where lines or files may follow."""
    reader = _by_name(path)
    try:
        if columns or reader is None:
            return by_columns.says_its_end(path)
        return bool(reader.says_its_end(path))
    except BadCapture:
        return False


def supersedes(path: Path, other: Path) -> bool:
    """Whether a file was written in place of another: by the restart of an experiment."""
    return nemo_rl.supersedes(path, other)


def identify(
    path: Path,
    run: str | None = None,
    step: int | None = None,
    tokenizer: Path | None = None,
    columns: str | None = None,
) -> Capture:
    """Which run and step a capture belongs to: as told, else as the file says, else by its path.

    By path, the step is the number of the capture's folder, or of the one around it, if that is
    called `step_20`, `global_step_20`, ..., else that in the file's name; the run is the folder
    around that. `columns` maps the names of a home-made dump.
    """
    batch = read(path, columns)
    name, number = run_and_step(path, batch, run, step)
    size, written, changed = stamp(path, columns)
    capture = Capture(
        path=path.absolute(),
        run=name,
        step=number,
        sha256=digest(path, columns),
        bytes=size,
        mtime_ns=written,
        ctime_ns=changed,
        tokenizer=tokenizer or places.tokenizer_beside(path.absolute()),
        columns=columns,
        shards=max(1, len(batch.shards)),
    )
    check_unchanged(capture)
    return capture


def run_and_step(
    path: Path, batch: Batch, run: str | None = None, step: int | None = None
) -> tuple[str, int]:
    """What `identify` says of an opened capture; raises BadCapture for what cannot be its place."""
    folder, number = places.run_and_step(path.absolute())
    step = next((s for s in (step, batch.step, number) if s is not None), None)
    if step is None:
        raise BadCapture(
            f"{path} does not say its training step; put it into a folder step_<n>, "
            "store `global_step` in it, or give --step"
        )
    if not 0 <= step < 2**53:
        long = step.bit_length() > LONGEST_INT
        shown = f"of {step.bit_length()} bits" if long else f"{step:.6g}"
        raise BadCapture(f"{path} says training step {shown}, expected 0 to 2^53")
    name = run or batch.run or folder.name or "run"
    if name == NO_NAME:
        raise BadCapture(f"the run's name {name} means none in a lake; give another with --run")
    if not name.isprintable() or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise BadCapture(
            f"the run's name {name[:40]!r} is not printable or longer than {LONGEST_NAME} bytes; "
            "give another with --run"
        )
    return name, step


def read(path: Path, columns: str | None = None) -> Batch:
    """Open a capture with the reader for its format; rows are read later, block by block."""
    if columns:
        return by_columns.open_batch(path, by_columns.parse(columns))
    return opened(path, look(path))


def look(path: Path) -> Contents:
    """What a capture is, by its bytes; raises BadCapture."""
    return traces.look(path) if stream.names_a_step(path) else contents.look(path)


def opened(path: Path, seen: Contents) -> Batch:
    """`read` for a file that was looked at."""
    reader = by_contents(seen)
    if reader is None:
        unknown = f"no reader knows this file; it has {listed(seen.top)}"
        raise BadCapture(one_sided.said_of(seen) or unknown)
    return reader.open_batch(path, seen)


def by_contents(seen: Contents) -> Any:
    """The reader that opens a file; None if none does, or half of what it needs is there."""
    reader = next((reader for reader in READERS.values() if reader.opens(seen)), None)
    return None if reader is step_batch and one_sided.said_of(seen) else reader


def reading(capture: Capture) -> dict[str, Any]:
    """What `lake.write_step` takes of a capture: its batch, and its tokenizer to make text."""
    batch = read(capture.path, capture.columns)
    if capture.tokenizer is None:
        return {"batch": batch}
    from timtrack.tasks import text, tokenizer

    loaded = tokenizer.load(capture.tokenizer)
    return {
        "batch": batch,
        "decode": lambda block: text.with_text(block, loaded),
        "vocabulary": lambda ids: text.vocabulary(ids, loaded),
        "vocabulary_size": loaded.size,
    }


def check_unchanged(capture: Capture) -> None:
    """Raise BadCapture when the file was written to since it was identified."""
    if stamp(capture.path, capture.columns) != capture.stamp:
        raise BadCapture(f"{capture.path} changed while it was read; try again when it is complete")


def digest(path: Path, columns: str | None = None) -> str:
    """The digest of a capture's bytes; of several files that of their digests, in order."""
    if stream.names_a_step(path):
        return traces.digest(path)
    digests = [sha256_of(part) for part in parts(path, columns)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes, as 64 hex digits."""
    with regular.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
