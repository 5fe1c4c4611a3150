"""The interval of a mean over the tokens of a few prompts, and the sentence about a fit."""

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests.given import random_tokens, sql_connection
from timtrack.tasks.referee.known import all_of
from timtrack.tasks.referee.trial import Fit
from timtrack.tasks.referee.verdict import Distance, Engine, Noise, interval, sentences


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


@pytest.mark.parametrize(
    ("explained", "says"),
    [(0.99, "are reproduced to 0.3 nats"), (0.65, "come nearest, to 0.3 nats")],
)
def test_a_hypothesis_that_leaves_a_third_reproduces_nothing(explained, says):
    far = Distance(80, 1.0, 1.0, 1.4, 0.5, None, None)
    fit = Fit("train", all_of()["temperature"], 0.8, explained, explained, (0, 1), 0.3, 0.2, 2)
    engines = [
        Engine("rollout", far, 0.0, is_off=False, fits=()),
        Engine("train", far, 0.0, is_off=True, fits=(fit,)),
    ]
    _, sentence = sentences(engines, Noise(far, far, 0.1, np.zeros(80)))
    assert sentence.startswith(f"The trainer's log-probs {says}")
    assert ("that would be:" in sentence) == (explained < 0.9)
