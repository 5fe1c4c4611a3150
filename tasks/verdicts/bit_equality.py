"""The zero-diff certificate of a step, for true on-policy training: are the engines bit-equal?

Distances between the two log-probs of a trained token are in float32 ULP (units in the last place):
how many float32 numbers lie from one to the other. -0.0 and 0.0 are the same number.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from timtrack.tasks.lake.steps import Step, is_pruned, require_tokens, step_files, token_files
from timtrack.tasks.tokens.table import IN_FLOAT32


@dataclass(frozen=True)
class Certificate:
    """What was compared, how much of it is unequal, and where first."""

    run: str
    step: int
    tokens: int  # trained
    unequal: int
    rows: int  # with trained tokens
    unequal_rows: int
    max_ulp: int
    max_abs_diff: float  # nats
    ulp_histogram: dict[str, int]  # tokens by distance: 0, 1, 2, 3-4, 5-8, ...
    first_unequal: list[dict[str, int]]  # row and position, of the first rows that have one
    onset: "Onset | None"  # None of fewer than ONSET_ROWS unequal rows
    rounded: list[str]  # log-probs of which more digits were captured than are compared

    @property
    def is_zero(self) -> bool:
        """Whether every token is equal, in all digits that were captured."""
        return not self.unequal and not self.rounded

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"zero_diff": self.is_zero, **asdict(self)}


@dataclass(frozen=True)
class Onset:
    """Where most unequal rows begin to be so, in prompt and response."""

    place: int  # position from 0 [tokens]
    share: float  # of the unequal rows
    block: int | None  # the largest of BLOCKS that divides it, if one does


ROWS = 20  # whose first unequal position is told
ONSET_ROWS = 3
BLOCKS = (512, 256, 128, 96, 64, 32, 16)  # tokens, that caches and kernels work on at once


def of(step: Step) -> Certificate:
    """The certificate of a step; raises NoSuchStep if its tokens are gone."""
    require_tokens(step)
    columns = ["row", "pos", "logp_rollout", "logp_train"]
    frame = pl.scan_parquet(token_files(step), glob=False).filter("is_trained").select(columns)
    tokens = frame.collect().sort("row", "pos")
    rollout, train = (tokens[name].to_numpy() for name in columns[2:])
    distance = ulp(rollout, train)
    unequal = tokens.filter(pl.Series(distance > 0))
    first = unequal.group_by("row", maintain_order=True).agg(pl.col("pos").first())
    return Certificate(
        run=step.run,
        step=step.step,
        tokens=len(tokens),
        unequal=len(unequal),
        rows=tokens["row"].n_unique(),
        unequal_rows=len(first),
        max_ulp=int(distance.max()),
        max_abs_diff=float(np.abs(train.astype(np.float64) - rollout.astype(np.float64)).max()),
        ulp_histogram=_histogram(distance),
        first_unequal=first.head(ROWS).to_dicts(),
        onset=_onset(step, first),
        rounded=[note for note in step.facts()["notes"] if note.endswith(IN_FLOAT32)],
    )


def over_steps(steps: Sequence[Step]) -> list[Certificate]:
    """The certificates of a run's steps that have their tokens; raises NoSuchStep if none has."""
    with_tokens = [step for step in steps if not is_pruned(step)]
    return [of(step) for step in with_tokens or steps]


def _onset(step: Step, first: pl.DataFrame) -> Onset | None:
    """Where rows begin to be unequal; a place in the response where prompts are unknown."""
    if len(first) < ONSET_ROWS:
        return None
    columns = ["row", "prompt_tokens"]
    lengths = pl.read_parquet(step_files(step, "sequences"), columns=columns, glob=False)
    places = first.join(lengths, on="row").select(
        place=pl.col("pos") + pl.col("prompt_tokens").fill_null(0)
    )
    counts = places["place"].value_counts().sort(["count", "place"], descending=[True, False])
    place, count = counts.row(0)
    block = next((size for size in BLOCKS if place and place % size == 0), None)
    return Onset(place, count / len(first), block)


def ulp(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many float32 numbers lie from `a` to `b`, elementwise."""
    return np.abs(_ordered(a) - _ordered(b))


def _ordered(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Integers in the order of the floats: bits of sign and magnitude as a signed number."""
    bits = np.ascontiguousarray(values).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _histogram(distance: NDArray[np.int64]) -> dict[str, int]:
    """Counts by powers of two; a distance of 2^k closes its bin."""
    edges = np.where(distance > 0, np.ceil(np.log2(np.maximum(distance, 1))), -1).astype(int)
    powers, counts = np.unique(edges, return_counts=True)
    return {_bin(int(power)): int(count) for power, count in zip(powers, counts, strict=True)}


def _bin(power: int) -> str:
    if power < 2:
        return ("0", "1", "2")[power + 1]
    return f"{2 ** (power - 1) + 1}-{2**power}"
