"""Student's t in SQL against SciPy's: what intervals and p-values of few clusters are made of."""

import duckdb
import pytest
from pytest import approx
from scipy import stats

from timtrack.tasks.tables.database import open_inputs

DEGREES = [1, 1.5, 2, 4.7, 9, 15, 63, 999, 10_000]
ALONE = "select student_t_p_value($1::double, $2::double)"


@pytest.fixture(scope="module")
def connection():
    with open_inputs([]) as connection:
        yield connection


def one(connection: duckdb.DuckDBPyConnection, sql: str, *given: float | None) -> float | None:
    return connection.execute(sql, list(given)).fetchall()[0][0]


@pytest.mark.parametrize("df", DEGREES)
@pytest.mark.parametrize("p", [0.999, 0.5, 0.05, 1e-3, 1e-6, 1e-12, 1e-100])
def test_a_p_value_has_its_digits_however_small(connection, df, p):
    t = stats.t.isf(p / 2, df)
    expected = 2 * stats.t.sf(t, df)
    for sign in (1, -1):
        assert one(connection, ALONE, sign * t, df) == approx(expected, rel=1e-10, abs=0)


@pytest.mark.parametrize("df", DEGREES)
def test_the_quantile_is_that_of_scipy(connection, df):
    found = one(connection, "select student_t_quantile_975($1::double)", df)
    assert found == approx(stats.t.ppf(0.975, df), rel=1e-10)


def test_ends_and_unknowns(connection):
    """No effect is p = 1, an infinite t is 0; what is unknown stays so."""
    assert one(connection, ALONE, 0.0, 9) == approx(1, rel=1e-12)
    assert one(connection, ALONE, float("inf"), 9) == 0
    assert one(connection, ALONE, 1e200, 1) == 0
    assert one(connection, ALONE, None, 9) is None
    assert one(connection, ALONE, 2.0, None) is None
    assert one(connection, "select student_t_quantile_975($1::double)", None) is None


def test_a_column_of_whole_degrees_gives_what_single_rows_give(connection):
    """Whole numbers are not divided as such."""
    sql = "select student_t_p_value(i / 1000, 9 + i % 50) as p from range(5000) as _(i)"
    found = connection.sql(sql).pl()["p"].to_numpy()
    assert found == approx([2 * stats.t.sf(i / 1000, 9 + i % 50) for i in range(5000)], rel=1e-10)
