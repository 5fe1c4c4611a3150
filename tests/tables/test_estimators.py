"""The estimators against exact values: categorical pairs, whose divergences are plain sums."""

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests.given import TOKEN, sql_connection, token_frame
from tests.given_tables import one_row

SYMBOLS, SAMPLES = 200, 200_000

# Spread of the logits' difference: from kernels that differ to a broken trainer.
LEVELS = {"mild": 0.016, "experts": 0.09, "low precision": 0.2, "heavy": 1.2, "broken": 2.2}


def pair(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Rollout and trainer distributions over 200 symbols."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=SYMBOLS) * 2
    other = logits + spread * rng.normal(size=SYMBOLS)
    q, p = (np.exp(x - x.max()) for x in (logits, other))
    return q / q.sum(), p / p.sum()


def exact(q: np.ndarray, p: np.ndarray) -> dict[str, float]:
    m = (p + q) / 2
    return {
        "kl_k1": (q * np.log(q / p)).sum(),
        "kl_k3": (q * np.log(q / p)).sum(),
        "kl_rev_is": (p * np.log(p / q)).sum(),
        "kl_rev_is_k3": (p * np.log(p / q)).sum(),
        "js": ((p * np.log(p / m)).sum() + (q * np.log(q / m)).sum()) / 2,
        "tv": np.abs(p - q).sum() / 2,
        "hellinger2": 1 - np.sqrt(p * q).sum(),
        "chi2_token": (p * p / q).sum() - 1,
        "ratio_mean": 1.0,
        "abs_prob_diff_mean": (q * np.abs(p - q)).sum(),
        "ess_token": 1 / (p * p / q).sum(),
    }


@pytest.fixture(scope="module", params=LEVELS)
def sampled(request):
    """The exact numbers, step_metrics over samples, and each estimator's error by theory."""
    q, p = pair(LEVELS[request.param])
    ids = np.random.default_rng(1).choice(SYMBOLS, size=SAMPLES, p=q)
    tokens = pl.DataFrame(
        {
            "run": "r",
            "step": 1,
            "capture": "c",
            "row": pl.Series(np.arange(SAMPLES) // 100, dtype=pl.Int32),
            "uid": pl.Series((np.arange(SAMPLES) // 100).astype(str)),
            "pos": pl.Series(np.arange(SAMPLES) % 100, dtype=pl.Int32),
            "token_id": pl.Series(ids, dtype=pl.Int32),
            "is_trained": True,
            "logp_rollout": pl.Series(np.log(q[ids]), dtype=pl.Float32),
            "logp_train": pl.Series(np.log(p[ids]), dtype=pl.Float32),
        }
    ).with_columns(
        advantage=pl.lit(None, pl.Float32),
        entropy=pl.lit(None, pl.Float32),
        logp_rescored=pl.lit(None, pl.Float32),
        logp_dense=pl.lit(None, pl.Float32),
    )
    return exact(q, p), one_row(tokens), errors(q, p)


def errors(q: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Standard errors of the means over SAMPLES draws from q."""
    r, d = p / q, np.log(p / q)
    values = {
        "kl_k1": -d,
        "kl_k3": r - 1 - d,
        "kl_rev_is": r * d,
        "kl_rev_is_k3": r * d - r + 1,
        "js": (r * d - (1 + r) * np.log((1 + r) / 2)) / 2,
        "tv": np.maximum(0, 1 - r),
        "hellinger2": 1 - np.sqrt(r),
        "chi2_token": r * r - 1,
        "ratio_mean": r,
        "abs_prob_diff_mean": np.abs(p - q),
    }
    stds = {name: np.sqrt((q * (x - (q * x).sum()) ** 2).sum()) for name, x in values.items()}
    return {name: std / np.sqrt(SAMPLES) for name, std in stds.items()}


@pytest.mark.parametrize("name", [n for n in exact(*pair(1.0)) if n != "ess_token"])
def test_an_estimator_hits_the_exact_value_within_sampling_error(sampled, name):
    true, row, error = sampled
    assert abs(row[name] - true[name]) < 5 * error[name] + 1e-7  # log-probs are stored as float32


def test_ess_is_the_inverse_of_one_plus_chi2(sampled):
    true, row, error = sampled
    assert row["ess_token"] == approx(true["ess_token"], rel=0.02 + 10 * error["chi2_token"])


@pytest.mark.parametrize("name", ["kl_k1", "kl_k3", "tv", "ratio_mean"])
def test_the_standard_error_is_that_of_theory(sampled, name):
    """Samples are independent here, so clustering must not change it."""
    _, row, error = sampled
    assert row[f"{name}_se"] == approx(error[name], rel=0.15)


def test_reversed_and_naive_forms_part_company_where_the_gap_is_large(sampled):
    true, row, _ = sampled
    if true["kl_k1"] > 1:
        assert row["kl_rev_naive_k3"] > 3 * true["kl_rev_is"]
        assert row["kl_k2"] > 1.2 * true["kl_k1"]
    elif true["kl_k1"] < 1e-2:
        assert row["kl_rev_naive_k3"] == approx(true["kl_rev_is"], rel=0.1)
        assert row["kl_k2"] == approx(true["kl_k1"], rel=0.1)


def test_a_hill_exponent_is_that_of_a_pareto_tail():
    """ln r = an exponential of rate alpha beyond its start: r is Pareto with exponent alpha."""
    rng = np.random.default_rng(0)
    gaps = rng.exponential(1 / 1.5, 40_000)
    rows = (
        token_frame([TOKEN])
        .sample(len(gaps), with_replacement=True)
        .with_columns(
            pos=pl.Series(np.arange(len(gaps)), dtype=pl.Int32),
            logp_rollout=pl.Series(-gaps - 1, dtype=pl.Float32),
            logp_train=pl.lit(-1.0, pl.Float32),
        )
    )
    with sql_connection(rows) as connection:
        row = connection.sql("from tail").pl().row(0, named=True)
    assert row["hill_k"] == 400
    assert row["hill_alpha_up"] == approx(1.5, rel=0.15)
