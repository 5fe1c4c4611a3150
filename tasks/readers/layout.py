"""What all tensor formats share: once it is known which field plays which part, rows become tokens.

A format's reader fills a Layout, and `blocks` turns it into the token table some rows at a time.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tasks.readers.tensors import Array, TokenField, as_numpy, dtype_name
from tasks.tokens import SEQUENCES, TOKENS, BadCapture, Block

BLOCK_CELLS = 1 << 22  # padded tokens that are worked on at once; bounds the memory used


@dataclass(frozen=True)
class Layout:
    """Which field plays which part."""

    rows: int
    tokens: dict[str, TokenField]  # by column of the token table, and `response_mask`
    per_row: dict[str, Any]  # by column of the sequence table, and `advantage` if one a row
    attention: Any  # [B, P + R], or None
    prompts: Any  # [B, P] padded on the left, a list of B arrays, or None
    pad_id: Any
    synthetic: frozenset[int]  # rows that the trainer added to fill its ranks
    notes: list[str]

    @property
    def views(self) -> list[str]:
        """Columns with further scorings of the tokens: `logp_dense`, ..."""
        return [p for p in self.tokens if p.startswith("logp_") and p not in TOKENS]


def check_shapes(layout: Layout) -> None:
    """Raise BadCapture unless every field has a number for every token, or every row."""
    responses = layout.tokens["token_id"]
    for field in layout.tokens.values():
        fits = field.ragged or responses.ragged or field.shape == responses.shape
        if field.shape[0] != layout.rows or not fits or len(field.shape) > 2:
            raise BadCapture(
                f"{field.name} has shape {list(field.shape)}, expected {list(responses.shape)} "
                f"as {responses.name} has"
            )
    for part, field in layout.tokens.items():
        if part.startswith("logp_") and "float" not in dtype_name(field.values):
            raise BadCapture(f"{field.name} holds {dtype_name(field.values)}, expected floats")
    for part, values in layout.per_row.items():
        if len(values) != layout.rows:
            raise BadCapture(f"{part} has {len(values)} entries, expected {layout.rows} rows")


def blocks(layout: Layout) -> Iterator[Block]:
    """The rows of a batch, some at a time; memory is bounded by a block, not by the batch."""
    widths = [field.shape[1] for field in layout.tokens.values() if not field.ragged]
    ragged = next((f for f in layout.tokens.values() if f.ragged), None)
    longest = max(widths, default=0) or max(map(len, ragged.values if ragged else []), default=1)
    size = max(1, BLOCK_CELLS // max(longest, 1))
    for start in range(0, layout.rows, size):
        yield _block(layout, slice(start, min(start + size, layout.rows)))


def _block(layout: Layout, rows: slice) -> Block:
    lengths = _lengths(layout, rows)
    flat = {part: field.flat(rows, lengths) for part, field in layout.tokens.items()}
    trained = flat.get("response_mask", np.ones(lengths.sum())) != 0
    index = np.repeat(np.arange(len(lengths)), lengths)
    sequences = _sequences(layout, rows, lengths, trained, flat.get("reward"))
    uid = sequences["uid"].cast(pl.Categorical)
    labels = sequences["row"].to_numpy()
    real = ~pl.col("row").is_in(labels[[row in layout.synthetic for row in _range(rows)]])
    advantage = flat.get("advantage")
    if advantage is None and "advantage" in layout.per_row:
        advantage = np.repeat(as_numpy(layout.per_row["advantage"][rows]), lengths)
    columns = {
        "row": labels[index],
        "uid": uid.gather(index),
        "pos": np.arange(len(index)) - np.repeat(np.cumsum(lengths) - lengths, lengths),
        "token_id": flat["token_id"],
        "is_trained": trained,
        **{p: v for p, v in flat.items() if p.startswith("logp_") or p == "entropy"},
        "advantage": advantage,
    }
    tokens = pl.DataFrame(
        [_series(name, columns.get(name), len(index)) for name in (*TOKENS, *layout.views)]
    ).with_columns(
        pl.when("is_trained").then(pl.col(name)).alias(name)
        for name in ("logp_rollout", "logp_train", "entropy", *layout.views)
    )
    return Block(tokens.filter(real), sequences.filter(real))


def _range(rows: slice) -> range:
    return range(rows.start, rows.stop)


def _series(name: str, values: Any, length: int, schema: pl.Schema = TOKENS) -> pl.Series:
    dtype = schema.get(name, pl.Float32())
    if values is None:
        return pl.Series(name, [None], dtype=dtype).new_from_index(0, length)
    try:
        return pl.Series(name, values).cast(dtype)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise BadCapture(f"{name} cannot be stored as {dtype}: {error}") from error


def _lengths(layout: Layout, rows: slice) -> Array:
    """Real response length of each row, int64 `[b]`."""
    if ragged := next((f for f in layout.tokens.values() if f.ragged), None):
        return ragged.lengths(rows)
    width = layout.tokens["token_id"].shape[1]
    if layout.attention is None:
        mask = as_numpy(layout.tokens["response_mask"].values[rows]) != 0
        return np.where(mask.any(axis=1), width - np.argmax(mask[:, ::-1], axis=1), 0)
    real = as_numpy(layout.attention[rows])[:, -width:] != 0
    lengths = real.sum(axis=1)
    if (gaps := (real != (np.arange(width) < lengths[:, None])).any(axis=1)).any():
        raise BadCapture(
            f"the attention_mask of {gaps.sum()} responses is not a run of ones from the left, "
            f"first at row {rows.start + int(np.argmax(gaps))}; responses must be right padded"
        )
    return np.asarray(lengths)


def _sequences(
    layout: Layout, rows: slice, lengths: Array, trained: Array, reward: Array | None
) -> pl.DataFrame:
    index = np.repeat(np.arange(len(lengths)), lengths)
    starts = trained & ~np.r_[False, trained[:-1] & (index[1:] == index[:-1])][: len(trained)]
    prompts = _prompt_ids(layout, rows)
    per_row = {name: values[rows] for name, values in layout.per_row.items()}
    columns = {
        "row": per_row.get("row", _range(rows)),
        "uid": _uid(per_row.get("uid"), prompts),
        "prompt_tokens": None if prompts is None else [len(ids) for ids in prompts],
        "response_tokens": lengths,
        "trained_tokens": np.bincount(index, weights=trained, minlength=len(lengths)),
        "turns": np.bincount(index, weights=starts, minlength=len(lengths)),
        "reward": per_row.get("reward"),
        "policy_version_min": per_row.get("policy_version_min"),
        "policy_version_max": per_row.get("policy_version_max"),
        "prompt_ids": prompts,
    }
    if reward is not None:
        columns["reward"] = np.bincount(index, weights=reward, minlength=len(lengths))
    return pl.DataFrame(
        [_series(name, columns.get(name), len(lengths), SEQUENCES) for name in SEQUENCES]
    )


def _uid(uid: Any, prompts: list[Array] | None) -> list[str] | None:
    """The prompt group of each row as text; rows with the same prompt when the file has no uid."""
    if uid is not None:
        return [str(name.item() if hasattr(name, "item") else name) for name in uid]
    if prompts is None:
        return None
    contents = (ids.astype("<i8").tobytes() for ids in prompts)
    return [f"prompt-{hashlib.blake2b(ids, digest_size=6).hexdigest()}" for ids in contents]


def _prompt_ids(layout: Layout, rows: slice) -> list[Array] | None:
    """The prompts without their left padding, as far as the file tells it from text."""
    if layout.prompts is None:
        return None
    prompts = [as_numpy(values) for values in layout.prompts[rows]]
    if layout.attention is not None and not isinstance(layout.prompts, list):
        width = layout.prompts.shape[1]
        real = as_numpy(layout.attention[rows])[:, :width] != 0
        return [ids[keep] for ids, keep in zip(prompts, real, strict=True)]
    if layout.pad_id is not None:
        return [ids[np.argmax(ids != layout.pad_id) :] for ids in prompts]
    return prompts
