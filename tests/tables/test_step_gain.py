"""Whether a step improved the sampler: by hand, against NumPy, over steps."""

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests import by_numpy
from tests.given import sql_connection, token_frame
from tests.given_tables import described
from timtrack.tasks.verdicts.numbers import logged


def test_two_tokens_by_hand(run_sql):
    """A = 2 moved by 0.5 up, A = -1 by 0.25 up: (1 - 0.25) / 2."""
    [row] = run_sql(
        "step_gain",
        {"pos": 0, "logp_rollout": -1.0, "logp_next_rollout": -0.5, "advantage": 2.0},
        {"pos": 1, "logp_rollout": -1.0, "logp_next_rollout": -0.75, "advantage": -1.0},
    )
    assert row["gain"] == approx(0.375)
    assert (row["gain_positive"], row["gain_negative"]) == (approx(0.5), approx(-0.125))
    assert row["moved"] == approx(0.375)
    assert (row["gain_se"], row["gain_margin"]) == (None, None)  # one prompt group


def test_without_the_view_or_advantages_there_is_none(run_sql):
    assert run_sql("step_gain", {}) == []
    assert run_sql("step_gain", {"logp_next_rollout": -1.0, "advantage": None}) == []


def moved(seed: int, rows: int) -> pl.DataFrame:
    tokens, _ = described(seed, 0.1, rows)
    rng = np.random.default_rng(seed)
    after = tokens["logp_rollout"].to_numpy() + 0.2 * rng.normal(size=len(tokens))
    view = pl.Series("logp_next_rollout", after, dtype=pl.Float32)
    holes = pl.when(pl.int_range(pl.len()) % 11 > 0).then(pl.col("advantage"))
    return tokens.with_columns(view).with_columns(holes.alias("advantage"))


@pytest.mark.parametrize(("seed", "rows"), [(1, 30), (2, 60), (3, 12)])
def test_equals_numpy(seed, rows):
    tokens = moved(seed, rows)
    with sql_connection(tokens) as connection:
        [row] = connection.sql("from step_gain").pl().to_dicts()
    for name, value in by_numpy.step_gain(tokens).items():
        assert row[name] == (None if value is None else approx(value, rel=1e-9)), name


def test_it_is_a_curve_of_the_run():
    tokens = pl.concat(
        [moved(seed, 30).with_columns(step=pl.lit(seed, pl.Int64)) for seed in (4, 5)]
    )
    with sql_connection(tokens) as connection:
        trend = connection.sql("from run_trend").pl().filter(metric="step_gain")
    for row in trend.to_dicts():
        expected = by_numpy.step_gain(tokens.filter(step=row["step"]))
        assert row["value"] == approx(expected["gain"], rel=1e-9)
        assert row["margin"] == approx(expected["gain_margin"], rel=1e-9)
    assert trend["step"].to_list() == [4, 5]


def test_it_is_logged_where_there_is_one():
    names = ("step_metrics", "corrections", "step_gain")
    for tokens, expected in ((moved(6, 30), True), (token_frame([{}, {"pos": 1}]), False)):
        with sql_connection(tokens) as connection:
            tables = {name: connection.sql(f"from {name}").pl() for name in names}
        assert ("step_gain" in logged(tables)) == expected
