"""Invariants between a step's metrics. A violation is a bug in timtrack, so the step fails."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Metrics = Mapping[str, Any]


class BrokenIdentity(Exception):
    """Two numbers of a step contradict each other."""


def check(metrics: Metrics) -> None:
    """Raise BrokenIdentity with every identity that `step_metrics` breaks."""
    finite = {k: v for k, v in metrics.items() if not isinstance(v, float) or math.isfinite(v)}
    broken = [text for text, holds in IDENTITIES.items() if not _holds(holds, finite)]
    if broken:
        where = f"{metrics['run']} step {metrics['step']}"
        raise BrokenIdentity(f"{where}: {len(broken)} identities do not hold, first: {broken[0]}")


def _holds(identity: Callable[[Metrics], bool], metrics: Metrics) -> bool:
    """True also where one of the numbers is undefined."""
    try:
        return identity(metrics)
    except (KeyError, TypeError):  # it overflowed, or is NULL
        return True


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def _within(low: float, value: float, high: float) -> bool:
    return low - 1e-9 <= value <= high + 1e-9


def _adds_up(bound: int) -> Callable[[Metrics], bool]:
    low, high, outside = (f"frac_{side}_{bound}" for side in ("low", "high", "outside"))
    return lambda m: _equal(m[outside], m[low] + m[high])


IDENTITIES: dict[str, Callable[[Metrics], bool]] = {
    **{f"frac_outside_{c} = frac_low_{c} + frac_high_{c}": _adds_up(c) for c in (2, 3, 5, 10)},
    "0 <= tv <= 1": lambda m: _within(0, m["tv"], 1),
    "0 <= kl_k3": lambda m: m["kl_k3"] >= 0,
    "1 / N <= ess_token <= 1": lambda m: _within(1 / m["trained_tokens"], m["ess_token"], 1),
    "ess_token (1 + mean(r^2) - 1) = ratio_mean^2, where nothing is clipped": lambda m: (
        m["abs_logp_diff_max"] > 20
        or _equal(m["ess_token"] * (1 + m["chi2_token"]), m["ratio_mean"] ** 2)
    ),
    "kl_k3 = ratio_mean - 1 + kl_k1": lambda m: _equal(
        m["kl_k3"], m["ratio_mean"] - 1 + m["kl_k1"]
    ),
    "|kl_k1| <= abs_logp_diff_mean <= abs_logp_diff_max": lambda m: (
        abs(m["kl_k1"]) <= m["abs_logp_diff_mean"] * (1 + 1e-9)
        and m["abs_logp_diff_mean"] <= m["abs_logp_diff_max"] * (1 + 1e-9)
    ),
    "quantiles of |ln r| are in order": lambda m: (
        m["abs_logp_diff_p50"]
        <= m["abs_logp_diff_p90"]
        <= m["abs_logp_diff_p99"]
        <= m["abs_logp_diff_p99_9"]
        <= m["abs_logp_diff_max"]
    ),
    "hellinger2 <= tv": lambda m: m["hellinger2"] <= m["tv"] + 1e-9,
    "-1 <= correlations <= 1": lambda m: all(
        _within(-1, m[name], 1) for name in ("pearson_logp", "pearson_prob", "spearman")
    ),
}
