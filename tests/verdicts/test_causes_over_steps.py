"""Causes that show in how a run's steps follow each other, on runs of a random softmax model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.given import sequence_frame, sql_connection
from tests.verdicts.test_causes import (
    GROUP,
    IDS,
    LENGTH,
    NOISE,
    ROWS,
    Batch,
    noise,
    sampled,
    tokens_of,
)

STEPS = 9


def drift(seed: int) -> np.ndarray:
    """How an update moves the logits of a few ids."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=IDS) * (rng.random(IDS) < 0.3)


def behind(step: int, updates: float, own: float = NOISE) -> Batch:
    """A step whose engine lacks so many updates, beside noise of its own."""
    batch = sampled(step)
    moved = batch.logits + 0.2 * updates * drift(3)
    train = batch.of(moved + noise(step, batch.logits.shape, own))
    return replace(batch, train=train)


def never_synced(step: int) -> Batch:
    return behind(step, step - 1)


def synced_every_third(step: int) -> Batch:
    return behind(step, (step - 1) % 3)


def rounded_on_the_wire(step: int) -> Batch:
    batch = behind(step, 0.02 * (step - 1), 0.01 * (step > 1))
    return replace(batch, train=batch.rollout) if step == 1 else batch


def resumed(step: int) -> Batch:
    return behind(step, 3 if step <= 2 else 0)


def slowly_left_behind(step: int) -> Batch:
    """Under so much rounding that the second step does not show it."""
    return behind(step, 0.25 * 1.4 ** (step - 1), own=4 * NOISE)


def rolled_back(step: int) -> Batch:
    """In the middle of the run, for one step."""
    return behind(step, 3 if step == 5 else 0)


def coarse_from_the_fifth_step(step: int) -> Batch:
    """Something else than weights that lag behind begins later."""
    return behind(step, 0, NOISE if step < 5 else 15 * NOISE)


def healthy(step: int) -> Batch:
    return behind(step, 0)


def over_steps(
    make: Callable[[int], Batch],
    first: int = 1,
    prompts: Callable[[int, int], int] = lambda s, g: g,
) -> pl.DataFrame:
    """`run_causes` of a run; `prompts` gives the prompt of a step's group."""
    frames = [
        tokens_of(make(step)).with_columns(step=pl.lit(first + step - 1, pl.Int64))
        for step in range(1, STEPS + 1)
    ]
    tokens = pl.concat(frames)
    sequences = sequence_frame(tokens)
    ids: list[Any] = [
        [prompts(step, row // GROUP)] for step, row in sequences.select("step", "row").rows()
    ]
    sequences = sequences.with_columns(prompt_ids=pl.Series(ids, dtype=pl.List(pl.Int32)))
    with sql_connection(tokens, sequences) as connection:
        return connection.sql("from run_causes").pl()


RUNS: dict[str, tuple[list[str], Callable[[int], Batch]]] = {
    "an engine that gets no weights": (["F10", "F14"], never_synced),
    "one that gets them every third step": (["F10"], synced_every_third),
    "weights rounded by the sync": (["F12"], rounded_on_the_wire),
    "one that lags behind under rounding": (["F10", "F14"], slowly_left_behind),
    "a trainer that is rolled back": (["F19"], rolled_back),
    "noise that begins later": ([], coarse_from_the_fifth_step),
    "a healthy run": ([], healthy),
}


@pytest.mark.parametrize("run", RUNS)
def test_how_the_gap_goes_over_steps_names_the_cause(run):
    causes, make = RUNS[run]
    assert over_steps(make)["cause"].to_list() == causes


def test_a_resume_is_told_by_its_first_steps():
    assert over_steps(resumed, first=41)["cause"].to_list() == ["F19"]


def test_prompts_seen_at_earlier_steps_are_farther_off_where_their_keys_are_old():
    """Half of each step's prompts are those of the step before."""

    def prompt(step: int, group: int) -> int:
        return 100 * (step - 1 if group % 2 and step > 1 else step) + group // 2

    def stale_cache(step: int) -> Batch:
        batch = sampled(step)
        repeated = (np.arange(ROWS) // GROUP % 2 == 1) & (step > 1)
        fades = repeated[:, None] * (0.3 + np.exp(-np.arange(LENGTH) / 10))[None]
        moved = batch.logits + fades[..., None] * drift(3)
        return replace(batch, train=batch.of(moved + noise(step, batch.logits.shape)))

    named = over_steps(stale_cache, prompts=prompt)
    assert named["cause"].to_list()[:1] == ["F17"]
    assert over_steps(healthy, prompts=prompt).is_empty()
