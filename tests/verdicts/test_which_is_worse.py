"""What is said of two runs: worse only where an interval or every step says so."""

import polars as pl
import pytest

from timtrack.tasks.verdicts import comparison


def pair(far=None, **changes):
    row = {
        **{"run": "a", "other": "b", "metric": "kl_k3", "steps": 20},
        **{"value": 4.9e-5, "other_value": 4.05, "difference": 4.05, "is_paired": False},
        **{"se": 0.1, "margin": 0.2, "share_higher": 1.0},
        **changes,
    }
    outside = row | {"metric": "frac_outside_5", "value": 0.0, "other_value": 0.75, "margin": None}
    outside |= {"difference": 0.75, **(far or {})}
    return pl.DataFrame([row, outside], schema_overrides={"margin": pl.Float64})


def test_the_worse_run_is_named_with_its_numbers():
    [said] = comparison.sentences(pair(), None)
    assert said == (
        "b is worse than a: KL (k3) 4.05 against 4.9e-05 nats on average of 20 common steps, "
        "83,000 times; 75 % against 0 % of tokens outside [1/5, 5]."
    )


@pytest.mark.parametrize(
    ("changes", "is_sure"),
    [
        ({"margin": 5.0}, False),
        ({"margin": 5.0, "far": {"margin": 0.1}}, True),
        ({"margin": 0.2, "far": {"difference": -0.1}}, False),
        ({"margin": None}, True),
        ({"margin": None, "steps": 7}, False),
        ({"margin": None, "share_higher": 0.95}, False),
        (
            {"margin": None, "difference": 0.0, "other_value": 4.9e-5, "far": {"difference": 0.0}},
            False,
        ),
    ],
)
def test_worse_needs_an_interval_or_every_step(changes, is_sure):
    [said] = comparison.sentences(pair(**changes), None)
    assert ("is worse than" in said) == is_sure
    assert ("do not clearly differ" in said) != is_sure


def test_an_undefined_number_makes_nobody_worse():
    rows = pair(difference=None, value=None)
    [said] = comparison.sentences(rows, None)
    assert said == "a and b: kl_k3 is undefined, neither is worse."


def test_the_link_that_carries_the_gap_of_the_worse_run_is_named():
    links = pl.DataFrame(
        {
            "run": ["b", "b", "b", "b", "a"],
            "component": ["engine", "codec", "engine", "codec", "engine"],
            "share_abs": [0.1, 0.9, 0.0, 1.0, 1.0],
        }
    )
    [said] = comparison.sentences(pair(), links)
    assert said.endswith(" By its further views, 95 % of b's gap is the link codec.")
