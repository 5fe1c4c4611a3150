"""Top-k log-probs of both engines: bounds of what is between their distributions over all ids."""

import math

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests.given import sql_connection, token_frame
from tests.given_evidence import evidence_frame
from tests.given_tables import log_softmax
from timtrack.tasks.verdicts.distributions import whole_distributions

ROUNDING = 2e-6  # of float32 log-probs


def engines(
    seed: int, tokens: int, ids: int, sharpness: float, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole distributions of two engines [tokens, ids], and what the first one sampled."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(tokens, ids))
    other = logits + noise * rng.normal(size=logits.shape)
    p, q = log_softmax(logits), log_softmax(other)
    return p, q, (p + rng.gumbel(size=p.shape)).argmax(1)


def top(logps: np.ndarray, k: int, sampled: int | None = None) -> set[int]:
    """The k likeliest ids, and the sampled one where an engine adds it."""
    likeliest = {int(i) for i in np.argsort(-logps, kind="stable")[:k]}
    return likeliest if sampled is None else likeliest | {int(sampled)}


def tables(
    p: np.ndarray, q: np.ndarray, sampled: np.ndarray, listed: list[tuple[set[int], set[int]]]
) -> dict[str, pl.DataFrame]:
    """The tables over tokens of which each engine listed these ids."""
    at = range(len(sampled))
    rows = [
        {"row": 0, "pos": i, "token_id": int(sampled[i])}
        | {"logp_rollout": p[i, sampled[i]], "logp_train": q[i, sampled[i]]}
        for i in at
    ]
    tokens = token_frame(rows)
    ids = [sorted(a | b) for a, b in listed]
    evidence = evidence_frame(
        tokens,
        top_ids=ids,
        top_logp_rollout=[[p[i, j] if j in listed[i][0] else None for j in ids[i]] for i in at],
        top_logp_train=[[q[i, j] if j in listed[i][1] else None for j in ids[i]] for i in at],
    )
    with sql_connection(tokens, evidence=evidence) as connection:
        by_token = connection.sql("from top_k_tokens order by row, pos").pl()
        return {"tokens": by_token, "step": connection.sql("from top_k_agreement").pl()}


CASES = [
    (ids, k, sharpness, noise)
    for ids in (6, 40)
    for k in (1, 3, 6)
    for sharpness in (0.5, 3.0)
    for noise in (0.05, 2.0)
]


@pytest.mark.parametrize("adds_sampled", [False, True])
@pytest.mark.parametrize(("ids", "k", "sharpness", "noise"), CASES)
def test_the_truth_over_all_ids_lies_within_the_bounds(ids, k, sharpness, noise, adds_sampled):
    p, q, sampled = engines(k, 300, ids, sharpness, noise)
    added = sampled if adds_sampled else [None] * len(sampled)
    listed = [(top(p[i], k, s), top(q[i], k, s)) for i, s in enumerate(added)]
    table = tables(p, q, sampled, listed)["tokens"]
    tv = np.abs(np.exp(p) - np.exp(q)).sum(1) / 2
    kl = (np.exp(p) * (p - q)).sum(1)
    low, high, kl_low = (table[name].to_numpy() for name in ("tv_low", "tv_high", "kl_low"))
    assert (low <= tv + ROUNDING).all()
    assert (tv <= high + ROUNDING).all()
    assert (kl_low <= kl + 1e-5).all()
    if k == ids:
        assert low == approx(tv, abs=ROUNDING)
        assert high == approx(tv, abs=ROUNDING)
        assert kl_low == approx(kl, abs=1e-5)


def test_the_same_ids_asked_of_both_bound_it_whichever_they_are():
    """Not the likeliest ones of the trainer: its other ids may be likelier than those listed."""
    p, q, sampled = engines(5, 500, 30, 2.0, 3.0)
    asked = [top(p[i], 4) for i in range(len(sampled))]
    table = tables(p, q, sampled, [(ids, ids) for ids in asked])["tokens"]
    tv = np.abs(np.exp(p) - np.exp(q)).sum(1) / 2
    assert (table["tv_low"].to_numpy() <= tv + ROUNDING).all()
    assert (tv <= table["tv_high"].to_numpy() + ROUNDING).all()
    assert (table["overlap"] == 1).all()


@pytest.mark.parametrize("seed", range(12))
def test_no_tighter_lower_bound_is_possible(seed):
    """A linear program over all distributions that the lists allow finds the same distance."""
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(seed)
    p, q, sampled = engines(seed, 1, 200, 2.5, float(rng.choice([0.3, 2.0])))
    a, b = top(p[0], int(rng.integers(1, 9))), top(q[0], int(rng.integers(1, 9)))
    sampled[0] = 199  # in no list: no entry is left out of the caps
    [row] = tables(p, q, sampled, [(a, b)])["tokens"].to_dicts()
    known = [{i: math.exp(x[0, i]) for i in ids} for x, ids in ((p, a), (q, b))]
    n = 200
    bounds = [
        (of[i], of[i]) if i in of else (0, min(of.values())) for of in known for i in range(n)
    ]
    bounds += [(0, 1)] * n  # min(p, q) of each id, as large as the other two let it be
    unit, zero = np.eye(n), np.zeros((n, n))
    answer = optimize.linprog(
        np.r_[np.zeros(2 * n), -np.ones(n)],
        A_ub=np.block([[-unit, zero, unit], [zero, -unit, unit]]),
        b_ub=np.zeros(2 * n),
        A_eq=np.r_[[np.repeat([1, 0, 0], n)], [np.repeat([0, 1, 0], n)]],
        b_eq=[1, 1],
        bounds=bounds,
    )
    assert row["tv_low"] == approx(1 + answer.fun, abs=1e-5)


def by_hand(p: dict[int, float], q: dict[int, float], sampled: int) -> dict[str, float]:
    """The bounds once more, id by id: what each id may share at most, and at least."""
    alpha = min(x for i, x in p.items() if i != sampled)
    beta = min(x for i, x in q.items() if i != sampled)
    left = {"p": 1 - sum(p.values()), "q": 1 - sum(q.values())}
    sure = sum(min(p[i], q[i]) for i in p.keys() & q.keys())
    shared = sure
    for engine, mine, theirs, cap in (("q", p, q, beta), ("p", q, p, alpha)):
        for i in mine.keys() - theirs.keys():
            taken = min(mine[i], cap, left[engine])
            shared, left[engine] = shared + taken, left[engine] - taken
    both = p.keys() & q.keys()
    rest = [max(0.0, 1 - sum(of[i] for i in both)) for of in (p, q)]
    kl = sum(p[i] * math.log(p[i] / q[i]) for i in both) + rest[0] * math.log(rest[0] / rest[1])
    return {"tv_low": 1 - shared - min(left.values()), "tv_high": 1 - sure, "kl_low": kl}


def test_each_number_is_what_numpy_says_and_the_step_has_their_means():
    p, q, sampled = engines(7, 400, 50, 2.0, 1.0)
    listed = [(top(p[i], 5), top(q[i], 4)) for i in range(len(sampled))]
    found = tables(p, q, sampled, listed)
    p32, q32 = (np.exp(x.astype(np.float32).astype(np.float64)) for x in (p, q))
    expected = [
        by_hand({i: p32[t, i] for i in a}, {i: q32[t, i] for i in b}, int(sampled[t]))
        for t, (a, b) in enumerate(listed)
    ]
    for name in ("tv_low", "tv_high", "kl_low"):
        values = np.array([row[name] for row in expected])
        assert found["tokens"][name].to_numpy() == approx(values, abs=1e-9)
        assert found["step"][f"{name}_mean"].item() == approx(values.mean())
    [step] = found["step"].to_dicts()
    low = [row["tv_low"] for row in expected]
    assert [step["tv_low_p50"], step["tv_low_p99"]] == approx(np.quantile(low, [0.5, 0.99]))
    assert step["tv_low_max"] == approx(max(low))
    same = [p[t].argmax() == q[t].argmax() for t in range(len(sampled))]
    assert step["frac_same_top"] == approx(np.mean(same))
    assert step["overlap"] == approx(np.mean([len(a & b) / 4 for a, b in listed]))
    masses = [sum(p32[t, i] for i in a) for t, (a, _) in enumerate(listed)]
    assert step["mass_rollout"] == approx(np.mean(masses))
    r = np.array([q32[t, i] / p32[t, i] for t, i in enumerate(sampled)])
    assert step["tv_sampled"] == approx(np.maximum(0, 1 - r).mean())
    assert step["frac_excluded"] == 0
    [finding] = whole_distributions({"top_k_agreement": found["step"]})
    assert "distributions is 0." in finding.text and not finding.matters


def test_two_lists_by_hand():
    """Of 0.6 and 0.2 + 0.1, listed by one engine each beside a common 0.3 and 0.5."""
    p, q = np.log([[0.3, 0.6, 0.02, 0.08]]), np.log([[0.5, 0.02, 0.38, 0.1]])
    [row] = tables(p, q, np.array([0]), [({0, 1}, {0, 2})])["tokens"].to_dicts()
    # In common 0.3 at least. Id 1 shares at most what Q has left, 0.12, below beta = 0.38; id 2
    # what P has left, 0.1. Of Q nothing is left then.
    assert row["tv_high"] == approx(0.7, abs=1e-6)
    assert row["tv_low"] == approx(1 - 0.3 - 0.12 - 0.1, abs=1e-6)
    assert row["kl_low"] == approx(0.3 * math.log(0.6) + 0.7 * math.log(0.7 / 0.5), abs=1e-6)
    assert row["overlap"] == 0.5
    assert row["is_same_top"] is False


def test_an_id_that_the_trainer_excludes_makes_kl_infinite():
    p, q = np.log([[0.5, 0.5, 1e-30]]), np.array([[0.0, -np.inf, -np.inf]])
    found = tables(p, q, np.array([0]), [({0, 1}, {0, 1})])
    assert found["tokens"]["kl_low"].to_list() == [math.inf]
    [step] = found["step"].to_dicts()
    assert (step["frac_excluded"], step["kl_low_mean"]) == (1, None)
    assert (step["tv_low_mean"], step["tv_high_mean"]) == approx((0.5, 0.5), abs=1e-6)


def test_lists_that_hold_more_than_all_the_mass_say_nothing():
    p = np.log([[0.9, 0.5], [0.6, 0.4]])
    found = tables(p, p, np.array([0, 0]), [({0, 1}, {0, 1})] * 2)
    assert found["tokens"]["pos"].to_list() == [1]
    assert found["step"]["tokens"].to_list() == [1]


def test_without_lists_there_is_no_row(run_sql):
    assert run_sql("top_k_agreement", {}) == []
