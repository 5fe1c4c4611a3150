"""What cleans up beside a training: deletes, renames, writes a step anew, comes and goes."""

import shutil
import time
from random import Random
from typing import TYPE_CHECKING

from tests.chaos.writers import put

if TYPE_CHECKING:
    from tests.chaos.world import World

KEPT = 3  # captures of a run that are not deleted
OLDEST = 6  # of a run, among which one is deleted


def delete(world: "World", rng: Random) -> str | None:
    """An older capture with its folder; its step stays in the lake, if it ever got there."""
    with world.ledger.run_claimed(rng) as captures:
        old = sorted(captures, key=lambda c: c.step)[:-KEPT][:OLDEST]
        gone = rng.sample(old, min(len(old), 2))
        for capture in gone:
            shutil.rmtree(capture.path.parent)
        world.ledger.remove(gone)
        return f"deleted {', '.join(world.shown(c.path) for c in gone)}" if gone else None


def rename(world: "World", rng: Random) -> str | None:
    """A run's folder, with all that is in it; the writer begins another run under the old name."""
    with world.ledger.run_claimed(rng) as captures:
        if not captures:
            return None
        old = world.root / captures[0].run
        name = f"{old.name.split('~')[0]}~{rng.randrange(10**6)}"
        old.rename(world.root / name)
        world.ledger.move(captures, name, old, world.root / name)
        return f"renamed {old.name} to {name}"


def write_again(world: "World", rng: Random) -> str | None:
    """An older step with other numbers: what is written last counts."""
    with world.ledger.claimed(rng, lambda c: c.rows is not None) as capture:
        if capture is None:
            return None
        put(world, capture, rng)
        return f"wrote {world.shown(capture.path)} again"


def come_and_go(world: "World", rng: Random) -> str:
    """Folders that are there for a moment, so that they vanish while somebody looks."""
    until, rounds = time.monotonic() + rng.uniform(2, 4), 0
    passing = world.root / f"passing-{rng.getrandbits(24)}"  # two may come and go at once
    while time.monotonic() < until:
        for branch in range(20):
            (passing / str(branch) / "step_1" / "a").mkdir(parents=True)
        shutil.rmtree(passing)
        rounds += 1
    return f"made and removed folders {rounds} times"


ACTIONS = {
    "delete": (delete, 4),
    "rename": (rename, 1),
    "write_again": (write_again, 4),
    "come_and_go": (come_and_go, 1),
}
