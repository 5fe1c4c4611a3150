"""The verdict's sentences are true of the numbers that they are made from."""

import math

import polars as pl
import pytest

from tests.given import random_tokens, sql_connection, token_frame
from timtrack.tasks.verdicts import sentences
from timtrack.tasks.verdicts.assessment import Assessment, assess
from timtrack.tasks.verdicts.bands import OURS, Band, Bands, Reading

NEEDED = "step_metrics corrections alignment lag_scan culprits attribution causes signatures tail"


def judged(tokens: pl.DataFrame, bands: Bands = OURS) -> Assessment:
    with sql_connection(tokens) as connection:
        tables = {name: connection.sql(f"from {name}").pl() for name in NEEDED.split()}
    return assess({"meta": {}, "measurement": "measured"}, tables, bands)


def test_a_healthy_step_says_how_close_the_engines_are():
    tokens = random_tokens(1, gap=1e-4)
    assessment = judged(tokens)
    gap = (tokens["logp_train"].cast(float) - tokens["logp_rollout"].cast(float)).abs().drop_nulls()
    [(label, text)] = assessment.verdict.lines.items()
    assert label == "How close"
    within = float(text.split("agree within ")[1].split(" nats")[0])
    assert (gap <= within * 1.001).mean() >= 0.5
    assert "0 % differ by more than a factor of 2." in text
    assert "readings are inside their bands" in text


def test_a_broken_step_says_the_factor_of_the_median_token():
    tokens = random_tokens(2, gap=3.0)
    lines = judged(tokens).verdict.lines
    trained = tokens.filter("is_trained")
    gap = (trained["logp_train"].cast(float) - trained["logp_rollout"].cast(float)).abs()
    factor = float(lines["How bad"].split("a factor of ")[1].split(" ")[0])
    assert (gap >= math.log(factor * 0.999)).mean() >= 0.5
    share = float(lines["How bad"].split(" or more between the engines, ")[1].split(" %")[0])
    assert share == pytest.approx(100 * (gap > math.log(5)).mean(), rel=0.01)
    assert lines["Why"] and lines["What to do"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.309, "KL (k3, nats) is 4.309, 2,200 times the healthy limit of 0.002"),
        (0.0089, "KL (k3, nats) is 0.0089, 4.5 times the healthy limit of 0.002"),
        (0.003, "KL (k3, nats) is 0.003 (healthy ≤ 0.002)"),
        (math.inf, "KL (k3, nats) overflows (healthy ≤ 0.002)"),
    ],
)
def test_a_reading_is_told_beside_its_limit(value, text):
    band = Band("kl_k3", 0.002, 0.02, "somebody")
    numbers = {"abs_logp_diff_p50": 0.001, "frac_outside_5": 0.0, "frac_outside_2": 0.0}
    said = sentences.how_bad(numbers, (Reading(band, value),), 0)
    assert f" {text}. 1 of 1 readings are outside their bands." in said


def test_a_limit_from_below_has_no_times():
    band = Band("pearson_prob", 0.99, 0.95, "somebody", above=True)
    numbers = {"abs_logp_diff_p50": 1.0, "frac_outside_5": 0.2, "frac_outside_2": 0.4}
    said = sentences.how_bad(numbers, (Reading(band, 0.2),), 0)
    assert "Pearson's correlation of the probabilities is 0.2 (healthy ≥ 0.99)." in said
    assert said.startswith("Half of the tokens differ by a factor of 2.718 or more")


def test_the_link_that_carries_the_gap_is_named():
    rows = [
        {
            "pos": i,
            "row": i // 10,
            "logp_rollout": -1.0,
            "logp_rescored": -1.001,
            "logp_dense": -1.002,
            "logp_train": -4.0 - i / 100,
        }
        for i in range(60)
    ]
    why = judged(token_frame(rows)).verdict.why
    assert "of the gap is the link codec." in why


def test_a_gap_that_overflows_a_float_is_still_a_sentence():
    numbers = {"abs_logp_diff_p50": 5000.0, "frac_outside_5": 1.0, "frac_outside_2": 1.0}
    said = sentences.how_bad(numbers, (), 0)
    assert "a factor of 1.014e+304 or more" in said
