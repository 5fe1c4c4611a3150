"""OpenRLHF 0.11.2's PolicyLoss and NeMo RL's ClippedPGLossFn in NumPy."""

import numpy as np

from tests.parity.batches import Array, Mask, Named, Padded, mean_of, row_mean


def openrlhf(batch: Padded) -> Named:
    """PolicyLoss: what its gates filter."""
    mask = batch.mask
    found = {("none", "vllm_kl"): mean_of(-batch.d, mask)}
    q, p = (np.clip(np.exp(x), 1e-6, 1 - 1e-6) for x in (batch.q, batch.p))
    gates = {
        "binary_kl": q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)),
        "tv": np.abs(q - p),
    }
    for gating, delta in (("binary_kl", 0.05), ("tv", 0.1)):
        of_row = undefined_mean(gates[gating], mask)
        found |= {
            (f"token_{gating}_{delta}", "is_filter_ratio"): mean_of(gates[gating] > delta, mask),
            (f"seq_{gating}_{delta}", "is_filter_ratio"): float((~(of_row <= delta)).mean()),
        }
    ratio, of_row = np.exp(batch.d), np.exp(undefined_mean(batch.d, mask))
    outside = mean_of((ratio < 0.5) | (ratio > 5), mask)
    return found | {
        ("token_ratio_0.5_5", "is_filter_ratio"): outside,
        **{
            (f"seq_ratio_{low}_{high:g}", "is_filter_ratio"): float(
                (~((of_row >= low) & (of_row <= high))).mean()
            )
            for low, high in ((0.5, 5.0), (0.999, 1.002))
        },
    }


@np.errstate(invalid="ignore")
def undefined_mean(x: Array, mask: Mask) -> Array:
    """OpenRLHF's: of no token it is NaN, which no bound keeps."""
    mean: Array = (x * mask).sum(axis=1) / mask.sum(axis=1)
    return mean


def nemo_rl(batch: Padded) -> Named:
    """ClippedPGLossFn's corrections and compute_and_apply_seq_logprob_error_masking."""
    mask, valid = batch.mask, batch.mask.any(axis=1)
    infinite = batch.d > np.log(np.finfo(np.float32).max)
    ratio = np.where(infinite, 0.0, np.exp(batch.d))
    geometric = np.exp(row_mean(batch.d, mask))
    kept_rows = (geometric >= 0.999) & (geometric <= 1.002)
    kept = (ratio >= 0.5) & (ratio <= 5)
    total = (batch.d * mask).sum(axis=1)
    product = np.where(total > np.log(np.finfo(np.float32).max), 0.0, np.exp(total))
    named = "sampling_importance_ratio"
    settings = {
        "none": {named: mean_of(ratio, mask)},
        "tis_2": {
            named: mean_of(np.minimum(ratio, 2), mask),
            "is_oob_ratio": mean_of((ratio > 2) | (ratio < 0), mask),
        },
        "icepop_0.5_5": {
            named: mean_of(np.where(kept, ratio, 0), mask),
            "is_oob_ratio": mean_of(~kept, mask),
        },
        "seq-mask-tis_0.999_1.002": {
            named: mean_of(ratio * kept_rows[:, None], mask),
            "is_oob_ratio": (~kept_rows)[valid].mean(),
        },
        "sequence_level": {named: product[valid].mean()},
        "seq_logprob_error_2": sequence_errors(batch),
    }
    return {
        (setting, name): float(value)
        for setting, values in settings.items()
        for name, value in values.items()
    }


def sequence_errors(batch: Padded, threshold: float = 2.0) -> dict[str, float]:
    """Sequences that the threshold leaves, and those that it masks."""
    valid = batch.mask.any(axis=1)
    errors = row_mean(np.exp(np.abs(batch.d) * batch.mask), batch.mask)
    masked = errors > threshold
    kept = errors[valid & ~masked]
    extremes = [f(kept) if kept.size else 0.0 for f in (np.max, np.mean, np.min)]
    names = [f"{kind}_seq_mult_prob_error_after_mask" for kind in ("max", "mean", "min")]
    right = (batch.reward[masked] == 1).mean() if masked.any() else 0.0
    return dict(zip(names, extremes, strict=True)) | {
        "num_masked_seqs": float(masked.sum()),
        "masked_correct_pct": right,
    }
