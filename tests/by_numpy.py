"""The mismatch metrics in NumPy float64, from their definitions: what the SQL is checked against.

Inside, nan means undefined; what the public functions return has None in its place.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats
from scipy.stats import rankdata

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Values = dict[str, float]
Metrics = dict[str, float | None]

UNDEFINED = float("nan")
SAFE = 20.0  # nats; the frameworks clip log ratios here before exp
POSITION_EDGES = [0, 16, 64, 256, 1024, 4096, 16384]
PROBABILITY_EDGES = [0, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.99]
quiet = np.errstate(all="ignore")  # an overflow is a result here: None


@dataclass(frozen=True)
class Step:
    """The trained tokens of one step, and the rows that have any, numbered from 0."""

    q: Array
    p: Array
    pos: Array
    token_id: Labels
    advantage: Array  # nan where unknown, as entropy and reward
    entropy: Array
    row: Labels
    cluster: Labels
    row_ids: Labels
    row_uid: list[str | None]
    reward: Array

    @property
    def d(self) -> Array:
        return self.p - self.q

    @property
    def n(self) -> Array:
        return np.bincount(self.row, minlength=len(self.row_ids)).astype(np.float64)

    @property
    def s(self) -> Array:
        return self.row_sum(self.d)

    @property
    def g(self) -> Array:
        return self.s / self.n

    def row_sum(self, values: Array) -> Array:
        return np.bincount(self.row, weights=values, minlength=len(self.row_ids))

    def row_mean(self, values: Array) -> Array:
        return self.row_sum(values) / self.n


def load(tokens: pl.DataFrame, sequences: pl.DataFrame) -> Step:
    """The trained tokens, in float64."""
    trained = tokens.filter(pl.col("is_trained"))
    row_ids, first, row = np.unique(
        trained["row"].to_numpy(), return_index=True, return_inverse=True
    )
    uid = trained["uid"].to_list()
    clusters = [
        ("row", own_row) if own_uid is None else ("uid", own_uid)
        for own_row, own_uid in zip(trained["row"].to_list(), uid, strict=True)
    ]
    rewards = dict(zip(sequences["row"].to_list(), floats(sequences, "reward"), strict=True))
    return Step(
        q=floats(trained, "logp_rollout"),
        p=floats(trained, "logp_train"),
        pos=floats(trained, "pos"),
        token_id=trained["token_id"].to_numpy(),
        advantage=floats(trained, "advantage"),
        entropy=floats(trained, "entropy"),
        row=row,
        cluster=numbered(clusters),
        row_ids=row_ids,
        row_uid=[uid[i] for i in first],
        reward=np.array([rewards[i] for i in row_ids.tolist()], dtype=np.float64),
    )


def floats(frame: pl.DataFrame, column: str) -> Array:
    return frame[column].cast(pl.Float64).fill_null(UNDEFINED).to_numpy()


def numbered(labels: Iterable[object]) -> Labels:
    """0, 1, 2, … for the labels in order of appearance."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(label, len(seen)) for label in labels], dtype=np.int64)


def defined(values: Values) -> Metrics:
    return {name: float(x) if np.isfinite(x) else None for name, x in values.items()}


# Statistics


def mean(x: NDArray) -> float:
    return float(np.mean(x, dtype=np.float64)) if x.size else UNDEFINED


def highest(x: Array) -> float:
    return float(x.max()) if x.size else UNDEFINED


def lowest(x: Array) -> float:
    return float(x.min()) if x.size else UNDEFINED


def quantile(x: Array, share: float) -> float:
    return float(np.quantile(x, share)) if x.size else UNDEFINED


def ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator != 0 else UNDEFINED


def centred(x: Array) -> Array:
    """Deviations from the mean, exactly 0 where x is constant."""
    if not x.size:
        return x
    moved = x - x[0]  # the mean of equal numbers is otherwise off by an ulp
    return moved - moved.mean()


def sum_of_squares(x: Array) -> float:
    return float(np.sum(centred(x) ** 2))


def std(x: Array) -> float:
    return float(np.sqrt(sum_of_squares(x) / (x.size - 1))) if x.size > 1 else UNDEFINED


def corr(x: Array, y: Array) -> float:
    scale = np.sqrt(sum_of_squares(x)) * np.sqrt(sum_of_squares(y))
    return ratio(float(np.sum(centred(x) * centred(y))), float(scale))


def slope(x: Array, y: Array) -> float:
    """The least squares slope of y on x."""
    return ratio(float(np.sum(centred(x) * centred(y))), sum_of_squares(x))


def eta2(x: Array, labels: NDArray) -> float:
    """The share of the variance of x that lies between the groups, adjusted for their number."""
    groups, group = np.unique(labels, return_inverse=True)
    total, spare = sum_of_squares(x), x.size - groups.size
    if spare <= 0 or total == 0:
        return UNDEFINED
    means = np.bincount(group, weights=x) / np.bincount(group)
    within = float(np.sum((x - means[group]) ** 2))  # SST - SSB without the cancellation
    return 1 - within / total * (x.size - 1) / spare


def bucket(x: Array, lower_edges: list[float]) -> Labels:
    return np.searchsorted(np.array(lower_edges, dtype=np.float64), x, side="right")


def relative(log_weights: Array) -> Array:
    """Weights relative to the largest."""
    return np.exp(log_weights - log_weights.max()) if log_weights.size else log_weights


def kish(log_weights: Array) -> float:
    """Effective sample size as a share: (sum w)² / (n sum w²)."""
    w = relative(log_weights)
    return ratio(float(np.sum(w) ** 2), float(w.size * np.sum(w**2)))


def one_percent(n: int) -> int:
    return -(-n // 100)  # whole numbers: 0.01 * 700 is above 7 in floating point


def hill(x: Array) -> float:
    """Hill's tail exponent from the largest percent of x."""
    k = one_percent(x.size)
    if x.size <= k:
        return UNDEFINED
    ordered = np.sort(x)[::-1]
    return ratio(k, float(np.sum(ordered[:k] - ordered[k])))


def top_share(x: Array) -> float:
    """The share of the sum of x that its largest percent holds."""
    return ratio(float(np.sum(np.sort(x)[::-1][: one_percent(x.size)])), float(np.sum(x)))


def clustered_se(influence: Array, cluster: Labels) -> float:
    """The standard error of a mean whose tokens deviate by `influence`."""
    sums = np.bincount(cluster, weights=influence)
    if sums.size < 2:
        return UNDEFINED
    return float(np.sqrt(sums.size / (sums.size - 1) * np.sum(sums**2)) / influence.size)


def corr_influence(x: Array, y: Array) -> Array:
    zx, zy = (centred(v) / np.sqrt(np.mean(centred(v) ** 2)) for v in (x, y))
    return zx * zy - corr(x, y) / 2 * (zx**2 + zy**2)


def ess_influence(d: Array) -> Array:
    r = relative(d)
    m1, m2 = np.mean(r), np.mean(r**2)
    return kish(d) * (2 * (r - m1) / m1 - (r**2 - m2) / m2)


# Per token


def safe(x: Array) -> Array:
    return np.clip(x, -SAFE, SAFE)


def k3(d: Array) -> Array:
    return np.expm1(d) - d


def js(d: Array) -> Array:
    r = np.exp(d)
    return 0.5 * (r * d - (1 + r) * np.log1p(np.expm1(d) / 2))  # (1+r)/2 = 1 + (r-1)/2


def reverse_k3(d: Array) -> Array:
    """r ln r - r + 1; r ln r is 0 where r is."""
    r = np.exp(d)
    return np.where(r > 0, r * d, 0.0) - np.expm1(d)


def js_nemo(q: Array, p: Array) -> Array:
    m = np.logaddexp(p, q) - np.log(2)
    return 0.5 * (k3(p - m) + k3(q - m))


def total_variation(d: Array) -> Array:
    return -np.expm1(np.minimum(d, 0))


def outside(x: Array, low: float, high: float) -> NDArray[np.bool_]:
    return (x < low) | (x > high)


# What the step's update did to the sampler


@quiet
def step_gain(tokens: pl.DataFrame) -> Metrics:
    """The advantage-weighted change of the engine's log-prob, with its clustered error."""
    known = pl.col("advantage").is_not_null() & pl.col("logp_next_rollout").is_not_null()
    scored = tokens.filter(pl.col("is_trained") & known)
    a, q, after = (floats(scored, c) for c in ("advantage", "logp_rollout", "logp_next_rollout"))
    cluster = numbered(zip(scored["uid"].to_list(), strict=True))
    sizes = np.bincount(cluster)
    effective = ratio(float(sizes.sum() ** 2), float(np.sum(sizes**2)))
    product = a * (after - q)
    se = clustered_se(product - product.mean(), cluster)
    t = stats.t.ppf(0.975, effective - 1) if effective > 4.999 else UNDEFINED
    return defined(
        {
            "tokens": len(a),
            "clusters_effective": effective,
            "gain": mean(product),
            "gain_se": se,
            "gain_margin": t * se,
            "gain_positive": float(product[a > 0].sum() / len(a)),
            "gain_negative": float(product[a < 0].sum() / len(a)),
            "moved": mean(np.abs(after - q)),
        }
    )


# The catalogue of one step


@quiet
def step_metrics(tokens: pl.DataFrame, sequences: pl.DataFrame) -> Metrics:
    """Every metric of one step; a step without trained tokens has none."""
    step = load(tokens, sequences)
    parts: list[Callable[[Step], Values]] = [
        divergences,
        weights,
        log_differences,
        probability_differences,
        agreement,
        perplexities,
        shares,
        sequence_ratios,
        tails,
        drift,
        relations,
        standard_errors,
    ]
    values = {name: x for part in parts for name, x in part(step).items()}
    return defined(values if step.d.size else dict.fromkeys(values, UNDEFINED))


def divergences(step: Step) -> Values:
    d, r = step.d, np.exp(step.d)
    w = relative(d)
    return {
        "kl_k1": mean(-d),
        "kl_k1_seqmean": mean(-step.g),
        "kl_k2": mean(d**2 / 2),
        "kl_k3": mean(k3(d)),
        "kl_k3_clip20": mean(k3(safe(d))),
        "kl_k3_clip20_10": mean(np.clip(k3(safe(d)), -10, 10)),
        "kl_rev_is": mean(r * d),
        "kl_rev_is_k3": mean(reverse_k3(d)),
        "kl_rev_snis": ratio(float(np.sum(w * d)), float(np.sum(w))),
        "kl_rev_naive_k3": mean(k3(-d)),
        "js": mean(js(d)),
        "js_nemo": mean(js_nemo(step.q, step.p)),
        "tv": mean(total_variation(d)),
        "hellinger2": mean(-np.expm1(d / 2)),
        "chi2_token": mean(np.expm1(2 * safe(d))),
        "chi2_seq": mean(np.expm1(2 * safe(step.s))),
        "chi2_seq_geo": mean(np.expm1(2 * safe(step.g))),
    }


def weights(step: Step) -> Values:
    d, r, ln2 = step.d, np.exp(step.d), np.log(2)
    return {
        "ratio_mean": mean(r),
        "ratio_std": std(r),
        "ratio_min": lowest(r),
        "ratio_max": highest(r),
        "ess_token": kish(d),
        "ess_token_tis_2": kish(np.minimum(d, ln2)),
        "ess_token_clip_2": kish(np.clip(d, -ln2, ln2)),
        "ess_seq": kish(step.s),
        "ess_seq_geo": kish(step.g),
        "ess_within_seq_mean": mean(
            np.array([kish(d[step.row == i]) for i in range(len(step.row_ids))])
        ),
    }


def log_differences(step: Step) -> Values:
    d, size = step.d, np.abs(step.d)
    signed = {"p01": 0.01, "p02": 0.02, "p50": 0.5, "p98": 0.98, "p99": 0.99}
    absolute = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
    return {
        "logp_diff_mean": mean(d),
        "logp_diff_std": std(d),
        **{f"logp_diff_{name}": quantile(d, share) for name, share in signed.items()},
        "abs_logp_diff_mean": mean(size),
        "abs_logp_diff_seqmean": mean(step.row_mean(size)),
        "abs_logp_diff_std": std(size),
        **{f"abs_logp_diff_{name}": quantile(size, share) for name, share in absolute.items()},
        "abs_logp_diff_max": highest(size),
    }


def probability_differences(step: Step) -> Values:
    difference = np.exp(step.p) - np.exp(step.q)
    factor = np.exp(np.abs(step.d))
    return {
        "prob_diff_mean": mean(difference),
        "prob_diff_seqmean": mean(step.row_mean(difference)),
        "abs_prob_diff_mean": mean(np.abs(difference)),
        "abs_prob_diff_std": std(np.abs(difference)),
        "abs_prob_diff_max": highest(np.abs(difference)),
        "mult_prob_error": mean(factor),
        "mult_prob_error_seq_max": highest(step.row_mean(factor)),
        "mult_prob_error_seq_mean": mean(step.row_mean(factor)),
        "mult_prob_error_seq_min": lowest(step.row_mean(factor)),
    }


def agreement(step: Step) -> Values:
    return {
        "pearson_prob": corr(np.exp(step.p), np.exp(step.q)),
        "pearson_logp": corr(step.p, step.q),
        "spearman": corr(rankdata(step.p), rankdata(step.q)),
    }


def perplexities(step: Step) -> Values:
    rollout, train, g = -step.row_mean(step.q), -step.row_mean(step.p), step.g
    return {
        "rollout_ppl": mean(np.exp(rollout)),
        "train_ppl": mean(np.exp(train)),
        "rollout_log_ppl": mean(rollout),
        "train_log_ppl": mean(train),
        "log_ppl_abs_diff": mean(np.abs(g)),
        "log_ppl_diff_max": highest(-g),
        "log_ppl_diff_min": lowest(-g),
        "ppl_ratio": mean(np.exp(-g)),
    }


def shares(step: Step) -> Values:
    d, r = step.d, np.exp(step.d)
    values: Values = {}
    for c in (2, 3, 5, 10):
        values[f"frac_low_{c}"] = mean(d < -np.log(c))
        values[f"frac_high_{c}"] = mean(d > np.log(c))
        values[f"frac_outside_{c}"] = mean(np.abs(d) > np.log(c))
    a, known = step.advantage, ~np.isnan(step.advantage)
    phantom = ((a > 0) & (r > 1.2)) | ((a < 0) & (r < 0.8))
    return values | {
        "phantom_clip_frac": mean(phantom[known]),
        "frac_catastrophic_token": mean(r < 1e-4),
        "frac_catastrophic_seq": mean(step.row_sum(r < 1e-4) > 0),
        "frac_saturated_token": mean(np.abs(d) >= SAFE),
        "frac_saturated_seq": mean(np.abs(step.s) >= SAFE),
    }


def sequence_ratios(step: Step) -> Values:
    s, geo = step.s, np.exp(step.g)
    return {
        "seq_logratio_mean": mean(s),
        "seq_logratio_std": std(s),
        "seq_logratio_min": lowest(s),
        "seq_logratio_max": highest(s),
        "seq_logratio_p02": quantile(s, 0.02),
        "seq_logratio_p50": quantile(s, 0.5),
        "seq_logratio_p98": quantile(s, 0.98),
        "seq_geo_ratio_mean": mean(geo),
        "seq_geo_ratio_std": std(geo),
        "seq_geo_ratio_min": lowest(geo),
        "seq_geo_ratio_max": highest(geo),
        "frac_seq_geo_outside_0_999_1_001": mean(outside(geo, 0.999, 1.001)),
        "frac_seq_geo_outside_0_99_1_01": mean(outside(geo, 0.99, 1.01)),
        "frac_seq_geo_outside_0_5_2": mean(outside(geo, 0.5, 2)),
        "len_kl": mean(step.n) * mean(-step.d),
        "group_seq_logratio_std_mean": group_spread(step),
    }


def group_spread(step: Step) -> float:
    """The mean over prompt groups of the spread of their sequences' log ratios."""
    groups: dict[str, list[float]] = {}
    for uid, s in zip(step.row_uid, step.s, strict=True):
        if uid is not None:
            groups.setdefault(uid, []).append(float(s))
    return mean(np.array([std(np.array(s)) for s in groups.values() if len(s) > 1]))


def tails(step: Step) -> Values:
    d = step.d
    return {
        "hill_k": one_percent(d.size),
        "hill_alpha_up": hill(d),
        "hill_alpha_down": hill(-d),
        "top1pct_ratio_mass": top_share(relative(d)),
        "top1pct_abs_logp_mass": top_share(np.abs(d)),
    }


def is_decided_by_few(step: Step) -> bool:
    tail = tails(step)
    few = 10 * ratio(tail["hill_k"], step.d.size)
    by_ratio = tail["top1pct_ratio_mass"] >= max(0.2, few)
    return by_ratio or tail["top1pct_abs_logp_mass"] >= max(0.5, few)


def drift(step: Step) -> Values:
    d, size = step.d, np.abs(step.d)
    return {
        "pos_slope_abs": slope(step.pos, size),
        "pos_slope_signed": slope(step.pos, d),
        "pos_corr_abs": corr(step.pos, size),
        "adj_r2_position": eta2(d, bucket(step.pos, POSITION_EDGES)),
        "corr_abs_rollout_logp": corr(size, step.q),
        "adj_r2_rollout_prob": eta2(d, bucket(np.exp(step.q), PROBABILITY_EDGES)),
        "adj_r2_seq": eta2(d, step.row),
        "adj_r2_token_id": eta2(d, step.token_id),
    }


def relations(step: Step) -> Values:
    """What the gap has to do with entropy, advantage and reward, where those are known."""
    d, size = step.d, np.abs(step.d)
    has_entropy, has_advantage = ~np.isnan(step.entropy), ~np.isnan(step.advantage)
    has_reward = ~np.isnan(step.reward)
    entropy = step.entropy[has_entropy]
    return {
        "entropy_mean": mean(entropy),
        "kl_entropy_ratio": ratio(mean(k3(d[has_entropy])), mean(entropy)),
        "corr_abs_entropy": corr(size[has_entropy], entropy),
        "corr_abs_absadv": corr(size[has_advantage], np.abs(step.advantage[has_advantage])),
        "corr_seq_k1_reward": corr(-step.g[has_reward], step.reward[has_reward]),
    }


def standard_errors(step: Step) -> Values:
    d, q, p = step.d, step.q, step.p
    means = {
        "kl_k1": -d,
        "kl_k3": k3(d),
        "abs_logp_diff_mean": np.abs(d),
        "frac_outside_5": (np.abs(d) > np.log(5)).astype(np.float64),
        "ratio_mean": np.exp(d),
        "tv": total_variation(d),
        "abs_prob_diff_mean": np.abs(np.exp(p) - np.exp(q)),
    }
    influences = {name: centred(x) for name, x in means.items()} | {
        "ess_token": ess_influence(d) if d.size else d,
        "pearson_logp": corr_influence(p, q) if d.size else d,
        "pearson_prob": corr_influence(np.exp(p), np.exp(q)) if d.size else d,
    }
    tokens = np.bincount(step.cluster)
    effective = ratio(float(tokens.sum()) ** 2, float((tokens**2).sum()))
    enough = effective > 5 - 1e-3  # of 5 equal ones
    t = float(stats.t.ppf(0.975, effective - 1)) if enough else UNDEFINED
    return {
        "clusters": len(tokens),
        "clusters_effective": effective,
        "interval_t": t,
        "interval_t_of_r": UNDEFINED if is_decided_by_few(step) else t,
        **{f"{name}_se": clustered_se(x, step.cluster) for name, x in influences.items()},
    }


@quiet
def gap(d: Array, q: Array, p: Array) -> Metrics:
    """The block of numbers that the tables give of every slice of tokens."""
    size = np.abs(d)
    return defined(
        {
            "tokens": d.size,
            "kl_k1": mean(-d),
            "kl_k3": mean(k3(d)),
            "abs_logp_diff_p50": quantile(size, 0.5),
            "abs_logp_diff_p99": quantile(size, 0.99),
            "abs_logp_diff_max": highest(size),
            "abs_prob_diff_mean": mean(np.abs(np.exp(p) - np.exp(q))),
            "ratio_mean": mean(np.exp(d)),
            "ess_token": kish(d),
            "tv": mean(total_variation(d)),
            "frac_outside_5": mean(size > np.log(5)),
        }
    )


# verl


@dataclass(frozen=True)
class Batch:
    """A step as verl sees it: empty rows are rows too, and every sum over one is 0."""

    step: Step
    row: Labels  # of every token, among all rows
    n: Array

    def row_sum(self, values: Array) -> Array:
        return np.bincount(self.row, weights=values, minlength=len(self.n))

    def row_mean(self, values: Array) -> Array:
        # verl divides by n + 1e-8: left out, but 0 / (0 + 1e-8) is why an empty row has 0
        return self.row_sum(values) / np.maximum(self.n, 1)


def batch_of(step: Step, sequences: pl.DataFrame) -> Batch:
    place = {row: i for i, row in enumerate(sequences["row"].to_list())}
    places = np.array([place[row] for row in step.row_ids.tolist()], dtype=np.int64)
    row = places[step.row]
    return Batch(step, row, np.bincount(row, minlength=len(place)).astype(np.float64))


@quiet
def verl(
    tokens: pl.DataFrame, sequences: pl.DataFrame, threshold: float = 2.0
) -> dict[tuple[str, str], tuple[float | None, float | None]]:
    """What verl logs, by setting and name: (v0.9, up to v0.7.1)."""
    batch = batch_of(load(tokens, sequences), sequences)
    plain = offpolicy(batch) | probabilities(batch.step)
    generations = {"": (plain, plain)} | {
        level: tuple(is_weights(batch, level, threshold, first) for first in (False, True))
        for level in ("token", "sequence")
    }
    result = {}
    for setting, values in generations.items():
        # verl refuses a batch without a valid token
        now, then = (defined(v if batch.row.size else dict.fromkeys(v, UNDEFINED)) for v in values)
        result |= {(setting, name): (now[name], then[name]) for name in now}
    return result


def offpolicy(batch: Batch) -> Values:
    d = batch.step.d
    train, rollout = -batch.row_mean(batch.step.p), -batch.row_mean(batch.step.q)
    difference = -batch.row_mean(d)
    values = {
        "kl": mean(-d),
        "k3_kl": mean(k3(d)),
        "training_ppl": mean(np.exp(train)),
        "training_log_ppl": mean(train),
        "rollout_ppl": mean(np.exp(rollout)),
        "rollout_log_ppl": mean(rollout),
        "log_ppl_diff": mean(difference),
        "log_ppl_abs_diff": mean(np.abs(difference)),
        "log_ppl_diff_max": highest(difference),
        "log_ppl_diff_min": lowest(difference),
        "ppl_ratio": mean(np.exp(difference)),
        "chi2_token": mean(np.expm1(2 * safe(d))),
        "chi2_seq": mean(np.expm1(2 * safe(batch.row_sum(d)))),
    }
    return {f"rollout_corr/{name}": value for name, value in values.items()}


def probabilities(step: Step) -> Values:
    rollout, train = np.exp(step.q), np.exp(step.p)
    difference = np.abs(train - rollout)
    return {
        "training/rollout_probs_diff_max": highest(difference),
        "training/rollout_probs_diff_mean": mean(difference),
        "training/rollout_probs_diff_std": std(difference),
        "training/rollout_actor_probs_pearson_corr": corr(train, rollout),
    }


def is_weights(batch: Batch, level: str, threshold: float, first: bool) -> Values:
    """The metrics of importance weights; `first` is the first generation of the code."""
    d = batch.step.d
    s = batch.row_sum(d)
    raw = np.exp(safe(d if level == "token" else s[batch.row]))
    applied = raw if first else np.minimum(raw, threshold)
    bounded = np.clip(applied, 1 / threshold if first else 0, threshold)
    per_level = token_level if level == "token" else sequence_level
    values = {
        "mean": mean(applied),
        **per_level(s, raw, applied, threshold),
        # sqrt(E w² - (E w)²) without its cancellation; verl's 0 for a single token comes out of it
        "std": np.sqrt(mean(centred(bounded) ** 2)),
        # here the 1e-8 stays: the weights themselves may be as small
        "eff_sample_size": ratio(1, mean((bounded / (mean(bounded) + 1e-8)) ** 2)),
        **row_weights(batch.row_mean(applied), batch.row_mean(raw), threshold),
    }
    return {f"rollout_corr/rollout_is_{name}": value for name, value in values.items()}


def token_level(s: Array, raw: Array, applied: Array, threshold: float) -> Values:
    return {
        "max": highest(applied),
        "min": lowest(applied),
        "ratio_fraction_high": mean(raw > threshold),
        "ratio_fraction_low": mean(raw < 1 / threshold),
    }


def sequence_level(s: Array, raw: Array, applied: Array, threshold: float) -> Values:
    # of the log ratios of all rows in both generations: an empty row counts with 0
    return {
        "max": np.exp(min(highest(s), SAFE)),
        "min": np.exp(lowest(s)),
        "ratio_fraction_high": mean(s > np.log(threshold)),
        "ratio_fraction_low": mean(s < -np.log(threshold)),
    }


def row_weights(applied: Array, raw: Array, threshold: float) -> Values:
    # an empty row has the mean weight 0: it is the lowest, deviates by 1 and counts as low
    return {
        "seq_mean": mean(applied),
        "seq_std": std(applied) if applied.size > 1 else 0.0,  # as verl
        "seq_max": highest(applied),
        "seq_min": lowest(applied),
        "seq_max_deviation": highest(np.abs(applied - 1)),
        "seq_fraction_high": mean(raw > threshold),
        "seq_fraction_low": mean(raw < 1 / threshold),
    }


# Other frameworks


@quiet
def nemo_rl(tokens: pl.DataFrame, sequences: pl.DataFrame) -> Metrics:
    """What NeMo-RL logs without a correction; rows without trained tokens are no sequences."""
    step = load(tokens, sequences)
    d, factor = step.d, np.exp(np.abs(step.d))
    per_sequence = step.row_mean(factor)
    return defined(
        {
            "token_mult_prob_error": mean(factor),
            "gen_kl_error": mean(k3(d)),
            "policy_kl_error": mean(k3(-d)),
            "js_divergence_error": mean(js_nemo(step.q, step.p)),
            "sampling_importance_ratio": mean(np.nan_to_num(np.exp(d), posinf=0)),
            "max_seq_mult_prob_error": highest(per_sequence),
            "mean_seq_mult_prob_error": mean(per_sequence),
            "min_seq_mult_prob_error": lowest(per_sequence),
        }
    )


@quiet
def slime(tokens: pl.DataFrame, sequences: pl.DataFrame) -> Metrics:
    """What slime logs: a mean per rollout, 0 for one without trained tokens, then over all.

    Rows with the same `rollout_id` are one rollout; a row's own number counts with its tokens.
    """
    step = load(tokens, sequences)
    known = sequences["rollout_id"].to_list() if "rollout_id" in sequences.columns else []
    labels = known or [None] * len(sequences)
    rows = sequences["row"].to_list()
    names = {
        row: ("row", row) if own is None else own for row, own in zip(rows, labels, strict=True)
    }
    rollouts = {name: i for i, name in enumerate(dict.fromkeys(names.values()))}
    unit = np.array([rollouts[names[row]] for row in step.row_ids.tolist()], dtype=np.int64)
    size = np.maximum(1, np.bincount(unit, weights=step.n, minlength=len(rollouts)))

    def logged(values: Array) -> float:
        sums = np.bincount(unit, weights=values * step.n, minlength=len(rollouts))
        return float(np.sum(sums / size) / len(rollouts))

    d, r = step.d, np.exp(step.d)
    train, rollout, difference = -step.row_mean(step.p), -step.row_mean(step.q), -step.g
    # logged before it is clamped to [0, 2], as the copies of slime that were seen do
    clamped = np.clip(r, 0, 2)
    per_sample = {
        "mis_training_ppl": np.exp(train),
        "mis_training_log_ppl": train,
        "mis_rollout_ppl": np.exp(rollout),
        "mis_rollout_log_ppl": rollout,
        "mis_kl": step.row_mean(-d),
        "mis_k3_kl": step.row_mean(k3(d)),
        "mis_log_ppl_diff": difference,
        "mis_log_ppl_abs_diff": np.abs(difference),
        "mis_ppl_ratio": np.exp(difference),
        "mis_chi2_token": step.row_mean(np.expm1(2 * safe(d))),
        "mis_chi2_seq": np.expm1(2 * safe(step.s)),
        "train_rollout_logprob_abs_diff": step.row_mean(np.abs(d)),
        "tis": step.row_mean(r),
        "tis_clipfrac": step.row_mean(clamped != r),
        "tis_abs": step.row_mean(np.abs(r - 1)),
    }
    return defined({name: logged(values) for name, values in per_sample.items()})
