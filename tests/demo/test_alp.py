"""Adaptive layerwise perturbation in the toy trainer: its noise, its ratio, its view."""

from math import exp, log

import pytest
import torch
from pytest import approx

from tests.given import ingest
from timtrack.tasks.demo.toy_grpo import problems
from timtrack.tasks.demo.toy_grpo.decoder import LAYERS, Decoder
from timtrack.tasks.demo.toy_grpo.grpo import captured
from timtrack.tasks.demo.toy_grpo.objective import alp_loss
from timtrack.tasks.demo.toy_grpo.perturbation import FIRST_SIZE, Perturbation
from timtrack.tasks.demo.toy_grpo.recipe import Recipe
from timtrack.tasks.demo.toy_grpo.rollout import Rollout
from timtrack.tasks.demo.toy_grpo.scoring import Batch, log_probs_of
from timtrack.tasks.demo.toy_grpo.trainer import Trainer
from timtrack.tasks.demo.toy_grpo.warm_up import warmed_up


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("alp")


@pytest.fixture(scope="module")
def trainer(cache):
    words = problems.tokenizer()
    return Trainer(Recipe("rank16", "alp"), 3, warmed_up(cache, words), words)


def batch_of(log_probs: list[float], advantage: float) -> Batch:
    one = torch.ones(1, len(log_probs))
    rollout = Rollout(one.long(), one, torch.tensor([log_probs]))
    return Batch(one, one, rollout, torch.ones(1), torch.tensor([advantage]), ["a"])


def test_the_ratio_is_to_the_rollout_and_clipped_by_hand():
    """r = 0.25, 2 and 8; A = 1: min(r, clip(r)) = 0.25, 2, 4."""
    new = torch.tensor([[log(0.25), log(2.0), log(8.0)]])
    assert alp_loss(new, batch_of([0.0, 0.0, 0.0], 1.0)).item() == approx(-(0.25 + 2 + 4) / 3)
    # A = -1: -max(r, clip(r)) = -0.5, -2, -8, and none is below -3.
    assert alp_loss(new, batch_of([0.0, 0.0, 0.0], -1.0)).item() == approx((0.5 + 2 + 3) / 3)


def test_a_ratio_of_any_size_gives_a_finite_loss():
    far = torch.tensor([[-300.0, 300.0]])
    for advantage in (1.0, -1.0):
        assert torch.isfinite(alp_loss(far, batch_of([0.0, 0.0], advantage)))


def test_noise_enters_before_each_layer_at_its_own_size():
    torch.manual_seed(0)
    model, perturbation = Decoder(30), Perturbation(0)
    ids = torch.randint(1, 30, (2, 6))
    real = torch.ones_like(ids)
    noise = perturbation.noise(1, ids)
    seen = []
    before = perturbation.before(noise)
    with torch.no_grad():
        perturbation.log_coef.copy_(torch.tensor([log(0.5), -80.0]))
        for layer in model.layers:
            layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        model(ids, real, before=before)
        model(ids, real)
    assert torch.allclose(seen[0], seen[2] + 0.5 * noise[:, 0], atol=1e-6)
    assert torch.equal(before(1, seen[1]), seen[1])  # e^-80 is nothing
    plain = log_probs_of(model, ids, real)
    assert not torch.allclose(log_probs_of(model, ids, real, before=before), plain, atol=1e-3)


def test_a_recompute_sees_the_noise_of_the_update_and_another_step_another(trainer):
    batch = trainer.roll_out()
    first = trainer.recompute(1, batch)
    assert torch.equal(first["perturbed"], trainer.recompute(1, batch)["perturbed"])
    assert not torch.equal(first["perturbed"], trainer.recompute(2, batch)["perturbed"])
    assert not torch.equal(first["perturbed"], first["train"])
    rows = torch.tensor([5, 2, 40])
    part = trainer._perturbed(trainer.perturbation, 1, batch, trainer.codec(1), rows)
    assert torch.allclose(part, first["perturbed"][rows], atol=1e-5)


def test_every_size_is_learned_at_its_own_rate(trainer):
    sizes = trainer.perturbation.log_coef
    assert sizes.tolist() == [approx(log(FIRST_SIZE))] * LAYERS
    batch = trainer.roll_out()
    trainer.learn(1, batch, trainer.recompute(1, batch))
    moved = (sizes.detach() - log(FIRST_SIZE)).abs()
    assert (moved > 1e-3).all() and (moved < 0.1).all()  # 4 updates of at most 0.01
    assert trainer.used == "alp"


def test_captures_have_the_perturbed_view(cache, tmp_path):
    done = list(captured(tmp_path / "alp", Recipe(correction="alp"), 2, 0, cache))
    again = list(captured(tmp_path / "again" / "alp", Recipe(correction="alp"), 2, 0, cache))
    for one, other in zip(done, again, strict=True):
        assert one.capture.read_bytes() == other.capture.read_bytes()
    step = ingest(done[1].capture, tmp_path / "lake")
    assert {"dense", "perturbed", "rescored"} <= set(step.facts()["views"])
    assert step.facts()["meta"]["correction"] == "alp"
    saved = torch.load(done[1].capture, weights_only=True)
    mask = saved["response_mask"].bool()
    gap = (saved["perturbed_log_probs"] - saved["old_log_probs"])[mask]
    assert 0 < gap.abs().mean() < exp(-1)
