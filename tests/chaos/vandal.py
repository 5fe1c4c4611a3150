"""Breaks captures: cuts, garbage, nothing, locks; some are mended later."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.chaos.tokenizer import words
from tests.chaos.writers import next_step, put
from tests.given import batch_fields

if TYPE_CHECKING:
    from tests.chaos.world import World

MENDED = 0.5  # of what is broken is mended by the action itself, the rest by `mend`, or not at all
LARGE = {"rows": 1000, "width": 300}  # takes a second to read


def cut(world: "World", rng: Random) -> str | None:
    """A capture to half its length, in place."""
    return _broken(world, rng, "cut", lambda path: os.truncate(path, path.stat().st_size // 2))


def scribble(world: "World", rng: Random) -> str | None:
    """Garbage over a capture, in place."""
    return _broken(world, rng, "scribbled over", lambda path: path.write_bytes(rng.randbytes(3000)))


def empty(world: "World", rng: Random) -> str | None:
    """A capture to 0 bytes, in place."""
    return _broken(world, rng, "emptied", lambda path: path.write_bytes(b""))


def _broken(world: "World", rng: Random, verb: str, harm: Callable[[Path], object]) -> str | None:
    mended = rng.random() < MENDED
    with world.ledger.claimed(rng, lambda c: c.rows is not None) as capture:
        if capture is None:
            return None
        capture.rows = None
        harm(capture.path)
        if mended:
            time.sleep(rng.uniform(0.5, 8))
            put(world, capture, rng)
        return f"{verb} {world.shown(capture.path)}{', then mended it' if mended else ''}"


def mend(world: "World", rng: Random) -> str | None:
    """A broken capture is written anew."""
    with world.ledger.claimed(rng, lambda c: c.rows is None) as capture:
        if capture is None:
            return None
        put(world, capture, rng)
        return f"mended {world.shown(capture.path)}"


def cut_while_read(world: "World", rng: Random) -> str:
    """A large capture that is cut again and again while a watcher may have it mapped."""
    batch = {k: v for k, v in batch_fields(**LARGE, seed=1).items() if k != "global_step"}
    capture = next_step(world, "at_once", rng, batch)
    capture.busy = True
    try:
        for _ in range(3):
            time.sleep(rng.uniform(0.5, 5))
            os.truncate(capture.path, capture.path.stat().st_size // 2)
            time.sleep(0.3)
            put(world, capture, rng, batch)
        put(world, capture, rng)  # a small one in its place: nobody waits for it
    finally:
        capture.busy = False
    return f"cut the large {world.shown(capture.path)} three times, then wrote it anew"


def lock(world: "World", rng: Random) -> str | None:
    """A capture that nobody may read, or a folder that nobody may enter, for a while."""
    if os.geteuid() == 0:
        return None  # who may read all the same
    with world.ledger.claimed(rng) as capture:
        if capture is None:
            return None
        locked = rng.choice([capture.path, capture.path.parent])
        before = locked.stat().st_mode
        locked.chmod(0)
        time.sleep(rng.uniform(1, 6))
        locked.chmod(before)
        return f"locked {world.shown(locked)} for a while"


def break_tokenizer(world: "World", rng: Random) -> str | None:
    """A run's tokenizer.json is half written; later it is whole."""
    with world.ledger.run_claimed(rng) as captures:
        if not captures:
            return None
        path = world.root / captures[0].run / "tokenizer.json"
        whole = words(rng.randrange(3)).encode()
        path.write_bytes(whole[: len(whole) // 2])
        time.sleep(rng.uniform(2, 8))
        path.write_bytes(whole)
        return f"wrote half of {world.shown(path)}, then all of it"


ACTIONS = {
    "cut": (cut, 2),
    "scribble": (scribble, 2),
    "empty": (empty, 1),
    "mend": (mend, 3),
    "cut_while_read": (cut_while_read, 1),
    "lock": (lock, 1),
    "break_tokenizer": (break_tokenizer, 1),
}
