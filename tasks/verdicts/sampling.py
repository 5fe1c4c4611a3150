"""What the sampled tokens reveal about the stored log-probs: which engine's, and in which base."""

import math
from collections.abc import Iterator
from typing import Any

from timtrack.tasks.messages.formatting import number

Row = dict[str, Any]

# Log-probs in another base are so many times as large as in nats.
BASES = {2: 1 / math.log(2), 10: 1 / math.log(10)}
ELSE = {
    2: "the tokens were sampled at a higher temperature",
    10: "the tokens were sampled at a lower temperature, or with top-p or top-k",
}
TELLING = 0.2  # width of an interval, as a part of what it is to hold, up to which it tells bases


def sentences(rows: list[Row], is_r_bounded: bool) -> Iterator[str]:
    """Sentences on a step's `sampling`; those on averages of r only if no few tokens dominate."""
    by = {(row["name"], row["engine"]): row for row in rows if row["low"] is not None}
    surprisals = [by.get(("surprisal", engine)) for engine in ("rollout", "train")]
    means = [by.get((name, "both")) for name in ("ratio", "inverse_ratio", "k1")]
    yield from _base(*surprisals)
    if is_r_bounded:
        yield from _exchanged(*means)


def _base(rollout: Row | None, train: Row | None) -> Iterator[str]:
    """Where both engines' log-probs are to the entropies as those of one other base would be."""
    if rollout is None or train is None:
        return
    for base, expected in BASES.items():
        if all(_is_of_base(row, expected) for row in (rollout, train)):
            yield (
                f"The mean of -logp over the mean entropy is {_shown(rollout)} by the rollout "
                f"engine and {_shown(train)} by the trainer. Of tokens sampled from the policy it "
                f"is about 1 if both are in nats, and {expected:.4f} if the log-probs are in base "
                f"{base}: they may be, or {ELSE[base]}."
            )


def _is_of_base(row: Row, expected: float) -> bool:
    is_narrow = row["high"] - row["low"] <= TELLING * expected
    return is_narrow and not _holds(row, 1) and _holds(row, expected)


def _exchanged(ratio: Row | None, inverse: Row | None, k1: Row | None) -> Iterator[str]:
    """Where the trainer's log-probs are those that the tokens were sampled from."""
    if ratio is None or inverse is None or k1 is None:
        return
    if ratio["low"] > 1 and _holds(inverse, 1) and k1["high"] < 0:
        yield (
            f"Mean r is {_shown(ratio)}, above 1, and k1 {_shown(k1)}, below 0, which tokens "
            "sampled from the rollout engine's log-probs give only by chance; the mean of 1/r is "
            f"{_shown(inverse)}. The tokens behave as if they had been sampled from the log-probs "
            "stored as the trainer's: are the two exchanged, or are the rollout engine's not of "
            "the distribution that it sampled from?"
        )


def _holds(row: Row, value: float) -> bool:
    return bool(row["low"] <= value <= row["high"])


def _shown(row: Row) -> str:
    low, high = number(row["low"]), number(row["high"])
    return f"{number(row['value'])} (95 % interval {low} to {high})"
