"""The token table: its columns. Readers produce it, everything else consumes it.

One rule: outside the mask there are no numbers. What an engine wrote there is a placeholder
(0.0, -1.0, whatever filled the padding), so readers store NULL and no average can include it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

# Bumped when a stored column changes its name, type or meaning: older lake steps are then pending.
# 2: nonfinite_*, is_masked, mismatch_kl, rollout_id; 3: who sampled and scored a row, and how;
# 4: canonical_tokens
SCHEMA_VERSION = 4

# One row per response token. `logp_*` and `advantage` as the engines wrote them, in float32;
# every further `logp_<view>` column is another scoring of the same tokens.
TOKENS = pl.Schema(
    {
        "row": pl.Int32(),  # index of the sequence in the captured batch
        "uid": pl.Categorical(),  # prompt group, NULL when the capture has none
        "pos": pl.Int32(),  # 0-based in the response
        "token_id": pl.Int32(),
        "is_trained": pl.Boolean(),  # the response mask
        "logp_rollout": pl.Float32(),  # nats, NULL outside the mask
        "logp_train": pl.Float32(),  # nats, NULL outside the mask
        "advantage": pl.Float32(),
        "entropy": pl.Float32(),  # nats
        "nonfinite_rollout": pl.Boolean(),  # under the mask, without a finite log-prob
        "nonfinite_train": pl.Boolean(),
        "is_masked": pl.Boolean(),  # dropped by the trainer's own loss, as it says (prime-rl)
        "mismatch_kl": pl.Float32(),  # nats, as the trainer computed it (prime-rl)
        "policy_version": pl.Int64(),  # weights that sampled the token
        "kept": pl.Int32(),  # entries of the vocabulary that top-p, top-k or min-p left
    }
)

# One row per rollout, empty responses too.
SEQUENCES = pl.Schema(
    {
        "row": pl.Int32(),
        "uid": pl.String(),
        "prompt_tokens": pl.Int32(),
        "response_tokens": pl.Int32(),
        "trained_tokens": pl.Int32(),
        "turns": pl.Int32(),  # runs of trained tokens in the response
        "reward": pl.Float64(),
        "policy_version_min": pl.Int64(),  # weights that sampled the first and the last token
        "policy_version_max": pl.Int64(),
        "prompt": pl.String(),
        "response": pl.String(),
        "prompt_ids": pl.List(pl.Int32()),
        "rollout_id": pl.Int64(),  # samples with the same one are parts of one rollout (slime)
        "rank": pl.Int32(),  # of the trainer, data parallel, that scored the row
        "engine": pl.String(),  # replica of the rollout engine that sampled it
        "pack": pl.Int64(),  # micro-batch or packed line that it was scored in
        "finish_reason": pl.String(),  # as the engine says: stop, length, ...
        "cached_tokens": pl.Int32(),  # of the prompt, taken from the engine's prefix cache
        "weight_checksum": pl.String(),  # of the weights that sampled it
        "temperature": pl.Float64(),  # of the request, like the next two
        "top_p": pl.Float64(),
        "top_k": pl.Int32(),
        # Leading response ids that encoding their text again gives; NULL where not tried.
        "canonical_tokens": pl.Int32(),
    }
)

# What a capture says of a token beside its log-probs, one row per trained token of which anything
# is known; a file of its own, that most steps do not have. Of lists and experts both engines' are
# needed, else there is nothing to compare.
EVIDENCE = pl.Schema(
    {
        "row": pl.Int32(),
        "pos": pl.Int32(),
        "token_id": pl.Int32(),  # the sampled one, as in TOKENS
        "top_ids": pl.List(pl.Int32()),  # ids that either engine listed with a log-prob
        "top_logp_rollout": pl.List(pl.Float32()),  # nats, NULL where the engine did not list it
        "top_logp_train": pl.List(pl.Float32()),
        # Of each layer, how many of the trainer's experts the rollout engine did not choose; NULL
        # of a layer that has none.
        "expert_changes": pl.List(pl.UInt8()),
        "experts": pl.UInt8(),  # that a layer chooses for a token
        "kept_mass": pl.Float32(),  # probability that the trainer gives to the ids counted by kept
    }
)

# The text of the token ids that occur in a step.
VOCABULARY = pl.Schema({"token_id": pl.Int32(), "token": pl.String()})

# Columns that steps of an earlier schema do not have, by the version they came with.
ADDED = {
    2: {
        *("nonfinite_rollout", "nonfinite_train", "is_masked", "mismatch_kl"),
        "rollout_id",
    },
    3: {
        *("policy_version", "kept", "rank", "engine", "pack", "finish_reason"),
        *("cached_tokens", "weight_checksum", "temperature", "top_p", "top_k"),
    },
    4: {"canonical_tokens"},
}

ENGINES = ("rollout", "train")

# Here and below a number is a placeholder (-1e9, -65504, float32's lowest), and counts as not
# finite: logits of a model differ by some hundreds.
LOWEST = -1e4  # nats
IN_FLOAT32 = "is float64: stored and compared as float32"  # a note on a field


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a batch: `tokens` as TOKENS plus views, `sequences` as SEQUENCES.

    `evidence`, if there is any, as EVIDENCE.
    """

    tokens: pl.DataFrame
    sequences: pl.DataFrame
    # What cannot be seen in the tables any more, by COUNTED.
    counts: Mapping[str, int] = field(default_factory=dict)
    evidence: pl.DataFrame | None = None


COUNTED = (
    "placeholder_rollout",  # numbers at LOWEST or below under the mask
    "placeholder_train",
    "unknown_advantage",  # trained tokens without one, where the file has advantages
    "unknown_reward",  # rows without one, where the file has rewards
    "mixed_uid",  # rows whose uid is a whole number that others have as text
)


@dataclass(frozen=True)
class Batch:
    """An opened capture: what it says about itself, and its rows, not yet read."""

    format: str  # the reader that opened it
    run: str | None  # as the file says, None when it does not
    step: int | None
    views: tuple[str, ...]  # log-prob columns beyond rollout and train, without `logp_`
    meta: dict[str, str | int | float | bool]  # model, dataset, temperature, ... as the file says
    notes: tuple[str, ...]  # what the reader had to assume or leave out
    blocks: Callable[[], Iterator[Block]]
    unscored: str = ""  # what else than NaN counts as no finite log-prob in this format, and why
    # The same rows in parts that can be read apart and side by side: those of a rank each.
    shards: tuple[Callable[[], Iterator[Block]], ...] = ()
