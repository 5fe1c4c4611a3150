"""A capture: its run and step, and its identity, which is its content.

Two files with the same bytes are the same capture.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timtrack.tasks.captures import paths
from timtrack.tasks.captures.source import Source, Stamp
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.rows.fields import LONGEST_INT
from timtrack.tasks.system.regular import sha256_of
from timtrack.tasks.tokens.table import SCHEMA_VERSION, Batch

NO_NAME = "__HIVE_DEFAULT_PARTITION__"  # how a folder says that it has no name
# The lake and MLflow name folders and tags after a run.
LONGEST_NAME = 80  # bytes; three characters each once quoted


@dataclass(frozen=True)
class Capture:
    """A source that was opened far enough to know what it is."""

    source: Source
    run: str
    step: int
    sha256: str
    stamp: Stamp  # of the source when it was identified
    tokenizer: Path | None
    shards: int = 1  # parts that can be read apart, a rank's each

    @property
    def path(self) -> Path:
        """Absolute; of the first of its files."""
        return self.source.path

    @property
    def name(self) -> str:
        """Run and step, for people."""
        return f"{self.run} step {self.step}"

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return self.stamp[0]

    @property
    def id(self) -> str:
        """16 hex digits; other bytes, tokenizer, columns or version of the table give another."""
        return identity(self.sha256, self.tokenizer, self.source.columns)


def identity(sha256: str, tokenizer: Path | None, columns: str | None = None) -> str:
    """The id of a capture with these bytes, and this tokenizer beside it."""
    used = sha256_of(tokenizer) if tokenizer else ""
    parts = (sha256, used, SCHEMA_VERSION, *([columns] if columns else []))
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


def identify(
    source: Source,
    run: str | None = None,
    step: int | None = None,
    tokenizer: Path | None = None,
) -> Capture:
    """Which run and step a capture belongs to: as given, else as the file says, else by its path.

    By path, the step is the number of the capture's folder, or of the one around it, if that is
    called `step_20`, `global_step_20`, ..., else that in the file's name; the run is the folder
    around that. Raises BadCapture.
    """
    batch = source.open()
    name, number = run_and_step(source.path, batch, run, step)
    path = source.path.absolute()
    capture = Capture(
        source=Source(path, source.columns),
        run=name,
        step=number,
        stamp=source.stamp(),
        sha256=source.digest(),
        tokenizer=tokenizer or paths.tokenizer_beside(path),
        shards=max(1, len(batch.shards)),
    )
    check_unchanged(capture)
    return capture


def run_and_step(
    path: Path, batch: Batch, run: str | None = None, step: int | None = None
) -> tuple[str, int]:
    """What `identify` says of an opened capture; raises BadCapture for what cannot be its place."""
    folder, number = paths.run_and_step(path.absolute())
    step = next((s for s in (step, batch.step, number) if s is not None), None)
    if step is None:
        raise BadCapture(
            f"{path} does not say its training step; put it into a folder step_<n>, "
            "store `global_step` in it, or give --step"
        )
    if not 0 <= step < 2**53:
        long = step.bit_length() > LONGEST_INT
        size = f"of {step.bit_length()} bits" if long else f"{step:.6g}"
        raise BadCapture(f"{path} says training step {size}, expected 0 to 2^53")
    name = run or batch.run or folder.name or "run"
    if name == NO_NAME:
        raise BadCapture(f"the run's name {name} means none in a lake; give another with --run")
    if not name.isprintable() or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise BadCapture(
            f"the run's name {name[:40]!r} is not printable or longer than {LONGEST_NAME} bytes; "
            "give another with --run"
        )
    return name, step


def reading(capture: Capture) -> dict[str, Any]:
    """What `lake.publish.write_step` takes of a capture: its batch, and what makes text of ids."""
    batch = capture.source.open()
    if capture.tokenizer is None:
        return {"batch": batch}
    from timtrack.tasks.captures import detokenise, tokenizer

    loaded = tokenizer.load(capture.tokenizer)
    return {
        "batch": batch,
        "decode": lambda block: detokenise.with_text(block, loaded),
        "vocabulary": lambda ids: detokenise.vocabulary(ids, loaded),
        "vocabulary_size": loaded.size,
    }


def check_unchanged(capture: Capture) -> None:
    """Raise BadCapture when the files were written to since they were identified."""
    if capture.source.stamp() != capture.stamp:
        raise BadCapture(f"{capture.path} changed while it was read; try again when it is complete")
