"""ROLL's compute_train_infer_correction in NumPy."""

import numpy as np

from tests.parity.batches import Array, Mask, Named, Padded, prefixed


def roll(batch: Padded) -> Named:
    """compute_train_infer_correction."""
    mask = batch.mask
    change = np.exp(batch.p) - np.exp(batch.q)
    total, size = (batch.d * mask).sum(axis=1), mask.sum(axis=1) + 1e-8
    shape = np.ones_like(batch.d)
    ratios = {
        "token": np.exp(batch.d),
        "geometric": shape * np.exp(total / size)[:, None],
        "sequence": shape * np.exp(total)[:, None],
        "segment": np.exp(segment_means(batch.d, mask)),
    }
    summed = (change * mask).sum(axis=1)
    differences = {
        "token": change,
        "geometric": shape * (summed / size)[:, None],
        "sequence": shape * summed[:, None],
        "segment": segment_means(change, mask),
    }
    found = prefixed(
        "actor/train_infer_",
        "none",
        {f"ratio_{kind}_mean": mean_of_rows(x, mask) for kind, x in ratios.items()}
        | {f"diff_{kind}_mean": mean_of_rows(x, mask) for kind, x in differences.items()},
    )
    # The sum runs over padding too: both log-probs are 0 there, the ratio 1.
    clipped = (np.where(mask, ratios["token"], 1.0) > 1.2).sum() / max(mask.sum(), 1)
    return found | {("is_weight_token", "actor/is_weight_clipfrac"): float(clipped)}


def mean_of_rows(x: Array, mask: Mask) -> float:
    """agg_loss seq-mean-token-mean: of rows that have a token."""
    valid = mask.any(axis=1)
    rows = (x * mask).sum(axis=1) / (mask.sum(axis=1) + 1e-8)
    return float(rows[valid].sum() / (valid.sum() + 1e-8))


def segment_means(x: Array, mask: Mask) -> Array:
    """Each run of the mask has its own mean."""
    found = np.zeros_like(x)
    for row, kept in enumerate(mask):
        edges = np.diff(kept.astype(int), prepend=0, append=0)
        for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            found[row, start:end] = x[row, start:end].sum() / (end - start + 1e-8)
    return found
