"""What frameworks without a line to paste multiply each token's policy gradient by, in NumPy.

Read in SkyRL 0.4.0, ms-swift 4.6.0, OpenRLHF 0.11.2, TRL 1.16.0 and prime-rl (559b447) of
2026-08-21. Options are named as each framework names them; an unknown one is an error.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.tables.oracles.framework_rows import (
    EXP32_INF,
    Array,
    Rows,
    Step,
    binary_kl,
    clip20,
    exp32,
    known,
    one_of,
)

SKYRL_DEFAULTS: dict[str, Any] = {
    "policy_loss_type": "regular",
    "dppo_type": "binary_tv",
    "delta_low": 0.2,
    "delta_high": 0.2,
    "tis_ratio_type": None,
    "token_tis_ratio_clip_high": 2.0,
    "sequence_tis_ratio_clip_high": 5.0,
    "sequence_mask_metric": None,
    "geo_mask_high": 1.01,
    "geo_mask_low": 0.99,
    "product_mask_high": 2.0,
    "product_mask_low": 0.5,
    "outlier_token_is_threshold_low": None,
    "outlier_token_is_threshold_high": None,
    "token_mask_is_threshold_low": None,
    "token_mask_is_threshold_high": None,
}
TRL_DEFAULTS: dict[str, Any] = {
    "use_vllm": True,  # False in GRPOConfig, and nothing here acts without it
    "vllm_importance_sampling_correction": True,
    "vllm_importance_sampling_mode": "sequence_mask",
    "vllm_importance_sampling_clip_max": 3.0,
    "vllm_importance_sampling_clip_min": None,
    "vllm_importance_sampling_cap": None,
    "off_policy_mask_threshold": None,
    "loss_type": "dapo",
    "epsilon": 0.2,
    "epsilon_high": None,
    "vespo_k_pos": 2.0,
    "vespo_lambda_pos": 3.0,
    "vespo_k_neg": 3.0,
    "vespo_lambda_neg": 2.0,
}


def skyrl(options: Mapping[str, Any], rows: Rows) -> list[Array]:
    """SkyRL 0.4.0, `off_policy_correction_utils.py`, `compute_off_policy_correction`.

    Outliers, then tokens, then rows: a row's sum or mean is over the tokens left, and clipped.
    """
    cfg, step = known(options, SKYRL_DEFAULTS), Step(rows)
    ratio, keep = np.exp(clip20(step.d)), step.one
    low, high = (cfg[f"outlier_token_is_threshold_{x}"] for x in ("low", "high"))
    keep = keep if low is None else keep * (step.row(np.min, ratio) >= low)
    keep = keep if high is None else keep * (step.row(np.max, ratio) <= high)
    low, high = (cfg[f"token_mask_is_threshold_{x}"] for x in ("low", "high"))
    if low is not None and high is not None:
        keep = keep * ((ratio >= low) & (ratio <= high))
    total, left = step.row(np.sum, step.d * keep), np.maximum(step.row(np.sum, keep), 1)
    tis = one_of(cfg["tis_ratio_type"], None, "token", "sequence")
    unit = ratio if tis == "token" else np.exp(clip20(total))
    weight = step.one if tis is None else np.minimum(unit, cfg[f"{tis}_tis_ratio_clip_high"])
    metric = one_of(cfg["sequence_mask_metric"], None, "product", "geometric")
    if metric is not None:
        gate = np.exp(clip20(total / left if metric == "geometric" else total))
        name = {"geometric": "geo", "product": "product"}[metric]
        low, high = cfg[f"{name}_mask_low"], cfg[f"{name}_mask_high"]
        keep = keep * ((gate >= low) & (gate <= high))
    loss = one_of(cfg["policy_loss_type"], "regular", "dual_clip", "dppo")
    return step.split(keep * weight * (skyrl_dppo(cfg, step) if loss == "dppo" else 1.0))


def skyrl_dppo(cfg: Mapping[str, Any], step: Step) -> Array:
    """SkyRL's `ppo_utils.py`, `dppo_policy_loss`: A = 0 keeps all, and there is no cap.

    The gradient runs through the clipped ratio: there is none beyond 20 nats.
    """
    move = np.exp(step.p) - np.exp(step.q)
    tv = one_of(cfg["dppo_type"], "binary_tv", "binary_kl") == "binary_tv"
    size = np.abs(move) if tv else binary_kl(step.q, step.p)
    drop = (step.a > 0) & (move > 0) & (size > cfg["delta_high"])
    drop |= (step.a < 0) & (move < 0) & (size > cfg["delta_low"])
    return np.where(drop | (np.abs(step.d) > 20), 0.0, np.exp(clip20(step.d)))


def ms_swift(mode: str | None, threshold: float, rows: Rows) -> list[Array]:
    """ms-swift 4.6.0, `grpo_trainer.py`, `_apply_rollout_importance_sampling`.

    A row's ratio is the geometric mean of its tokens, each clipped at 20; sequence_mask keeps or
    drops by it, but weighs each token with its own ratio.
    """
    modes = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
    step = Step(rows)
    if one_of(mode, None, *modes) is None:
        return step.split(step.one)
    ratio = np.exp(clip20(step.d))
    gate = ratio if mode in modes[:2] else np.exp(step.row(np.mean, clip20(step.d)))
    truncates = mode in modes[::2]
    return step.split(np.minimum(gate, threshold) if truncates else ratio * (gate <= threshold))


def prime_rl_dppo(rows: Rows, low: float = 0.2, high: float = 0.2) -> list[Array]:
    """prime-rl, `trainer/rl/loss.py`, `default_loss_fn`: A = 0 takes the lower side; no cap."""
    step = Step(rows)
    move = np.exp(step.p) - np.exp(step.q)
    drop = np.where(step.a > 0, move > high, move < -low)
    return step.split(np.where(drop, 0.0, exp32(step.d)))


def trl_weights(mode: str, low: float | None, high: float | None, step: Step) -> Array:
    """`_generate_and_score_completions`: a row's sum is not clipped: 0 or infinite in float32."""
    one_of(mode, "token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
    if mode.endswith("truncate") and low is None and high is None:
        raise ValueError("a *_truncate mode needs clip_min or clip_max")
    least, most = -np.inf if low is None else low, np.inf if high is None else high
    w = exp32(step.d if mode.startswith("token") else step.row(np.sum, step.d))
    if mode.endswith("truncate"):
        return np.clip(w, least, most)
    return np.where((w < least) | (w > most), 0.0, w)


def vespo_logs(mode: str, low: float | None, high: float | None, step: Step) -> Array:
    """The logs of bounded ratios that VESPO adds up: log 1e-8 where a token is masked."""
    one_of(mode, "token_truncate", "token_mask")
    if not (low or 0.0) <= 1 <= (np.inf if high is None else high):
        raise ValueError("padding counts where 1 is outside the bounds; not restated here")
    return np.clip(np.log(np.maximum(trl_weights(mode, low, high, step), 1e-8)), None, 20.0)


def vespo_phi(logs: Array, shape: Mapping[str, float], step: Step) -> Array:
    """`get_gamma_weights`: phi(w) = w^k e^(lambda (1 - w)), w a row's product, A >= 0 alike."""
    log_w = np.clip(step.row(np.sum, logs), np.log(1e-8), 20.0)
    k, rate = (
        np.where(step.a >= 0, shape[f"vespo_{x}_pos"], shape[f"vespo_{x}_neg"])
        for x in ("k", "lambda")
    )
    rate = np.maximum(rate, 1e-4)
    return np.exp(rate + k * log_w - rate * np.exp(log_w))


def vespo_trl(
    rows: Rows,
    mode: str = "old_is_rollout",
    clip_min: float | None = None,
    clip_max: float | None = 3.0,
    **shape: float,
) -> list[Array]:
    """TRL's VESPO, `get_gamma_weights`, with vespo_{k,lambda}_{pos,neg} as keywords.

    Mode token_truncate or token_mask: as TRL runs before the first update, w from bounded ratios.
    "old_is_rollout": the what-if in which new / old is the ratio; each token clipped at 20.
    """
    defaults = {key: value for key, value in TRL_DEFAULTS.items() if key.startswith("vespo_")}
    step = Step(rows)
    what_if = mode == "old_is_rollout"
    logs = clip20(step.d) if what_if else vespo_logs(mode, clip_min, clip_max, step)
    return step.split(vespo_phi(logs, known(shape, defaults), step))


def sapo_trl(rows: Rows, tau_pos: float = 1.0, tau_neg: float = 1.05) -> list[Array]:
    """TRL's SAPO if old were rollout: r times the slope of 4/tau s(tau (r - 1)), 4 s (1 - s) r.

    Nothing is clipped; before the first update TRL's own r is 1, and so the slope. A = 0: tau_neg.
    """
    step = Step(rows)
    ratio = np.exp(np.minimum(step.d, EXP32_INF))
    tail = np.exp(-np.abs(np.where(step.a > 0, tau_pos, tau_neg) * (ratio - 1)))
    return step.split(4 * tail / (1 + tail) ** 2 * ratio)


def openrlhf(options: Mapping[str, Any], rows: Rows) -> list[Array]:
    """OpenRLHF 0.11.2, `models/loss.py`, `PolicyLoss.forward`: is_correction_* without the prefix.

    The gate reads a token's ratio or divergence, or its mean over the row (of the ratio the
    geometric mean); what it keeps is weighted with the token's own ratio, which nothing clips.
    """
    defaults = {"level": "off", "mode": "mask", "gating": "ratio", "threshold": (0.5, 5.0)}
    cfg, step = known(options, defaults), Step(rows)
    level, ratio = one_of(cfg["level"], "off", "token", "seq"), cfg["gating"] == "ratio"
    low, high = (0.0, *cfg["threshold"])[-2:]
    if one_of(cfg["mode"], "mask", "clip") == "clip" and (level == "seq" or not ratio):
        raise ValueError("clip requires level token and gating ratio")
    if not ratio and level != "off" and low > 0:
        raise ValueError("a divergence takes an upper bound only")
    stat = _openrlhf_stat(cfg["gating"], step)
    if level == "off":
        return step.split(step.one)
    if cfg["mode"] == "clip":
        return step.split(np.clip(exp32(stat), low, high))
    stat = step.row(np.mean, stat) if level == "seq" else stat
    stat = exp32(stat) if ratio else stat
    return step.split(np.where((stat >= low) & (stat <= high), exp32(step.d), 0.0))


def _openrlhf_stat(gating: str, step: Step) -> Array:
    if one_of(gating, "ratio", "binary_kl", "tv") == "ratio":
        return step.d
    q, p = (np.clip(np.exp(x), 1e-6, 1 - 1e-6) for x in (step.q, step.p))
    if gating == "tv":
        return np.abs(p - q)
    return q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
