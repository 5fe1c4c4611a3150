"""The toy trainer: its parts do what they are named for, and its captures show the known causes."""

import random
from math import sqrt

import numpy as np
import polars as pl
import pytest
import torch
from pytest import approx

from tests.given import ingest
from timtrack.tasks.demo.toy_grpo import grpo, problems
from timtrack.tasks.demo.toy_grpo.codec import Codec, SignedEma, orthonormal
from timtrack.tasks.demo.toy_grpo.decoder import HIDDEN, LAYERS, Cache, Decoder
from timtrack.tasks.demo.toy_grpo.scoring import PROMPT
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.reports import run_page
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step, tables_of
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.verdicts import causes, change_points


def test_a_reward_is_verified_up_to_the_end_of_the_turn():
    assert problems.reward(["1", "+", "2", "=", "3", ".", "####", "3", "<|im_end|>"], 3) == 1
    assert problems.reward(["####", "1", "2"], 12) == 1
    assert problems.reward(["####", "3", "<|im_end|>", "####", "4"], 4) == 0
    assert problems.reward(["3"], 3) == 0
    assert problems.reward(["####"], 3) == 0


def test_problems_have_the_answer_that_their_solutions_give():
    rng, words = random.Random(1), problems.tokenizer()
    for _ in range(200):
        problem = problems.draw(rng)
        for solution in problem.solutions:
            decoded = words.decode(words.encode(solution).ids, skip_special_tokens=False)
            assert problems.reward(decoded.split(), problem.answer) == 1
        assert len(words.encode(problem.prompt).ids) <= PROMPT
        assert 0 not in words.encode(problem.prompt).ids  # the padding is never text


def test_cached_decoding_gives_the_logits_of_the_full_forward():
    """One token at a time with a cache, prompts padded on the left, in float32."""
    torch.manual_seed(0)
    model = Decoder(30)
    ids = torch.randint(1, 30, (3, 12))
    real = torch.ones(3, 12, dtype=torch.int64)
    real[1, :3] = 0
    full = model(ids, real)
    cache = Cache(3, 12, torch.float32)
    steps = [model(ids[:, :5], real[:, :5], cache)]
    steps += [model(ids[:, t : t + 1], real[:, : t + 1], cache) for t in range(5, 12)]
    seen = real.bool()
    assert torch.allclose(torch.cat(steps, 1)[seen], full[seen], atol=1e-5)


def test_left_padding_changes_nothing():
    torch.manual_seed(0)
    model = Decoder(30)
    ids = torch.randint(1, 30, (1, 7))
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.int64), ids], 1)
    real = (padded != 0).long()
    plain = model(ids, torch.ones_like(ids))
    assert torch.allclose(model(padded, real)[:, 4:], plain, atol=1e-5)


def test_the_codec_projects_and_so_does_its_gradient():
    codec = Codec(rank=5, seed=0)
    hidden = torch.randn(2, 3, HIDDEN, requires_grad=True)
    crossed = codec.boundary(torch.ones(2, 3), learn=False)(0, hidden)
    q = codec.bases[0]
    assert torch.allclose(q.T @ q, torch.eye(5), atol=1e-5)
    assert torch.allclose(crossed, hidden @ q @ q.T, atol=1e-5)
    upstream = torch.randn(2, 3, HIDDEN)
    crossed.backward(upstream)
    assert torch.allclose(hidden.grad, upstream @ q @ q.T, atol=1e-5)


def test_the_basis_is_frozen_within_a_step_and_follows_at_its_end():
    """Block power iteration finds the directions that the hidden states have, padding aside."""
    codec = Codec(rank=3, seed=0)
    directions = orthonormal(torch.randn(HIDDEN, 3))
    before = [q.clone() for q in codec.bases]
    real = torch.ones(8, 10)
    real[:, 7:] = 0
    for _ in range(3):
        hidden = torch.randn(8, 10, 3) @ directions.T
        hidden[:, 7:] = 100 * torch.randn(8, 3, HIDDEN)
        for layer in range(LAYERS - 1):
            codec.boundary(real, learn=True)(layer, hidden)
        assert all(torch.equal(q, b) for q, b in zip(codec.bases, before, strict=True))
        codec.end_step()
        before = [q.clone() for q in codec.bases]
    for q in codec.bases:
        assert torch.allclose(q @ q.T, directions @ directions.T, atol=1e-4)


def test_the_signed_ema_merger_by_hand():
    """a g + (1 - a) |g| sign(M), a = 1/4; M after anchors 2 and then -6 is -2."""
    layer = torch.nn.Linear(1, 1, bias=False)
    merger = SignedEma()
    layer.weight.grad = torch.tensor([[8.0]])
    merger.merge(layer)
    assert layer.weight.grad.item() == 8.0  # no anchor yet
    merger.update([torch.tensor([[2.0]])])
    merger.update([torch.tensor([[-6.0]])])
    assert merger.average[0].item() == approx(0.5 * 0.5 * 2 + 0.5 * -6)
    merger.merge(layer)
    assert layer.weight.grad.item() == approx(0.25 * 8 - 0.75 * 8)


STEPS = {"off": 20, "codec": 6, "scoring": 3}
LATE = 10  # first step with the codec of the run `late`


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three short runs, in the lake."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("toy")
    told = {
        name: list(grpo.train(folder / name, name, steps, 0, 1, folder))
        for name, steps in STEPS.items()
    }
    stale = list(grpo.train(folder / "stale", "off", 4, 0, 4, folder))
    told["stale"] = stale
    told["late"] = list(grpo.train(folder / "late", "codec", 14, 1, 1, folder, codec_from=LATE))
    home = folder / "lake"
    steps = {name: [ingest(done.capture, home) for done in told[name]] for name in told}
    for step in [*steps["off"], *steps["codec"], *steps["late"]]:
        write_tables(step, sql_version(), compute_step(step))
    return told, steps


def metrics(step):
    return tables_of(step)["step_metrics"].row(0, named=True)


def test_without_codec_the_mismatch_is_the_literatures(runs):
    for step in runs[1]["off"]:
        row = metrics(step)
        assert abs(row["kl_k1"]) < 1e-2
        assert 1e-6 < row["kl_k3"] < 1e-2
        assert row["pearson_prob"] > 0.99
    tokens = run_query(runs[1]["off"], "select avg(-logp_diff) from trained_tokens").item()
    assert 1e-6 < abs(tokens) < 1e-2


def test_with_codec_the_mismatch_is_the_published_runs(runs):
    rows = [metrics(step) for step in runs[1]["codec"]]
    for row in rows:
        assert row["kl_k1"] > 1
        assert row["pearson_logp"] < 0.5
        assert row["frac_outside_5"] > 0.4
    # Far below its expectation of 1 in the typical step: the missing mass is in tokens that are
    # never sampled. A step may hold one token with r in the thousands, so the median over steps.
    assert np.median([row["ratio_mean"] for row in rows]) < 0.8


def test_a_codec_that_comes_late_is_found_where_it_came(runs):
    steps = [*runs[1]["off"], *runs[1]["late"]]
    trend = run_query(steps, "from run_trend")
    found = change_points.of_runs(trend, run_page.events(steps))
    assert set(found["run"]) == {"late"}
    assert found["step"].is_between(LATE - 1, LATE + 1).all()
    assert {"kl_k1", "kl_k3", "abs_logp_diff_p50", "tv"} <= set(found["metric"])
    assert set(found["events"]) == {f"{LATE}: codec codec switched on"}


def test_rewards_rise_without_codec(runs):
    """Most of the rise is in the first steps; how much exactly is each processor's own."""
    rewards = [done.reward for done in runs[0]["off"]]
    assert np.mean(rewards[-8:]) > np.mean(rewards[:2]) + 0.05


def test_what_is_sampled_is_what_is_reported(runs):
    """Mean p_train / p_rollout is 1 within sampling error: samples are from the probs told."""
    r = run_query(runs[1]["off"], "select ratio from trained_tokens")["ratio"].to_numpy()
    assert abs(r.mean() - 1) < 4 * r.std() / sqrt(len(r))


def test_the_links_add_up_on_every_token(runs):
    for step in (runs[1]["codec"][-1], runs[1]["stale"][-1]):
        tokens = pl.read_parquet(step.path / "tokens.parquet").filter("is_trained")
        v = {n: tokens[f"logp_{n}"].to_numpy().astype(float) for n in ("rollout", "train")}
        v |= {n: tokens[f"logp_{n}"].to_numpy().astype(float) for n in ("dense", "rescored")}
        links = {
            "engine": v["rescored"] - v["rollout"],
            "staleness": v["dense"] - v["rescored"],
            "codec": v["train"] - v["dense"],
        }
        gap = v["train"] - v["rollout"]
        assert np.abs(sum(links.values()) - gap).max() < 1e-12
        table = tables_of(step)["attribution"]
        assert table["residual_max"].max() < 1e-12
        assert table["share_abs"].sum() == approx(1)
        assert table["k1"].sum() == approx(metrics(step)["kl_k1"], rel=1e-9)
        for row in table.to_dicts():
            link = links[row["component"]]
            assert row["k1"] == approx(-link.mean(), rel=1e-9, abs=1e-15)
            assert row["abs_p50"] == approx(np.median(np.abs(link)), rel=1e-9, abs=1e-15)
            share = (link * np.sign(gap)).sum() / np.abs(gap).sum()
            assert row["share_abs"] == approx(share, rel=1e-9, abs=1e-12)


def test_the_cause_is_where_it_was_put(runs):
    share = {
        name: {
            row["component"]: row["share_abs"]
            for row in tables_of(steps[-1])["attribution"].to_dicts()
        }
        for name, steps in runs[1].items()
    }
    assert share["off"] == {"codec": 0, "engine": approx(1), "staleness": 0}
    assert share["codec"]["codec"] > 0.99
    assert share["codec"]["staleness"] == 0
    assert share["stale"]["staleness"] > 0.5
    assert share["stale"]["codec"] == 0


def test_a_codec_in_the_scoring_only_is_a_paired_control(runs):
    """Same training and same rollouts as without codec; only the trainer's column differs."""
    for off, scoring in zip(runs[0]["off"], runs[0]["scoring"], strict=False):
        a, b = (torch.load(done.capture, weights_only=True) for done in (off, scoring))
        for name in ("responses", "rollout_log_probs", "dense_log_probs", "advantages"):
            assert torch.equal(a[name], b[name])
        assert not torch.equal(a["old_log_probs"], b["old_log_probs"])


def test_the_same_seed_gives_the_same_bytes(runs, tmp_path):
    """Another process would too; the warm-up is trained anew here."""
    again = list(grpo.train(tmp_path / "codec", "codec", 2, 0, 1, tmp_path))
    for first, second in zip(runs[0]["codec"], again, strict=False):
        assert first.capture.read_bytes() == second.capture.read_bytes()


def test_what_the_sampler_gained_is_in_every_step(runs):
    """The engine after the sync scores the step's tokens: up where A > 0, 0 until it is synced."""
    gains = [tables_of(step)["step_gain"].row(0, named=True) for step in runs[1]["off"]]
    assert sum(row["gain"] for row in gains) > 0
    assert all(row["moved"] > 0 and row["gain_margin"] > 0 for row in gains)
    stale = [tables_of(step)["step_gain"].row(0, named=True) for step in runs[1]["stale"]]
    assert [row["moved"] == 0 for row in stale] == [True, True, True, False]
    trend = run_query(runs[1]["off"], "from run_trend where metric = 'step_gain'")
    assert trend.sort("step")["value"].to_list() == [row["gain"] for row in gains]


def test_captures_say_what_they_are_and_show_text(runs):
    facts = runs[1]["codec"][0].facts()
    assert facts["views"] == ["dense", "next_rollout", "rescored"]
    assert facts["meta"]["codec_rank"] == 3
    assert facts["meta"]["algorithm"] == "GRPO"
    assert facts["notes"] == []


def test_a_missing_view_joins_two_links(run_sql):
    rows = run_sql("attribution", {"logp_rescored": -1.25, "logp_train": -2.0})
    assert {r["component"]: r["k1"] for r in rows} == {"engine": 0.25, "staleness + codec": 0.75}
    rows = run_sql("attribution", {"logp_dense": -1.25, "logp_train": -2.0})
    assert {r["component"]: r["k1"] for r in rows} == {"engine + staleness": 0.25, "codec": 0.75}
    assert run_sql("attribution", {}) == []


def test_the_causes_of_the_toy_runs_are_named(runs):
    """An engine that gets no weights, by how its steps follow each other; the codec, in one."""
    assert [cause.id for cause in causes.over_steps(runs[1]["stale"])] == ["F10"]
    assert causes.over_steps(runs[1]["off"]) == ()
    assert causes.over_steps(runs[1]["codec"]) == ()
    for step in runs[1]["codec"]:
        assert [cause.id for cause in causes.diagnose(step)][:1] == ["F41"]
    for step in runs[1]["off"]:
        assert causes.diagnose(step) == ()
