"""What the diagnoses say of captures whose fault is known, and of healthy ones."""

import numpy as np
import polars as pl
import pytest
from pytest import approx
from scipy import stats

from tests.given import random_tokens, sql_connection, token_frame
from tests.test_sql import one_row

VOCABULARY = 60


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def engines(
    temperature: float = 1.0,
    noise: float = 0.05,
    shift: int = 0,
    probabilities: bool = False,
    top_p: float = 1.0,
    rows: int = 40,
    length: int = 50,
) -> pl.DataFrame:
    """Rollouts of a random model, scored again by one that differs in the way that is asked for."""
    rng = np.random.default_rng(0)
    bias = rng.normal(size=VOCABULARY) * 1.5
    tokens = []
    for row in range(rows):
        logits = rng.normal(size=(length, VOCABULARY)) * 3 + bias
        rollout = log_softmax(logits)
        ids = np.array([rng.choice(VOCABULARY, p=np.exp(scores)) for scores in rollout])
        other = (logits + noise * rng.normal(size=logits.shape)) / temperature
        q, p = (scores[np.arange(length), ids] for scores in (rollout, log_softmax(other)))
        if top_p < 1:  # renormalised over what is kept
            q = q - np.log(top_p + (1 - top_p) * rng.random(length))
        p = np.roll(np.exp(p) if probabilities else p, shift)
        tokens += [
            {
                "row": row,
                "uid": f"u{row // 4}",
                "pos": pos,
                "token_id": int(ids[pos]),
                "logp_rollout": float(min(0, q[pos])),
                "logp_train": float(p[pos]),
            }
            for pos in range(length)
        ]
    return token_frame(tokens)


def found(tokens: pl.DataFrame) -> dict[tuple[str, str], float]:
    with sql_connection(tokens) as connection:
        table = connection.sql("from alignment where is_found").pl()
    return {(row["name"], row["engine"]): row["value"] for row in table.to_dicts()}


@pytest.mark.parametrize("noise", [0.001, 0.05, 0.5, 1.5])
def test_noise_is_no_fault_of_the_capture(noise):
    assert found(engines(noise=noise)) == {}


@pytest.mark.parametrize("shift", [1, -1, 2])
def test_a_shifted_capture_is_named_with_its_lag(shift):
    tokens = engines(shift=shift)
    assert found(tokens)["shift", "both"] == shift
    assert one_row(tokens)["align_best_lag"] == shift


def test_probabilities_for_log_probs_are_named():
    assert found(engines(probabilities=True))["positive", "train"] > 0.9


@pytest.mark.parametrize("temperature", [0.7, 0.9, 1.25])
def test_a_temperature_on_one_side_is_named_with_its_size(temperature):
    assert found(engines(temperature=temperature)) == {
        ("temperature", "both"): approx(1 / temperature, rel=0.05)
    }


def test_top_p_on_one_side_is_named():
    assert list(found(engines(noise=0.0, top_p=0.8))) == [("one_sided", "rollout")]


def changed(column: str, values) -> pl.DataFrame:
    tokens = engines()
    return tokens.with_columns(
        pl.Series(column, values(tokens[column].to_numpy()), dtype=pl.Float32)
    )


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bfloat16", to_bfloat16),
        ("float16", lambda x: np.minimum(x, -1e-4).astype(np.float16)),
        ("decimals", lambda x: x.round(4)),
        ("plateau", lambda x: np.maximum(x, -4.0)),
        ("zeros", lambda x: np.where(np.arange(len(x)) % 50 == 0, 0.0, x)),
    ],
)
def test_what_was_done_to_the_numbers_is_named(name, values):
    assert list(found(changed("logp_train", values))) == [(name, "train")]


def test_the_same_rollout_twice_is_named():
    tokens = engines()
    twice = tokens.filter(pl.col("row") < 4).with_columns(row=pl.col("row") + 100)
    assert found(pl.concat([tokens, twice]))["duplicates", "both"] == approx(4 / 44)


def test_the_published_run_has_what_was_found_in_it(published):
    tables = published[1]
    row = tables["step_metrics"].row(0, named=True)
    assert row["align_best_lag"] == 0
    assert set(tables["alignment"].filter("is_found")["name"]) == {"decimals"}
    blind = {r["engine"]: r for r in tables["context_blindness"].to_dicts()}
    assert blind["train"]["r2_repeated_ids"] == approx(0.9, abs=0.01)
    assert blind["rollout"]["r2_repeated_ids"] == approx(0.45, abs=0.01)
    assert (blind["train"]["worse_than_uniform"], blind["train"]["vocabulary"]) == (47, 151_936)
    assert blind["train"]["vocabulary_from"] == "capture"
    floor = tables["noise_floor"].row(0, named=True)
    assert (floor["positions"], floor["train_max"]) == (22, 0)
    assert floor["rollout_max"] <= 0.041
    contradicted = tables["confident_contradictions"].row(0, named=True)
    assert (contradicted["confident"], contradicted["contradictions"]) == (221, 91)
    assert contradicted["share_abs_logp_diff"] == approx(0.49, abs=0.005)


def test_a_context_blind_engine_is_explained_by_its_tokens():
    tokens = engines()
    rng = np.random.default_rng(1)
    by_token = -rng.exponential(2.0, VOCABULARY)
    tokens = tokens.with_columns(logp_train=by_token[tokens["token_id"].to_numpy()]).cast(
        {"logp_train": pl.Float32}
    )
    row = one_row(tokens)
    assert row["token_r2_train"] == approx(1, abs=1e-5)
    assert row["token_r2_rollout"] < 0.5


def test_shuffled_log_probs_are_explained_by_nothing():
    """The correction takes off what the number of ids alone explains."""
    tokens, rng = engines(), np.random.default_rng(2)
    shuffled = rng.permuted(np.tile(tokens["logp_train"].to_numpy(), (30, 1)), axis=1)
    explained = []
    for values in shuffled:
        with sql_connection(tokens.with_columns(logp_train=pl.Series(values))) as connection:
            sql = "from context_blindness where engine = 'train'"
            explained.append(connection.sql(sql).pl().row(0, named=True))
    assert np.mean([row["r2_token_id"] for row in explained]) == approx(0, abs=0.005)
    mean = np.mean([row["r2_uncorrected"] for row in explained])
    assert mean == approx(explained[0]["r2_shuffled"], abs=0.005)


def test_worse_than_uniform_counts_below_one_over_the_largest_id(run_sql):
    rows = run_sql(
        "context_blindness",
        {"pos": 0, "token_id": 99, "logp_train": -4.7, "logp_rollout": -4.5},
        {"pos": 1, "token_id": 3, "logp_train": -4.5, "logp_rollout": -4.5},
    )
    assert [(r["engine"], r["worse_than_uniform"]) for r in rows] == [("rollout", 0), ("train", 1)]
    assert {(r["vocabulary"], r["vocabulary_from"]) for r in rows} == {(100, "largest id")}


def test_the_noise_floor_is_measured_where_prefixes_are_shared(run_sql):
    """Rows 0 and 1 part after pos 1; row 2 is of another prompt."""
    ids = {0: [5, 6, 7], 1: [5, 6, 8], 2: [5, 6, 7]}
    rollout = {0: [-1.0, -2.0, -1.0], 1: [-1.2, -2.0, -3.0], 2: [-9.0, -9.0, -9.0]}
    [row] = run_sql(
        "noise_floor",
        *(
            {
                "row": r,
                "pos": t,
                "uid": "other" if r == 2 else "u",
                "token_id": ids[r][t],
                "logp_rollout": rollout[r][t],
                "logp_train": -3.0,
            }
            for r in ids
            for t in range(3)
        ),
    )
    assert (row["positions"], row["tokens"]) == (2, 4)
    assert row["rollout_max"] == approx(0.2, rel=1e-6)
    assert row["rollout_std"] == approx(np.sqrt((0.02 + 0) / 2), rel=1e-6)
    assert (row["train_std"], row["train_max"]) == (0, 0)
    square = (2.0**2 + 1.8**2 + 1 + 1) / 4
    assert row["share_rollout"] == approx(0.01 / square, rel=1e-6)
    assert row["share_systematic"] == approx(1 - 0.01 / square, rel=1e-6)


def with_culprit(lift: float) -> pl.DataFrame:
    """Token 7 has `lift` times the gap of the others, in every prompt group."""
    rng = np.random.default_rng(5)
    tokens = engines(rows=80)
    gap = np.where(tokens["token_id"].to_numpy() == 7, lift, 1.0) * rng.normal(size=len(tokens))
    train = np.minimum(0, tokens["logp_rollout"].to_numpy() - 0.1 * np.abs(gap))
    return tokens.with_columns(logp_train=pl.Series(train, dtype=pl.Float32))


def test_a_planted_culprit_is_found_with_its_lift():
    with sql_connection(with_culprit(8.0)) as connection:
        table = connection.sql("from culprits").pl()
    first = table.row(0, named=True)
    assert (first["kind"], first["slice"], first["survives"]) == ("token", "7", True)
    assert first["lift_low"] < first["lift"] < first["lift_high"]
    others = table.filter(pl.col("survives") & (pl.col("slice") != "7"))["lift"]
    assert (others < 1.2).all()  # what is left is that the others have less than their share


def test_without_a_culprit_hardly_any_survives():
    with sql_connection(with_culprit(1.0)) as connection:
        table = connection.sql("from culprits").pl()
    assert table["survives"].sum() <= 0.1 * len(table)
    assert table["share_abs_logp_diff"].is_between(0, 1).all()


def test_q_values_are_those_of_benjamini_and_hochberg():
    """Ties included: rewards and advantages slice the same tokens."""
    tokens = with_culprit(1.3).with_columns(advantage=(pl.col("row") % 2 * 2 - 1).cast(pl.Float32))
    with sql_connection(tokens) as connection:
        table = connection.sql("from culprits where q_value is not null").pl()
        assert "advantage" in table["kind"]
    errors = np.log(table["lift_high"] / table["lift_low"]).to_numpy() / (2 * 1.96)
    p_values = 2 * stats.norm.sf(np.abs(np.log(table["lift"].to_numpy())) / errors)
    expected = stats.false_discovery_control(p_values)
    clear = (expected > 1e-3) & (expected < 0.9)  # where the two ways to an error hardly matter
    assert clear.sum() > 5
    assert (
        np.corrcoef(np.log(table["q_value"].to_numpy()[clear]), np.log(expected[clear]))[0, 1] > 0.9
    )


def test_few_groups_prove_nothing(published):
    table = published[1]["culprits"]
    assert not table["survives"].any()
    assert table["q_value"].is_null().all()


def test_bootstrap_intervals_agree_with_the_clustered_error_of_a_ratio():
    """An independent route: the linearised error of the log of the lift."""
    tokens = with_culprit(8.0)
    with sql_connection(tokens) as connection:
        row = (
            connection.sql("from culprits where kind = 'token' and slice = '7'")
            .pl()
            .row(0, named=True)
        )
    d = np.abs(tokens["logp_train"].to_numpy().astype(float) - tokens["logp_rollout"].to_numpy())
    inside = tokens["token_id"].to_numpy() == 7
    uid = tokens["uid"].to_numpy()
    influence = (
        d * inside / (d * inside).mean() - d / d.mean() - inside / inside.mean() + np.ones(len(d))
    )
    sums = np.array([influence[uid == u].sum() for u in np.unique(uid)])
    error = np.sqrt((sums**2).sum()) / len(d)
    width = (np.log(row["lift_high"]) - np.log(row["lift_low"])) / (2 * 1.96)
    assert width == approx(error, rel=0.25)


def test_the_median_s_error_agrees_with_a_bootstrap_of_prompt_groups():
    tokens = random_tokens(seed=4, rows=200, gap=0.3)
    d = np.abs(tokens["logp_train"].to_numpy() - tokens["logp_rollout"].to_numpy())
    trained = tokens["is_trained"].to_numpy()
    uid, rng = tokens["uid"].to_numpy(), np.random.default_rng(0)
    groups = [d[(uid == u) & trained] for u in np.unique(uid[trained])]
    medians = [
        np.median(np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]))
        for _ in range(400)
    ]
    assert one_row(tokens)["abs_logp_diff_p50_se"] == approx(np.std(medians), rel=0.2)
