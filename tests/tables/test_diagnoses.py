"""What the diagnoses say of captures whose fault is known, and of healthy ones."""

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests.given import Row, random_tokens, sql_connection, token_frame
from tests.given_tables import VOCABULARY, clean, codec, engines, frame_of, one_row


def found(tokens: pl.DataFrame) -> dict[tuple[str, str], float]:
    with sql_connection(tokens) as connection:
        table = connection.sql("from alignment where is_found").pl()
    return {(row["name"], row["engine"]): row["value"] for row in table.to_dicts()}


@pytest.mark.parametrize("period", [2, 3, 5])
def test_a_text_that_repeats_itself_is_not_shifted(period):
    """Ids come again every few tokens, and both engines' log-probs rise from token to token."""
    rng = np.random.default_rng(period)
    rows: list[Row] = []
    for row in range(60):
        for pos in range(60):
            logp = -2.0 * np.exp(-pos / 12) * (1 + 0.3 * (pos % period)) - 0.01 * rng.random()
            rows.append(
                {"row": row, "uid": f"u{row // 4}", "pos": pos, "token_id": pos % period}
                | {"logp_rollout": logp, "logp_train": logp - 1e-3 * rng.random()}
            )
    assert "shift" not in {name for name, _ in found(token_frame(rows))}


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


def steps_of(draw, captures: int) -> pl.DataFrame:
    """Many captures in one table, a step each."""
    return pl.concat([draw(seed).with_columns(step=pl.lit(seed)) for seed in range(captures)])


def shifts(tokens: pl.DataFrame) -> list[tuple[int, str, float]]:
    with sql_connection(tokens) as connection:
        query = "select step, engine, value from alignment where name = 'shift' and is_found"
        return connection.sql(query).fetchall()


@pytest.mark.parametrize(
    ("tokens", "given"),
    [
        (64, {}),
        (184, {}),
        (960, {}),
        (960, {"gap": 4.0}),
        (1800, {"repeating": False, "gap": 2.5}),
        (1800, {"repeating": False, "gap": 12.0}),
    ],
)
def test_clean_captures_raise_no_shift_alarm(tokens, given):
    """Few tokens, wide gaps, ids that hardly repeat: none of 40 captures each."""
    assert shifts(steps_of(lambda seed: clean(seed, tokens, **given), 40)) == []


def test_copies_of_a_rollout_are_no_evidence_of_a_shift():
    def copied(seed: int) -> pl.DataFrame:
        tokens = clean(seed, 960)
        again = tokens.filter(row=0)
        more = [again.with_columns(row=pl.lit(100 + i, pl.Int32)) for i in range(3)]
        return pl.concat([tokens, *more])

    assert shifts(steps_of(copied, 20)) == []


@pytest.mark.parametrize("views", [True, False])
def test_a_lossy_codec_at_short_responses_is_no_shift(views):
    assert shifts(steps_of(lambda seed: codec(seed, views), 12)) == []


@pytest.mark.parametrize("by", [1, -1, 2])
def test_a_shifted_rollout_engine_is_named_beside_a_codec_where_another_view_shows_it(by):
    """Nothing but the view tells: the trainer's own log-probs are nats off everywhere."""
    found = shifts(steps_of(lambda seed: codec(seed, shift=("rollout", by)), 6))
    assert {(engine, value) for _, engine, value in found} == {("rollout", by)}


@pytest.mark.parametrize("by", [1, -1, 2])
@pytest.mark.parametrize("engine", ["rollout", "train"])
def test_a_shift_is_found_with_its_sign(engine, by):
    """Whose it is can be left open; where ids tell, it is that engine."""

    def shifted(seed: int) -> pl.DataFrame:
        tokens, column = clean(seed, 960), f"logp_{engine}"
        moved = pl.col(column).shift(by, fill_value=-0.5).over("row")
        return tokens.with_columns(moved.alias(column))

    found = shifts(steps_of(shifted, 10))
    assert [step for step, _, _ in found] == list(range(10))
    for _, named, value in found:
        own = by if engine == "train" else -by
        assert (named, value) in ((engine, by), ("both", own))


def test_text_in_which_the_token_before_tells_how_sure_the_next_one_is_is_no_shift():
    """After `=` comes an uncertain digit: ids explain the log-prob behind them best of all."""

    def sums(seed: int) -> pl.DataFrame:
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, 10, (16, 60))
        ids[:, ::3] = 11  # `=`
        after = np.roll(ids, 1, axis=1) == 11
        rollout = -np.where(after, rng.exponential(1.5, ids.shape) + 0.5, 2e-3)
        train = np.minimum(-1e-6, rollout + 0.05 * rng.normal(size=ids.shape))
        return frame_of(ids, rollout, train)

    tokens = steps_of(sums, 10)
    with sql_connection(tokens) as connection:
        scan = connection.sql("select lag, avg(r2_train) from lag_scan group by lag").fetchall()
    best = max(scan, key=lambda row: row[1])[0]
    assert best == 1
    assert shifts(tokens) == []
