"""Intervals hold what they promise: Student's t over prompt groups, paired where runs can be."""

import numpy as np
import polars as pl
import pytest
from pytest import approx
from scipy import stats

from tests.given import sql_connection, token_frame
from tests.given_tables import one_row
from timtrack.tasks.reports import headline


def steps_of(groups: int, steps: int, seed: int = 0, tokens: int = 20) -> pl.DataFrame:
    """Many captures in one table: level and scale of ln r differ by prompt group, k1 is 0."""
    rng = np.random.default_rng(seed)
    shape = (steps, groups, tokens)
    level = rng.normal(0, 0.3, (steps, groups, 1))
    scale = 0.2 * np.exp(rng.normal(0, 0.5, (steps, groups, 1)))
    d = (level + scale * rng.normal(size=shape)).ravel()
    step, group, pos = (axis.ravel() for axis in np.indices(shape))
    frame = pl.DataFrame({"step": step, "row": group, "pos": pos, "logp_train": -9.0 + d})
    template = token_frame([{}]).drop("step", "row", "pos", "uid", "logp_train", "logp_rollout")
    same = frame.join(template, how="cross").with_columns(
        uid=pl.format("u{}", "row"), logp_rollout=pl.lit(-9.0)
    )
    return same.select(token_frame([{}]).columns).cast(dict(token_frame([{}]).schema))


@pytest.mark.parametrize("groups", [5, 8, 16, 64])
def test_intervals_of_k1_hold_the_truth_in_95_of_100_captures(groups):
    with sql_connection(steps_of(groups, steps=600)) as connection:
        query = "select value, margin from run_trend where metric = 'kl_k1'"
        value, margin = connection.sql(query).pl().to_numpy().T
    held = float(np.mean(np.abs(value) <= margin))
    assert held == approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 600))


def test_the_interval_is_students_over_groups():
    with sql_connection(steps_of(7, steps=1)) as connection:
        row = connection.sql("from step_metrics").pl().row(0, named=True)
    assert row["clusters"] == 7
    assert row["interval_t"] == approx(stats.t.ppf(0.975, 6), rel=1e-8)
    assert row["interval_t_of_r"] == row["interval_t"]


def test_a_few_groups_that_hold_nearly_all_tokens_count_as_few():
    kept = pl.when(pl.col("row") < 3).then(60).otherwise(2)
    row = one_row(steps_of(20, steps=1, tokens=60).filter(pl.col("pos") < kept))
    assert row["clusters_effective"] == approx(214**2 / (3 * 60**2 + 17 * 2**2))
    assert row["interval_t"] is None
    assert "20 prompt groups" in headline.intervals(row)
    assert "4.214 effective" in headline.intervals(row)


def test_groups_of_unequal_length_hold_the_truth_as_often():
    tokens = steps_of(24, steps=600, tokens=40)
    kept = 4 + 36 * (pl.col("row") % 4 == 0).cast(pl.Int32)  # 6 of 24 hold 77 % of the tokens
    with sql_connection(tokens.filter(pl.col("pos") < kept)) as connection:
        query = "select value, margin from run_trend where metric = 'kl_k1'"
        value, margin = connection.sql(query).pl().to_numpy().T
    held = float(np.mean(np.abs(value) <= margin))
    assert held >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 600)


def test_below_five_groups_there_is_no_interval_and_the_report_says_why():
    with sql_connection(steps_of(4, steps=1)) as connection:
        row = connection.sql("from step_metrics").pl().row(0, named=True)
        margins = connection.sql("select margin from run_trend").pl()["margin"]
    assert row["kl_k1_se"] > 0
    assert row["interval_t"] is None
    assert margins.null_count() == len(margins)
    assert "No intervals: there are 4 prompt groups" in headline.intervals(row)


def test_averages_of_r_that_one_token_decides_have_no_interval():
    tokens = steps_of(8, steps=1)
    one = (pl.col("row") == 0) & (pl.col("pos") == 0)
    tokens = tokens.with_columns(
        logp_train=pl.when(one).then(-3.0).otherwise("logp_train").cast(pl.Float32)
    )
    row = one_row(tokens)
    assert row["interval_t"] is not None
    assert row["interval_t_of_r"] is None
    assert "averages of r" in headline.intervals(row)


def two_scorings(same_rollouts: bool) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """Runs a and b of 30 groups, b 0.01 nats wider on each: far less than groups differ."""
    rng, shape = np.random.default_rng(3), (30, 20)
    ids = rng.integers(0, 50, shape)
    level = rng.normal(0, 0.5, (30, 1)) * np.ones(shape)
    a, b = level + 0.05 * rng.normal(size=shape), level - 0.01 + 0.05 * rng.normal(size=shape)
    other = ids if same_rollouts else rng.integers(0, 50, shape)
    rows = [
        {
            **{"run": run, "row": g, "uid": f"u{g}", "pos": t, "token_id": int(i[g, t])},
            **{"logp_rollout": -9.0, "logp_train": -9.0 + d[g, t]},
        }
        for run, i, d in (("a", ids, a), ("b", other, b))
        for g in range(30)
        for t in range(20)
    ]
    return token_frame(rows), a, b


def pair(tokens: pl.DataFrame, metric: str = "kl_k1") -> dict:
    with sql_connection(tokens) as connection:
        return connection.sql(f"from run_pairs where metric = '{metric}'").pl().row(0, named=True)


def test_runs_that_scored_the_same_rollouts_are_compared_by_pairs_of_groups():
    tokens, a, b = two_scorings(same_rollouts=True)
    row = pair(tokens)
    by_group = (a - b).mean(axis=1)
    error = by_group.std(ddof=1) / np.sqrt(30)
    assert row["is_paired"]
    assert row["difference"] == approx(by_group.mean(), rel=1e-3)
    assert row["se"] == approx(error, rel=1e-3)
    assert row["margin"] == approx(stats.t.ppf(0.975, 29) * error, rel=1e-3)


@pytest.mark.parametrize("metric", ["kl_k3", "ratio_mean", "tv", "frac_outside_5", "ess_token"])
def test_errors_of_pairs_agree_with_a_jackknife_over_groups(metric):
    tokens, a, b = two_scorings(same_rollouts=True)

    def number(d: np.ndarray) -> float:
        r = np.exp(d)
        return {
            "kl_k3": (r - 1 - d).mean(),
            "ratio_mean": r.mean(),
            "tv": np.maximum(0, 1 - r).mean(),
            "frac_outside_5": (np.abs(d) > np.log(5)).mean(),
            "ess_token": r.sum() ** 2 / (r.size * (r**2).sum()),
        }[metric]

    left = [number(np.delete(b, g, 0)) - number(np.delete(a, g, 0)) for g in range(30)]
    error = np.sqrt(29 / 30 * np.sum((left - np.mean(left)) ** 2))
    assert pair(tokens, metric)["se"] == approx(error, rel=0.2, abs=1e-12)


def test_runs_with_other_rollouts_are_not_paired():
    tokens, a, b = two_scorings(same_rollouts=False)
    row = pair(tokens)
    errors = [d.mean(axis=1).std(ddof=1) / np.sqrt(30) for d in (a, b)]
    assert not row["is_paired"]
    assert row["se"] == approx(np.hypot(*errors), rel=1e-3)
