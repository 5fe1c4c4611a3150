"""Tokens of known faults, and what tables say of them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from tests.given import random_tokens, sequence_frame, sql_connection, token_frame
from timtrack.tasks.verdicts.assessment import Assessment, assess
from timtrack.tasks.verdicts.bands import OURS


def described(seed: int, gap: float, rows: int = 30) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Random tokens with entropies, advantages of both signs and rewards, and their sequences."""
    rng = np.random.default_rng(seed)
    tokens = random_tokens(seed, rows=rows, gap=gap)
    tokens = tokens.with_columns(
        entropy=pl.Series(rng.exponential(1.0, len(tokens)), dtype=pl.Float32),
        advantage=pl.Series(rng.integers(-1, 2, len(tokens)), dtype=pl.Float32),
    )
    sequences = sequence_frame(tokens)
    return tokens, sequences.with_columns(reward=pl.Series(rng.random(len(sequences)).round(1)))


def one_row(tokens: pl.DataFrame, sequences: pl.DataFrame | None = None) -> dict[str, Any]:
    with sql_connection(tokens, sequences) as connection:
        return connection.sql("from step_metrics").pl().row(0, named=True)


VOCABULARY = 60


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def engines(
    temperature: float = 1.0,
    noise: float = 0.05,
    shift: int = 0,
    probabilities: bool = False,
    top_p: float = 1.0,
    rows: int = 40,
    length: int = 50,
) -> pl.DataFrame:
    """Rollouts of a random model, scored again by one that differs in the way that is asked for."""
    rng = np.random.default_rng(0)
    bias = rng.normal(size=VOCABULARY) * 1.5
    tokens = []
    for row in range(rows):
        logits = rng.normal(size=(length, VOCABULARY)) * 3 + bias
        rollout = log_softmax(logits)
        ids = np.array([rng.choice(VOCABULARY, p=np.exp(scores)) for scores in rollout])
        other = (logits + noise * rng.normal(size=logits.shape)) / temperature
        q, p = (scores[np.arange(length), ids] for scores in (rollout, log_softmax(other)))
        if top_p < 1:  # renormalised over what is kept
            q = q - np.log(top_p + (1 - top_p) * rng.random(length))
        p = np.roll(np.exp(p) if probabilities else p, shift)
        tokens += [
            {
                "row": row,
                "uid": f"u{row // 4}",
                "pos": pos,
                "token_id": int(ids[pos]),
                "logp_rollout": float(min(0, q[pos])),
                "logp_train": float(p[pos]),
            }
            for pos in range(length)
        ]
    return token_frame(tokens)


def clean(seed: int, tokens: int, repeating: bool = True, gap: float = 0.02) -> pl.DataFrame:
    """A capture without a fault: ids as in text, or hardly any twice; most tokens are sure."""
    rng = np.random.default_rng([seed, tokens])
    rows = 8
    length = tokens // rows
    shape = (rows, length)
    words = rng.zipf(1.3, shape) % 400
    ids = words if repeating else rng.integers(0, 100_000, shape)
    surprise = -np.log1p(-rng.random(400)) * (rng.random(400) < 0.4)  # some words are uncertain
    sure = rng.random(shape) < 0.6
    rollout = -np.where(sure, 1e-3, 0.05 + surprise[ids % 400] + rng.exponential(0.5, shape))
    train = np.minimum(-1e-6, rollout - gap * np.abs(rng.normal(size=shape)))
    return frame_of(ids, rollout, train)


def frame_of(ids: np.ndarray, rollout: np.ndarray, train: np.ndarray) -> pl.DataFrame:
    rows, length = ids.shape
    return token_frame(
        [
            {
                **{"row": r, "uid": f"u{r // 4}", "pos": t, "token_id": int(ids[r, t])},
                **{"logp_rollout": float(rollout[r, t]), "logp_train": float(train[r, t])},
            }
            for r in range(rows)
            for t in range(length)
        ]
    )


def codec(seed: int, views: bool = True, shift: tuple[str, int] | None = None) -> pl.DataFrame:
    """A lossy codec at short responses: 87 % of the tokens are sure, the trainer is nats off."""
    rng = np.random.default_rng(seed)
    shape = (40, 14)
    ids = rng.zipf(1.4, shape) % 30
    rollout = -np.where(rng.random(shape) < 0.87, 2e-3, rng.exponential(1.5, shape))
    dense = rollout + 1e-3 * rng.normal(size=shape)
    by_token = -4 - 2 * rng.random(30)  # the trainer scores tokens hardly by their context
    train = by_token[ids] + 0.7 * rng.normal(size=shape)
    if shift:
        column = {"rollout": rollout, "train": train}[shift[0]]
        column[:] = np.roll(column, shift[1], axis=1)
    tokens = frame_of(ids, rollout, train)
    if views:
        column = pl.Series(np.minimum(dense, 0).ravel(), dtype=pl.Float32)
        tokens = tokens.with_columns(logp_dense=column, logp_rescored=column)
    return tokens


TABLES = (
    *("alignment", "confident_contradictions", "context_blindness", "culprits", "noise_floor"),
    *("step_metrics", "tail", "corrections", "lag_scan", "sampling", "row_match"),
)


def judged(tokens: pl.DataFrame, also: Iterable[str] = ()) -> Assessment:
    with sql_connection(tokens) as connection:
        computed = {name: connection.sql(f"from {name}").pl() for name in (*TABLES, *also)}
    return assess({"meta": {}}, computed, OURS)
