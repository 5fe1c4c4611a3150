"""Corrections in the toy trainer: the simulator's coefficients, on the loss of every mini-batch."""

import copy

import numpy as np
import polars as pl
import pytest
import torch
from pytest import approx

from tests import corrections_by_numpy as by_numpy
from tests.by_numpy import load
from timtrack.tasks.demo.toy_grpo import problems, weights
from timtrack.tasks.demo.toy_grpo.grpo import captured
from timtrack.tasks.demo.toy_grpo.objective import loss_of
from timtrack.tasks.demo.toy_grpo.recipe import Recipe
from timtrack.tasks.demo.toy_grpo.rollout import Rollout
from timtrack.tasks.demo.toy_grpo.scoring import Batch
from timtrack.tasks.demo.toy_grpo.trainer import Trainer
from timtrack.tasks.demo.toy_grpo.warm_up import warmed_up
from timtrack.tasks.tables import corrections
from timtrack.tasks.tables.catalogue import tables_named
from timtrack.tasks.tables.compute import tables_of_frames


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("corrected")


def trainer_of(recipe: Recipe, cache) -> Trainer:
    words = problems.tokenizer()
    return Trainer(recipe, 0, warmed_up(cache, words), words)


@pytest.fixture(scope="module")
def rolled_out(cache):
    """A trainer with a lossy codec, its first batch, the views of it, and the token table."""
    trainer = trainer_of(Recipe("rank16"), cache)
    batch = trainer.roll_out()
    views = trainer.recompute(1, batch)
    return trainer, batch, views, weights.frames_of(batch, views["train"])


@pytest.fixture(scope="module")
def simulated(rolled_out):
    """The table `corrections` of that batch, by setting."""
    table = tables_of_frames(rolled_out[3], tables_named("corrections"))["corrections"]
    return {row["setting"]: row for row in table.to_dicts()}


@pytest.mark.parametrize("name", list(corrections.defaults()))
def test_every_setting_trains_with_the_simulators_coefficients(name, rolled_out, simulated):
    trainer, batch, views, frames = rolled_out
    setting = corrections.parse(name)
    found = weights.coefficients_of(frames, setting, views["train"])
    mask = batch.rollout.mask.bool()
    assert (found[~mask] == 0).all()
    tokens = frames["tokens_file"].with_columns(entropy=pl.lit(None, pl.Float32))
    sequences = frames["sequences"]
    expected = by_numpy.weighed(load(tokens, sequences), name).c
    assert found[mask].numpy() == approx(expected.astype(np.float32), rel=1e-5, abs=1e-30)
    row = simulated[name]
    assert found[mask].double().mean().item() == approx(row["weight_mean"], rel=1e-5, abs=1e-30)
    assert (found[mask] == 0).double().mean().item() == approx(row["frac_tok_dropped"], abs=1e-9)
    other = copy.deepcopy(trainer)
    other.recipe = Recipe("rank16", correction=name)
    other.learn(1, batch, views)
    moved = [
        (new - old).abs().max().item()
        for new, old in zip(other.model.parameters(), trainer.model.parameters(), strict=True)
    ]
    assert np.isfinite(moved).all()
    assert (max(moved) > 0) == (row["weight_mean"] * (row["ess_adv"] or 0) > 0)
    assert other.used == name


def test_coefficients_multiply_each_tokens_part_of_the_loss():
    """Two tokens, A = 2, r = 1 and 1.1: -(0.5 * 2 * 1 + 3 * 2 * 1.1) / 2."""
    mask = torch.ones(1, 2)
    rollout = Rollout(torch.zeros(1, 2), mask, torch.zeros(1, 2))
    batch = Batch(mask, mask, rollout, torch.ones(1), torch.tensor([2.0]), ["a"])
    new = torch.tensor([[0.0, np.log(1.1)]])
    old = torch.zeros(1, 2)
    assert loss_of(new, old, batch).item() == approx(-(2 + 2.2) / 2)
    assert loss_of(new, old, batch, torch.tensor([[0.5, 3.0]])).item() == approx(-(1 + 6.6) / 2)


def test_a_correction_that_cannot_act_trains_as_none_does(cache):
    """Without mismatch every sequence is kept, with weight 1: the same bits."""
    states = []
    for name in ("none", "rs_geo_0.1_10"):
        trainer = trainer_of(Recipe(correction=name), cache)
        batch = trainer.roll_out()
        trainer.learn(1, batch, trainer.recompute(1, batch))
        states.append(trainer.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_settings_are_called_as_tables_call_them_and_as_they_are_typed():
    assert Recipe(correction="tis_token_2").setting == Recipe(correction="tis:2").setting
    assert Recipe(correction="recommended").setting is None
    with pytest.raises(corrections.BadSetting, match="no correction 'tisk'"):
        _ = Recipe(correction="tisk:2").setting


def test_the_recommended_correction_is_that_of_the_step(cache):
    """Nothing is corrected without mismatch; stale weights are, once they differ."""
    assert weights.recommended(rolled(Recipe(), cache, 1)) is None
    late = weights.recommended(rolled(Recipe(sync_every=9), cache, 6))
    assert late is not None and late.config


def rolled(recipe: Recipe, cache, steps: int) -> weights.Frames:
    trainer = trainer_of(recipe, cache)
    for step in range(1, steps + 1):
        batch = trainer.roll_out()
        views = trainer.recompute(step, batch)
        trainer.learn(step, batch, views)
    return weights.frames_of(batch, views["train"])


def test_a_capture_says_what_its_run_was_corrected_with(cache):
    recipe = Recipe("rank8", correction="icepop:0.5,5", latency=2)
    [done] = captured(cache / "said", recipe, 1, 0, cache)
    meta = torch.load(done.capture, weights_only=True)["meta_info"]
    assert (meta["correction"], meta["latency"]) == ("icepop:0.5,5", 2)
    assert done.correction == "icepop_0.5_5"


def test_the_anchor_begins_when_its_weights_are_as_old_as_the_latency(cache):
    for latency in (1, 3):
        trainer = trainer_of(Recipe("codec", latency=latency), cache)
        began = []
        for step in range(1, 5):
            batch = trainer.roll_out()
            trainer.learn(step, batch, trainer.recompute(step, batch))
            began.append(trainer.merger.average is not None)
        assert began.index(True) == latency


def test_the_table_of_a_batch_has_its_tokens(rolled_out):
    _, batch, views, frames = rolled_out
    tokens = frames["tokens_file"]
    assert len(tokens) == batch.rollout.mask.sum()
    one = tokens.filter(pl.col("row") == 9, pl.col("pos") == 3).row(0, named=True)
    assert one["uid"] == "prompt-1"
    assert one["token_id"] == batch.rollout.responses[9, 3]
    assert one["logp_train"] == views["train"][9, 3].item()
    assert frames["sequences"]["reward"].to_list() == batch.rewards.tolist()
