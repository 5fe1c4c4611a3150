"""The corrections in NumPy float64, from their definitions: what the SQL is checked against.

d = ln(p_train / p_rollout) per trained token, S its sum and g its mean over the rollout, A the
advantage. Every method bounds a weight of one level and gives each token a coefficient c. The
bounds act on the ratios as captured, before the first update.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tests import by_numpy
from tests.by_numpy import Array, Metrics, Step, Values

Mask = NDArray[np.bool_]
Rule = Callable[..., Array]  # (step, target, *parameters): the coefficient
Test = Callable[..., Mask]  # (step, *parameters): the tokens that are kept


@dataclass(frozen=True)
class Weighed:
    """The coefficient of every trained token, and the weight that the method bounds."""

    c: Array
    target: Array


@dataclass(frozen=True)
class Level:
    """Where the untruncated weights of a method come from."""

    log_weight: Callable[[Step], Array]
    clipped: bool = True

    def weight(self, step: Step) -> Array:
        x = self.log_weight(step)
        return np.exp(by_numpy.safe(x) if self.clipped else x)

    def saturated(self, step: Step) -> Mask:
        # from the log weight: e^20 itself need not be the same number in every exp
        return (np.abs(self.log_weight(step)) >= by_numpy.SAFE) & self.clipped


def clipped_sum(step: Step) -> Array:
    """Each d clipped before the sum, as verl and ms-swift average."""
    return step.row_sum(by_numpy.safe(step.d))


def clipped_mean(step: Step) -> Array:
    return step.row_mean(by_numpy.safe(step.d))


def float32_range(x: Array) -> Array:
    """The log of what exp gives in float32: nothing below -103.972, no more than 88.7228."""
    return np.where(x < -103.972, -np.inf, np.minimum(x, 88.7228))


MASK = Level(lambda step: np.zeros_like(step.d))
TOKEN = Level(lambda step: step.d)
PRODUCT = Level(lambda step: step.s[step.row])
FREE_PRODUCT = Level(lambda step: float32_range(step.s[step.row]), clipped=False)
CLIPPED_PRODUCT = Level(lambda step: clipped_sum(step)[step.row])
GEOMETRIC = Level(lambda step: step.g[step.row], clipped=False)
CLIPPED_GEOMETRIC = Level(lambda step: step.g[step.row])
RHO = Level(lambda step: step.row_mean(np.clip(step.d, -10, 10))[step.row], clipped=False)
MEAN = Level(lambda step: clipped_mean(step)[step.row], clipped=False)


# What is kept


def advantage(step: Step) -> Array:
    """A, 1 where it was not captured."""
    return np.where(np.isnan(step.advantage), 1.0, step.advantage)


def inside(x: Array, low: float, high: float) -> Mask:
    return (x >= low) & (x <= high)


def any_in_row(step: Step, hit: Mask) -> Mask:
    return (step.row_sum(hit.astype(np.float64)) > 0)[step.row]


def probability_change(step: Step) -> Array:
    return np.exp(step.p) - np.exp(step.q)


def k1_inside(step: Step, low: float, high: float) -> Mask:
    """verl's token_k1: ln low <= -d <= ln high, so the bounds act on p_rollout / p_train."""
    return inside(-by_numpy.safe(step.d), np.log(low), np.log(high))


def k2_at_most(step: Step, high: float) -> Mask:
    """verl's token_k2: d² / 2 <= high, d clipped."""
    return by_numpy.safe(step.d) ** 2 / 2 <= high


def k3_at_most(step: Step, high: float) -> Mask:
    """verl's token_k3: e^d - 1 - d <= high, d clipped."""
    return by_numpy.k3(by_numpy.safe(step.d)) <= high


def product_inside(step: Step, low: float, high: float) -> Mask:
    """SkyRL's product mask: low <= e^S <= high."""
    return inside(PRODUCT.weight(step), low, high)


def geometric_inside(step: Step, low: float, high: float) -> Mask:
    """The geometric mask of SkyRL, prime-rl and NeMo-RL: low <= e^g <= high."""
    return inside(GEOMETRIC.weight(step), low, high)


def mean_k1_inside(step: Step, low: float, high: float) -> Mask:
    """verl's seq_mean_k1: bounds on p_rollout / p_train, each d clipped before the mean."""
    return inside(-clipped_mean(step), np.log(low), np.log(high))[step.row]


def row_k3_at_most(step: Step, high: float) -> Mask:
    """verl's seq_mean_k3: the rollout's mean of r - 1 - ln r <= high, each d clipped."""
    return (step.row_mean(by_numpy.k3(by_numpy.safe(step.d))) <= high)[step.row]


def row_max_k2_at_most(step: Step, high: float) -> Mask:
    """verl's seq_max_k2: the rollout's largest d² / 2 <= high, d clipped."""
    return ~any_in_row(step, by_numpy.safe(step.d) ** 2 / 2 > high)


def none_below(step: Step, low: float) -> Mask:
    """The veto of verl up to v0.7.0 and slime: no token of the rollout has r < low."""
    return ~any_in_row(step, np.exp(step.d) < low)


def none_outside(step: Step, low: float, high: float) -> Mask:
    """SkyRL's outlier mask: no token of the rollout has r < low or r > high."""
    return ~any_in_row(step, by_numpy.outside(np.exp(step.d), low, high))


def mean_geometric_at_most(step: Step, high: float) -> Mask:
    """ms-swift's sequence_mask: e^(mean of clipped d) <= high."""
    return MEAN.weight(step) <= high


def held(x: Array, margin: float) -> Array:
    return np.clip(np.exp(x), margin, 1 - margin)


def bernoulli_kl(p: Array, q: Array) -> Array:
    """KL(p || q) of a token against all others."""
    divergence: Array = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return divergence


def gate_kl(step: Step) -> Array:
    """OpenRLHF's binary_kl: rollout against train, both in [1e-6, 1 - 1e-6]."""
    return bernoulli_kl(held(step.q, 1e-6), held(step.p, 1e-6))


def both_kl(step: Step) -> Array:
    """AReaL's binary_kl: the larger of both directions, in [1e-8, 1 - 1e-8]."""
    q, p = held(step.q, 1e-8), held(step.p, 1e-8)
    return np.maximum(bernoulli_kl(q, p), bernoulli_kl(p, q))


def gate_at_most(statistic: Callable[[Step], Array], by_row: bool = False) -> Test:
    """Tokens, or rollouts by their mean, whose statistic is at most a bound."""

    def test(step: Step, bound: float) -> Mask:
        values = statistic(step)
        return (step.row_mean(values)[step.row] if by_row else values) <= bound

    return test


def not_pushed_apart(step: Step, bound: float) -> Mask:
    """open-instruct's TV mask: without A pushing rho from 1 where a rollout's |rho - 1| > bound."""
    log_rho = np.clip(step.d, -10, 10)
    divergence = step.row_mean(np.abs(np.exp(log_rho) - 1))[step.row]
    return ~((divergence > bound) & (np.sign(log_rho) * advantage(step) > 0))


def rho_inside(step: Step, low: float, high: float) -> Mask:
    """open-instruct's sequence-level mask, of the geometric mean of rho."""
    return inside(RHO.weight(step), low, high)


def ratio_inside(step: Step, low: float, high: float) -> Mask:
    """open-instruct's mask by token."""
    return inside(TOKEN.weight(step), low, high)


def error_at_most(step: Step, high: float) -> Mask:
    """NeMo-RL's sequence error: the rollout's mean of e^|d| <= high."""
    return (step.row_mean(np.exp(np.abs(step.d))) <= high)[step.row]


def not_opsm(step: Step, delta: float) -> Mask:
    """DeepSeek-V3.2, equation 9: without A < 0 in rollouts whose mean of -d > delta."""
    return ~((advantage(step) < 0) & (-step.g > delta)[step.row])


def pushed_change(step: Step) -> Array:
    """The change of probability in the advantage's direction; A = 0 pushes down."""
    return np.where(advantage(step) > 0, 1, -1) * probability_change(step)


def not_dppo_tv(step: Step, most: float) -> Mask:
    """DPPO-TV: without those that moved the way A pushes by more than `most` in probability."""
    return pushed_change(step) <= most


def not_dppo_kl(step: Step, most: float) -> Mask:
    """DPPO-KL: without those that moved the way A pushes, by a binary KL above `most`."""
    return ~((pushed_change(step) > 0) & (binary_kl(step.q, step.p) > most))


def not_dppo_kl_signed(step: Step, most: float) -> Mask:
    """SkyRL's: A = 0 pushes nowhere, and a clamped log-ratio has no gradient."""
    pushed = np.sign(advantage(step)) * probability_change(step) > 0
    return ~(pushed & (binary_kl(step.q, step.p) > most)) & (np.abs(step.d) <= by_numpy.SAFE)


def binary_kl(q: Array, p: Array) -> Array:
    """KL(rollout || train) of this token against all others, with verl's and SkyRL's 1e-8."""
    other_q, other_p = 1e-8 - np.expm1(q), 1e-8 - np.expm1(p)
    divergence: Array = np.exp(q) * (q - p) - np.expm1(q) * np.log(other_q / other_p)
    return divergence


def change_at_most(step: Step, most: float) -> Mask:
    """IPO: |p_train - p_rollout| <= most."""
    return np.abs(probability_change(step)) <= most


def smallest_squares(step: Step, below: float = 0.04) -> Mask:
    """M2PO: d² is kept if the mean of all d² up to it, ties included, is < below."""
    squares = step.d**2
    ordered = np.sort(squares)
    up_to = np.searchsorted(ordered, squares, side="right")
    return np.append(0.0, np.cumsum(ordered))[up_to] / up_to < below


# What the weights become


def as_is(step: Step, target: Array) -> Array:
    return target


def at_most(step: Step, target: Array, high: float) -> Array:
    """Truncated importance sampling: min(w, high)."""
    return np.minimum(target, high)


def clamped(step: Step, target: Array, low: float, high: float) -> Array:
    """The two-sided clamp of OpenRLHF, NeMo-RL and slime: w in [low, high]."""
    return np.clip(target, low, high)


def cispo(step: Step, target: Array, low: float, high: float) -> Array:
    """CISPO: w in [1 - low, 1 + high]."""
    return np.clip(target, 1 - low, 1 + high)


def zero_above(step: Step, target: Array, high: float) -> Array:
    """The upper mask of TRL, ms-swift and AReaL: w <= high, else 0."""
    return np.where(target <= high, target, 0.0)


def zero_outside(step: Step, target: Array, low: float, high: float) -> Array:
    """IcePop: low <= w <= high, else 0."""
    return np.where(inside(target, low, high), target, 0.0)


def at_most_normalised(step: Step, target: Array) -> Array:
    """verl's batch_normalize: min(w, 2), divided by its mean over the step."""
    bounded = np.minimum(target, 2)
    return bounded / by_numpy.mean(bounded)


def sapo(step: Step, target: Array, positive: float, negative: float) -> Array:
    """SAPO: R · 4 s (1 - s), s = sigmoid(tau (R - 1)): the gradient of its soft gate."""
    tau = np.where(advantage(step) > 0, positive, negative)
    half = np.abs(tau * np.expm1(by_numpy.safe(step.d))) / 2
    # 4 s (1 - s) = 1 / cosh²(x / 2), never above 1; beyond 400 it is 0 in any case
    gate: Array = (1 / np.cosh(np.minimum(half, 400))) ** 2
    return target * gate


def vespo(step: Step, target: Array) -> Array:
    """VESPO as in TRL: w^k e^{l (1 - w)}, ln w the clipped sum of each d clipped."""
    log_w = np.clip(clipped_sum(step), np.log(1e-8), by_numpy.SAFE)[step.row]
    up = advantage(step) >= 0
    k, fade = np.where(up, 2.0, 3.0), np.where(up, 3.0, 2.0)
    # in logs: w itself would round off what tells c from the target where S is small
    c: Array = np.exp(k * log_w - fade * np.expm1(log_w))
    return c


def kept(test: Test, parameters: int, then: Rule = as_is) -> Rule:
    """The rule `then` where the test with the first parameters holds, 0 elsewhere."""

    def rule(step: Step, target: Array, *given: float) -> Array:
        passes = test(step, *given[:parameters])
        return np.where(passes, then(step, target, *given[parameters:]), 0.0)

    return rule


# The list


@dataclass(frozen=True)
class Method:
    level: Level
    rule: Rule
    parameters: tuple[float, ...]


# method: level of its target, rule, the parameters of each setting as its name has them
FAMILIES: dict[str, tuple[Level, Rule, str]] = {
    "none": (MASK, as_is, ""),
    "is_token": (TOKEN, as_is, ""),
    "tis_token": (TOKEN, at_most, "1.2 2 5 10"),
    "clip_token": (TOKEN, clamped, "0.5_2 0.5_5 0.2_5"),
    "cispo": (TOKEN, cispo, "0.2_0.28"),
    "icepop": (TOKEN, zero_outside, "0.5_5 0.2_5 0.5_2 0.125_8"),
    "mask_token_hi": (TOKEN, zero_above, "2 3 5"),
    "rs_token_k1": (MASK, kept(k1_inside, 2), "0.5_2 0.5_5"),
    "rs_token_k2": (MASK, kept(k2_at_most, 1), "1.5 3"),
    "rs_token_k3": (MASK, kept(k3_at_most, 1), "0.5 2"),
    "tis_seq": (PRODUCT, at_most, "2 5 10"),
    "tis_seq_unclipped": (FREE_PRODUCT, at_most, "3"),
    "mis_seq_hi": (FREE_PRODUCT, zero_above, "3"),
    "mis_seq": (PRODUCT, zero_outside, "0.5_2"),
    "mis_seq_unclipped": (FREE_PRODUCT, zero_outside, "0.5_2"),
    "rs_seq_product": (MASK, kept(product_inside, 2), "0.5_2"),
    "tis_seq_mean": (MEAN, at_most, "2"),
    "tis_geo": (CLIPPED_GEOMETRIC, at_most, "2"),
    "mis_geo_hi": (GEOMETRIC, zero_above, "5"),
    "rs_geo": (MASK, kept(geometric_inside, 2), "0.999_1.001 0.99_1.01 0.1_10"),
    "rs_seq_mean_k1": (MASK, kept(mean_k1_inside, 2), "0.999_1.001"),
    "seq_mask_tis": (TOKEN, kept(geometric_inside, 2), "0.999_1.002"),
    "seq_mask_tis_hi": (TOKEN, kept(mean_geometric_at_most, 1), "2"),
    "rs_seq_mean_k3": (MASK, kept(row_k3_at_most, 1), "0.01"),
    "rs_seq_max_k2": (MASK, kept(row_max_k2_at_most, 1), "2.5"),
    "veto": (MASK, kept(none_below, 1), "1e-4"),
    "outlier": (MASK, kept(none_outside, 2), "1e-4_100"),
    "seq_error": (MASK, kept(error_at_most, 1), "2"),
    "opsm": (MASK, kept(not_opsm, 1), "1e-4 0.5"),
    "dppo_tv": (TOKEN, kept(not_dppo_tv, 1), "0.2"),
    "dppo_tv_capped": (TOKEN, kept(not_dppo_tv, 1, at_most), "0.2_3"),
    "dppo_kl": (TOKEN, kept(not_dppo_kl, 1), "0.2"),
    "dppo_kl_capped": (TOKEN, kept(not_dppo_kl, 1, at_most), "0.2_3"),
    "dppo_kl_signed": (TOKEN, kept(not_dppo_kl_signed, 1), "0.05"),
    "ipo": (TOKEN, kept(change_at_most, 1), "0.1"),
    "gate_kl": (TOKEN, kept(gate_at_most(gate_kl), 1), "0.05"),
    "gate_kl_seq": (TOKEN, kept(gate_at_most(gate_kl, by_row=True), 1), "0.003"),
    "gate_tv_seq": (
        TOKEN,
        kept(gate_at_most(lambda step: np.abs(probability_change(step)), by_row=True), 1),
        "0.1",
    ),
    "gate_kl_both": (TOKEN, kept(gate_at_most(both_kl), 1), "0.05"),
    "gate_kl_both_seq": (TOKEN, kept(gate_at_most(both_kl, by_row=True), 1), "0.05"),
    "rho_mask": (TOKEN, kept(ratio_inside, 2, at_most), "0.5_5_2"),
    "rho_mask_seq": (RHO, kept(rho_inside, 2, at_most), "0.5_5_2"),
    "rho_mask_tv": (TOKEN, kept(not_pushed_apart, 1, at_most), "2_2"),
    "m2po": (MASK, kept(smallest_squares, 0), ""),
    "sapo": (TOKEN, sapo, "1_1.05"),
    "vespo": (CLIPPED_PRODUCT, vespo, ""),
    "tis_token_2_normalised": (TOKEN, at_most_normalised, ""),
    "geo_rs_tis_token": (TOKEN, kept(mean_k1_inside, 2, at_most), "0.999_1.001_2"),
    "geo_rs_tis_seq": (PRODUCT, kept(mean_k1_inside, 2, at_most), "0.999_1.001_2"),
    "k3_rs_tis_token": (TOKEN, kept(row_k3_at_most, 1, at_most), "0.01_2"),
    "k3_rs_tis_seq": (PRODUCT, kept(row_k3_at_most, 1, at_most), "0.01_2"),
    "veto_tis_token": (TOKEN, kept(none_below, 1, at_most), "1e-4_2"),
    "veto_clip_token": (TOKEN, kept(none_below, 1, clamped), "1e-4_0.5_2"),
}


def methods() -> dict[str, Method]:
    named: dict[str, Method] = {}
    for family, (level, rule, settings) in FAMILIES.items():
        for setting in settings.split():
            parameters = tuple(float(x) for x in setting.split("_"))
            named[f"{family}_{setting}"] = Method(level, rule, parameters)
        if not settings:
            named[family] = Method(level, rule, ())
    return named


METHODS = methods()
SETTINGS: tuple[str, ...] = tuple(METHODS)


@by_numpy.quiet
def weighed(step: Step, name: str) -> Weighed:
    """Coefficient and target of every trained token under one setting."""
    method = METHODS[name]
    target = method.level.weight(step)
    return Weighed(method.rule(step, target, *method.parameters), target)


# What a setting does to the step


@by_numpy.quiet
def corrections(tokens: pl.DataFrame, sequences: pl.DataFrame) -> dict[str, Metrics]:
    """The columns of every setting; a step without trained tokens has none defined."""
    step = by_numpy.load(tokens, sequences)
    return {name: effects(step, name) for name in SETTINGS}


def effects(step: Step, name: str) -> Metrics:
    of = weighed(step, name)
    values = (
        {"frac_saturated": by_numpy.mean(METHODS[name].level.saturated(step))}
        | shares(step, of)
        | moments(step, of.c)
        | advantages(step, of.c)
        | biases(step, of)
        | rewards(step, of.c)
    )
    return by_numpy.defined(values if step.d.size else dict.fromkeys(values, by_numpy.UNDEFINED))


def kept_share(step: Step, c: Array) -> Array:
    """The share of each rollout's tokens with c > 0."""
    return step.row_mean((c > 0).astype(np.float64))


def shares(step: Step, of: Weighed) -> Values:
    c, target, of_row = of.c, of.target, kept_share(step, of.c)
    return {
        "frac_tok_dropped": by_numpy.mean(c == 0),
        "frac_tok_truncated_high": by_numpy.mean((c > 0) & (c < target)),
        "frac_tok_truncated_low": by_numpy.mean((c > 0) & (c > target)),
        "frac_seq_any_dropped": by_numpy.mean(of_row < 1),
        "frac_seq_all_dropped": by_numpy.mean(of_row == 0),
    }


def moments(step: Step, c: Array) -> Values:
    return {
        "weight_mean": by_numpy.mean(c),
        "weight_mean_kept": by_numpy.mean(c[c > 0]),
        "weight_max": by_numpy.highest(c),
        "weight_std": by_numpy.std(c),
        "ess_token": ess(c),
        "ess_seq": ess(step.row_mean(c)),
        "second_moment": by_numpy.mean(c**2),
    }


def ess(w: Array) -> float:
    """(sum w)² / (n sum w²), 0 if all are 0."""
    if not w.any():
        return 0.0
    scaled = w / w.max()  # the square of a soft gate's weight may be too small for a number
    return float(np.sum(scaled) ** 2 / (w.size * np.sum(scaled**2)))


def advantages(step: Step, c: Array) -> Values:
    a = advantage(step)
    size, total = np.abs(a), float(np.sum(np.abs(a)))
    return {
        "ess_adv": ess(size * c) if total > 0 else by_numpy.UNDEFINED,
        "adv_kept": share_kept(size, c),
        "adv_kept_pos": share_kept(np.maximum(a, 0), c),
        "adv_kept_neg": share_kept(np.maximum(-a, 0), c),
        "adv_weighted": by_numpy.ratio(float(np.sum(size * c)), total),
        "adv_net": by_numpy.ratio(float(np.sum(a * c)), total),
    }


def share_kept(size: Array, c: Array) -> float:
    return by_numpy.ratio(float(np.sum(size[c > 0])), float(np.sum(size)))


def biases(step: Step, of: Weighed) -> Values:
    given_up = 1 - by_numpy.ratio(float(np.sum(of.c)), float(np.sum(of.target)))
    return {
        "bias_mass": given_up,
        "bias_l1": by_numpy.mean(np.abs(of.c - of.target)),
        "bias_l1_vs_r": by_numpy.mean(np.abs(of.c - TOKEN.weight(step))),
    }


def rewards(step: Step, c: Array) -> Values:
    """Weighted means over the rollouts whose reward is known."""
    known = ~np.isnan(step.reward)
    kept_of, dropped_of = kept_share(step, c), step.row_mean((c == 0).astype(np.float64))
    return {
        name: by_numpy.ratio(
            float(np.sum(weight[known] * step.reward[known])), float(np.sum(weight[known]))
        )
        for name, weight in {"reward_kept": kept_of, "reward_dropped": dropped_of}.items()
    }
