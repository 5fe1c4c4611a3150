"""slime's and miles' train_infer_mismatch_helper in NumPy, sample by sample, and their reducer."""

from collections.abc import Callable, Iterator

import numpy as np

from tests.parity.batches import Array, Mask, Named, Padded, prefixed


def reducer(batch: Padded) -> Callable[[list[Array]], float]:
    """get_sum_of_sample_mean with rollout_mask_sums, over step_global_batch_size."""
    sums = np.bincount(batch.rollout, weights=batch.n)
    denominators = np.maximum(sums[batch.rollout], 1)

    def reduced(values: list[Array]) -> float:
        pairs = zip(values, batch.mask, denominators, strict=True)
        total = sum(float((x * mask).sum() / denominator) for x, mask, denominator in pairs)
        return total / len(sums)

    return reduced


def slime(batch: Padded) -> Named:
    """compute_mis_weights with every level and mode, and the rejection of every level."""
    found: Named = {}
    for level in ("token", "sequence", "geometric"):
        low, high = (0.9999, 1.0001) if level == "geometric" else (0.5, 2.0)
        for mode in ("truncate", "clip", "mask"):
            found |= slime_weights(batch, level, mode, low, high)
        found |= prefixed("mis_rs_", f"rs_{level}", slime_rejection(batch, level, low, high))
    return found


def log_ratios(batch: Padded, level: str) -> Iterator[Array]:
    """One sample after another, the number of a sample on each of its tokens."""
    for d, mask in zip(batch.d, batch.mask, strict=True):
        total = (d * mask).sum()
        if level == "token":
            yield d
        else:
            value = total if level == "sequence" else total / max(mask.sum(), 1)
            yield np.full_like(d, value)


def slime_weights(batch: Padded, level: str, mode: str, low: float, high: float) -> Named:
    logged: dict[str, list[Array]] = {}
    weights = []
    for log_ratio, mask in zip(log_ratios(batch, level), batch.mask, strict=True):
        w = np.exp(np.clip(log_ratio, -20, 20))
        note(logged, "tis_weight_before_bound", w)
        if mode == "truncate":
            note(logged, "tis_truncate_fraction", w > high)
        else:
            note(logged, f"tis_{mode}_fraction_low", w < low)
            note(logged, f"tis_{mode}_fraction_high", w > high)
        bounds = {"truncate": (0.0, high), "clip": (low, high), "mask": (-np.inf, np.inf)}[mode]
        w = np.clip(w, *bounds) * mask
        note(logged, "tis_weight_after_bound", w)
        note(logged, "is_ratio_mean_after_tis_rs", w)
        weights.append(w)
    mean, setting = reducer(batch), f"{level}_{mode}"
    finals = final_weights(weights, batch)
    values = {name: mean(parts) for name, parts in (logged | finals).items()}
    found = prefixed("mis_", setting, values)
    if level != "geometric":
        found |= prefixed("mis_", f"{setting}_normalised", normalised(weights, batch, level))
    return found


def note(logged: dict[str, list[Array]], name: str, value: Array | Mask) -> None:
    logged.setdefault(name, []).append(value.astype(np.float64))


def final_weights(weights: list[Array], batch: Padded) -> dict[str, list[Array]]:
    pairs = list(zip(weights, batch.mask, strict=True))
    kinds: dict[str, Callable[[Array], float]] = {"min": np.min, "max": np.max}
    found = {
        f"is_ratio_{name}_final": [
            np.full_like(w, of(w[mask]) if mask.any() else 0.0) for w, mask in pairs
        ]
        for name, of in kinds.items()
    }
    means = [np.full_like(w, (w * mask).sum() / max(mask.sum(), 1)) for w, mask in pairs]
    return found | {"is_ratio_mean_final": means}


def normalised(weights: list[Array], batch: Padded, level: str) -> dict[str, float]:
    pairs = list(zip(weights, batch.mask, strict=True))
    if level == "token":
        mean = sum((w * mask).sum() for w, mask in pairs) / batch.mask.sum()
    else:
        mean = np.mean([(w * mask).sum() / max(mask.sum(), 1) for w, mask in pairs])
    factor = mean if mean > 1e-8 else 1.0
    finals = final_weights([w / factor for w in weights], batch)
    factors = [np.full_like(w, factor) for w in weights]
    reduced = reducer(batch)
    return {name: reduced(v) for name, v in (finals | {"batch_norm_factor": factors}).items()}


def slime_rejection(batch: Padded, level: str, low: float, high: float) -> dict[str, float]:
    logged: dict[str, list[Array]] = {}
    for log_ratio, d, mask in zip(log_ratios(batch, level), batch.d, batch.mask, strict=True):
        w = np.exp(np.clip(log_ratio, -20, 20))
        note(logged, "mask_fraction_low", w < low)
        note(logged, "mask_fraction_high", w > high)
        catastrophic = (d < np.log(1e-4)) & mask
        note(logged, "catastrophic_token_fraction", catastrophic)
        note(logged, "catastrophic_seq_fraction", np.full_like(mask, catastrophic.any()))
    mean = reducer(batch)
    return {name: mean(values) for name, values in logged.items()}


def miles(batch: Padded) -> Named:
    """slime's, and compute_approx_kl with low_var_kl."""
    safe = np.clip(batch.d, -20, 20)
    kl = np.clip(np.exp(safe) - 1 - safe, -10, 10)
    return slime(batch) | {("none", "train_rollout_kl"): reducer(batch)(list(kl))}
