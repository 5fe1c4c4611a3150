"""Random captures for the numbers of frameworks, and the padded batch that a framework would hold.

Rows without a token, without a trained one, of several turns and of one rollout; gaps beyond 20
nats on both sides; advantages of both signs and 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tests.given import random_tokens, sequence_frame

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Named = dict[tuple[str, str], float | None]  # by setting and name; None where undefined


@dataclass(frozen=True)
class Padded:
    """`[B, T]`, right-padded with zeros, as float64 of what the capture holds; `[B]` by row."""

    q: Array  # log-probs of the rollout engine
    p: Array  # of the trainer
    mask: Mask
    advantage: Array
    reward: Array
    rollout: NDArray[np.int64]  # samples of one rollout have the same number

    @property
    def d(self) -> Array:
        return self.p - self.q

    @property
    def n(self) -> Array:
        return self.mask.sum(axis=1).astype(np.float64)


def capture(seed: int, gap: float, rows: int = 30) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tokens and sequences of one step."""
    rng = np.random.default_rng(seed)
    tokens = random_tokens(seed, rows=rows, gap=gap)
    trained = pl.col("is_trained") & (pl.col("row") % 5 > 0)
    far = pl.Series(rng.choice([0.0, -25.0, 28.0], size=len(tokens), p=[0.98, 0.01, 0.01]))
    low = pl.Series(-29.0 - rng.random(len(tokens)))
    advantage = pl.Series(rng.integers(-1, 2, len(tokens)), dtype=pl.Float32)
    tokens = tokens.with_columns(is_trained=trained, advantage=advantage).with_columns(
        logp_rollout=pl.when(far > 0).then(low).otherwise("logp_rollout").cast(pl.Float32),
        logp_train=pl.when(far > 0)
        .then(low + far)
        .when(far < 0)
        .then(pl.col("logp_rollout") + far)
        .otherwise("logp_train")
        .cast(pl.Float32),
        entropy=pl.Series(rng.exponential(1.0, len(tokens)), dtype=pl.Float32),
    )
    made = sequence_frame(tokens)
    empty = made.head(1).with_columns(
        row=pl.lit(rows, pl.Int32),
        **{name: pl.lit(0, pl.Int32) for name in ("response_tokens", "trained_tokens", "turns")},
    )
    sequences = pl.concat([made, empty])
    rewards = pl.Series(rng.integers(0, 2, len(sequences)).astype(float))
    ids = pl.Series([int(r) // 3 if r % 2 else None for r in sequences["row"]], dtype=pl.Int64)
    return tokens, sequences.with_columns(reward=rewards, rollout_id=ids)


def padded(tokens: pl.DataFrame, sequences: pl.DataFrame) -> Padded:
    """The capture as a padded batch."""
    rows = sequences["row"].to_list()
    shape = (len(rows), int(sequences["response_tokens"].max()))  # type: ignore[arg-type]
    place = (
        np.array([rows.index(row) for row in tokens["row"].to_list()]),
        tokens["pos"].to_numpy(),
    )

    def filled(name: str) -> Array:
        values = np.zeros(shape)
        values[place] = tokens[name].cast(pl.Float64).fill_null(0).to_numpy()
        return values

    ids = sequences["rollout_id"].to_list()
    known = zip(rows, ids, strict=True)
    labels = [("row", row) if own is None else ("id", own) for row, own in known]
    order = list(dict.fromkeys(labels))
    return Padded(
        q=filled("logp_rollout"),
        p=filled("logp_train"),
        mask=filled("is_trained") > 0,
        advantage=filled("advantage"),
        reward=sequences["reward"].to_numpy(),
        rollout=np.array([order.index(label) for label in labels]),
    )


def mean_of(x: Array, mask: Mask) -> float:
    return float((x * mask).sum() / max(mask.sum(), 1))


def row_mean(x: Array, mask: Mask) -> Array:
    """The mask's sum is at least 1: a row without a token has 0."""
    mean: Array = (x * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
    return mean


def prefixed(prefix: str, setting: str, values: Mapping[str, float | None]) -> Named:
    """Values under one setting, by their full names."""
    return {
        (setting, f"{prefix}{name}"): None if value is None else float(value)
        for name, value in values.items()
    }
