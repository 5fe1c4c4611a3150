"""The numbers: by hand, against NumPy and SciPy, and as the published run has them."""

from math import exp, log

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from tests import by_numpy
from tests.given import sequence_frame, sql_connection, token_frame
from tests.given_tables import described, one_row
from timtrack.tasks.tables.catalogue import catalogue


def test_only_trained_tokens_count(run_sql):
    [row] = run_sql(
        "step_metrics",
        {"pos": 0, "logp_train": -1.0 - log(4)},
        {"pos": 1, "logp_train": -3.0, "is_trained": False},
    )
    assert row["trained_tokens"] == 1
    assert row["tokens"] == 2
    assert row["kl_k1"] == approx(log(4), rel=1e-6)


def test_two_tokens_by_hand(run_sql):
    """r = 1/4 and r = 2: mean 9/8, tv (3/4 + 0) / 2, ESS (9/4)^2 / (2 * 65/16)."""
    [row] = run_sql(
        "step_metrics",
        {"pos": 0, "logp_rollout": -1.0, "logp_train": -1.0 - log(4)},
        {"pos": 1, "logp_rollout": -2.0, "logp_train": -2.0 + log(2)},
    )
    assert row["ratio_mean"] == approx(9 / 8, rel=1e-6)
    assert row["tv"] == approx(3 / 8, rel=1e-6)
    assert row["ess_token"] == approx((9 / 4) ** 2 / (2 * (1 / 16 + 4)), rel=1e-6)
    assert row["kl_k1"] == approx((log(4) - log(2)) / 2, rel=1e-6)
    assert row["kl_k3"] == approx((1 / 4 - 1 + log(4) + 2 - 1 - log(2)) / 2, rel=1e-6)
    assert row["abs_logp_diff_p50"] == approx((log(4) + log(2)) / 2, rel=1e-6)
    assert (row["frac_low_3"], row["frac_high_3"], row["frac_outside_3"]) == (0.5, 0, 0.5)
    assert row["spearman"] == approx(-1)


@pytest.mark.parametrize("bound", [2, 3, 5, 10])
def test_shares_count_from_the_bound_on(run_sql, bound):
    """A millionth of a nat on either side of ln of the bound decides."""
    for beyond in (False, True):
        gap = log(bound) + (1e-6 if beyond else -1e-6)
        [row] = run_sql("step_metrics", {"logp_rollout": 0.0, "logp_train": -gap})
        assert row[f"frac_low_{bound}"] == row[f"frac_outside_{bound}"] == beyond
        [row] = run_sql("step_metrics", {"logp_rollout": -gap, "logp_train": 0.0})
        assert row[f"frac_high_{bound}"] == row[f"frac_outside_{bound}"] == beyond


def test_correlations_of_a_constant_are_undefined(run_sql):
    """NULL, neither NaN nor 0."""
    [row] = run_sql("step_metrics", {"pos": 0}, {"pos": 1})
    assert [row[name] for name in ("pearson_logp", "pearson_prob", "spearman")] == [None] * 3


def test_gaps_that_overflow_float32_are_exact(run_sql):
    """e^100 fits float64, and the ESS of weights e^100 and e^-100 is one token of two."""
    [row] = run_sql(
        "step_metrics",
        {"pos": 0, "logp_rollout": -100.0, "logp_train": 0.0},
        {"pos": 1, "logp_rollout": 0.0, "logp_train": -100.0},
    )
    assert row["kl_k3"] == approx((exp(100) - 1 - 100 + exp(-100) - 1 + 100) / 2, rel=1e-12)
    assert row["ess_token"] == approx(0.5, rel=1e-12)
    assert row["abs_logp_diff_max"] == 100


def assert_equals_numpy(tokens: pl.DataFrame, sequences: pl.DataFrame) -> None:
    row, expected = one_row(tokens, sequences), by_numpy.step_metrics(tokens, sequences)
    beside = {"run", "step", "rows", "tokens", "trained_tokens", "abs_logp_diff_p50_se"}
    beside |= {
        "masked_tokens",
        "nonfinite_rollout",
        "nonfinite_train",
    }  # tests/readers/test_nonfinite.py
    diagnosed = set(catalogue()["diagnoses"].columns)  # tests/tables/test_diagnoses.py
    assert set(expected) == set(row) - beside - diagnosed
    row = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
    wrong = {
        name: (row[name], value)
        for name, value in expected.items()
        if (row[name] is None) != (value is None)
        or (value is not None and row[name] != approx(value, rel=1e-10, abs=1e-13))
    }
    assert not wrong


@pytest.mark.parametrize("gap", [1e-3, 0.1, 2.0, 20.0])
def test_step_metrics_equal_numpy(gap):
    assert_equals_numpy(*described(seed=7, gap=gap))


@pytest.mark.parametrize(
    "pairs",
    [
        [(-1.0, -2.0)],
        [(-1.0, -2.0), (-1.0, -2.0), (-1.0, -2.0)],
        [(-1.0, -1.0), (-2.0, -2.0)],
        [(-100.0, 0.0), (0.0, -100.0), (-3.0, -2.0)],
        [(-0.5, -800.0), (-3.0, -2.0), (-1.0, -1.001)],
        [(-0.5, -1500.0), (-3.0, -2.0)],
    ],
    ids=["one token", "constant", "no gap", "gaps of 100", "r is 0", "cosh overflows"],
)
def test_step_metrics_of_extremes_equal_numpy(pairs):
    rows = [{"pos": i, "logp_rollout": q, "logp_train": p} for i, (q, p) in enumerate(pairs)]
    tokens = token_frame(rows)
    assert_equals_numpy(tokens, sequence_frame(tokens))


logps = st.floats(-40, 0, width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(logps, logps), min_size=1, max_size=60))
def test_identities_hold_on_any_tokens(pairs):
    tokens = token_frame(
        [{"pos": i, "logp_rollout": q, "logp_train": p} for i, (q, p) in enumerate(pairs)]
    )
    with sql_connection(tokens) as connection:
        row = connection.sql("from step_metrics").pl().row(0, named=True)
        ratios = connection.sql("from ratio_histogram").pl()
        probs = connection.sql("from prob_diff_histogram").pl()
        density = connection.sql("from logp_density").pl()
    for c in (2, 3, 5, 10):
        assert row[f"frac_outside_{c}"] == approx(row[f"frac_low_{c}"] + row[f"frac_high_{c}"])
    assert 0 <= row["tv"] <= 1 + 1e-12
    assert row["kl_k3"] >= 0
    assert 1 / len(pairs) - 1e-9 <= row["ess_token"] <= 1 + 1e-9
    assert row["kl_k3"] == approx(row["ratio_mean"] - 1 + row["kl_k1"], rel=1e-9, abs=1e-9)
    assert ratios["tokens"].sum() == probs["tokens"].sum() == density["tokens"].sum() == len(pairs)
    assert ratios["share"].sum() == approx(1)


def test_ratio_histogram_has_its_decades_and_keeps_what_lies_beyond(run_sql):
    rows = run_sql(
        "ratio_histogram",
        {"pos": 0, "logp_rollout": 0.0, "logp_train": -30.0},
        {"pos": 1, "logp_rollout": -9.0, "logp_train": 0.0},
        {"pos": 2, "logp_rollout": -1.0, "logp_train": -1.0},
    )
    filled = {row["bin"]: (row["ratio_low"], row["ratio_high"]) for row in rows if row["tokens"]}
    assert filled == {-201: (None, 1e-10), 0: (1, approx(10**0.05)), 60: (1e3, None)}
    decades = np.log10([row["ratio_high"] / row["ratio_low"] for row in rows[1:-1]])
    assert decades.sum() == approx(13)


def test_worst_tokens_are_ranked_and_ties_go_by_place(run_sql):
    rows = run_sql(
        "worst_tokens",
        {"row": 2, "pos": 0, "logp_train": -3.0},
        {"row": 1, "pos": 5, "logp_train": -3.0},
        {"row": 1, "pos": 1, "logp_train": -3.0},
        {"row": 0, "pos": 0, "logp_train": -1.5},
        {"row": 0, "pos": 1, "logp_train": -9.0, "is_trained": False},
    )
    assert [(r["rank"], r["row"], r["pos"]) for r in rows] == [
        (1, 1, 1),
        (2, 1, 5),
        (3, 2, 0),
        (4, 0, 0),
    ]


def test_worst_tokens_stop_at_100():
    tokens = token_frame([{"pos": i, "logp_train": -1.0 - i / 100} for i in range(150)])
    with sql_connection(tokens) as connection:
        worst = connection.sql("from worst_tokens").pl()
    assert worst["pos"].to_list() == list(range(149, 49, -1))


def test_sequence_metrics_list_rollouts_without_trained_tokens(run_sql):
    rows = run_sql(
        "sequence_metrics",
        {"row": 0, "pos": 0, "logp_train": -1.5},
        {"row": 0, "pos": 1, "logp_train": -2.0},
        {"row": 1, "pos": 0, "is_trained": False},
    )
    assert rows[0]["seq_logratio"] == approx(-1.5)
    assert rows[0]["seq_geo_ratio"] == approx(exp(-0.75))
    assert rows[1]["trained_tokens"] == 0
    assert rows[1]["kl_k1"] is None


def test_gap_by_position_bins_by_32(run_sql):
    rows = run_sql(
        "gap_by_position",
        {"pos": 0, "logp_train": -1.5},
        {"pos": 31, "logp_train": -2.5},
        {"pos": 32, "logp_train": -1.0},
    )
    assert [(r["pos_bin"], r["tokens"], r["kl_k1"]) for r in rows] == [(0, 2, 1.0), (32, 1, 0.0)]


def two_turns() -> tuple[pl.DataFrame, pl.DataFrame]:
    """20 rollouts of two turns, the second 2 nats off, and one of a single turn."""
    mask = [True, True, False, True]
    tokens = token_frame(
        [
            {
                "row": r,
                "uid": f"u{r}",
                "pos": t,
                "is_trained": trained,
                "logp_train": -1.5 - t // 3 * 1.5,
            }
            for r in range(20)
            for t, trained in enumerate(mask)
        ]
        + [{"row": 20, "uid": "u20", "pos": 0, "logp_train": -1.5}]
    )
    return tokens, sequence_frame(tokens)


def test_turns_are_the_runs_of_the_mask():
    with sql_connection(*two_turns()) as connection:
        rows = connection.sql("select turn, tokens, kl_k1 from gap_by_turn").fetchall()
        [worst] = connection.sql(
            "select slice, lift from culprits where kind = 'turn' limit 1"
        ).fetchall()
    assert rows == [(0, 41, approx(0.5)), (1, 20, approx(2.0))]
    assert worst == ("1", approx(2.0 / ((41 * 0.5 + 20 * 2.0) / 61)))


def test_an_undefined_metric_is_missing_from_the_trend(run_sql):
    rows = run_sql("run_trend", {"pos": 0}, {"pos": 1})
    metrics = {row["metric"]: row["value"] for row in rows}
    assert "pearson_logp" not in metrics
    assert metrics["kl_k1"] == 0


def test_the_published_run_has_its_published_numbers(published):
    row = published[1]["step_metrics"].row(0, named=True)
    assert (row["rows"], row["trained_tokens"], row["tokens"]) == (8, 400, 1304)
    assert row["abs_logp_diff_p50"] == approx(2.845, abs=5e-4)
    assert row["frac_outside_5"] == 0.615
    assert (row["frac_low_5"], row["frac_high_5"]) == (0.6075, 0.0075)
    assert row["kl_k1"] == approx(4.872, abs=5e-4)
    assert row["kl_k3"] == approx(4.309, abs=5e-4)
    assert row["pearson_logp"] == approx(0.045, abs=5e-4)
    assert row["pearson_prob"] == approx(0.219, abs=5e-4)
    assert row["spearman"] == approx(0.164, abs=5e-4)
    assert row["ratio_mean"] == approx(0.437, abs=5e-4)
    assert row["tv"] == approx(0.685, abs=5e-4)
    assert row["ess_token"] == approx(0.099, abs=5e-4)
    assert row["abs_logp_diff_p90"] == approx(12.3, abs=0.05)
    assert row["abs_logp_diff_max"] == approx(20.3, abs=0.05)


def test_the_published_rows_keep_their_places(published):
    sequences = published[1]["sequence_metrics"]
    assert set(sequences["row"]) == {833, 173, 592, 67, 705, 376, 1004, 34}
    assert sequences["response_tokens"].sum() == 1304
    assert sequences["uid"].n_unique() == 4


WITHOUT_OPTIONS, OF_NONE = "select name, value from", "where setting = 'none'"


@pytest.mark.parametrize("gap", [1e-3, 0.1, 2.0, 20.0])
def test_framework_names_have_the_frameworks_numbers(gap):
    """With rollouts that have no trained token, which verl counts and the others do not."""
    tokens, _ = described(seed=11, gap=gap)
    tokens = tokens.with_columns(is_trained=pl.col("is_trained") & (pl.col("row") % 5 > 0))
    sequences = sequence_frame(tokens)
    with sql_connection(tokens, sequences) as connection:
        verl = connection.sql("from verl_metrics").pl()
        others = {
            name: dict(connection.sql(f"{WITHOUT_OPTIONS} {name}_metrics {OF_NONE}").fetchall())
            for name in ("nemo_rl", "slime")
        }
    logged = {(r["setting"].replace("none", ""), r["name"]): r for r in verl.to_dicts()}
    expected = by_numpy.verl(tokens, sequences)
    assert logged.keys() >= expected.keys()  # tests/tables/test_parity.py has the others
    for key, (now, then) in expected.items():
        assert logged[key]["value"] == approx(now, rel=1e-6, abs=1e-12), key
        assert logged[key]["value_until_0_7_1"] == approx(then, rel=1e-6, abs=1e-12), key
    assert others["nemo_rl"] == approx(by_numpy.nemo_rl(tokens, sequences), rel=1e-6, abs=1e-12)
    assert others["slime"] == approx(by_numpy.slime(tokens, sequences), rel=1e-6, abs=1e-12)


def test_each_of_few_rewards_is_a_slice_however_rare():
    tokens = token_frame([{"row": i, "uid": f"u{i}"} for i in range(40)])
    rewards = pl.Series([0.0] * 38 + [1.0] * 2)
    with sql_connection(tokens, sequence_frame(tokens).with_columns(reward=rewards)) as connection:
        rows = connection.sql("select reward_from, tokens from gap_by_reward").fetchall()
    assert rows == [(0, 38), (1, 2)]


def test_one_cluster_has_no_standard_error():
    row = one_row(token_frame([{"pos": i, "logp_train": -1.0 - i / 9} for i in range(20)]))
    errors = {name: value for name, value in row.items() if name.endswith("_se")}
    assert (row["clusters"], set(errors.values())) == (1, {None})


def test_what_is_not_finite_in_a_capture_is_unknown(run_sql):
    nan = float("nan")
    [row] = run_sql("step_metrics", {"advantage": nan, "entropy": nan, "logp_train": -1.5})
    assert (row["phantom_clip_frac"], row["entropy_mean"]) == (None, None)


OF_SLICES = 7e-4  # relative error of a slice's quantiles at most, as the header of `gap` says


def in_thousands(rollout: np.ndarray, train: np.ndarray) -> pl.DataFrame:
    """Tokens with these log-probs, a thousand to a rollout."""
    places = np.arange(len(rollout))
    one = token_frame([{"row": 0, "pos": 0}]).drop("row", "pos", "logp_rollout", "logp_train")
    return pl.concat([one] * len(rollout)).with_columns(
        row=pl.Series(places // 1000, dtype=pl.Int32),
        pos=pl.Series(places % 1000, dtype=pl.Int32),
        logp_rollout=rollout,
        logp_train=train,
    )


GAP_SLICES = {
    "gap_by_position": ("pos_bin", pl.col("pos") // 32 * 32),
    "gap_by_relative_position": ("tenth", 10 * pl.col("pos") // pl.col("response_tokens")),
    "gap_by_rollout_prob": ("prob_from", pl.col("prob_from")),
    "gap_by_advantage_sign": ("advantage_sign", pl.col("advantage").sign()),
    "gap_by_token": ("token_id", pl.col("token_id")),
    "gap_by_group": ("uid", pl.col("uid")),
    "gap_by_reward": ("reward_from", pl.col("reward_from")),
    "gap_by_entropy": ("entropy_from", pl.col("entropy_from")),
    "gap_by_length": ("length_from", pl.col("length_from")),
}


def tenth_of(values: pl.Series, population: pl.Series) -> np.ndarray:
    """The start of the tenth of the population that each value lies in."""
    edges = np.unique(np.quantile(population, np.arange(0, 1, 0.1), method="inverted_cdf"))
    return edges[np.searchsorted(edges, values.to_numpy(), side="right") - 1]


@pytest.mark.parametrize("name", GAP_SLICES)
def test_slices_equal_numpy_and_their_shares_add_up(name):
    tokens, sequences = described(seed=3, gap=1.0, rows=60)
    some = sequences.filter(pl.col("trained_tokens") > 0)
    known = tokens.join(sequences, on="row").filter("is_trained")
    probability = known["logp_rollout"].to_numpy().astype(float)
    bounds = np.array([0, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.99])
    known = known.with_columns(
        prob_from=bounds[np.searchsorted(bounds, np.exp(probability), side="right") - 1],
        reward_from=tenth_of(known["reward"], some["reward"]),
        entropy_from=tenth_of(known["entropy"], known["entropy"]),
        length_from=tenth_of(known["response_tokens"], some["response_tokens"]),
    )
    column, key = GAP_SLICES[name]
    with sql_connection(tokens, sequences) as connection:
        table = connection.sql(f"from {name}").pl()
    groups = {k[0]: part for k, part in known.with_columns(key.alias("slice")).group_by("slice")}
    assert set(table[column]) == set(groups)
    for row in table.to_dicts():
        part = groups[row[column]]
        q, p = (part[c].to_numpy().astype(float) for c in ("logp_rollout", "logp_train"))
        for measure, value in by_numpy.gap(p - q, q, p).items():
            assert row[measure] == approx(value, rel=1e-10, abs=1e-13), (row[column], measure)
    assert table["share_kl_k1"].sum() == approx(1)
    assert table["share_abs_logp_diff"].sum() == approx(1)
    assert table["tokens"].sum() == len(known)


@pytest.mark.parametrize("equal", [1.0, 0.97])
def test_a_quarter_of_a_million_equal_values_are_no_list(equal, monkeypatch):
    """Engines that agree in every bit, or nearly: a bin that holds all tokens is not unrolled."""
    monkeypatch.setenv("TIMTRACK_MEMORY", "256MiB")
    differs = np.arange(250_000) >= 250_000 * equal
    rollout = -np.random.default_rng(0).exponential(1, 250_000).astype(np.float32)
    train = np.where(differs, rollout - np.float32(0.25), rollout)
    tokens = in_thousands(rollout, train)
    expected = np.quantile(np.abs(train.astype("f8") - rollout.astype("f8")), [0.5, 0.99])
    with sql_connection(tokens) as connection:
        [(p50, p99)] = connection.sql(
            "select abs_logp_diff_centiles[51], abs_logp_diff_centiles[100] from token_spread"
        ).fetchall()
        [of_turn] = connection.sql(
            "select abs_logp_diff_p50, abs_logp_diff_p99 from gap_by_turn"
        ).fetchall()
    assert (p50, p99) == tuple(expected)
    assert of_turn == approx(expected, rel=OF_SLICES)


def test_quantiles_of_large_slices_are_within_what_the_header_says():
    rng = np.random.default_rng(5)
    rollout = -rng.exponential(1, 40_000).astype(np.float32)
    train = rollout + rng.standard_t(2, 40_000).astype(np.float32) * np.float32(0.05)
    tokens = in_thousands(rollout, train)
    gaps = np.abs(train.astype("f8") - rollout.astype("f8"))
    tenths = np.arange(40_000) % 1000 // 100
    with sql_connection(tokens) as connection:
        found = connection.sql(
            "select tenth, abs_logp_diff_p50, abs_logp_diff_p99 from gap_by_relative_position"
        ).fetchall()
    for tenth, *quantiles in found:
        of_tenth = np.quantile(gaps[tenths == tenth], [0.5, 0.99])
        assert quantiles == approx(of_tenth, rel=OF_SLICES)
    assert len(found) == 10


def slime_of(tokens: pl.DataFrame, sequences: pl.DataFrame) -> dict[str, float]:
    with sql_connection(tokens, sequences) as connection:
        return dict(connection.sql(f"{WITHOUT_OPTIONS} slime_metrics {OF_NONE}").fetchall())


def test_slime_counts_a_sample_without_trained_tokens_as_zero():
    """24 samples of which one was removed: its mean is 0, not left out."""
    rows = [
        {"row": i, "uid": f"u{i}", "pos": t, "logp_train": -1.5, "is_trained": i > 0}
        for i in range(24)
        for t in range(3)
    ]
    tokens = token_frame(rows)
    values = slime_of(tokens, sequence_frame(tokens))
    assert values["mis_kl"] == approx(0.5 * 23 / 24)
    assert values["train_rollout_logprob_abs_diff"] == approx(0.5 * 23 / 24)
    assert values["mis_chi2_seq"] == approx((np.exp(-3) - 1) * 23 / 24)
    assert values["mis_training_ppl"] == approx(np.exp(1.5) * 23 / 24)


def test_samples_of_one_rollout_are_one_unit_for_slime():
    """Two samples of rollout 7, of 1 and 3 tokens, beside a rollout of one sample."""
    sizes, gaps = {0: 1, 1: 3, 2: 2}, {0: 0.4, 1: 0.8, 2: 0.2}
    rows = [
        {"row": i, "pos": t, "logp_rollout": -1.0, "logp_train": -1.0 - gaps[i]}
        for i, size in sizes.items()
        for t in range(size)
    ]
    tokens = token_frame(rows)
    ids = pl.Series("rollout_id", [7, 7, 8], dtype=pl.Int64)
    values = slime_of(tokens, sequence_frame(tokens).with_columns(ids))
    assert values["mis_kl"] == approx(((0.4 + 3 * 0.8) / 4 + 0.2) / 2)
    assert values["mis_log_ppl_abs_diff"] == approx(values["mis_kl"])
