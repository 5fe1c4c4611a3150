"""Which action when: a list that is made from the seed before anything begins."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from tests.chaos import clock, oddities, operations, rotator, vandal, writers

ACTORS = {
    "writer": writers.ACTIONS,
    "rotator": rotator.ACTIONS,
    "vandal": vandal.ACTIONS,
    "stranger": oddities.ACTIONS,
    "operator": operations.ACTIONS,
    "clock": clock.ACTIONS,
}
KINDS = [(actor, name) for actor, actions in ACTORS.items() for name in actions]
EVERY = 1.3  # seconds between actions, on average


@dataclass(frozen=True)
class Action:
    """One thing to be done; what it is done to is drawn from `seed` when its time has come."""

    at: float  # seconds from the beginning
    actor: str
    name: str
    seed: int


def draw(seed: int, seconds: float, without: Collection[str] = ()) -> list[Action]:
    """Actions in order of time: each kind once, further ones by how often they are to come.

    The others stay as they are when some kinds are left out.
    """
    rng = Random(seed)
    weights = [ACTORS[actor][name][1] for actor, name in KINDS]
    further = max(0, round(seconds / EVERY) - len(KINDS))
    kinds = [*KINDS, *rng.choices(KINDS, weights, k=further)]
    actions = [_action(rng, seconds, *kind) for kind in kinds]
    return sorted((a for a in actions if a.name not in without), key=lambda action: action.at)


def _action(rng: Random, seconds: float, actor: str, name: str) -> Action:
    # Writers begin at once, so that the others have something to act on; the end is left to settle.
    first = 0.0 if actor == "writer" else 0.15
    return Action(rng.uniform(first, 0.9) * seconds, actor, name, rng.randrange(2**31))
