"""What the diagnoses say, each in one plain sentence made from its table's numbers.

A finding matters when a reader should act on it or doubt something because of it. What is
unremarkable is said too, so that a healthy step reads as healthy.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tasks import corrections
from tasks.bands import FEWEST_IN_TAIL
from tasks.notation import number, share

Tables = Mapping[str, pl.DataFrame]
Row = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One sentence about a step."""

    table: str  # that has the numbers
    text: str
    matters: bool


def findings(tables: Tables) -> list[Finding]:
    """Every diagnosis of a step: on the capture itself first, then what matters, then the rest.

    A pruned step may have tables of older SQL: what they lack is not said.
    """
    there = [said for said, needs in DIAGNOSES.items() if tables.keys() >= needs]
    found = [finding for diagnosis in there for finding in diagnosis(tables)]
    return sorted(found, key=lambda f: (f.table != "alignment", not f.matters))


def _alignment(tables: Tables) -> Iterator[Finding]:
    found = tables["alignment"].filter("is_found").sort(_severity, "engine").to_dicts()
    for row in found:
        yield Finding("alignment", FAULTS[row["name"]](row), matters=True)
    if not found:
        text = (
            "Nothing is wrong with the capture itself: the engines' log-probs belong to each other"
        )
        yield Finding("alignment", f"{text} at lag 0, under one temperature.", matters=False)


_severity = pl.col("name").replace_strict(
    {name: i for i, name in enumerate(("positive", "shift", "zeros", "temperature", "one_sided"))},
    default=9,
)
# Part of the total |ln r| below which a slice is nobody's concern: picked out of thousands of token
# ids, some rare ones always carry a few times their share.
WORTH_SAYING = 0.01
OWNER = {"rollout": "The rollout engine's", "train": "The trainer's", "both": "The engines'"}

FAULTS: dict[str, Callable[[Row], str]] = {
    "shift": lambda row: (
        f"{OWNER[row['engine']]} log-probs are {row['value']:+.0f} positions off "
        "(lag scan): the numbers below compare different tokens."
    ),
    "temperature": lambda row: (
        f"The trainer's log-odds are {number(row['value'])} times the rollout engine's: one side "
        "was computed at another temperature."
    ),
    "one_sided": lambda row: (
        f"{OWNER[row['engine']]} log-probs are never below the other's: it looks as if top-p, "
        "top-k or another cut was applied on that side only."
    ),
    "positive": lambda row: (
        f"{share(row['value'])} of {_lower(row)} log-probs are above 0: probabilities, or the "
        "wrong sign."
    ),
    "zeros": lambda row: (
        f"{share(row['value'])} of {_lower(row)} log-probs are exactly 0 where the other engine is "
        "not sure: placeholders under the mask."
    ),
    "plateau": lambda row: (
        f"{share(row['value'])} of {_lower(row)} log-probs are the same lowest value: clamped from "
        "below."
    ),
    "bfloat16": lambda row: f"{OWNER[row['engine']]} log-probs were rounded to bfloat16.",
    "float16": lambda row: f"{OWNER[row['engine']]} log-probs were rounded to float16.",
    "decimals": lambda row: f"{OWNER[row['engine']]} log-probs were rounded to 4 decimals.",
    "duplicates": lambda row: (
        f"{share(row['value'])} of the rollouts occur twice, with the same tokens and log-probs."
    ),
}


def _lower(row: Row) -> str:
    return OWNER[row["engine"]].replace("The", "the")


def _tail(tables: Tables) -> Iterator[Finding]:
    row, metrics = tables["tail"].row(0, named=True), tables["step_metrics"].row(0, named=True)
    alpha = row["hill_alpha_up"]
    if alpha is not None and row["hill_k"] >= FEWEST_IN_TAIL:
        heavy = "no mean" if alpha <= 1 else "no variance" if alpha <= 2 else None
        judged = (
            f"importance weights have {heavy}" if heavy else "importance weights have a variance"
        )
        yield Finding(
            "tail",
            f"The tail exponent of r is {number(alpha)} (from {row['hill_k']} tokens): {judged}.",
            matters=heavy is not None,
        )
    if saturated := metrics["frac_saturated_seq"]:
        yield Finding(
            "step_metrics",
            f"In {share(saturated)} of the rollouts |sum of ln r| is 20 or more: sequence weights "
            "are clipped there, and an effective sample size of clipped weights, 1.000 say, is an "
            "artefact.",
            matters=True,
        )


def _context_blindness(tables: Tables) -> Iterator[Finding]:
    by_engine = {row["engine"]: row for row in tables["context_blindness"].to_dicts()}
    if not by_engine:  # a capture without token ids
        return
    train, rollout = by_engine["train"], by_engine["rollout"]
    if train["r2_token_id"] is None or rollout["r2_token_id"] is None:
        return
    yield Finding(
        "context_blindness",
        f"The token alone explains {share(train['r2_token_id'])} of the variance of the trainer's "
        f"log-prob and {share(rollout['r2_token_id'])} of the rollout engine's; "
        f"{train['worse_than_uniform']:,} of {train['tokens']:,} tokens score worse than uniform "
        f"under the trainer (vocabulary {train['vocabulary']:,}, {train['vocabulary_from']}).",
        matters=train["r2_token_id"] > rollout["r2_token_id"] + 0.2
        or train["frac_worse_than_uniform"] > rollout["frac_worse_than_uniform"] + 0.01,
    )


def _corrections(tables: Tables) -> Iterator[Finding]:
    table = tables["corrections"]
    needed = corrections.recommended(table) != "none"
    yield Finding("corrections", corrections.verdict(table), matters=needed)


def _noise_floor(tables: Tables) -> Iterator[Finding]:
    for row in tables["noise_floor"].to_dicts():
        yield Finding(
            "noise_floor",
            f"At {row['positions']:,} places where rollouts share their prefix, the rollout engine "
            f"varies by {number(row['rollout_std'])} nats and the trainer by "
            f"{number(row['train_std'])}, the gap is {number(row['abs_logp_diff_mean'])}: "
            f"{share(max(0.0, row['share_systematic'] or 0.0))} of its square is systematic.",
            matters=False,
        )


def _contradictions(tables: Tables) -> Iterator[Finding]:
    row = tables["confident_contradictions"].row(0, named=True)
    if row["contradictions"]:
        yield Finding(
            "confident_contradictions",
            f"Of {row['confident']:,} tokens with p_rollout > 0.99, {row['contradictions']:,} have "
            f"p_train < 0.01; they carry {share(row['share_abs_logp_diff'])} of the total |ln r|.",
            matters=True,
        )


def _culprits(tables: Tables) -> Iterator[Finding]:
    table = tables["culprits"]
    carried = pl.col("share_abs_logp_diff") >= WORTH_SAYING
    more = table.filter(pl.col("survives") & (pl.col("lift") > 1) & carried).head(3)
    for row in more.to_dicts():
        yield Finding(
            "culprits",
            f"{row['kind'].capitalize()} {row['slice']!r}: {share(row['share_tokens'])} of the "
            f"tokens, {share(row['share_abs_logp_diff'])} of the total |ln r| "
            f"({number(row['lift'])} times its share, 95 % interval {number(row['lift_low'])} to "
            f"{number(row['lift_high'])}).",
            matters=row["lift_low"] > 1.5,
        )
    if len(table) and table["q_value"].is_null().all():
        text = "There are too few prompt groups to say which tokens carry more than their share."
        yield Finding("culprits", text, matters=False)


DIAGNOSES: dict[Callable[[Tables], Iterator[Finding]], set[str]] = {
    _alignment: {"alignment"},
    _contradictions: {"confident_contradictions"},
    _context_blindness: {"context_blindness"},
    _tail: {"tail", "step_metrics"},
    _culprits: {"culprits"},
    _corrections: {"corrections"},
    _noise_floor: {"noise_floor"},
}
