"""Which action when: a list that is made from the seed before anything begins."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from random import Random

from tests.chaos import clock, oddities, operations, rotator, vandal, writers

ACTORS = {
    "writer": writers.ACTIONS,
    "rotator": rotator.ACTIONS,
    "vandal": vandal.ACTIONS,
    "stranger": oddities.ACTIONS,
    "operator": operations.ACTIONS | operations.HARD,
    "clock": clock.ACTIONS,
}
KINDS = [(actor, name) for actor, actions in ACTORS.items() for name in actions]
EVERY = 2.0  # seconds between other actions, on average
START = 10.0  # seconds that the first watcher takes until it works; writers begin before
SLOT = 20.0  # seconds to one hard action: a watcher that was restarted gets some work done
QUIET = 0.1  # of the time, at the end


@dataclass(frozen=True)
class Action:
    """One thing to be done; what it is done to is drawn from `seed` when its time has come."""

    at: float  # seconds from the beginning
    actor: str
    name: str
    seed: int


def draw(seed: int, seconds: float, without: Collection[str] = ()) -> list[Action]:
    """Actions in order of time; those that are left out leave the others as they are.

    Each kind comes once and then by how often it is to come, the hard ones in turn.
    """
    rng = Random(seed)
    end = seconds * (1 - QUIET)
    actions = [*_hard(rng, end), *_others(rng, end)]
    return sorted((a for a in actions if a.name not in without), key=lambda action: action.at)


def _hard(rng: Random, end: float) -> Iterator[Action]:
    left: list[str] = []
    at = START
    while at < end:
        left = left or rng.sample(sorted(operations.HARD), k=len(operations.HARD))
        yield Action(at + rng.uniform(0, SLOT / 4), "operator", left.pop(), rng.randrange(2**31))
        at += SLOT


def _others(rng: Random, end: float) -> Iterator[Action]:
    kinds = [kind for kind in KINDS if kind[1] not in operations.HARD]
    weights = [ACTORS[actor][name][1] for actor, name in kinds]
    further = rng.choices(kinds, weights, k=max(0, round(end / EVERY) - len(kinds)))
    for number, (actor, name) in enumerate([*kinds, *further]):
        if actor == "writer":  # the first ones at once: the others need something to act on
            at = rng.uniform(0, START if number < len(kinds) else end)
        else:
            at = rng.uniform(min(START, end), end)
        yield Action(at, actor, name, rng.randrange(2**31))
