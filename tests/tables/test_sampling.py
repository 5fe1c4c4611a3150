"""Whose tokens, and in which unit: what tokens that were sampled say of the log-probs stored."""

import math

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests.given import sql_connection, token_frame
from tests.given_tables import judged

GROUPS, TOKENS, VOCABULARY = 40, 100, 50


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def sampled(noise: float = 0.3, temperature: float = 1.0, groups: int = GROUPS) -> pl.DataFrame:
    """Tokens from a random model at a temperature; a trainer that is off by some noise."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(groups * TOKENS, VOCABULARY))
    rollout, policy = log_softmax(logits), log_softmax(logits / temperature)
    train = log_softmax(logits + noise * rng.normal(size=logits.shape))
    ids = (rng.gumbel(size=logits.shape) + policy).argmax(1)
    at = np.arange(len(ids))
    entropy = -(np.exp(train) * train).sum(1)
    rows = [
        {"row": i // TOKENS, "uid": f"u{i // TOKENS}", "pos": i % TOKENS, "token_id": int(ids[i])}
        | {"logp_rollout": q, "logp_train": p, "entropy": h}
        for i, (q, p, h) in enumerate(
            zip(rollout[at, ids].tolist(), train[at, ids].tolist(), entropy.tolist(), strict=True)
        )
    ]
    return token_frame(rows)


def exchanged(tokens: pl.DataFrame) -> pl.DataFrame:
    both = {"logp_rollout": "logp_train", "logp_train": "logp_rollout"}
    return tokens.rename(both).select(tokens.columns)


def in_base(tokens: pl.DataFrame, base: float, *names: str) -> pl.DataFrame:
    return tokens.with_columns((pl.col(name) / math.log(base)).cast(pl.Float32) for name in names)


BOTH = ("logp_rollout", "logp_train")


def said(tokens: pl.DataFrame) -> list[str]:
    return [f.text for f in judged(tokens).findings if f.table == "sampling"]


def test_four_tokens_by_hand(run_sql):
    """Two rows of two tokens: k1 is the mean of 0, 0, 1, 1; surprisal 1.5 over an entropy of 2."""
    given = [
        {"row": row, "uid": None, "pos": pos, "logp_rollout": -1.0, "logp_train": -1.0 - row}
        | {"entropy": 2.0}
        for row in (0, 1)
        for pos in (0, 1)
    ]
    rows = {(r["name"], r["engine"]): r for r in run_sql("sampling", *given)}
    assert rows["k1", "both"]["value"] == 0.5
    assert rows["ratio", "both"]["value"] == approx((1 + math.exp(-1)) / 2)
    assert rows["inverse_ratio", "both"]["value"] == approx((1 + math.e) / 2)
    assert rows["surprisal", "train"]["value"] == 0.75
    assert rows["surprisal", "rollout"]["value"] == 0.5
    assert rows["k1", "both"]["low"] is None  # two rows are too few
    assert {row["tokens"] for row in rows.values()} == {4}


def test_intervals_are_students_over_groups():
    tokens = sampled(groups=8)
    with sql_connection(tokens) as connection:
        [row] = connection.sql("from sampling where name = 'k1'").pl().to_dicts()
    diff = (tokens["logp_rollout"].cast(float) - tokens["logp_train"].cast(float)).to_numpy()
    means = diff.reshape(8, TOKENS).mean(1)
    margin = 2.364624 * means.std(ddof=1) / math.sqrt(8)  # t of 7 degrees of freedom
    assert row["value"] == approx(means.mean(), rel=1e-9)
    assert (row["low"], row["high"]) == approx((means.mean() - margin, means.mean() + margin))


def test_entropies_count_where_they_are_known(run_sql):
    given = [{"pos": 0, "entropy": 0.5}, {"pos": 1, "logp_train": -9.0}]
    rows = {(r["name"], r["engine"]): r for r in run_sql("sampling", *given)}
    assert (rows["surprisal", "train"]["value"], rows["surprisal", "train"]["tokens"]) == (2.0, 1)
    without = run_sql("sampling", {"pos": 0}, {"pos": 1})
    assert {row["name"] for row in without} == {"ratio", "inverse_ratio", "k1"}


def test_a_capture_as_it_should_be_says_nothing():
    assert said(sampled()) == []


def test_exchanged_engines_are_named_with_the_evidence():
    [text] = said(exchanged(sampled()))
    assert text.startswith("Mean r is 1.")
    assert "The tokens behave as if they had been sampled from the log-probs stored as the" in text
    assert "are the two exchanged" in text
    assert text.count("95 % interval") == 3


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_engines_that_agree_are_never_exchanged(noise):
    """Of what is all but equal nothing can be told."""
    assert said(exchanged(sampled(noise=noise))) == []


def test_five_groups_are_too_few_to_be_exchanged_by():
    assert said(exchanged(sampled(groups=4))) == []


@pytest.mark.parametrize(("base", "times"), [(2, "1.4427"), (10, "0.4343")])
def test_another_base_of_both_engines_is_named(base, times):
    texts = said(in_base(sampled(), base, *BOTH))
    [text] = [text for text in texts if "base" in text]
    assert f"and {times} if the log-probs are in base {base}: they may be, or the tokens" in text
    assert text.count("95 % interval") == 2


def test_another_base_is_not_named_of_one_engine_or_without_entropies():
    one = in_base(sampled(), 2, "logp_train")
    both = in_base(sampled(), 2, *BOTH).with_columns(entropy=pl.lit(None, pl.Float32))
    everything = in_base(sampled(), 2, *BOTH, "entropy")
    for tokens in (one, both, everything):
        assert not [text for text in said(tokens) if "base" in text]


@pytest.mark.parametrize("temperature", [0.7, 0.9, 1.1])
def test_a_temperature_is_no_base(temperature):
    assert not [text for text in said(sampled(temperature=temperature)) if "base" in text]
