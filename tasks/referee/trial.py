"""Trying hypotheses: what part of an engine's distance to the reference each explains.

One rule: a hypothesis never sees the log-probs that it is to explain, but for the value that is
chosen for it, and for which sequences it counts: where it does not hold, the reference does.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.registry import Choice, Hypothesis
from timtrack.tasks.referee.rollouts import Floats

ROUNDS = 4  # of halving the steps around a fitted value
NAMED = 0.5  # explained from which a hypothesis is named
PROMISING = 0.05  # explained on one sequence from which all are scored
ENOUGH = 0.98  # explained from which no further hypothesis is worth its time


@dataclass(frozen=True)
class Fit:
    """How a hypothesis with one value fits one engine."""

    engine: str
    hypothesis: Hypothesis
    value: Any
    explained: float  # 1 - sum of squared residuals over sum of squared distances
    explained_in_part: float  # the same, where only `nearer` sequences have the change
    nearer: tuple[int, ...]  # rows that are nearer to the changed reference
    mean: float  # mean |residual| [nats], over the nearer sequences' tokens
    median: float
    rows: int  # sequences that were scored


@dataclass
class Trial:
    """What was tried, what was not for want of time, and the seconds that each took."""

    fits: list[Fit] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def ranked(self, engine: str) -> list[Fit]:
        """The best fit of each hypothesis to an engine, the one that explains most first."""
        best: dict[str, Fit] = {}
        for fit in self.fits:
            other = best.get(fit.hypothesis.name)
            if fit.engine == engine and (
                other is None or fit.explained_in_part > other.explained_in_part
            ):
                best[fit.hypothesis.name] = fit
        met = [fit.explained_in_part for fit in best.values() if not fit.hypothesis.is_random]
        is_met = max(met, default=0.0) > NAMED  # then what is only alike comes after
        return sorted(
            best.values(),
            key=lambda fit: (is_met and fit.hypothesis.is_random, -fit.explained_in_part),
        )

    def is_enough(self, engines: Sequence[str]) -> bool:
        """Whether of each engine nearly all is explained."""
        best = (self.ranked(engine)[:1] for engine in engines)
        return all(fits and fits[0].explained_in_part > ENOUGH for fits in best)


Say = Callable[[str, int, int], None]  # a hypothesis, its number, of how many


@dataclass(frozen=True)
class Limits:
    """How much is tried: the engines that forwards are worth, and the time."""

    worth: Sequence[str]  # engines for which hypotheses are tried that need forwards
    stops: bool = True  # once all of these are explained
    minutes: float | None = None


def run(
    bench: Bench,
    hypotheses: Sequence[Hypothesis],
    engines: Sequence[str],
    limits: Limits,
    say: Say = lambda name, number, count: None,
) -> Trial:
    """Try hypotheses in order on the engines that are away from the reference."""
    trial, began = Trial(), time.monotonic()
    few = bench.widest(limits.worth) if limits.worth else bench
    for number, one in enumerate(hypotheses):
        of = engines if one.is_cheap else limits.worth
        late = limits.minutes is not None and time.monotonic() - began > 60 * limits.minutes
        if late or not of or (not one.is_cheap and limits.stops and trial.is_enough(of)):
            trial.skipped.append(one.name)
            continue
        say(one.name, number, len(hypotheses))
        start = time.monotonic()
        trial.fits += _tried(bench, few, one, of)
        trial.seconds[one.name] = time.monotonic() - start
    return trial


def _tried(bench: Bench, few: Bench, one: Hypothesis, engines: Sequence[str]) -> list[Fit]:
    """The fits of a hypothesis; one that needs forwards has to show promise on a few first."""
    values = list(one.values(bench))
    if one.is_cheap or len(few.rollouts) == len(bench.rollouts):
        return _search(bench, one, values, engines)
    first = _search(few, one, values, engines)
    best = [found for engine in engines if (found := _best(first, engine))]
    chosen = [found.value for found in best if found.explained_in_part >= PROMISING]
    fits = _fits(bench, one, list(dict.fromkeys(chosen)), engines)
    return fits or best


def _search(
    bench: Bench, one: Hypothesis, values: Sequence[Any], engines: Sequence[str]
) -> list[Fit]:
    """Fits of all values, and of those between the best one and its neighbours."""
    fits = _fits(bench, one, values, engines)
    tried = {float(value) for value in values} if one.is_fitted else set()
    for _ in range(ROUNDS if one.is_fitted else 0):
        new = {between for engine in engines for between in _between(fits, engine, tried)} - tried
        tried |= new
        fits += _fits(bench, one, sorted(new), engines)
    return fits


def _best(fits: Iterable[Fit], engine: str) -> Fit | None:
    mine = [fit for fit in fits if fit.engine == engine]
    return max(mine, key=lambda fit: fit.explained_in_part, default=None)


def _between(fits: Sequence[Fit], engine: str, tried: set[float]) -> list[float]:
    """The middles between the best value and the two beside it."""
    best = _best(fits, engine)
    if best is None:
        return []
    order = sorted(tried)
    at = order.index(float(best.value))
    beside = [order[place] for place in (at - 1, at + 1) if 0 <= place < len(order)]
    return [_middle(float(best.value), other) for other in beside]


def _middle(a: float, b: float) -> float:
    return float(np.sqrt(a * b)) if min(a, b) > 0 else (a + b) / 2


def _fits(
    bench: Bench, one: Hypothesis, values: Sequence[Any], engines: Sequence[str]
) -> list[Fit]:
    found = []
    for value in values:
        made = one.score(bench, value)
        found += [fit(bench, engine, one, value, made) for engine in engines]
    return found


def fit(bench: Bench, engine: str, one: Hypothesis, value: Any, made: Floats) -> Fit:
    """How log-probs [N] of a changed reference fit an engine's; of a random one draws [n, N]."""
    logps = bench.logps(engine)
    away = np.nan_to_num(logps - bench.plain)
    drawn = made.mean(axis=0) if one.is_random else made
    rest = np.where(np.isfinite(drawn), np.nan_to_num(logps - drawn), away)
    total = float(np.sum(away**2))
    rows = [(float(np.sum(away[p] ** 2)), float(np.sum(rest[p] ** 2))) for p in bench.slices]
    better = [place for place, (before, after) in enumerate(rows) if after < before]
    inside = [rest[bench.slices[place]] for place in better]
    sizes = np.abs(np.concatenate(inside)) if inside else np.abs(away)
    explained = 1 - float(np.sum(rest**2)) / total if total else 0.0
    in_part = 1 - sum(map(min, rows)) / total if total else 0.0
    if one.is_random:
        explained = in_part = likeness(away, made - bench.plain)
        better = list(range(len(rows)))
    return Fit(
        engine,
        one,
        value,
        explained,
        in_part,
        tuple(bench.rollouts[place].row for place in better),
        float(sizes.mean()),
        float(np.median(sizes)),
        len(rows),
    )


def likeness(away: Floats, draws: Floats) -> float:
    """How like a draw a distance [N] is, 0 to 1: in its size, its mean, and where it is large.

    Each of the three is as near to 1 as another draw [n, N] would be.
    """
    size, usual = _rms(away), _rms(draws)
    if not size or not usual:
        return 0.0
    of_size = (min(size, usual) / max(size, usual)) ** 2
    of_mean = max(0.0, 1 - abs(float(away.mean() - draws.mean())) / usual)
    among = _rank_correlation(np.abs(draws[0]), np.abs(draws[1]))
    with_it = np.mean([_rank_correlation(np.abs(away), np.abs(draw)) for draw in draws])
    of_place = min(1.0, max(0.0, float(with_it) / among)) if among > 0 else 0.0
    return of_size * of_mean * of_place


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _rank_correlation(a: Floats, b: Floats) -> float:
    return float(stats.spearmanr(a, b).statistic)


def is_same(a: Any, b: Any) -> bool:
    """Whether two values of a hypothesis are the same, fitted ones to 5 %."""
    if isinstance(a, Choice) or a is None:
        return bool(a == b)
    return bool(np.isclose(float(a), float(b), rtol=0.05))
