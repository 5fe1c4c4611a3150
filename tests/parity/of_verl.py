"""verl's rollout_corr_helper (0.9.1) in NumPy: rejection sampling, IcePop, batch normalising."""

import numpy as np

from tests.parity.batches import Array, Mask, Named, Padded, prefixed

TINY = 1e-8
REJECTIONS = {
    "token_k1": ["0.5_2.0", "0.5_5.0"],
    "token_k2": ["1.5", "3.0"],
    "token_k3": ["0.5", "2.0"],
    "seq_sum_k1": ["0.5_2.0"],
    "seq_sum_k2": ["5.0"],
    "seq_sum_k3": ["5.0"],
    "seq_mean_k1": ["0.999_1.001"],
    "seq_mean_k2": ["0.1"],
    "seq_mean_k3": ["0.01"],
    "seq_max_k2": ["2.5"],
    "seq_max_k3": ["2.5"],
}
MASKED = {"token": (0.5, 5.0), "sequence": (0.5, 2.0)}


def masked_mean(x: Array, mask: Mask, axis: int | None = None) -> Array:
    """verl's, with its 1e-8."""
    mean: Array = (x * mask).sum(axis=axis) / (mask.sum(axis=axis) + TINY)
    return mean


def metrics(batch: Padded) -> Named:
    """Every option and threshold of the table."""
    found: Named = {}
    for option, thresholds in REJECTIONS.items():
        for threshold in thresholds:
            values = rejection(batch, option, threshold)
            found |= prefixed("rollout_corr/", f"{option}_{threshold}", values)
    for level, (low, high) in MASKED.items():
        values = weighting(batch, level, low, high)
        found |= prefixed("rollout_corr/", f"{level}_{low}_{high}", values)
        factor = {"rollout_is_batch_norm_factor": norm_factor(batch, level)}
        found |= prefixed("rollout_corr/", f"{level}_normalised", factor)
    return found


def rejection(batch: Padded, option: str, threshold: str) -> dict[str, float]:
    """compute_rollout_rejection_mask with one option."""
    mask, safe = batch.mask, np.clip(batch.d, -20, 20)
    kind, is_k1 = option[-2:], option.endswith("k1")
    token = {"k1": -safe, "k2": 0.5 * safe**2, "k3": np.exp(safe) - 1 - safe}[kind]
    if is_k1:
        low, high = (float(np.log(float(bound))) for bound in threshold.split("_"))
    else:
        low, high = 0.0, float(threshold)
    if option.startswith("token"):
        statistic, by_row = token, masked_mean(token, mask, axis=1)
    else:
        by_row = of_sequence(option, token, mask)
        statistic = np.broadcast_to(by_row[:, None], mask.shape)
    keep = (statistic <= high) & ((statistic >= low) | (not is_k1))
    valid = mask.sum(axis=1) > 0
    rejected = (~keep & mask).any(axis=1)
    is_row = not option.startswith("token")
    named = {
        **statistics(statistic, by_row[valid], mask, low, high, is_row, is_k1),
        "masked_fraction": masked_mean(1.0 - keep, mask),
        "seq_masked_fraction": rejected[valid].mean(),
    }
    return {
        **{f"rollout_rs_{option}_{name}": float(value) for name, value in named.items()},
        "rollout_rs_masked_fraction": float(masked_mean(1.0 - keep, mask)),
        "rollout_rs_seq_masked_fraction": float(rejected.mean()),
    }


def of_sequence(option: str, token: Array, mask: Mask) -> Array:
    if "_max_" in option:
        largest = np.where(mask, token, -np.inf).max(axis=1)
        return np.where(np.isinf(largest), 0.0, largest)
    if "_sum_" in option:
        return np.asarray((token * mask).sum(axis=1))
    return masked_mean(token, mask, axis=1)


def statistics(
    x: Array, rows: Array, mask: Mask, low: float, high: float, is_row: bool, is_k1: bool
) -> dict[str, float]:
    """compute_rs_metrics."""
    tokens = rows if is_row else x[mask]
    held = np.clip(x, low, high)[mask]
    found = {
        "mean": float(masked_mean(x, mask)),
        "max": tokens.max(),
        "min": tokens.min(),
        "fraction_high": (tokens > high).mean(),
        "fraction_low": (tokens < low).mean() if is_k1 else 0.0,
        "std": held.std(),
        "seq_mean": rows.mean(),
        "seq_std": rows.std(ddof=1),
        "seq_max": rows.max(),
        "seq_min": rows.min(),
        "seq_max_deviation": np.abs(rows).max(),
        "seq_fraction_high": (rows > high).mean(),
    }
    return found | ({"seq_fraction_low": (rows < low).mean()} if is_k1 else {})


def raw_weights(batch: Padded, level: str) -> tuple[Array, Array]:
    """Weights before they are bounded, zero off the mask, and the log ratios they are made of."""
    logs = batch.d if level == "token" else (batch.d * batch.mask).sum(axis=1, keepdims=True)
    return np.exp(np.clip(logs, -20, 20)) * batch.mask, logs


def weighting(batch: Padded, level: str, low: float, high: float) -> dict[str, float | None]:
    """compute_rollout_correction_weights with two bounds."""
    mask = batch.mask
    raw, logs = raw_weights(batch, level)
    applied = np.where((raw >= low) & (raw <= high), raw, 0.0)
    row, raw_row = masked_mean(applied, mask, axis=1), masked_mean(raw, mask, axis=1)
    if level == "token":
        extremes = applied[mask].max(), applied[mask].min()
        shares = (raw[mask] > high).mean(), (raw[mask] < low).mean()
    else:
        extremes = np.exp(min(logs.max(), 20.0)), np.exp(logs.min())
        shares = (logs > np.log(high)).mean(), (logs < np.log(low)).mean()
    mean = masked_mean(applied, mask)
    squares = float(masked_mean((applied / (mean + TINY)) ** 2, mask))
    named = {
        "mean": mean,
        "max": extremes[0],
        "min": extremes[1],
        "ratio_fraction_high": shares[0],
        "ratio_fraction_low": shares[1],
        "std": applied[mask].std(),
        # verl divides by zero where every weight is 0
        "eff_sample_size": 1 / squares if squares else None,
        "seq_mean": row.mean(),
        "seq_std": row.std(ddof=1),
        "seq_max": row.max(),
        "seq_min": row.min(),
        "seq_max_deviation": np.abs(row - 1).max(),
        "seq_fraction_high": (raw_row > high).mean(),
        "seq_fraction_low": (raw_row < low).mean(),
        "oob_ratio": ((raw < low) | (raw > high))[mask].mean(),
    }
    return {f"rollout_is_{name}": value for name, value in named.items()}


def norm_factor(batch: Padded, level: str) -> float:
    """Of weights truncated at 2."""
    weights = np.minimum(raw_weights(batch, level)[0], 2.0)
    if level == "token":
        mean = float(masked_mean(weights, batch.mask))
    else:
        rows = masked_mean(weights, batch.mask, axis=1)
        valid = batch.mask.any(axis=1)
        mean = float((rows * valid).sum() / valid.sum())
    return mean if mean > 1e-8 else 1.0
