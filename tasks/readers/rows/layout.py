"""From fields to tokens, for all tensor formats.

A format's reader fills a `Layout`; `blocks` turns it into blocks of the token table.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers.tensors import Array
from timtrack.tasks.readers.rows.evidence import NO_EVIDENCE, Evidence
from timtrack.tasks.readers.rows.fields import TokenField
from timtrack.tasks.tokens.table import ENGINES, LOWEST, SEQUENCES, TOKENS, Block

BLOCK_CELLS = 1 << 22  # padded tokens that are worked on at once; bounds the memory used
# Fields that are only stored, of tokens and of rows.
AS_WRITTEN = ("entropy", "is_masked", "mismatch_kl", "policy_version", "kept")
LARGEST = {"policy_version": 2.0**53, "kept": 2.0**31 - 1}  # whole numbers that a column holds
OF_ROWS = (
    *("policy_version_min", "policy_version_max", "rollout_id", "rank", "engine", "pack"),
    *("finish_reason", "cached_tokens", "weight_checksum", "temperature", "top_p", "top_k"),
)


@dataclass(frozen=True)
class Layout:
    """Which field plays which part."""

    rows: int
    tokens: dict[str, TokenField]  # by column of the token table, and `response_mask`, `reward`
    per_row: dict[str, list[Any]]  # by column of the sequence table; `advantage` if one a row
    response_real: TokenField | None  # [B, R], 1 where a padded response has a token
    prompts: TokenField | None  # [B, P] padded on the left, or ragged
    prompt_real: TokenField | None  # [B, P], 1 where a padded prompt has a token
    pad_id: int | None
    synthetic: frozenset[int]  # rows that the trainer added to fill its ranks, by index in the file
    notes: list[str]
    mixed: frozenset[int] = frozenset()  # rows whose uid is a number that others have as text
    evidence: Evidence = NO_EVIDENCE

    @property
    def views(self) -> list[str]:
        """Columns with further scorings of the tokens: `logp_dense`, ..."""
        return [part for part in self.tokens if part.startswith("logp_") and part not in TOKENS]


def check_rows(layout: Layout) -> None:
    """Raise BadCapture unless padded fields share one shape and all fields have all rows."""
    responses = layout.tokens["token_id"]
    for field in [*layout.tokens.values(), *filter(None, [layout.prompts, layout.prompt_real])]:
        if field.rows != layout.rows:
            raise BadCapture(
                f"{field.name} has {field.rows} rows, expected {layout.rows} "
                f"as {responses.name} has"
            )
    for field in layout.tokens.values():
        if not (field.ragged or responses.ragged or field.width == responses.width):
            raise BadCapture(
                f"{field.name} has shape {list(field.values.shape)}, expected "
                f"{list(responses.values.shape)} as {responses.name} has"
            )
    labels = layout.per_row.get("row", [])
    if len(set(labels)) < len(labels) or any(label is None or label < 0 for label in labels):
        raise BadCapture("row_index names a row twice, or below 0; expected distinct whole numbers")


def blocks(layout: Layout) -> Iterator[Block]:
    """The rows of a batch, some at a time; memory is bounded by a block, not by the batch."""
    fields = [*layout.tokens.values(), *filter(None, [layout.prompts])]
    widest = max(field.width for field in fields)
    size = max(1, BLOCK_CELLS // max(widest * (1 + layout.evidence.cells), 1))
    for start in range(0, layout.rows, size):
        yield _block(layout, slice(start, min(start + size, layout.rows)))


def _block(layout: Layout, rows: slice) -> Block:
    lengths = _lengths(layout, rows)
    flat = {part: field.flat(rows, lengths) for part, field in layout.tokens.items()}
    masked = flat.get("response_mask", np.ones(lengths.sum())) != 0
    scored = {engine: _is_finite(flat[f"logp_{engine}"]) for engine in ENGINES}
    held = {engine: masked & _is_placeholder(flat[f"logp_{engine}"]) for engine in ENGINES}
    trained = masked & scored["rollout"] & scored["train"]
    index = np.repeat(np.arange(len(lengths)), lengths)
    sequences = _sequences(layout, rows, lengths, masked, trained)
    advantage = _advantage(layout, rows, flat, index)
    columns = {
        "row": sequences["row"].gather(index),
        "uid": sequences["uid"].cast(pl.Categorical).gather(index),
        "pos": np.arange(len(index)) - np.repeat(np.cumsum(lengths) - lengths, lengths),
        "token_id": flat["token_id"],
        "is_trained": trained,
        **{p: v for p, v in flat.items() if p.startswith("logp_")},
        **{p: _known(flat[p], LARGEST.get(p)) for p in AS_WRITTEN if p in flat},
        **{f"nonfinite_{engine}": masked & ~there for engine, there in scored.items()},
        "advantage": advantage,
    }
    schema = {**TOKENS, **dict.fromkeys(layout.views, pl.Float32())}
    tokens = _frame(columns, schema, len(index)).with_columns(
        pl.when("is_trained").then(pl.col(name)).alias(name)
        for name in ("logp_rollout", "logp_train", *AS_WRITTEN, *layout.views)
    )
    tokens = tokens.with_columns(
        pl.when(pl.col(view).is_finite() & (pl.col(view) > LOWEST)).then(pl.col(view)).alias(view)
        for view in layout.views
    )
    prompts = None if layout.prompts is None else sequences["prompt_tokens"].to_numpy()
    width = layout.tokens["token_id"].width
    evidence = layout.evidence.frame(tokens, rows, lengths, prompts, width)
    real = np.array([row not in layout.synthetic for row in range(rows.start, rows.stop)])
    tokens, sequences = tokens.filter(pl.Series(real[index])), sequences.filter(pl.Series(real))
    counts = {f"placeholder_{e}": int((held[e] & real[index]).sum()) for e in ENGINES}
    if advantage is not None:
        counts["unknown_advantage"] = tokens.filter("is_trained")["advantage"].null_count()
    if "reward" in layout.tokens or "reward" in layout.per_row:
        counts["unknown_reward"] = sequences["reward"].null_count()
    counts["mixed_uid"] = len(layout.mixed.intersection(range(rows.start, rows.stop)))
    return Block(tokens, sequences, counts, evidence)


def _is_finite(values: Array) -> Array:
    """Whether log-probs are finite in float32 and no placeholders."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(values.astype(np.float32)) & ~_is_placeholder(values)


def _is_placeholder(values: Array) -> Array:
    return np.isfinite(values) & (values <= LOWEST)


def _advantage(
    layout: Layout, rows: slice, flat: dict[str, Array], index: Array
) -> pl.Series | None:
    """One a token, NULL where it is not finite; None of a file without any."""
    if "advantage" in flat:
        return _known(flat["advantage"])
    if "advantage" not in layout.per_row:
        return None
    one_a_row = layout.per_row["advantage"][rows]
    return _known(np.array([np.nan if a is None else a for a in one_a_row], np.float64)[index])


def _known(values: Array, largest: float | None = None) -> pl.Series:
    """Numbers, NULL where they are not finite, or beyond what their column holds."""
    series = pl.Series(values.astype(np.float64))
    known = series.is_finite()
    if largest is not None:
        known &= series.abs() <= largest
    return series.set(~known, None)


def _frame(columns: dict[str, Any], schema: dict[str, Any], length: int) -> pl.DataFrame:
    try:
        return pl.DataFrame(
            [
                pl.Series(name, columns[name]).cast(dtype)
                if columns.get(name) is not None
                else pl.Series(name, [None], dtype=dtype).new_from_index(0, length)
                for name, dtype in schema.items()
            ]
        )
    except (pl.exceptions.PolarsError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise BadCapture(f"a number does not fit its column: {reason}") from error


def _lengths(layout: Layout, rows: slice) -> Array:
    """Real response length of each row, int64 `[b]`."""
    responses, mask = layout.tokens["token_id"], layout.tokens.get("response_mask")
    if responses.ragged:
        return responses.lengths(rows)
    if layout.response_real is not None:
        return _right_padded(layout.response_real.padded(rows) != 0, mask, rows)
    if mask is None or mask.ragged:
        return mask.lengths(rows) if mask else np.full(rows.stop - rows.start, responses.width)
    used = mask.padded(rows) != 0
    if (reward := layout.tokens.get("reward")) and not reward.ragged:
        used = used | (reward.padded(rows) != 0)
    last = used.shape[1] - np.argmax(used[:, ::-1], axis=1) if used.shape[1] else 0
    return np.where(used.any(axis=1), last, 0)


def _right_padded(real: Array, mask: TokenField | None, rows: slice) -> Array:
    """Lengths by the attention mask, which must be a run of ones that covers the response mask."""
    lengths = real.sum(axis=1)
    if (gaps := (real != (np.arange(real.shape[1]) < lengths[:, None])).any(axis=1)).any():
        raise BadCapture(
            f"the attention_mask of {gaps.sum()} responses is not a run of ones from the left, "
            f"first at row {rows.start + int(np.argmax(gaps))}; responses must be right padded"
        )
    if mask is not None and not mask.ragged:
        outside = (mask.padded(rows) != 0) & ~real
        if outside.any():
            row, pos = np.argwhere(outside)[0]
            raise BadCapture(
                f"{mask.name} trains on {outside.sum()} tokens that attention_mask calls padding, "
                f"first at row {rows.start + row} position {pos}"
            )
    return np.asarray(lengths)


def _sequences(
    layout: Layout, rows: slice, lengths: Array, masked: Array, trained: Array
) -> pl.DataFrame:
    index = np.repeat(np.arange(len(lengths)), lengths)
    goes_on = np.r_[False, masked[:-1] & (index[1:] == index[:-1])][: len(masked)]
    prompts = _prompt_ids(layout, rows)
    per_row = {name: values[rows] for name, values in layout.per_row.items()}
    columns: dict[str, Any] = {
        "row": per_row.get("row", range(rows.start, rows.stop)),
        "uid": per_row.get("uid", _prompt_groups(prompts)),
        "prompt_tokens": None if prompts is None else [len(ids) for ids in prompts],
        "response_tokens": lengths,
        "trained_tokens": np.bincount(index, weights=trained, minlength=len(lengths)),
        "turns": np.bincount(index, weights=masked & ~goes_on, minlength=len(lengths)),
        "reward": per_row.get("reward", _summed_rewards(layout, rows, lengths)),
        **{name: per_row.get(name) for name in OF_ROWS},
        "prompt_ids": prompts,
    }
    if "policy_version" in layout.tokens and "policy_version_min" not in per_row:
        versions = layout.tokens["policy_version"].flat(rows, lengths)
        columns |= _versions(versions, index, trained, len(lengths))
    frame = _frame(columns, dict(SEQUENCES), len(lengths))
    known = pl.col("reward").is_finite()  # a grader that failed leaves NaN
    return frame.with_columns(pl.when(known).then(pl.col("reward")))


def _versions(versions: Array, index: Array, trained: Array, rows: int) -> dict[str, pl.Series]:
    """The oldest and the newest weights that sampled each row's trained tokens."""
    known = trained & np.isfinite(versions)
    ends = {"min": np.full(rows, np.inf), "max": np.full(rows, -np.inf)}
    np.minimum.at(ends["min"], index[known], versions[known])
    np.maximum.at(ends["max"], index[known], versions[known])
    return {f"policy_version_{end}": _known(values) for end, values in ends.items()}


def _summed_rewards(layout: Layout, rows: slice, lengths: Array) -> Array | None:
    """A rollout's reward: the sum of its token-level rewards, padding excluded."""
    field = layout.tokens.get("reward")
    if field is None:
        return None
    index = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(index, weights=field.flat(rows, lengths), minlength=len(lengths))


def _prompt_groups(prompts: list[Array] | None) -> list[str] | None:
    """Where the file has no uid, rows with the same prompt are a group."""
    if prompts is None:
        return None
    contents = (ids.astype("<i8").tobytes() for ids in prompts)
    return [f"prompt-{hashlib.blake2b(ids, digest_size=6).hexdigest()}" for ids in contents]


def _prompt_ids(layout: Layout, rows: slice) -> list[Array] | None:
    """The prompts without their left padding, as far as the file tells it from text."""
    prompts = layout.prompts
    if prompts is None:
        return None
    if prompts.ragged:
        lengths = prompts.lengths(rows)
        return np.split(prompts.flat(rows, lengths).astype(np.int64), np.cumsum(lengths)[:-1])
    padded = prompts.padded(rows)
    if layout.prompt_real is not None:
        real = layout.prompt_real.padded(rows) != 0
    elif layout.pad_id is not None:
        real = np.logical_or.accumulate(padded != layout.pad_id, axis=1)
    else:
        real = np.ones(padded.shape, dtype=bool)
    return [ids[keep] for ids, keep in zip(padded, real, strict=True)]
