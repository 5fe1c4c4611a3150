"""The slices that `culprits` tests: their names, what is expected of them, clusters of groups."""

import numpy as np
import polars as pl
from pytest import approx

from tests.given import Connection, sequence_frame, sql_connection, token_frame
from timtrack.tasks.tables.query import run_query


def clusters_of(uids: list[str | None]) -> list[int]:
    tokens = token_frame([{"row": row, "uid": uid} for row, uid in enumerate(uids)])
    with sql_connection(tokens) as opened:
        return opened.sql("from rollout_slices order by row").pl()["cluster"].to_list()


def test_clusters_are_whole_groups_in_two_halves_of_one_size():
    clusters = clusters_of([f"u{row // 3}" for row in range(90)])
    assert sorted(set(clusters)) == list(range(30))
    assert all(len(set(clusters[start : start + 3])) == 1 for start in range(0, 90, 3))
    by_group = clusters[::3]
    assert sum(c % 2 for c in by_group) == 15
    assert by_group != sorted(by_group)  # in the order of hashes, not of names


def test_clusters_do_not_depend_on_where_a_group_stands():
    uids = [f"u{row}" for row in range(40)]
    assert clusters_of(uids[::-1]) == clusters_of(uids)[::-1]


def test_rollouts_without_a_group_are_their_own_and_thousands_share_256():
    assert sorted(clusters_of([None] * 20)) == list(range(20))
    clusters = clusters_of([f"u{row}" for row in range(1000)])
    assert np.bincount(clusters).tolist() == [4] * 232 + [3] * 24


def slices_of(opened: Connection, kind: str) -> dict[str, int]:
    table = opened.sql("select kind, slice, tokens from culprits").pl().filter(kind=kind)
    return dict(table.sort("tokens", "slice").select("slice", "tokens").iter_rows())


def test_slices_name_both_ends():
    rows = [
        {"row": i, "uid": f"u{i}", "pos": pos, "advantage": i % 3 - 1.0, "logp_train": -1.1}
        for i in range(12)
        for pos in range(15 + i)
    ]
    tokens = token_frame([*rows, {"row": 11, "uid": "u11", "pos": 16384, "logp_rollout": -0.001}])
    tokens = tokens.with_columns(
        logp_rollout=pl.col("logp_rollout").clip(-1 - 3e-3 * pl.col("row"))
    )
    sequences = sequence_frame(tokens).with_columns(reward=pl.col("row") / 8)
    with sql_connection(tokens, sequences) as opened:
        assert set(slices_of(opened, "position")) == {"0 to 15", "16 to 63", "16384 on"}
        assert set(slices_of(opened, "rollout probability")) == {"0.1 to 0.5", "0.99 to 1"}
        assert set(slices_of(opened, "advantage")) == {"positive", "negative", "zero"}
        lengths, rewards = slices_of(opened, "length"), slices_of(opened, "reward")
    assert list(lengths) == [
        f"{ends} tokens" for ends in ("15 to 16", "17 to 19", "20 to 22", "23 to 27")
    ]
    assert list(rewards) == ["0 to 0.125", "0.25 to 0.5", "0.625 to 0.875", "1 to 1.375"]


def test_few_rewards_are_named_by_their_value_and_prompts_by_yes_and_no():
    tokens = token_frame(
        [{"row": i, "uid": f"u{i}", "pos": t, "token_id": t} for i in range(12) for t in range(3)]
    )
    sequences = sequence_frame(tokens).with_columns(
        reward=(pl.col("row") % 3) / 10,
        prompt_ids=pl.lit([1], pl.List(pl.Int32)),
    )
    tokens = tokens.with_columns(logp_train=pl.lit(-1.5, pl.Float32))
    with sql_connection(tokens, sequences) as opened:
        assert slices_of(opened, "reward") == {"0": 12, "0.1": 12, "0.2": 12}
        assert slices_of(opened, "in the prompt") == {"yes": 12, "no": 24}


def test_ids_of_one_text_are_told_apart_by_their_id():
    tokens = token_frame(
        [{"pos": pos, "token_id": pos % 3, "logp_train": -1.5} for pos in range(30)]
    )
    with sql_connection(tokens) as opened:
        opened.duckdb.execute("drop table vocabulary")
        opened.duckdb.execute(
            "create view vocabulary as select 'r' as run, 1 as step, 'c' as capture, "
            "unnest([0, 1, 2]) as token_id, unnest(['a', 'b', 'b']) as token"
        )
        assert set(slices_of(opened, "token")) == {"a", "b (1)", "b (2)"}


def test_a_lift_that_improbable_tokens_alone_make_is_1_given_their_probability():
    """Token 5 is always improbable and differs by 0.3, as token 6 there; else all differ by 0.1."""
    rows = [
        {"row": i, "uid": f"u{i}", "pos": t, "token_id": token, "logp_rollout": q, "logp_train": p}
        for i in range(4)
        for t, (token, q, p) in enumerate(
            [(5, -3.0, -3.3), (6, -3.0, -3.3), (6, -1.0, -1.1), (7, -1.0, -1.1)]
        )
    ]
    with sql_connection(token_frame(rows)) as opened:
        table = opened.sql("from culprits").pl()
    given = {(r["kind"], r["slice"]): (r["lift"], r["lift_given_prob"]) for r in table.to_dicts()}
    assert given["token", "5"] == (approx(1.5, rel=1e-5), approx(1, rel=1e-5))
    assert given["token", "7"] == (approx(0.5, rel=1e-5), approx(1, rel=1e-5))
    assert given["rollout probability", "0.01 to 0.1"] == (approx(1.5, rel=1e-5), None)


def test_a_lift_beyond_that_of_its_probability_stays():
    """Of the improbable tokens, 5 differs by 0.5 and 6 by 0.1: their bucket's mean is 0.3."""
    rows = [
        {"row": i, "uid": f"u{i}", "pos": t, "token_id": 5 + t, "logp_rollout": q, "logp_train": p}
        for i in range(4)
        for t, (q, p) in enumerate([(-3.0, -3.5), (-3.0, -3.1), (-1.0, -1.1), (-1.0, -1.1)])
    ]
    with sql_connection(token_frame(rows)) as opened:
        table = opened.sql("from culprits where kind = 'token' and slice = '5'").pl()
    assert table["lift"][0] == approx(0.5 / 0.2, rel=1e-5)
    assert table["lift_given_prob"][0] == approx(0.5 / 0.3, rel=1e-5)


def test_traits_of_tokens_and_rows_add_up_to_the_step():
    """By hand, of two rows: means and counts of each kind; what is unknown is left out."""
    tokens = token_frame(
        [
            {
                **{"row": row, "uid": "u0", "pos": pos, "token_id": [7, 7, 9][pos]},
                **{"logp_rollout": -1.0, "logp_train": -1.0 + diff},
            }
            for row, diffs in enumerate([(0.1, -0.2, 0.3), (0.4, 0.5, -0.6)])
            for pos, diff in enumerate(diffs)
        ]
    )
    sequences = sequence_frame(tokens).with_columns(
        engine=pl.Series(["a", "b"]), prompt_tokens=pl.Series([62, 64], dtype=pl.Int32)
    )
    with sql_connection(tokens, sequences) as connection:
        found = connection.sql("from gap_by_trait").pl()
    by_kind = {(row["trait"], row["value"]): row for row in found.to_dicts()}

    def means(trait, value):
        row = by_kind[trait, value]
        shown = (row["rows"], row["tokens"], row["abs_logp_diff_mean"], row["logp_diff_mean"])
        return approx(shown, abs=1e-6)

    assert means("first token", "yes") == (2, 2, 0.25, 0.25)
    assert means("last token", "yes") == (2, 2, 0.45, -0.15)
    assert means("seen before", "0") == (2, 4, 0.35, 0.05)
    assert means("seen before", "1") == (2, 2, 0.35, 0.15)
    assert means("place", "0") == (1, 2, 0.15, -0.05)
    assert means("place", "64") == (2, 4, 0.45, 0.15)
    assert means("engine", "b") == (1, 3, 0.5, 0.1)
    assert means("row modulo 2", "0") == (1, 3, 0.2, 0.2 / 3)
    assert not found.filter(
        pl.col("trait").is_in(["rank", "finish reason", "cached prompt"])
    ).height
    for _, of_kind in found.group_by("trait"):
        assert of_kind["tokens"].sum() == 6
        assert (of_kind["tokens"] * of_kind["level"]).sum() == approx(0, abs=1e-9)


def test_ids_that_are_listed_have_their_texts(published):
    """The tables of a step are computed over tokens without texts; for people tokens have them."""
    step, computed = published
    texts = run_query([step], "select token_id, token as text from vocabulary")
    people = run_query([step], "select distinct token_id, token from trained_tokens")
    assert texts["text"].null_count() == 0
    for listed in (computed["worst_tokens"], computed["gap_by_token"], people):
        both = listed.join(texts, on="token_id", how="left", validate="m:1")
        assert both["token"].to_list() == both["text"].to_list()
