"""What is a capture: which files are, which reader opens one, which run and step it belongs to.

One rule: a capture's identity is its content. Two files with the same bytes are the same capture.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import places
from tasks.places import Pattern
from tasks.readers import step_batch
from tasks.tokens import SCHEMA_VERSION, BadCapture, Batch

READERS = {reader.NAME: reader for reader in (step_batch,)}

# The lake and MLflow name folders and tags after a run.
LONGEST_NAME = 80  # bytes; three characters each once quoted


@dataclass(frozen=True)
class Capture:
    """A file that was opened far enough to know what it is."""

    path: Path
    run: str
    step: int
    sha256: str
    bytes: int
    mtime_ns: int
    tokenizer: Path | None

    @property
    def name(self) -> str:
        """Run and step, as people say it."""
        return f"{self.run} step {self.step}"

    @property
    def id(self) -> str:
        """16 hex digits; other bytes, tokenizer or version of the token table give another id."""
        return identity(self.sha256, self.tokenizer)


def identity(sha256: str, tokenizer: Path | None) -> str:
    """The id of a capture with these bytes, and this tokenizer beside it."""
    parts = (sha256, sha256_of(tokenizer) if tokenizer else "", SCHEMA_VERSION)
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


def find(path: Path, pattern: Pattern | None = None) -> list[Path]:
    """The captures under a directory in step order, or the file itself; raises BadCapture if none.

    With a pattern those that match it, else those that a reader recognises. A `.npz` beside a
    `.pt` of the same name is the same batch in another container: left out.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise BadCapture(f"{path} does not exist")
    if pattern:
        found = {f for f in path.rglob("*") if pattern.matches(f, path) and f.is_file()}
    else:
        found = {f for f in path.rglob("*") if _is_recognised(f) and f.is_file()}
    twins = {file for file in found if file.suffix == ".npz" and file.with_suffix(".pt") in found}
    if not found and pattern:
        raise BadCapture(f"no file under {path} matches the pattern {pattern.text}")
    if not found:
        raise BadCapture(
            f"no capture under {path}; in folders, files called *step_batch*.pt or .npz are taken, "
            "others can be named one by one"
        )
    return sorted(found - twins, key=places.natural)


def _is_recognised(file: Path) -> bool:
    return any(reader.recognises(file) for reader in READERS.values())


def identify(
    path: Path, run: str | None = None, step: int | None = None, tokenizer: Path | None = None
) -> Capture:
    """Which run and step a capture belongs to: as told, else as the file says, else by its path.

    By path, the step is the number of the capture's folder, or of the one around it, if that is
    called `step_20`, `global_step_20`, ..., else that in the file's name; the run is the folder
    around that.
    """
    batch = read(path)
    folder, number = places.run_and_step(path.absolute())
    step = next((s for s in (step, batch.step, number) if s is not None), None)
    if step is None:
        raise BadCapture(
            f"{path} does not say its training step; put it into a folder step_<n>, "
            "store `global_step` in it, or give --step"
        )
    if not 0 <= step < 2**53:
        raise BadCapture(f"{path} says training step {step:.6g}, expected 0 or more")
    stat = path.stat()
    name = run or batch.run or folder.name or "run"
    if not name.isprintable() or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise BadCapture(
            f"the run's name {name[:40]!r} is not printable or longer than {LONGEST_NAME} bytes; "
            "give another with --run"
        )
    capture = Capture(
        path=path.absolute(),
        run=name,
        step=step,
        sha256=sha256_of(path),
        bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        tokenizer=tokenizer or places.tokenizer_beside(path.absolute()),
    )
    check_unchanged(capture)
    return capture


def read(path: Path) -> Batch:
    """Open a capture with the reader for its format; rows are read later, block by block."""
    return step_batch.open_batch(path)


def reading(capture: Capture) -> dict[str, Any]:
    """What `lake.write_step` takes of a capture: its batch, and its tokenizer to make text."""
    batch = read(capture.path)
    if capture.tokenizer is None:
        return {"batch": batch}
    from tasks import text

    tokenizer = text.load(capture.tokenizer)
    return {
        "batch": batch,
        "decode": lambda block: text.with_text(block, tokenizer),
        "vocabulary": lambda ids: text.vocabulary(ids, tokenizer),
        "vocabulary_size": tokenizer.get_vocab_size(),
    }


def check_unchanged(capture: Capture) -> None:
    """Raise BadCapture when the file was written to since it was identified."""
    stat = capture.path.stat()
    if (stat.st_size, stat.st_mtime_ns) != (capture.bytes, capture.mtime_ns):
        raise BadCapture(f"{capture.path} changed while it was read; try again when it is complete")


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
