"""What the lab says: does the simulator's order predict the reward, and is its "none" calibrated?

Intervals are 95 % percentile intervals of a bootstrap that draws mismatches and seeds anew, each
with replacement: runs of one seed share prompts, so a seed is drawn for all mismatches at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from tests.lab.grid import KINDS
from timtrack.tasks.demo.toy_grpo.recipe import ALP, NONE, RECOMMENDED

DRAWS = 1000
WORKS = 0.5  # of the clean run's gain, from which training works
PREDICTORS = {  # of the table, and whether less is better
    "place in the order of `corrections`": ("order_mean", True),
    "ESS of tokens": ("ess_token", False),
    "ESS of rollouts": ("ess_seq", False),
    "bias": ("bias", True),
    "share of usable steps": ("usable", False),
}
Array = NDArray[Any]
Statistic = Callable[[Array, Array], float]  # of chosen mismatches and drawn seeds


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, form: str = "+.2f") -> str:
        if np.isnan(self.value):
            return "–"
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True)
class Cube:
    """A column of the table by mismatch, correction and seed; NaN where it has none."""

    mismatches: Sequence[str]
    corrections: Sequence[str]
    values: dict[str, Array]


def cube(table: pl.DataFrame, corrections: Sequence[str], columns: Sequence[str]) -> Cube:
    """Columns of the table as arrays, over seeds that have every run."""
    mismatches = table["mismatch"].unique(maintain_order=True).to_list()
    full = table.filter(pl.col("correction").is_in(corrections))
    whole = len(mismatches) * len(corrections)
    seeds = [s for s, n in full.group_by("seed").len().sort("seed").iter_rows() if n == whole]
    shape = (len(mismatches), len(corrections), len(seeds))
    values = {}
    for column in columns:
        array = np.full(shape, np.nan)
        rows = full.select("mismatch", "correction", "seed", column).iter_rows()
        for mismatch, correction, seed, value in rows:
            if seed in seeds and value is not None:
                place = mismatches.index(mismatch), corrections.index(correction)
                array[(*place, seeds.index(seed))] = value
        values[column] = array
    return Cube(mismatches, corrections, values)


def estimate(statistic: Statistic, mismatches: int, seeds: int) -> Estimate:
    """A statistic of drawn mismatches and seeds (their indices), with its interval."""
    rng = np.random.default_rng(0)
    value = statistic(np.arange(mismatches), np.arange(seeds))
    drawn = [
        statistic(rng.integers(0, mismatches, mismatches), rng.integers(0, seeds, seeds))
        for _ in range(DRAWS)
    ]
    known = [x for x in drawn if not np.isnan(x)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (np.nan, np.nan)
    return Estimate(value, float(low), float(high))


def spearman(x: Array, y: Array) -> float:
    """Rank correlation; NaN where one is constant."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def correlations(table: pl.DataFrame) -> dict[str, dict[str, Estimate]]:
    """By predictor and kind of mismatch: between the settings within a mismatch, their mean.

    Of means over seeds, of the settings that the simulator has. `together` is over all mismatches
    and settings at once.
    """
    settings = table.filter(pl.col("ess_token").is_not_null())
    names = settings["correction"].unique(maintain_order=True).to_list()
    columns = ["gained", *(column for column, _ in PREDICTORS.values())]
    found: dict[str, dict[str, Estimate]] = {name: {} for name in PREDICTORS}
    for kind, grid in _by_kind(settings, names, columns):
        for name, (column, less) in PREDICTORS.items():
            predictor = (-1.0 if less else 1.0) * grid.values[column]
            within, together = _statistics(predictor, grid.values["gained"])
            sizes = grid.values["gained"].shape[0], grid.values["gained"].shape[2]
            found[name][kind] = estimate(within, *sizes)
            if kind == "all":
                found[name]["together"] = estimate(together, *sizes)
    return found


def _by_kind(
    table: pl.DataFrame, corrections: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[str, Cube]]:
    """The mismatches of each kind that the table has."""
    for kind, mismatches in KINDS.items():
        mine = table.filter(pl.col("mismatch").is_in(mismatches))
        if len(mine):
            yield kind, cube(mine, corrections, columns)


def _statistics(predictor: Array, gained: Array) -> tuple[Statistic, Statistic]:
    """Rank correlation of means over seeds: the mean of those within mismatches; over all."""

    def within(chosen: Array, drawn: Array) -> float:
        pairs = [(a[chosen][:, :, drawn].mean(2)) for a in (predictor, gained)]
        each = [spearman(x, y) for x, y in zip(*pairs, strict=True)]
        known = [value for value in each if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")

    def together(chosen: Array, drawn: Array) -> float:
        x, y = (a[chosen][:, :, drawn].mean(2).ravel() for a in (predictor, gained))
        return spearman(x, y)

    return within, together


def paired(table: pl.DataFrame) -> dict[str, dict[str, Estimate]]:
    """By correction and kind, the reward gained more than without one: mean over its runs."""
    names = [c for c in table["correction"].unique(maintain_order=True) if c != NONE]
    found: dict[str, dict[str, Estimate]] = {name: {} for name in names}
    for kind, grid in _by_kind(table, names, ["more"]):
        for place, name in enumerate(names):
            more = grid.values["more"][:, place]
            found[name][kind] = estimate(_mean_of(more), *more.shape)
    return found


def _mean_of(values: Array) -> Statistic:
    return lambda chosen, drawn: float(values[chosen][:, drawn].mean())


VERDICTS = ("no correction is needed", "one is recommended", "no setting is usable")


def verdict_of(row: dict[str, float]) -> str:
    """What timtrack says at most steps of an uncorrected run."""
    needless, none_usable = row["needless"], row["none_usable"]
    shares = (needless, 1 - needless - none_usable, none_usable)
    return VERDICTS[int(np.argmax(shares))]


@dataclass(frozen=True)
class Calibration:
    """Runs of which timtrack says the same: in how many training works, and with what."""

    verdict: str
    runs: int
    plain: int  # work uncorrected
    recommended: int  # with what is recommended
    alp: int
    best: int  # with the best of the lab's settings, looked for afterwards


def calibration(table: pl.DataFrame) -> list[Calibration]:
    """How often training works, by what is said of the uncorrected run."""
    cells: dict[str, list[dict[str, float]]] = {verdict: [] for verdict in VERDICTS}
    for _, cell in table.group_by("mismatch", "seed", maintain_order=True):
        kept = dict(cell.select("correction", "kept").iter_rows())
        cells[verdict_of(cell.row(0, named=True))].append(kept)
    settings = [c for c in table["correction"].unique() if c not in (NONE, ALP, RECOMMENDED)]

    def count(mine: list[dict[str, float]], names: Sequence[str]) -> int:
        return sum(max(kept[name] for name in names) >= WORKS for kept in mine)

    return [
        Calibration(
            *(verdict, len(mine), count(mine, [NONE]), count(mine, [RECOMMENDED])),
            *(count(mine, [ALP]), count(mine, settings)),
        )
        for verdict, mine in cells.items()
    ]
