"""Random captures without a fault, and which causes are named: `python -m tests.zoo.random_clean`.

Softmax models of 60 to 1,000 ids, sure or unsure of them; two engines that differ by noise on the
logits: normal, with heavy tails, or in proportion to a logit's size, as rounding to few bits is.
"""

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import polars as pl

from tests.given import sequence_frame, sql_connection, token_frame
from tests.given_tables import log_softmax

NOISES = ("normal", "heavy", "scaled")
LARGEST = 0.08  # nats of a logit: as far off as bfloat16 is


def noisy(rng: np.random.Generator, logits: np.ndarray, kind: str, size: float) -> np.ndarray:
    """The logits as an engine of that noise has them."""
    drawn = rng.normal(size=logits.shape)
    if kind == "heavy":
        drawn = drawn * np.exp(0.7 * rng.normal(size=logits.shape)) / 1.3
    if kind == "scaled":
        drawn = drawn * np.abs(logits) / np.abs(logits).mean()
    return logits + size * drawn


def accused(seed: int) -> tuple[str, ...]:
    """The causes that are named for the capture of a seed."""
    rng = np.random.default_rng([seed, 7])
    groups, group = int(rng.integers(1, 17)), int(rng.choice([1, 2, 4, 8]))
    rows, ids = groups * group, int(rng.integers(60, 1001))
    longest = int(rng.integers(8, 121))
    kind, size = str(rng.choice(NOISES)), float(np.exp(rng.uniform(np.log(1e-5), np.log(LARGEST))))
    sharp = rng.uniform(1, 4)
    lengths = rng.integers(max(2, longest // 3), longest + 1, rows)
    by_id = rng.normal(size=ids) * rng.uniform(0, 2)
    drawn = []
    for row in range(rows):
        logits = sharp * rng.normal(size=(lengths[row], ids)) + by_id
        rollout = log_softmax(noisy(rng, logits, kind, size))
        chosen = (rollout + rng.gumbel(size=rollout.shape)).argmax(-1)
        train = log_softmax(logits)
        for pos, token in enumerate(chosen.tolist()):
            drawn.append(
                {
                    **{"row": row, "uid": f"u{row // group}", "pos": pos, "token_id": token},
                    "logp_rollout": float(rollout[pos, token]),
                    "logp_train": float(train[pos, token]),
                    "advantage": float(rng.normal()),
                }
            )
    tokens = token_frame(drawn)
    prompts = rng.integers(4, 200, groups)
    sequences = sequence_frame(tokens)
    sequences = sequences.with_columns(
        prompt_tokens=pl.Series([int(prompts[row // group]) for row in sequences["row"]]).cast(
            pl.Int32
        )
    )
    with sql_connection(tokens, sequences) as connection:
        return tuple(connection.sql("select cause from causes order by rank").pl()["cause"])


def main() -> None:
    """Try many, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captures", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.captures)
    with ProcessPoolExecutor(given.workers) as pool:
        named = dict(zip(seeds, pool.map(accused, seeds, chunksize=4), strict=True))
    wrong = {seed: causes for seed, causes in named.items() if causes}
    print(
        f"{len(wrong)} of {len(named)} accused: {Counter(c for cs in wrong.values() for c in cs)}"
    )
    print("\n".join(f"seed {seed}: {', '.join(causes)}" for seed, causes in wrong.items()))


if __name__ == "__main__":
    main()
