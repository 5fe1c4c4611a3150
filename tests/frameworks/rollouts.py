"""What every framework is given: groups of rollouts, and log-probs of two engines that differ.

Four groups of two: one all right, so that A = 0, the others with A of both signs; tool turns that
are not trained on, a rollout that is not trained on at all, gaps of several sizes.
"""

from dataclasses import dataclass

import numpy as np

RIGHT = [(1, 0), (1, 1), (0, 1), (1, 0)]
LENGTHS = [(6, 8), (7, 4), (9, 3), (5, 7)]
UNTRAINED = (2, 1)  # group and rollout: given up, no token is trained on
TOOL = (2, 3)  # positions of a tool's answer in responses longer than LONG
LONG = 6
# ln r's standard deviation by rollout: two are close enough for the narrowest bounds.
SCALES = [(0.5, 2e-4), (0.5, 0.05), (0.5, 0.5), (0.04, 0.7)]
# ln r of single tokens (rollout, position): with these, frameworks differ that else agree.
FAR = {
    (0, 1): -3.1,
    (2, 0): 2.7,
    (2, 5): -24.0,
    (4, 1): -60.0,
    (4, 5): 25.0,
    (6, 3): -9.0,
    (7, 0): 26.0,
    (7, 1): 3.3,
    (7, 6): -2.6,
}
GAPS = ("moderate", "wide")


@dataclass(frozen=True)
class Rollout:
    """One response: ids, what is trained on, both engines' log-probs as float32 numbers."""

    uid: str
    prompt: list[int]
    response: list[int]
    mask: list[int]
    logp_rollout: list[float]
    logp_train: list[float]
    reward: float
    advantage: float


def rollouts(gap: str) -> list[Rollout]:
    """The eight rollouts with gaps of a kind, the same at every call."""
    rng = np.random.default_rng(GAPS.index(gap))
    found = []
    for group, rights in enumerate(RIGHT):
        prompt = rng.integers(10, 250, size=3 + 2 * group).tolist()
        for one, right in enumerate(rights):
            row = group * len(rights) + one
            found.append(
                Rollout(
                    uid=f"group-{group}",
                    prompt=prompt,
                    response=rng.integers(10, 250, size=LENGTHS[group][one]).tolist(),
                    mask=_mask(group, one),
                    **_log_probs(rng, LENGTHS[group][one], SCALES[group][one], _far(gap, row)),
                    reward=float(right),
                    advantage=float(np.float32(right - np.mean(rights))),
                )
            )
    return found


def _mask(group: int, one: int) -> list[int]:
    length = LENGTHS[group][one]
    if (group, one) == UNTRAINED:
        return [0] * length
    return [int(length <= LONG or pos not in TOOL) for pos in range(length)]


def _far(gap: str, row: int) -> dict[int, float]:
    return {pos: value for (at, pos), value in FAR.items() if at == row and gap == "wide"}


def _log_probs(
    rng: np.random.Generator, length: int, scale: float, far: dict[int, float]
) -> dict[str, list[float]]:
    rollout = -rng.exponential(1.2, size=length) - 0.02
    diff = scale * rng.normal(size=length)
    for pos, value in far.items():
        diff[pos] = value
    # Who is far above the other must have been far below 0.
    rollout = np.where(diff > 0, np.minimum(rollout, -diff - 0.05), rollout)
    both = {"logp_rollout": rollout, "logp_train": rollout + diff}
    return {name: values.astype(np.float32).tolist() for name, values in both.items()}
