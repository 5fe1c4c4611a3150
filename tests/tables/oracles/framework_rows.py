"""A step's tokens for the restatements of frameworks' corrections, and what several share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EXP32_ZERO, EXP32_INF = -103.972, 88.7228  # float32: exp is 0 below, infinite above


@dataclass(frozen=True)
class Rows:
    """One step: a list of sequences, trained tokens only, log-probs in nats."""

    rollout: list[Array]
    train: list[Array]
    advantage: list[Array]


class Step:
    """A step's tokens in one array each: q rollout, p train, a advantage, d = p - q = ln r."""

    def __init__(self, rows: Rows) -> None:
        lengths = [[len(x) for x in xs] for xs in (rows.rollout, rows.train, rows.advantage)]
        if not lengths[0] == lengths[1] == lengths[2]:
            raise ValueError("rollout, train and advantage differ in their lengths")
        self.q, self.p, self.a = (
            np.concatenate([np.zeros(0), *xs]) for xs in (rows.rollout, rows.train, rows.advantage)
        )
        self.d, self.one = self.p - self.q, np.ones(len(self.q))
        if not np.isfinite([self.d, self.a]).all():
            raise ValueError("log-probs and advantages must be finite")
        self.n = np.array(lengths[0], dtype=int)

    def split(self, x: Array) -> list[Array]:
        """A list of sequences again."""
        return np.split(x, np.cumsum(self.n)[:-1])

    def row(self, reduce: Callable[[Array], Any], x: Array) -> Array:
        """A number a sequence, on each of its tokens; 0 tokens take none."""
        values = [reduce(part) if len(part) else 0.0 for part in self.split(x)]
        return np.repeat(np.array(values, dtype=np.float64), self.n)


def clip20(x: Any) -> Any:
    """The bound of verl, slime, SkyRL and ms-swift on log-ratios."""
    return np.clip(x, -20.0, 20.0)


def exp32(x: Array) -> Array:
    """Exponential with the range of float32 and the precision of float64."""
    inside = np.exp(np.clip(x, EXP32_ZERO, EXP32_INF))
    return np.where(x < EXP32_ZERO, 0.0, np.where(x > EXP32_INF, np.inf, inside))


def known(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults overridden by what is given; a key without a default is an error."""
    if unknown := sorted(set(given) - set(defaults)):
        raise ValueError(f"unknown or not restated here: {unknown}")
    return {**defaults, **given}


def one_of(value: Any, *values: Any) -> Any:
    """The value, if it is one of these."""
    if value not in values:
        raise ValueError(f"{value!r} is none of {values}")
    return value


def binary_kl(q: Array, p: Array) -> Array:
    """KL(rollout || train) of the sampled token against all others, as verl and SkyRL have it."""
    rest = (1 - np.exp(q) + 1e-8) / (1 - np.exp(p) + 1e-8)
    return np.exp(q) * (q - p) + (1 - np.exp(q)) * np.log(rest)
