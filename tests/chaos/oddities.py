"""Puts things into the folder that are no captures, or are called as nobody should call them."""

import os
import shutil
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.chaos.ledger import Capture, rows_of
from tests.formats import a_batch
from timtrack.tasks.hook import save_step_batch

if TYPE_CHECKING:
    from tests.chaos.world import World

CAPTURE = "step_batch.pt"
DEEP = 40  # folders
TOO_DEEP, LONG = 25, 200  # folders with names of so many bytes: more than a path may have


def pipe(world: "World", rng: Random) -> str:
    """A FIFO called like a capture, which nobody ever writes to."""
    path = _new(world, rng, "pipe") / CAPTURE
    os.mkfifo(path)
    return f"made the pipe {world.shown(path)}"


def folder(world: "World", rng: Random) -> str:
    """A folder called like a capture."""
    path = _new(world, rng, "folder") / CAPTURE
    path.mkdir()
    return f"made the folder {world.shown(path)}"


def links(world: "World", rng: Random) -> str:
    """Links to themselves, to nothing, and to the folder that they are in."""
    place = _new(world, rng, "links")
    for name, target in (("loop", "."), (CAPTURE, CAPTURE), ("step_batch_2.pt", "nowhere")):
        (place / name).symlink_to(target)
    return f"made links in {world.shown(place)}"


def linked(world: "World", rng: Random) -> str:
    """A capture that is a link to a file outside the folder."""
    name = f"linked-{rng.randrange(10**6)}"
    batch = a_batch(rng.randrange(2**31))
    target = save_step_batch(world.elsewhere / name, 1, batch)
    path = world.root / name / "step_1" / CAPTURE
    path.parent.mkdir(parents=True)
    world.ledger.add(Capture(name, 1, path, rows=rows_of(batch)))
    path.symlink_to(os.path.relpath(target, path.parent))
    return f"linked {world.shown(path)}"


def brackets(world: "World", rng: Random) -> str:
    """A good capture of a run whose name means something to a shell and to SQL."""
    name = f"[{rng.randrange(10**6)}]*? '%=\"ü"
    return _named(world, rng, name, good=True)


def newline(world: "World", rng: Random) -> str:
    """A run whose name is two lines: set aside, as it cannot be told."""
    return _named(world, rng, f"two\nlines {rng.randrange(10**6)}", good=False)


def no_utf8(world: "World", rng: Random) -> str:
    """A run whose name is no UTF-8: the same."""
    return _named(world, rng, os.fsdecode(b"\xff\xfe %d" % rng.randrange(10**6)), good=False)


def _named(world: "World", rng: Random, name: str, good: bool) -> str:
    batch = a_batch(rng.randrange(2**31))
    made = save_step_batch(world.elsewhere / f"{rng.randrange(10**9)}", 1, batch)
    path = world.root / name / "step_1" / CAPTURE
    world.ledger.add(Capture(name, 1, path, rows=rows_of(batch) if good else None))
    made.parents[1].rename(world.root / name)
    return f"wrote {world.shown(path)}"


def deep(world: "World", rng: Random) -> str:
    """A good capture below many folders."""
    name, batch = f"deep-{rng.randrange(10**6)}", a_batch(rng.randrange(2**31))
    place = world.root.joinpath("deep", *(str(level) for level in range(DEEP)))
    world.ledger.add(Capture(name, 1, place / name / "step_1" / CAPTURE, rows=rows_of(batch)))
    save_step_batch(place / name, 1, batch)
    return f"wrote {name} below {DEEP} folders"


def too_deep(world: "World", rng: Random) -> str:
    """Folders below each other that no path can name, for a while."""
    top = _new(world, rng, "too-deep")
    here = os.open(top, os.O_RDONLY)
    for _ in range(TOO_DEEP):
        os.mkdir("d" * LONG, dir_fd=here)
        below = os.open("d" * LONG, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    time.sleep(rng.uniform(5, 10))
    shutil.rmtree(top)
    return f"made folders of {TOO_DEEP * LONG} bytes below {world.shown(top)}, and removed them"


def _new(world: "World", rng: Random, name: str) -> Path:
    place = world.root / f"{name}-{rng.randrange(10**6)}" / "step_1"
    place.mkdir(parents=True)
    return place


ACTIONS = {
    action.__name__: (action, 0.5)
    for action in (
        pipe,
        folder,
        links,
        linked,
        brackets,
        newline,
        no_utf8,
        deep,
        too_deep,
    )
}
