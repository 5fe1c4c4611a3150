"""prime-rl's losses in NumPy, sample by sample, and the mismatch of a packed batch."""

import numpy as np

from tests.parity.batches import Array, Mask, Named, Padded, prefixed


def safe_mean(x: Array | Mask, mask: Mask) -> float:
    """prime-rl's: 0 over nothing."""
    return float(x[mask].sum() / max(int(mask.sum()), 1))


def prime_rl(batch: Padded, entropy: Array) -> Named:
    """The losses' metrics of every sample, and the mismatch of all tokens."""
    k3 = (np.exp(batch.d) - batch.d - 1)[batch.mask]
    found = prefixed(
        "mismatch_kl/all/", "none", {"mean": k3.mean(), "std": k3.std(ddof=1), "max": k3.max()}
    )
    found[("none", "kl_ent_ratio/mean")] = float(k3.mean() / entropy[batch.mask].mean())
    for loss in ("ipo", "dppo", "ref_kl"):
        samples = [prime_rl_sample(batch, row, loss) for row in range(len(batch.mask))]
        for name in samples[0]:
            values = np.array([sample[name] for sample in samples])
            full = f"ref_kl/{name}" if loss == "ref_kl" else name
            found |= prefixed(f"{full}/", loss, {"mean": values.mean(), "max": values.max()})
    return found


def prime_rl_sample(batch: Padded, row: int, loss: str) -> dict[str, float]:
    p, q, a, mask = batch.p[row], batch.q[row], batch.advantage[row], batch.mask[row]
    mismatch_kl = np.exp(p - q) - (p - q) - 1
    change = np.exp(p) - np.exp(q)
    if loss == "ipo":
        is_masked = np.abs(change) > 0.1
    elif loss == "dppo":
        is_masked = np.where(a > 0, change > 0.2, change < -0.2)
    else:
        is_masked = change < -0.2
    drop, keep = mask & is_masked, mask & ~is_masked
    found = {
        "is_masked": safe_mean(is_masked, mask),
        "masked_mismatch_kl": safe_mean(mismatch_kl, drop),
        "unmasked_mismatch_kl": safe_mean(mismatch_kl, keep),
    }
    if loss != "dppo":
        return found
    return found | {
        "is_masked_low": safe_mean((a < 0) & (change < -0.2), mask),
        "is_masked_high": safe_mean((a > 0) & (change > 0.2), mask),
        "masked_advantage_positive": safe_mean(a > 0, drop),
        "masked_advantage_negative": safe_mean(a < 0, drop),
    }
