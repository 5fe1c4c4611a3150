"""ms-swift 4.6's GRPOTrainer in NumPy."""

import numpy as np

from tests.parity.batches import Named, Padded, mean_of, prefixed, row_mean


def ms_swift(batch: Padded) -> Named:
    """_compute_rollout_offpolicy_metrics and _compute_is_correction_metrics."""
    mask = batch.mask
    log_ratio = batch.d * mask
    safe = np.clip(log_ratio, -20, 20)
    train, rollout = row_mean(batch.p, mask), row_mean(batch.q, mask)
    difference = rollout - train
    geometric = np.exp(np.clip(row_mean(log_ratio, mask), -20, 20))
    always = {
        "training_ppl": np.exp(-train).mean(),
        "training_log_ppl": (-train).mean(),
        "rollout_ppl": np.exp(-rollout).mean(),
        "rollout_log_ppl": (-rollout).mean(),
        "kl": mean_of(-log_ratio, mask),
        "k3_kl": mean_of(np.clip(np.exp(safe) - safe - 1, -10, 10), mask),
        "log_ppl_diff": difference.mean(),
        "log_ppl_abs_diff": np.abs(difference).mean(),
        "log_ppl_diff_max": difference.max(),
        "log_ppl_diff_min": difference.min(),
        "ppl_ratio": np.exp(difference).mean(),
        "chi2_token": mean_of(np.exp(safe) ** 2, mask) - 1,
        "chi2_seq": (geometric**2).mean() - 1,
    }
    found = prefixed("rollout_correction/", "none", always)
    for mode in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"):
        found |= prefixed("rollout_correction/", mode, ms_swift_weights(batch, mode))
    return found


def ms_swift_weights(batch: Padded, mode: str, threshold: float = 2.0) -> dict[str, float]:
    mask = batch.mask
    ratio = np.exp(np.clip(batch.d, -20, 20))
    rows = np.exp(row_mean(np.log(np.maximum(ratio, 1e-10)), mask))[:, None]
    weights = {
        "token_truncate": np.minimum(ratio, threshold),
        "token_mask": np.where(ratio <= threshold, ratio, 0.0),
        "sequence_truncate": np.broadcast_to(np.minimum(rows, threshold), mask.shape),
        "sequence_mask": ratio * (rows <= threshold),
    }[mode]
    held = np.clip(weights, 1 / threshold, threshold)
    normalised = held / (mean_of(held, mask) + 1e-8)
    by_token = ratio > threshold if mode == "token_truncate" else weights == 0
    clipped = mean_of(by_token, mask) if mode.startswith("token") else (rows > threshold).mean()
    return {
        "is_weight_mean": mean_of(weights, mask),
        "ess": 1 / max(mean_of(normalised**2, mask), 1e-10),
        "clipped_frac": clipped,
    }
