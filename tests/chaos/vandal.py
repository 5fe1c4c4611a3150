"""Breaks captures: cuts, garbage, nothing, locks; some are mended later."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from tests.chaos.tokenizer import words
from tests.chaos.writers import next_step, put
from tests.formats import Batch
from tests.given import batch_fields

if TYPE_CHECKING:
    from tests.chaos.world import World

MENDED = 0.5  # of what is broken is mended by the action itself, the rest by `mend`, or not at all
CUTS = 5
PATIENCE = 6.0  # seconds that a watcher gets to open a capture
ROWS, WIDTH = 2000, 6000  # of the large capture; the columns are padding


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
    """A large capture that is cut in place while a watcher reads it, again and again."""
    batch, hits = _large(), 0
    capture = next_step(world, "at_once", rng, batch)
    capture.busy = True
    try:
        for _ in range(CUTS):
            hits += _wait_until_read(world, capture.path)
            time.sleep(rng.choice([0, rng.random()]))  # a watcher reads it several times
            os.truncate(capture.path, capture.path.stat().st_size // 2)
            time.sleep(rng.uniform(0.2, 1))
            put(world, capture, rng, batch)
        put(world, capture, rng)  # a small one in its place: nobody waits for it
    finally:
        capture.busy = False
    return f"cut the large {world.shown(capture.path)} {CUTS} times, {hits} while it was read"


def _large() -> Batch:
    """A batch of few tokens in wide arrays: read in several blocks, quick to analyse."""
    fields = batch_fields(rows=ROWS, seed=1)
    del fields["global_step"]
    padded = {n: v for n, v in fields.items() if isinstance(v, torch.Tensor) and n != "prompts"}
    return {**fields, **{name: pad(_narrow(v), (0, WIDTH)) for name, v in padded.items()}}


def _narrow(values: torch.Tensor) -> torch.Tensor:
    return values if values.is_floating_point() else values.to(torch.uint8)


def _wait_until_read(world: "World", path: Path) -> bool:
    """Whether a watcher turned it into tables, from its mapped arrays, before patience ended."""
    until, staging = time.monotonic() + PATIENCE, world.home / "lake" / ".staging"
    while time.monotonic() < until:
        is_mapped = any(str(path) in maps for maps in world.watchers.maps())
        if is_mapped and any(staging.glob("*/tokens.parquet")):
            return True
        time.sleep(0.005)
    return False


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
