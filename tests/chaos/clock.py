"""A clock that jumps: files' times go days into the future or into the past."""

import os
import time
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.world import World

DAY = 86_400.0  # seconds


def _jump(world: "World", rng: Random, sign: int) -> str | None:
    days = sign * rng.uniform(1, 9)
    with world.ledger.claimed(rng) as capture:
        if capture is None:
            return None
        for file in capture.path.parent.iterdir():  # other ranks' and STABLE too
            os.utime(file, (time.time() + days * DAY,) * 2)
        return f"moved {world.shown(capture.path)} by {days:+.1f} days"


def forwards(world: "World", rng: Random) -> str | None:
    """A capture from the future."""
    return _jump(world, rng, 1)


def backwards(world: "World", rng: Random) -> str | None:
    """A capture that looks old."""
    return _jump(world, rng, -1)


ACTIONS = {"forwards": (forwards, 1), "backwards": (backwards, 2)}
