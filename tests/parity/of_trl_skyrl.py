"""TRL 1.16 and SkyRL 0.4 in NumPy: means over `[B, T]`."""

import numpy as np

from tests.parity.batches import Array, Named, Padded, mean_of, prefixed


def trl(batch: Padded) -> Named:
    """_generate_and_score_completions, with clip_max 3.0."""
    masked = batch.d * batch.mask
    delta = np.abs(batch.d)[batch.mask]
    found = prefixed(
        "sampling/sampling_logp_difference/", "none", {"mean": delta.mean(), "max": delta.max()}
    )
    for level in ("token", "sequence"):
        ratio = np.exp(masked if level == "token" else masked.sum(axis=1, keepdims=True))
        modes = {"truncate": np.minimum(ratio, 3.0), "mask": np.where(ratio > 3.0, 0.0, ratio)}
        for mode, bounded in modes.items():
            flat = bounded[batch.mask] if level == "token" else bounded.ravel()
            found |= prefixed(
                "sampling/importance_sampling_ratio/",
                f"{level}_{mode}",
                {"min": flat.min(), "mean": flat.mean(), "max": flat.max()},
            )
    return found


def skyrl(batch: Padded) -> Named:
    """The trainer's and the workers' differences, compute_off_policy_correction's shares."""
    mask, difference = batch.mask, np.abs(batch.d)
    of_tokens = difference[mask]
    spread = np.sqrt(max(0.0, mean_of(difference**2, mask) - mean_of(difference, mask) ** 2))
    forward = {
        "mean": of_tokens.mean(),
        "std": of_tokens.std(ddof=1),
        "max": of_tokens.max(),
        "min": of_tokens.min(),
    }
    update = {
        "mean": mean_of(difference, mask),
        "std": spread,
        "max": (difference * mask).max(),
        "min": (difference * mask).min(),
    }
    ratio = np.exp(np.clip(batch.d, -20, 20))
    logged = {
        "mean": mean_of(ratio, mask),
        "std": (ratio * mask).std(ddof=1),
        "max": (ratio * mask).max(),
        "min": (ratio * mask).min(),
    }
    return (
        prefixed("policy/rollout_train_logprobs_abs_diff_", "none", forward)
        | prefixed("policy/minibatch_rollout_logprobs_abs_diff_", "none", update)
        | prefixed("policy/loss_metrics/is_ratio_", "any", logged)
        | {
            (setting, f"policy/loss_metrics/{name}"): float(value)
            for setting, values in skyrl_shares(batch, ratio).items()
            for name, value in values.items()
        }
    )


def skyrl_shares(batch: Padded, ratio: Array) -> dict[str, dict[str, float]]:
    """By option, at its default bounds."""
    mask = batch.mask
    total = (batch.d * mask).sum(axis=1)
    product = np.exp(np.clip(total, -20, 20))
    geometric = np.exp(np.clip(total / np.maximum(mask.sum(axis=1), 1), -20, 20))
    high, low = ((ratio > 100) & mask).any(axis=1), ((ratio < 1e-4) & mask).any(axis=1)
    return {
        "token": {"tis_token_clip_high_ratio": ((ratio > 2) & mask).sum() / mask.sum()},
        "sequence": {"tis_seq_clip_high_ratio": (product > 5).mean()},
        "token_mask": {
            "token_mask_ratio": (((ratio < 0.5) | (ratio > 2)) & mask).sum() / mask.sum()
        },
        "outlier_token": {
            "outlier_seq_masked_ratio": (high | low).mean(),
            "outlier_seq_over_high_ratio": high.mean(),
            "outlier_seq_under_low_ratio": low.mean(),
        },
        "geometric": beyond("geo_sequence_mask", geometric, 0.99, 1.01),
        "product": beyond("product_sequence_mask", product, 0.5, 2.0),
    }


def beyond(name: str, ratio: Array, low: float, high: float) -> dict[str, float]:
    return {
        f"{name}_masked_ratio": ((ratio < low) | (ratio > high)).mean(),
        f"{name}_over_high_ratio": (ratio > high).mean(),
        f"{name}_under_low_ratio": (ratio < low).mean(),
    }
