"""Early warnings: against a CUSUM written apart, and as alerts tell them."""

import math
import statistics

import polars as pl
from pytest import approx

from tests.given import batch_fields, ingest, random_tokens, sql_connection
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.verdicts import early
from timtrack.tasks.verdicts.alert_rules import Alerts
from timtrack.tasks.verdicts.standing import judged

STEPS, FIRSTS = 20, 8


def cusum(values: list[float | None], least: float) -> list[float]:
    """Page's, of robust distances from the first 8, capped at 4, less 1.5; from the 9th on."""
    known = [value for value in values[:FIRSTS] if value is not None]
    middle = statistics.median(known)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in known)
    sums, total = [], 0.0
    for value in values[FIRSTS:]:
        distance = 0.0 if value is None else (value - middle) / max(spread, least)
        total = max(0.0, total + min(4.0, max(-4.0, distance)) - 1.5)
        sums.append(total)
    return sums


def test_the_sums_are_pages_cusum():
    growing = [0.02] * FIRSTS + [0.02 * 1.15**k for k in range(STEPS - FIRSTS)]
    frames = [
        random_tokens(step, rows=24, gap=gap).with_columns(step=pl.lit(step, pl.Int64))
        for step, gap in enumerate(growing)
    ]
    with sql_connection(pl.concat(frames)) as connection:
        found = connection.sql("from early_warning order by step").pl()
        numbers = connection.sql(
            "select ess_token, abs_logp_diff_p99_9, gap_mean, improves_t from step_metrics "
            "join signatures using (run, step) order by step"
        ).pl()
    ess = [math.log(max(1 / value - 1, 1e-12)) for value in numbers["ess_token"]]
    tail = [math.log(value + 1e-7) for value in numbers["abs_logp_diff_p99_9"]]
    gap = [math.log(value + 1e-7) for value in numbers["gap_mean"]]
    assert found["step"].to_list() == list(range(FIRSTS, STEPS))
    assert found["tail_sum"].to_list() == approx(cusum(tail, 0.15))
    assert found["ess_sum"].to_list() == approx(cusum(ess, 0.15))
    assert found["gap_sum"].to_list() == approx(cusum(gap, 0.15))
    high = (found["tail_sum"] > 6).cast(int) + (found["ess_sum"] > 6) + (found["tie_sum"] > 6)
    assert found["signs"].to_list() == high.to_list()
    assert found["is_warning"].to_list() == (high >= 2).to_list()
    assert found["is_warning"].any()


def test_a_healthy_step_of_a_run_that_goes_wrong_is_a_warning(tmp_path):
    """All steps are inside the bands; from the 9th on, each is half as far off again."""
    gaps = [1e-4] * FIRSTS + [1e-4 * 1.5**k for k in range(1, 9)]
    steps = []
    for number, gap in enumerate(gaps, start=1):
        fields = batch_fields(rows=16, width=30, seed=number, gap=gap) | {"global_step": number}
        path = save_step_batch(tmp_path / "runs" / "a", number, fields)
        step = ingest(path, tmp_path / "lake")
        write_tables(step, sql_version(), compute_step(step))
        steps.append(step)
    assert early.warnings(steps[:FIRSTS]) == {}
    first = min(early.warnings(steps))
    assert FIRSTS + 1 < first < len(gaps)
    assert "effective sample size" in early.warnings(steps)[first]
    status = judged(None, steps, Alerts())
    assert (status.level, status.since) == ("warning", first)
    assert status.reasons[0].startswith("early warning")
    ruled = Alerts(rules={"warning": (), "critical": ()})
    assert judged(None, steps, ruled).level == "healthy"
