"""What the writers wrote, and what lies on the disk now: the judge beside the undisturbed run.

A rollout is known by a digest of its content, so that a step can be held against what was written
long after its capture was deleted.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.formats import Batch, samples

Key = tuple[str, int]  # run and step
Rows = tuple[str, ...]  # digests of rollouts, sorted


@dataclass
class Capture:
    """A capture below the watched folder."""

    run: str
    step: int
    path: Path  # its first file
    kind: str = ""  # how it is written (writers.WAYS); empty: by none of these
    rows: Rows | None = None  # what it says; None while it is broken
    busy: bool = False  # an actor is at it

    @property
    def key(self) -> Key:
        return self.run, self.step


@dataclass
class Ledger:
    """All captures, under one lock."""

    there: list[Capture] = field(default_factory=list)
    written: dict[Key, list[Rows]] = field(default_factory=dict)
    growing: set[Key] = field(default_factory=set)  # came in several writes: parts count too
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def note(self, key: Key, rows: Rows, grows: bool = False) -> None:
        """What is about to be written as this step."""
        with self._lock:
            self.written.setdefault(key, []).append(rows)
            if grows:
                self.growing.add(key)

    def add(self, capture: Capture) -> Capture:
        """A capture that is there from now on."""
        with self._lock:
            if capture.rows is not None:
                self.note(capture.key, capture.rows)
            self.there.append(capture)
            return capture

    def remove(self, captures: list[Capture]) -> None:
        """Captures that were deleted; the steps that they became stay."""
        with self._lock:
            self.there = [capture for capture in self.there if capture not in captures]

    def move(self, captures: list[Capture], run: str, old: Path, new: Path) -> None:
        """Captures whose run's folder has another name now: they are another run's."""
        with self._lock:
            for capture in captures:
                known, grows = self.written.get(capture.key, []), capture.key in self.growing
                capture.run, capture.path = run, new / capture.path.relative_to(old)
                for rows in known:
                    self.note(capture.key, rows, grows)

    def next_step(self, run: str) -> int:
        """One after the last that was ever begun of a run."""
        with self._lock:
            begun = {*self.written, *(capture.key for capture in self.there)}
            return max((step for name, step in begun if name == run), default=0) + 1

    @contextmanager
    def claimed(
        self, rng: Random, wanted: Callable[[Capture], bool] = lambda capture: True
    ) -> Iterator[Capture | None]:
        """One that no other actor is at, until the end of the block; None if there is none."""
        with self._lock:
            free = [c for c in self.there if not c.busy and c.kind and wanted(c)]
            chosen = rng.choice(free) if free else None
            if chosen:
                chosen.busy = True
        try:
            yield chosen
        finally:
            if chosen:
                chosen.busy = False

    @contextmanager
    def run_claimed(self, rng: Random) -> Iterator[list[Capture]]:
        """All captures of one run that no actor is at; none if there is no such run."""
        with self._lock:
            busy = {c.run for c in self.there if c.busy}
            runs = sorted({c.run for c in self.there if c.kind} - busy)
            run = rng.choice(runs) if runs else None
            chosen = [c for c in self.there if c.run == run]
            for capture in chosen:
                capture.busy = True
        try:
            yield chosen
        finally:
            for capture in chosen:
                capture.busy = False

    def could_be(self, key: Key, rows: Rows) -> bool:
        """Whether a step with these rollouts was ever there to be read."""
        versions = self.written.get(key, [])
        if key in self.growing:
            return bool(rows) and set(rows) <= {row for version in versions for row in version}
        return rows in versions


def rows_of(batch: Batch) -> Rows:
    """The rollouts of a batch."""
    return tuple(
        sorted(
            digest(row["ids"], row["mask"].bool().numpy(), row["rollout"], row["train"])
            for row in samples(batch)
        )
    )


def digest(ids: Any, trained: Any, rollout: Any, train: Any) -> str:
    """Of one rollout: its ids, which are trained on, and the log-probs of those."""
    made = hashlib.sha256(np.asarray(ids, dtype=np.int64).tobytes())
    made.update(np.asarray(trained, dtype=bool).tobytes())
    for logp in (rollout, train):
        made.update(np.asarray(logp, dtype=np.float32)[trained].tobytes())
    return made.hexdigest()[:16]
