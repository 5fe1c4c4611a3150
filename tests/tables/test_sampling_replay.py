"""What is left of the gap if the trainer renormalises over the ids that the sampler kept."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests.given import sql_connection, token_frame
from tests.given_evidence import evidence_frame
from tests.given_tables import log_softmax
from timtrack.tasks.verdicts.distributions import replayed

IDS, TOKENS, TOP_P = 30, 800, 0.9


def cut(logps: np.ndarray) -> np.ndarray:
    """Log-probs after top-p, -inf outside of what it keeps."""
    order = np.argsort(-logps, axis=1)
    p = np.take_along_axis(np.exp(logps), order, 1)
    outside = np.zeros(p.shape, bool)
    np.put_along_axis(outside, order, p.cumsum(1) - p >= TOP_P, 1)
    return log_softmax(np.where(outside, -np.inf, logps))


def sampled(noise: float) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
    """A sampler with top-p that reports what it sampled from, a trainer that does not know it."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(TOKENS, IDS))
    rollout = cut(log_softmax(logits))
    train = log_softmax(logits + noise * rng.normal(size=logits.shape))
    ids = (rollout + rng.gumbel(size=rollout.shape)).argmax(1)
    rows = [
        {"pos": t, "token_id": int(i), "logp_rollout": rollout[t, i], "logp_train": train[t, i]}
        | {"kept": int(np.isfinite(rollout[t]).sum())}
        for t, i in enumerate(ids)
    ]
    return rollout, train, token_frame(rows)


def replay(frame: pl.DataFrame, **columns: Any) -> list[dict[str, Any]]:
    with sql_connection(frame, evidence=evidence_frame(frame, **columns)) as connection:
        return connection.sql("from sampling_replay").pl().drop("run").to_dicts()


def lists(logps: np.ndarray) -> list[list[float]]:
    return logps.astype(np.float32).tolist()


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_replay_removes_what_the_sampler_cut(noise):
    rollout, train, frame = sampled(noise)
    kept = np.isfinite(rollout)
    mass = np.where(kept, np.exp(train), 0).sum(1)
    [by_mass] = replay(frame, kept_mass=mass.tolist())
    [by_lists] = replay(
        frame,
        top_ids=[list(range(IDS))] * TOKENS,
        top_logp_rollout=lists(rollout),
        top_logp_train=lists(train),
    )
    assert by_lists == approx(by_mass, rel=1e-4, abs=1e-6)
    ids = frame["token_id"].to_numpy()
    diff = train[np.arange(TOKENS), ids] - rollout[np.arange(TOKENS), ids]
    left = diff - np.log(mass)
    assert by_mass["tokens"] == TOKENS
    assert by_mass["kept_p50"] == np.median(kept.sum(1))
    assert by_mass["kept_mass_mean"] == approx(mass.mean())
    assert by_mass["kl_k1"] == approx(-diff.mean(), abs=1e-6)
    assert by_mass["kl_k1_replayed"] == approx(-left.mean(), abs=1e-6)
    assert by_mass["kl_k3_replayed"] == approx((np.exp(left) - 1 - left).mean(), abs=1e-6)
    assert by_mass["abs_logp_diff_mean_replayed"] == approx(abs(left).mean(), abs=1e-6)
    assert by_mass["ratio_mean"] == approx(np.exp(diff).mean())
    assert by_mass["ratio_mean_replayed"] == approx(np.exp(left).mean())
    assert by_mass["ratio_mean"] == approx(by_mass["kept_mass_mean"], abs=0.02)
    if not noise:
        assert by_mass["abs_logp_diff_mean_replayed"] < 1e-6
    [finding] = replayed({"sampling_replay": pl.DataFrame([by_mass])})
    assert finding.matters is not bool(noise)
    assert f"these {TOKENS} tokens would be" in finding.text


def test_one_token_by_hand():
    [row] = replay(
        token_frame([{"logp_rollout": math.log(0.5), "logp_train": math.log(0.4), "kept": 2}]),
        top_ids=[[1, 2, 3]],
        top_logp_rollout=[[math.log(0.5), math.log(0.5), None]],
        top_logp_train=[[math.log(0.4), math.log(0.4), math.log(0.1)]],
    )
    assert row["kept_mass_mean"] == approx(0.8)
    assert row["ratio_mean"] == approx(0.8)
    assert row["ratio_mean_replayed"] == approx(1)


@pytest.mark.parametrize(
    ("kept", "rollout", "train"),
    [
        (None, [-0.6931472, -0.6931472], [-1.0, -1.0]),  # the size is not known
        (3, [-0.6931472, -0.6931472], [-1.0, -1.0]),  # not all kept ids are listed
        (2, [-0.6931472, -0.6931472], [-1.0, None]),  # the trainer did not list one
        (2, [-1.2, -1.2], [-1.0, -1.0]),  # log-probs before the cut
    ],
)
def test_a_mass_that_is_not_known_is_not_guessed(kept, rollout, train):
    columns = {"top_ids": [[7, 8]], "top_logp_rollout": [rollout], "top_logp_train": [train]}
    assert replay(token_frame([{"kept": kept}]), **columns) == []


def test_the_size_alone_gives_the_gap_by_kept_ids_and_no_replay(run_sql):
    rows = [{"pos": pos, "kept": kept, "logp_train": -1.5} for pos, kept in enumerate([1, 2, 3, 9])]
    assert run_sql("sampling_replay", *rows) == []
    found = {row["kept_from"]: row["tokens"] for row in run_sql("gap_by_kept", *rows)}
    assert found == {1: 1, 2: 2, 8: 1}
    assert run_sql("gap_by_kept", {}) == []
