"""AReaL, open-instruct, the Tinker cookbook and the MiMo dashboard in NumPy: over packed tokens."""

import numpy as np

from tests.parity.batches import Array, Mask, Named, Padded, prefixed


def areal(batch: Padded) -> Named:
    """apply_rejection_sampling on a packed batch, and the stats of it; the R3 metrics."""
    d = batch.d[batch.mask]
    lengths = batch.mask.sum(axis=1)
    starts = np.repeat(np.arange(len(lengths)), lengths)
    values = {
        "rollout_train_k3_kl": np.expm1(d) - d,
        "rollout_train_logp_abs_diff": np.abs(d),
        "rollout_train_logp_sq_diff": d**2,
        "rollout_train_extreme_frac_tau2": (np.abs(d) > np.log(2)).astype(float),
        "rollout_train_extreme_frac_tau5": (np.abs(d) > np.log(5)).astype(float),
    }
    found = {("none", "compute_logp/r3/n_valid_tokens"): float(len(d))}
    for name, x in values.items():
        found |= prefixed(f"compute_logp/r3/{name}/", "none", stats(x))
    means = np.bincount(starts, weights=d, minlength=len(lengths)) / np.maximum(lengths, 1)
    for level, weight in {"token": np.exp(d), "sequence": np.exp(means)[starts]}.items():
        for action in ("mask", "clamp"):
            found |= prefixed("ppo_actor/update/", f"{level}_{action}", rejected(d, weight, action))
    return found


def stats(x: Array) -> dict[str, float]:
    """stats_tracker's, of the tokens under the denominator."""
    return {"avg": x.mean(), "max": x.max(), "min": x.min()}


def rejected(d: Array, weight: Array, action: str, upper: float = 5.0) -> dict[str, float]:
    within = weight <= upper
    kept = within if action == "mask" else np.full_like(within, True)
    applied = np.where(kept, weight if action == "mask" else np.clip(weight, 0, upper), 0.0)
    behave = (applied > 0) & kept
    return {
        **{f"behave_imp_weight/{name}": x for name, x in stats(applied[behave]).items()},
        **{f"behave_approx_kl/{name}": x for name, x in stats(d[behave]).items()},
        "behave_filtered_ratio/avg": (~behave).mean(),
        "rs_filtered_fraction": (~within).mean(),
    }


def open_instruct(batch: Padded) -> Named:
    """compute_vllm_local_debug_metrics and compute_rho_correction."""
    difference = np.abs(batch.d)[batch.mask]
    q, d = batch.q[batch.mask], batch.d[batch.mask]
    found = prefixed(
        "debug/",
        "none",
        {
            "vllm_vs_local_logprob_diff_mean": difference.mean(),
            "vllm_vs_local_logprob_diff_max": difference.max(),
            "vllm_vs_local_logprob_diff_std": difference.std(ddof=1),
            "vllm_local_reverse_kl": (np.exp(q) * -d).mean(),
        },
    )
    for setting in ("clamp", "mask", "mask_sequence_level", "mask_tv_divergence"):
        found |= prefixed("val/", setting, rho(batch, setting))
    return found


def rho(batch: Padded, setting: str) -> dict[str, float]:
    """The mask's bounds are 0.5 and 2.0, of TV the upper one alone; the clamp is 2.0."""
    mask = batch.mask
    log_rho = np.where(mask, np.clip(batch.d, -10, 10), 0.0)
    ratio = np.exp(log_rho)
    by_row = setting == "mask_sequence_level"
    effective = np.exp(sequence_mean(log_rho, mask)) if by_row else ratio
    low, high = np.zeros_like(mask), np.zeros_like(mask)
    if setting == "mask_tv_divergence":
        high = (sequence_mean(np.abs(ratio - 1), mask) > 2) & mask
        high &= np.sign(log_rho) * batch.advantage > 0
    elif setting != "clamp":
        low, high = (effective < 0.5) & mask, (effective > 2) & mask
    clamped = np.minimum(effective, 2.0)
    logged = {
        "rho_drop_frac": low | high,
        "rho_drop_low_frac": low,
        "rho_drop_high_frac": high,
        "rho_weight": np.where(mask & ~low & ~high, clamped, 0.0),
        "rho_clipfrac": clamped != effective,
    }
    return {name: float((x * mask).sum() / mask.sum()) for name, x in logged.items()}


def sequence_mean(x: Array, mask: Mask) -> Array:
    mean = (x * mask).sum(axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.broadcast_to(mean, x.shape)


def tinker(batch: Padded) -> Named:
    """compute_kl_sample_train, datum by datum."""
    rows = zip(batch.q, batch.p, batch.mask, strict=True)
    pairs = [(q[mask] - p[mask], q[mask]) for q, p, mask in rows if mask.any()]
    differences, sampled = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    values = {
        "kl_sample_train_v1": differences.mean(),
        "kl_sample_train_v2": 0.5 * (differences**2).mean(),
        "entropy": -sampled.mean(),
    }
    return prefixed("optim/", "none", values)


def mimo(batch: Padded) -> Named:
    """By what its tags say."""
    d, q, p = (x[batch.mask] for x in (batch.d, batch.q, batch.p))
    beyond = {f"F(tau={tau})": (np.abs(d) > np.log(tau)).mean() for tau in (1.5, 2, 3, 5, 10)}
    size = {
        "diff_abs_mean": np.abs(d).mean(),
        "diff_abs_std": np.abs(d).std(ddof=1),
        "diff_abs_max": np.abs(d).max(),
    }
    losses = {"log_probs": -p.mean(), "rollout_log_probs": -q.mean()}
    kl = {"kl": losses["log_probs"] - losses["rollout_log_probs"]}
    return prefixed("train_infer_diff/new_infer/", "none", kl | size | beyond) | prefixed(
        "train_infer_diff/nll_loss/", "none", losses
    )
