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


def test_unknown_ids_and_short_rows_say_nothing():
    tokens = batch([*range(1, 16), 0])
    with sql_connection(tokens.with_columns(token_id=pl.lit(None, pl.Int32))) as connection:
        assert connection.sql("select rows from row_match").pl().item() == 0
    with sql_connection(tokens.filter(pl.col("pos") < 31)) as connection:
        assert connection.sql("select rows from row_match").pl().item() == 0
