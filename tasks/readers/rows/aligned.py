"""What two engines say of the same tokens, put side by side: listed ids, chosen experts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from timtrack.tasks.readers.containers.tensors import Array

Pair = tuple[Array, Array]  # ids and log-probs, both [tokens, k]
COLUMN_BITS = 24
PADDING = 1 << 31  # beyond every id
CHUNK = 1 << 22  # comparisons of experts that are held at once [bytes]


def listed_together(rollout: Pair, train: Pair, are_shared: bool) -> dict[str, pl.Series]:
    """The ids that either engine listed, a list a token in the order of the ids, with log-probs.

    Columns `top_ids`, `top_logp_rollout` and `top_logp_train` of EVIDENCE. Entries with an id below
    0 or a NaN for a log-prob are padding. NULL of a token that one engine lists nothing of, or
    lists an id twice. `are_shared`: both were asked for the same ids, and an id counts only where
    both answered.
    """
    if are_shared:
        gaps = np.isnan(rollout[1]) | np.isnan(train[1])
        rollout, train = ((ids, np.where(gaps, np.nan, logps)) for ids, logps in (rollout, train))
    ids, column = _sorted(rollout, train)
    width = rollout[0].shape[1]
    logps = np.concatenate([rollout[1], train[1]], axis=1).astype(np.float32)
    logps = np.take_along_axis(logps, column, axis=1)
    of_rollout, there = column < width, ids < PADDING
    goes_on = np.zeros(ids.shape, dtype=bool)  # the next entry is of the same id
    goes_on[:, :-1] = (ids[:, 1:] == ids[:, :-1]) & there[:, :-1]
    twice = goes_on[:, :-1] & (of_rollout[:, 1:] == of_rollout[:, :-1])
    listed = [(there & of).any(axis=1) for of in (of_rollout, ~of_rollout)]
    first = there & ~np.roll(goes_on, 1, axis=1)
    first &= (listed[0] & listed[1] & ~twice.any(axis=1))[:, None]
    trained = np.where(of_rollout, np.where(goes_on, np.roll(logps, -1, axis=1), np.nan), logps)
    flat = {
        "top_ids": ids[first].astype(np.int32),
        "top_logp_rollout": pl.Series(np.where(of_rollout, logps, np.nan)[first]).fill_nan(None),
        "top_logp_train": pl.Series(trained[first]).fill_nan(None),
    }
    return _lists(flat, np.nonzero(first)[0], len(ids))


def _sorted(rollout: Pair, train: Pair) -> Pair:
    """The entries' ids, each token's in order, and their columns among both engines' lists."""
    ids = [
        np.where((ids >= 0) & (ids < PADDING) & ~np.isnan(logps), ids.astype(np.int64), PADDING)
        for ids, logps in (rollout, train)
    ]
    keys = np.concatenate(ids, axis=1) << COLUMN_BITS
    keys |= np.arange(keys.shape[1])
    keys.sort(axis=1)
    return keys >> COLUMN_BITS, keys & ((1 << COLUMN_BITS) - 1)


def _lists(flat: Mapping[str, Any], token: Array, tokens: int) -> dict[str, pl.Series]:
    """Columns as a list a token; NULL of tokens without."""
    lists = pl.DataFrame({"token": token, **flat}).group_by("token", maintain_order=True)
    every = pl.DataFrame({"token": np.arange(tokens)})
    whole = every.join(lists.agg(pl.all()), on="token", how="left", maintain_order="left")
    return {name: whole[name] for name in flat}


def experts_changed(rollout: Array, train: Array) -> pl.Series:
    """How many of the trainer's experts [tokens, layers, k] the rollout engine did not choose.

    One list of layers a token; NULL at a layer without a routing: an id below 0, or, as frameworks
    fill what they have none of, all ids 0, though a layer chooses several.
    """
    changes = np.zeros(train.shape[:2], np.uint8)
    differ = np.nonzero((rollout != train).any(axis=-1))
    size = max(1, CHUNK // train.shape[-1] ** 2)
    for start in range(0, len(differ[0]), size):
        at = tuple(index[start : start + size] for index in differ)
        shared = (train[at][:, :, None] == rollout[at][:, None, :]).any(axis=-1)
        changes[at] = (~shared).sum(axis=-1)
    unknown = _without_routing(rollout) | _without_routing(train)
    flat = pl.Series(changes.ravel()).set(pl.Series(unknown.ravel()), None)
    lists = flat.reshape(changes.shape).arr.to_list()
    return lists.set(pl.Series(unknown.all(axis=1)), None)


def _without_routing(experts: Array) -> Array:
    several = experts.shape[-1] > 1
    return (experts < 0).any(axis=-1) | (several & (experts == 0).all(axis=-1))
