"""Which engine is off: each one's distance to the reference, beside the reference's own noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from timtrack.tasks.messages.formatting import number, share
from timtrack.tasks.referee.bench import ENGINES, Bench
from timtrack.tasks.referee.rollouts import Floats
from timtrack.tasks.referee.trial import NAMED, Fit, Trial

CALLED = {"rollout": "rollout engine", "train": "trainer"}
BEYOND = 2.0  # times the noise of bfloat16 from which an engine is off
FAR = 1.5  # times that noise from which its distance is worth more forwards
ITS_OWN = 10.0  # times float32's noise below which there is nothing to explain
LEAST = 1e-6  # nats: that noise at the least; of a model that repeats itself exactly it is 0
REPRODUCED = 0.9  # share explained above which we say that log-probs are reproduced
SURE = 0.8  # explained from which one accuses an engine within bfloat16's noise
FEWEST_CLUSTERS = 5  # effective ones, for an interval


@dataclass(frozen=True)
class Distance:
    """How far log-probs are from the reference's, over tokens that have both."""

    tokens: int
    median: float  # |d| [nats]
    mean: float  # |d| [nats]
    rms: float  # [nats]
    k3: float  # KL(engine || reference) [nats]
    low: float | None  # 95 % interval of the mean, between prompts
    high: float | None


def distance(bench: Bench, logps: Floats, plain: Floats | None = None) -> Distance:
    """The distance of log-probs [N] to the plain reference, or to what is given for it."""
    known = np.isfinite(logps)
    away = (logps - (bench.plain if plain is None else plain))[known]
    sizes = np.abs(away)
    low, high = interval(sizes, _clusters(bench)[known])
    k3 = np.exp(-away) - 1 + away
    return Distance(
        len(away),
        float(np.median(sizes)),
        float(sizes.mean()),
        float(np.sqrt(np.mean(away**2))),
        float(k3.mean()),
        low,
        high,
    )


def _clusters(bench: Bench) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Of each token, the number of its prompt group; without groups, of its sequence."""
    named = [one.uid if one.uid is not None else f"row {one.row}" for one in bench.rollouts]
    known = {name: place for place, name in enumerate(dict.fromkeys(named))}
    sizes = [len(one.response) for one in bench.rollouts]
    return np.repeat([known[name] for name in named], sizes)


def interval(
    values: Floats, clusters: "np.ndarray[tuple[int], np.dtype[np.int64]]"
) -> tuple[float | None, float | None]:
    """The 95 % interval of a mean over clustered tokens; None for fewer than 5 effective clusters.

    The formula is that of sql/macros: `kish`, `clustered_error` and `t_interval`.
    """
    _, at = np.unique(clusters, return_inverse=True)
    sizes, sums = np.bincount(at), np.bincount(at, values)
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    if effective < FEWEST_CLUSTERS:
        return None, None
    mean, count = sums.sum() / sizes.sum(), len(sizes)
    error = np.sqrt(count / (count - 1) * np.sum((sums - mean * sizes) ** 2)) / sizes.sum()
    half = float(stats.t.ppf(0.975, effective - 1) * error)
    return float(mean) - half, float(mean) + half


@dataclass(frozen=True)
class Noise:
    """How far the reference is from itself: in float32 by its batch, and computed in bfloat16."""

    float32: Distance
    bfloat16: Distance
    edge: float  # |d| of bfloat16 that 99 % of the tokens stay below [nats]
    rounded: Floats  # log-probs [N] in bfloat16


@dataclass(frozen=True)
class Engine:
    """One engine's distance, and what explains it best."""

    name: str
    distance: Distance
    within: float  # share of tokens within the reference's noise in bfloat16
    is_off: bool
    fits: tuple[Fit, ...]  # the best of each hypothesis, the one that explains most first

    @property
    def best(self) -> Fit | None:
        """The fit that is named, if one explains more than half."""
        return self.fits[0] if self.fits and self.fits[0].explained_in_part > NAMED else None

    @property
    def margin(self) -> float | None:
        """By how much the best explains more than the second."""
        if len(self.fits) < 2:
            return None
        return self.fits[0].explained_in_part - self.fits[1].explained_in_part


def is_explicable(one: Distance, noise: Noise) -> bool:
    """Whether a distance is more than the order of float32's sums."""
    return one.rms > ITS_OWN * max(LEAST, noise.float32.rms)


def is_far(one: Distance, noise: Noise) -> bool:
    """Whether a distance is worth forwards that explain it: more than rounding would make."""
    return one.rms > FAR * noise.bfloat16.rms


def engines(bench: Bench, noise: Noise, trial: Trial) -> list[Engine]:
    """Both engines, judged."""
    return [_engine(bench, name, noise, tuple(trial.ranked(name))) for name in ENGINES]


def _engine(bench: Bench, name: str, noise: Noise, fits: tuple[Fit, ...]) -> Engine:
    logps = bench.logps(name)
    far = distance(bench, logps)
    sizes = np.abs(logps - bench.plain)[np.isfinite(logps)]
    within = float(np.mean(sizes <= noise.edge))
    is_beyond = far.rms > BEYOND * noise.bfloat16.rms
    return Engine(name, far, within, is_beyond or _is_accused(fits), fits)


def _is_accused(fits: Sequence[Fit]) -> bool:
    """Whether something that is no rounding explains nearly all, so small as it is."""
    return bool(fits) and fits[0].explained_in_part > SURE and not fits[0].hypothesis.is_rounding


def guilty(judged: Sequence[Engine]) -> tuple[str, ...]:
    """The engines that are off."""
    return tuple(one.name for one in judged if one.is_off)


def sentences(judged: Sequence[Engine], noise: Noise) -> list[str]:
    """The verdict on both engines, then what explains each that is off, or within noise."""
    told = (_explained(one) for one in judged if one.fits and (one.is_off or one.best))
    return [_verdict(judged, noise), *told]


def _verdict(judged: Sequence[Engine], noise: Noise) -> str:
    by = {one.name: one for one in judged}
    told = ", ".join(
        f"the {CALLED[n]} is {number(by[n].distance.mean)} nats from the reference" for n in CALLED
    )
    own = f"bfloat16 alone would be {number(noise.bfloat16.mean)}"
    off = [CALLED[name] for name in guilty(judged)]
    look = {
        0: "neither is off",
        1: f"look at the {off[0]}" if off else "",
        2: "both are off: is this the checkpoint that they should have?",
    }[len(off)]
    return f"{told[0].upper()}{told[1:]} in the mean ({own}): {look}."


def _explained(one: Engine) -> str:
    owner = f"The {CALLED[one.name]}'s log-probs"
    best = one.best
    if best is None:
        first = one.fits[0]
        return (
            f"{owner}: no hypothesis explains more than half of the distance; first is "
            f"{first.hypothesis.name}, {share(max(0.0, first.explained_in_part))}."
        )
    where = (
        "" if len(best.nearer) == best.rows else f" in {len(best.nearer)} of {best.rows} sequences"
    )
    second = next(iter(one.fits[1:]), None)
    after = (
        f" Next best: {second.hypothesis.name}, {share(max(0.0, second.explained_in_part))}."
        if second
        else ""
    )
    is_reproduced = best.explained_in_part > REPRODUCED
    how, so = ("are reproduced", ":") if is_reproduced else ("come nearest,", "; that would be:")
    return (
        f"{owner} {how} to {number(best.mean)} nats ({share(best.explained_in_part)} of "
        f"the distance){'' if is_reproduced else ','} when "
        f"{best.hypothesis.sentence(best.value)}{where}{so} {best.hypothesis.means}.{after}"
    )
