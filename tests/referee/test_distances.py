"""The interval of a mean over tokens of a few prompts."""

import numpy as np
import polars as pl
from pytest import approx

from tests.given import random_tokens, sql_connection
from timtrack.tasks.referee.verdict import interval


def test_it_covers_the_mean_of_prompts_that_differ():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(1500):
        sizes = rng.integers(15, 45, 8)
        clusters = np.repeat(np.arange(8), sizes)
        values = 1 + rng.normal(size=8)[clusters] + rng.normal(size=sizes.sum())
        low, high = interval(values, clusters)
        covered += low <= 1 <= high
    assert 0.93 <= covered / 1500 <= 0.98


def test_few_prompts_have_none():
    clusters = np.repeat(np.arange(6), [400, 1, 1, 1, 1, 1])
    assert interval(np.ones(len(clusters)), clusters) == (None, None)
    assert interval(np.ones(40), np.repeat(np.arange(4), 10)) == (None, None)


def test_the_referees_interval_is_that_of_the_tables():
    """Of mean -ln r, clustered by prompt group, as `sampling` has it in SQL."""
    tokens = random_tokens(3, rows=40)
    with sql_connection(tokens) as connection:
        [(low, high)] = connection.sql(
            "select low, high from sampling where name = 'k1'"
        ).fetchall()
    trained = tokens.filter("is_trained")
    train, rollout = (trained[f"logp_{name}"].cast(pl.Float64) for name in ("train", "rollout"))
    clusters = trained["uid"].rank("dense").to_numpy().astype(int) - 1
    assert interval((rollout - train).to_numpy(), clusters) == approx((low, high), rel=1e-9)
