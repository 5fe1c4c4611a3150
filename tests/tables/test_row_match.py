"""Rows of the two engines that were joined wrongly: they follow another row, and not their own."""

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests.given import sql_connection, token_frame
from tests.given_tables import judged

LENGTH = 40


def batch(order: list[int], noise: float = 0.05, same_ids: bool = False) -> pl.DataFrame:
    """Rows of a sharp model; row i has the trainer's log-probs of row `order[i]`."""
    rng = np.random.default_rng(0)
    rollout = -rng.exponential(1.0, size=(len(order), LENGTH))
    train = rollout + noise * rng.normal(size=rollout.shape)
    ids = rng.integers(0, 30, size=rollout.shape)
    rows = [
        {
            "row": row,
            "uid": f"u{row // 4}",
            "pos": pos,
            "token_id": int(ids[0 if same_ids else row, pos]),
        }
        | {"logp_rollout": rollout[row, pos], "logp_train": train[of, pos]}
        for row, of in enumerate(order)
        for pos in range(LENGTH)
    ]
    return token_frame(rows)


def match(tokens: pl.DataFrame) -> dict:
    with sql_connection(tokens) as connection:
        [found] = connection.sql("from row_match").pl().to_dicts()
    return found


def said(tokens: pl.DataFrame) -> list[str]:
    return [f.text for f in judged(tokens).findings if f.table == "row_match"]


def test_rows_in_their_places_follow_their_own():
    found = match(batch(list(range(16))))
    assert (found["rows"], found["misplaced"], found["r_own"], found["shift"]) == (
        16,
        0,
        None,
        None,
    )
    assert said(batch(list(range(16)))) == []


def test_rows_that_are_off_by_one_are_found_with_their_shift():
    tokens = batch([*range(1, 16), 0])
    found = match(tokens)
    assert (found["rows"], found["misplaced"], found["shift"]) == (16, 16, 1)
    [text] = said(tokens)
    assert text.startswith("In 16 of 16 rows the trainer's log-probs follow those that the rollout")
    assert "most of them the row +1 from theirs" in text


def test_two_rows_of_a_group_that_were_swapped_are_found():
    order = list(range(16))
    order[5], order[7] = 7, 5
    found = match(batch(order))
    assert (found["misplaced"], found["shift"]) == (2, None)  # one by +2, one by -2
    assert len(said(batch(order))) == 1


def test_the_correlations_are_those_of_numpy():
    tokens = batch([1, 0, 2, 3])
    found = match(tokens)
    rows = {row: frame.head(32) for (row,), frame in tokens.group_by("row", maintain_order=True)}
    own = [np.corrcoef(rows[r]["logp_train"], rows[r]["logp_rollout"])[0, 1] for r in (0, 1)]
    other = [np.corrcoef(rows[r]["logp_train"], rows[1 - r]["logp_rollout"])[0, 1] for r in (0, 1)]
    assert found["r_own"] == approx(np.median(own))
    assert found["r_other"] == approx(np.median(other))


def test_rows_of_the_same_tokens_are_not_told_apart():
    assert match(batch([*range(1, 16), 0], same_ids=True))["misplaced"] == 0


def test_engines_that_have_nothing_in_common_are_not_misplaced():
    assert match(batch([*range(1, 16), 0], noise=3.0))["misplaced"] == 0


@pytest.mark.parametrize("rows", [300, 700])
def test_of_a_large_batch_some_rows_are_held_against_their_neighbours(rows):
    found = match(batch([*range(1, rows), 0]))
    assert found["rows"] == found["misplaced"] == approx(rows / np.ceil(rows / 64), abs=1)
    assert found["shift"] == 1


def short(tokens: pl.DataFrame, length: int = 20) -> pl.DataFrame:
    return tokens.filter(pl.col("pos") < length)


def test_short_rows_are_told_apart_by_twelve_tokens():
    found = match(short(batch([*range(1, 16), 0], noise=0.01)))
    assert (found["rows"], found["shift"]) == (16, 1)
    assert found["misplaced"] >= 14  # of twelve tokens, chance makes a correlation of 0.5
    assert match(short(batch(list(range(16)))))["misplaced"] == 0
    assert match(short(batch([*range(1, 16), 0], same_ids=True)))["misplaced"] == 0
    assert match(short(batch([*range(1, 16), 0], noise=3.0)))["misplaced"] == 0


def test_the_correlations_of_short_rows_are_those_of_numpy():
    tokens = short(batch([*range(1, 16), 0], noise=0.01))
    heads = [frame.head(12) for _, frame in tokens.group_by("row", maintain_order=True)]
    rollout, train = (
        np.log(
            1e-6 - np.array([head[column].to_numpy() for head in heads]).clip(max=0).astype(float)
        )
        for column in ("logp_rollout", "logp_train")
    )
    r = np.corrcoef(train, rollout)[:16, 16:]
    own, other = r.diagonal(), np.roll(r, -1, 1).diagonal()
    is_misplaced = (own < 0.5) & (other >= 0.95)
    found = match(tokens)
    assert found["misplaced"] == is_misplaced.sum()
    assert found["r_own"] == approx(np.median(own[is_misplaced]))
    assert found["r_other"] == approx(np.median(other[is_misplaced]))


def test_one_improbable_token_at_the_same_place_makes_no_match_of_short_rows():
    """Of engines that agree on nothing else: its square would make the correlation of log-probs."""
    tokens = short(batch(list(range(64)), noise=0.0))
    rng = np.random.default_rng(1)
    shuffled = rng.permutation(tokens["logp_train"].to_numpy())
    spike = (pl.col("pos") == pl.col("row") % 12).alias("is_spike")
    moved = tokens.with_columns(spike, logp_train=pl.Series(shuffled)).with_columns(
        logp_rollout=pl.when("is_spike").then(-20.0).otherwise("logp_rollout"),
        logp_train=pl.when(pl.col("pos") == (pl.col("row") + 1) % 12)
        .then(-20.0)
        .otherwise("logp_train"),
    )
    assert match(moved.select(tokens.columns).cast(dict(tokens.schema)))["misplaced"] == 0


def test_unknown_ids_and_very_short_rows_say_nothing():
    tokens = batch([*range(1, 16), 0])
    with sql_connection(tokens.with_columns(token_id=pl.lit(None, pl.Int32))) as connection:
        assert connection.sql("select rows from row_match").pl().item() == 0
    with sql_connection(short(tokens, 11)) as connection:
        assert connection.sql("select rows from row_match").pl().item() == 0
