"""Experts of both engines, by layer and token, and the gap of tokens that were routed otherwise."""

import numpy as np
import polars as pl
from pytest import approx

from tests.given import sql_connection, token_frame
from tests.given_evidence import evidence_frame

LAYERS, EXPERTS = 24, 4


def routed(tokens: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
    """Changes by layer [tokens, layers], -1 without experts; ln r; and the tokens."""
    rng = np.random.default_rng(seed)
    often = rng.random(tokens)[:, None] ** 4 * (rng.random(tokens)[:, None] < 0.6)
    changes = (rng.random((tokens, LAYERS)) < often) * rng.integers(
        1, EXPERTS + 1, (tokens, LAYERS)
    )
    changes[:, 3] = -1  # a dense layer
    changes[::50, 5] = -1
    diff = rng.normal(size=tokens) * (0.01 + 0.1 * (changes > 0).sum(1))
    rows = [{"pos": i, "logp_rollout": -3.0, "logp_train": -3.0 + x} for i, x in enumerate(diff)]
    frame = token_frame(rows)
    diff = (frame["logp_train"].cast(pl.Float64) - frame["logp_rollout"]).to_numpy()
    return changes, diff, frame


def tables(changes: np.ndarray, frame: pl.DataFrame, *names: str) -> list[pl.DataFrame]:
    lists = [[None if c < 0 else int(c) for c in row] for row in changes]
    evidence = evidence_frame(frame, expert_changes=lists, experts=EXPERTS)
    with sql_connection(frame, evidence=evidence) as connection:
        return [connection.sql(f"from {name}").pl() for name in names]


def test_each_layer_is_what_numpy_says():
    changes, _, frame = routed()
    [table] = tables(changes, frame, "expert_overlap")
    for row in table.to_dicts():
        of_layer = changes[:, row["layer"]]
        known = of_layer[of_layer >= 0]
        assert row["tokens"] == len(known)
        assert row["overlap"] == approx(1 - known.sum() / (EXPERTS * len(known)))
        assert row["frac_equal"] == approx((known == 0).mean())
    assert table["layer"].to_list() == [layer for layer in range(LAYERS) if layer != 3]


def test_the_gap_by_changed_layers_is_what_numpy_says():
    changes, diff, frame = routed()
    [table] = tables(changes, frame, "gap_by_expert_changes")
    changed = (changes > 0).sum(1)
    edges = [0, 1, 2, 4, 8, 16, 10**6]
    assert table["changed_from"].to_list() == edges[:-1]
    for row, low, high in zip(table.to_dicts(), edges[:-1], edges[1:], strict=True):
        of = diff[(changed >= low) & (changed < high)]
        assert row["tokens"] == len(of)
        assert row["kl_k1"] == approx(-of.mean())
        assert row["kl_k3"] == approx((np.exp(of) - 1 - of).mean())
        assert row["abs_logp_diff_p50"] == approx(np.median(abs(of)))
        assert row["share_abs_logp_diff"] == approx(abs(of).sum() / abs(diff).sum())


def test_a_token_is_rerouted_that_has_more_changed_layers_than_the_median():
    by_hand = np.array([[0, 0], [0, 0], [0, 2], [-1, 0]])
    frame = token_frame([{"pos": pos} for pos in range(4)])
    [table] = tables(by_hand, frame, "(from routed_tokens order by pos)")
    assert table["is_rerouted"].to_list() == [False, False, True, False]
    assert table["changed_layers"].to_list() == [0, 0, 1, 0]
    assert table["layers"].to_list() == [2, 2, 2, 1]
    assert table["changed"].to_list() == [0, 0, 0.25, 0]
    [table] = tables(1 - by_hand[:3], frame.head(3), "(from routed_tokens order by pos)")
    assert table["is_rerouted"].to_list() == [False, False, False]  # all but one change both


def test_without_experts_there_are_no_rows(run_sql):
    for name in ("expert_overlap", "gap_by_expert_changes"):
        assert run_sql(name, {}) == []
