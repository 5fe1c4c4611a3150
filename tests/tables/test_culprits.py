"""The table `culprits`: what has no structure has no survivor, what is planted is found.

TIMTRACK_NULL_CAPTURES sets how many captures without structure are drawn of each kind.
"""

import os
from functools import cache
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from pytest import approx
from scipy import stats

from tests.given import random_tokens, sql_connection, token_frame
from tests.simulated import PLANTED, Scenario, connection, text_of

MANY = int(os.environ.get("TIMTRACK_NULL_CAPTURES", "60"))
POWER = 20  # captures
NULL = {
    "64 groups": Scenario(64),
    "32 groups, heavy tails": Scenario(32, heavy=2),
    "16 groups whose levels differ": Scenario(16, differing=True),
    "8 groups": Scenario(8),
    "8 groups, heavy tails, levels differ": Scenario(8, heavy=2, differing=True),
    "6 groups": Scenario(6),
    "64 groups, tails without a mean": Scenario(64, heavy=1),
}


# What has no structure


@cache
def null_table(name: str) -> pl.DataFrame:
    with connection(NULL[name], MANY) as opened:
        return opened.sql(
            """
            select culprits.*, coalesce(is_chosen, false) as is_chosen
            from culprits
            left join (from token_slices where is_chosen) as chosen
            on kind = 'token' and culprits.step = chosen.step and slice = chosen.token
            """
        ).pl()


@pytest.mark.parametrize("name", NULL)
def test_without_structure_one_capture_in_twenty_has_a_survivor(name):
    """At most: what 5 % give in nine of ten such simulations; 7 % of 200 captures."""
    survivors = null_table(name).group_by("step").agg(pl.col("survives").any())["survives"]
    assert len(survivors) == MANY
    assert survivors.sum() <= stats.binom.ppf(0.9, MANY, 0.05)


def test_without_structure_intervals_leave_out_one_in_twenty_times():
    """Also of ids that were chosen by their gap, as other groups test them."""
    tables = pl.concat(null_table(name) for name in NULL).drop_nulls("lift_low")
    outside = (tables["lift_low"] > 1) | (tables["lift_high"] < 1)
    chosen = tables["is_chosen"]
    assert chosen.sum() > 5 * MANY
    assert outside.mean() < 0.05
    assert outside.filter(chosen).mean() < 0.05
    assert tables.filter("is_chosen")["lift"].mean() > 1.05  # why they must not test themselves


def test_fewer_groups_than_ten_prove_nothing():
    for name in ("8 groups", "8 groups, heavy tails, levels differ", "6 groups"):
        for column in ("q_value", "lift_low", "lift_high"):
            assert null_table(name)[column].is_null().all()
        assert (null_table(name)["clusters"] <= 8).all()


def test_few_groups_of_a_published_run_prove_nothing(published):
    table = published[1]["culprits"]
    assert not table["survives"].any()
    assert table["q_value"].is_null().all()


# What has


def found(scenario: Scenario, kind: str, slices: str | None = None) -> float:
    """In what share of the captures a slice of that kind survives, with a lift above 1."""
    with connection(scenario, POWER, seed=1) as opened:
        table = opened.sql("from culprits where survives and lift > 1").pl()
    table = table.filter(kind=kind)
    return table.filter(slices is None or pl.col("slice") == slices)["step"].n_unique() / POWER


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("token", text_of(PLANTED)),
        ("position", "0 to 15"),
        ("token class", "number"),
        ("length", None),
    ],
)
@pytest.mark.parametrize("groups", [32, 64])
def test_twice_the_gap_is_found_in_most_captures(groups, kind, name):
    assert found(Scenario(groups, planted=kind, lift=2.0), kind, name) > 0.5


@pytest.mark.parametrize("heavy", [None, 2])
def test_half_as_much_again_is_found_among_64_groups(heavy):
    at_all = Scenario(64, heavy, planted="position", lift=1.5)
    assert found(at_all, "position", "0 to 15") > 0.8


def test_intervals_hold_the_lift_that_was_planted():
    scenario = Scenario(32, heavy=2, differing=True, planted="token class", lift=2.0)
    with connection(scenario, MANY, seed=2) as opened:
        table = opened.sql("from culprits where kind = 'token class' and slice = 'number'").pl()
    share = table["share_tokens"].mean()
    lift = 2 / (1 - share + 2 * share)
    held = (table["lift_low"] < lift) & (lift < table["lift_high"])
    assert held.sum() >= stats.binom.ppf(0.01, MANY, 0.95)


# The numbers, by an independent road


def drawn(groups: int = 60, ids: int = 40) -> pl.DataFrame:
    """Token ids of differing frequency and gap; nothing else to slice but place and probability."""
    rng, many = np.random.default_rng(3), groups * 4 * 40
    token_id = np.minimum(rng.geometric(0.08, many) - 1, ids - 1)
    rollout = -rng.exponential(size=many)
    gap = 0.05 * rng.normal(size=many) * np.where(token_id % 7 == 3, 1.3, 1.0)
    row = np.arange(many) // 40
    return pl.DataFrame(
        {
            "row": row,
            "uid": [f"u{r // 4}" for r in row],
            "pos": np.arange(many) % 40,
            "token_id": token_id,
            "logp_rollout": rollout,
            "logp_train": rollout + gap,
        }
    ).pipe(lambda frame: token_frame(frame.to_dicts()))


def labels(tokens: pl.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Which tokens are of which slice."""
    p, pos = np.exp(tokens["logp_rollout"].to_numpy().astype(float)), tokens["pos"].to_numpy()
    ids = tokens["token_id"].to_numpy()
    edges = ["0", "0.001", "0.01", "0.1", "0.5", "0.9", "0.99", "1"]
    probs = {
        ("rollout probability", f"{low} to {high}"): (p >= float(low))
        & ((p < float(high)) | (high == "1"))
        for low, high in pairwise(edges)
    }
    positions = {("position", "0 to 15"): pos < 16, ("position", "16 to 63"): pos >= 16}
    return {**probs, **positions, **{("token", str(i)): ids == i for i in np.unique(ids)}}


def by_token(inside: np.ndarray, d: np.ndarray, cluster: np.ndarray) -> dict[str, float]:
    """Lift, interval and p-value of a slice, from its tokens one by one."""
    influence = inside * d / (inside * d).mean() - inside / inside.mean() - d / d.mean() + 1
    groups = [cluster == c for c in np.unique(cluster)]
    sums = np.array([influence[g].sum() for g in groups]) / len(d)
    down = np.sqrt(len(groups) * sums.var(ddof=1))
    n = np.array([inside[g].sum() for g in groups])
    size = np.array([g.sum() for g in groups])
    level = np.array([d[g].mean() for g in groups])
    within = np.array([d[g].var(ddof=1) for g in groups]) * n * (size - n) / size
    between = np.average((level - d.mean()) ** 2, weights=size)
    at_random = (within + between * (n - size * inside.mean()) ** 2).sum()
    up = max(down, np.sqrt(at_random) / (inside.mean() * d.sum()))
    own, whole = (np.array([d[g & of].sum() for g in groups]) for of in (inside, True))
    kish = [w.sum() ** 2 / (w**2).sum() for w in (n, size - n, own, whole - own)]
    df = min(kish) - 1
    lift, t_975 = d[inside].mean() / d.mean(), stats.t.ppf(0.975, df)
    t = (lift - 1) / up if lift < 1 else np.log(lift) / down
    return {
        "clusters": min(kish[:2]),
        "lift_low": lift * np.exp(-t_975 * down),
        "lift_high": min(1 / inside.mean(), max(lift * np.exp(t_975 * up), lift + t_975 * up)),
        "p_value": 2 * stats.t.sf(abs(t), df),
    }


def test_every_test_equals_numpy():
    """Ids that were chosen are tested by the clusters of odd number; q-values are SciPy's."""
    tokens = drawn()
    with sql_connection(tokens) as opened:
        table = opened.sql("from culprits").pl()
        clusters = opened.sql("select row, cluster from rollout_slices").pl()
        chosen = set(opened.sql("from token_slices where is_chosen").pl()["token"])
    cluster = tokens.join(clusters, on="row", maintain_order="left")["cluster"].to_numpy()
    d = np.abs(tokens["logp_train"].to_numpy().astype(float) - tokens["logp_rollout"].to_numpy())
    inside, rows = labels(tokens), table.drop_nulls("q_value").to_dicts()
    assert len(chosen) == 15
    assert {row["slice"] for row in rows if row["kind"] == "token"} & chosen
    p_values = []
    for row in rows:
        scope = cluster % 2 == 1 if row["slice"] in chosen else np.full(len(d), True)
        expected = by_token(inside[row["kind"], row["slice"]][scope], d[scope], cluster[scope])
        p_values.append(expected.pop("p_value"))
        assert {name: row[name] for name in expected} == approx(expected, rel=1e-6)
    q_values = [row["q_value"] for row in rows]
    assert q_values == approx(stats.false_discovery_control(p_values), rel=1e-6)
    assert [row["survives"] for row in rows] == [q < 0.05 for q in q_values]


def test_shares_and_lifts_are_of_the_whole_step():
    tokens = drawn()
    with sql_connection(tokens) as opened:
        table = opened.sql("from culprits").pl()
    d = np.abs(tokens["logp_train"].to_numpy().astype(float) - tokens["logp_rollout"].to_numpy())
    inside = labels(tokens)
    for row in table.to_dicts():
        mask = inside[row["kind"], row["slice"]]
        assert row["tokens"] == mask.sum()
        assert row["share_abs_logp_diff"] == approx(d[mask].sum() / d.sum(), rel=1e-6)
        assert row["lift"] == approx(d[mask].mean() / d.mean(), rel=1e-6)


def test_a_slice_that_few_groups_hold_is_described_and_not_tested():
    """9 of 40 groups have token 3; token 4 is in all."""
    rows = [
        {
            "row": i,
            "uid": f"u{i}",
            "pos": t,
            "token_id": token,
            "logp_train": -1.1 - (i + t) % 3 / 9,
        }
        for i in range(40)
        for t, token in enumerate([3 if i < 9 else 5, 4, 5, 5])
    ]
    with sql_connection(token_frame(rows)) as opened:
        table = opened.sql("from culprits where kind = 'token'").pl()
    rows_of = {row["slice"]: row for row in table.to_dicts()}
    assert (rows_of["3"]["tokens"], rows_of["3"]["clusters"]) == (9, approx(9))
    assert rows_of["3"]["q_value"] is None and rows_of["3"]["lift_high"] is None
    assert rows_of["4"]["clusters"] == approx(40)
    assert rows_of["4"]["q_value"] is not None


def with_one_gap(nats: float) -> pl.DataFrame:
    changed = pl.when(pl.int_range(pl.len()) == 77).then(-nats).otherwise("logp_train")
    return drawn().with_columns(logp_train=changed.cast(pl.Float32))


@pytest.mark.parametrize("nats", [10, 1e3, 1e30])
def test_one_token_proves_nothing(nats):
    """Its slices have nearly all of the gap in every sample, and so hardly an error."""
    with sql_connection(with_one_gap(nats)) as opened:
        table = opened.sql("from culprits").pl()
    assert table.filter(pl.col("survives") & (pl.col("kind") != "token")).is_empty()
    named = table.filter(pl.col("share_abs_logp_diff") > 0.95)
    assert len(named) == {10: 0, 1e3: 0, 1e30: 3}[nats]  # its position, probability and id
    assert not named["survives"].any()


def test_no_lift_exceeds_the_one_at_which_the_slice_has_all_of_the_gap():
    with sql_connection(with_one_gap(100.0)) as opened:
        table = opened.sql("from culprits").pl().drop_nulls("lift_high")
    largest = (table["lift_high"] * table["share_tokens"]).max()
    assert 0.9 < largest <= 1


def test_a_whole_that_agrees_has_no_culprits():
    tokens = random_tokens(1).with_columns(logp_train=pl.col("logp_rollout"))
    with sql_connection(tokens) as opened:
        assert opened.sql("from culprits").pl().is_empty()
