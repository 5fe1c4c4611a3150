"""Trainers: each run's captures are written in a way of its own, step after step."""

import io
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from uuid import uuid4

from tests import formats
from tests.chaos.ledger import Capture, rows_of
from tests.formats import Batch, a_batch
from timtrack.tasks.hook import save_step_batch

if TYPE_CHECKING:
    from tests.chaos.world import World

RANKS = 2


def at_once(world: "World", folder: Path, step: int, batch: Batch, pause: float) -> None:
    """By another name and a rename, as the hook does."""
    save_step_batch(folder, step, batch)


def in_place(world: "World", folder: Path, step: int, batch: Batch, pause: float) -> None:
    """Under its own name from the first byte on, slowly."""
    content = save_step_batch(world.elsewhere / uuid4().hex, step, batch).read_bytes()
    path = folder / f"step_{step}" / "step_batch.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    _slowly(path, io.BytesIO(content).readlines(), pause, writes=4)


def by_lines(world: "World", folder: Path, step: int, batch: Batch, pause: float) -> None:
    """As prime-rl: a line a rollout into each rank's file, at the end STABLE."""
    made = formats.prime_rl(world.elsewhere / uuid4().hex, batch, step).parent
    there = folder / "token_exports" / made.name
    there.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        (there / "STABLE").unlink()
    for file in sorted(made.glob("rank_*.jsonl")):
        lines = file.read_bytes().splitlines(keepends=True)
        _slowly(there / file.name, lines, pause, writes=len(lines))
    (there / "STABLE").touch()


def by_ranks(world: "World", folder: Path, step: int, batch: Batch, pause: float) -> None:
    """A file a rank, one after the other."""
    for rank in range(RANKS):
        own = {name: values[rank::RANKS] for name, values in batch.items()}
        save_step_batch(folder, step, own, rank=rank, world_size=RANKS)
        time.sleep(pause)


def _slowly(path: Path, pieces: list[bytes], pause: float, writes: int) -> None:
    size = -(-len(pieces) // writes)
    with path.open("wb") as file:
        for start in range(0, len(pieces), size):
            file.write(b"".join(pieces[start : start + size]))
            file.flush()
            time.sleep(pause)


Way = Callable[["World", Path, int, Batch, float], None]
WAYS: dict[str, Way] = {way.__name__: way for way in (at_once, in_place, by_lines, by_ranks)}
FIRST_FILE = {
    "at_once": "step_{}/step_batch.pt",
    "in_place": "step_{}/step_batch.pt",
    "by_lines": "token_exports/step_{}/rank_0.jsonl",
    "by_ranks": "step_{}/step_batch.rank_0.pt",
}


def put(world: "World", capture: Capture, rng: Random, batch: Batch | None = None) -> None:
    """Write a capture, new or again, and note what it says; nobody else may be at it."""
    batch = a_batch(rng.randrange(2**31)) if batch is None else batch
    rows = rows_of(batch)
    # Noted first: a watcher may read it as soon as it is there.
    world.ledger.note(capture.key, rows, grows=capture.kind in ("by_lines", "by_ranks"))
    capture.rows = None
    folder = world.root / capture.run
    WAYS[capture.kind](world, folder, capture.step, batch, rng.uniform(0.1, 1.0))
    capture.rows = rows


def next_step(world: "World", kind: str, rng: Random, batch: Batch | None = None) -> Capture:
    """The next step of the run that is written in this way."""
    step = world.ledger.next_step(kind)
    path = world.root / kind / FIRST_FILE[kind].format(step)
    capture = world.ledger.add(Capture(kind, step, path, kind, busy=True))
    try:
        put(world, capture, rng, batch)
    finally:
        capture.busy = False
    return capture


def _action(kind: str) -> Callable[["World", Random], str]:
    def write(world: "World", rng: Random) -> str:
        return f"wrote {world.shown(next_step(world, kind, rng).path)}"

    return write


# How often, next to the other actions.
ACTIONS = {
    "write_at_once": (_action("at_once"), 8),
    "write_in_place": (_action("in_place"), 5),
    "write_by_lines": (_action("by_lines"), 4),
    "write_by_ranks": (_action("by_ranks"), 4),
}
