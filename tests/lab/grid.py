"""The lab's runs: every mismatch with every correction, on paired seeds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from timtrack.tasks.demo.toy_grpo.recipe import ALP, NONE, RECOMMENDED, Recipe

STEPS = 16
SEEDS = (0, 1, 2)
CLEAN = "no mismatch"

MISMATCHES = {
    CLEAN: Recipe(precision="float32"),
    "bfloat16 engine": Recipe(),
    "weights up to 4 steps old": Recipe(sync_every=4),
    "weights up to 8 steps old": Recipe(sync_every=8),
    "engine at temperature 0.7": Recipe(temperature=0.7),
    "engine at temperature 1.3": Recipe(temperature=1.3),
    "codec of rank 16": Recipe("rank16"),
    "codec of rank 8": Recipe("rank8"),
    "codec of rank 3": Recipe("codec"),
    "codec of rank 3 in scoring only": Recipe("scoring"),
}
# Those that are alike, for answers by kind.
KINDS = {
    "all": tuple(name for name in MISMATCHES if name != CLEAN),
    "stale weights": tuple(name for name in MISMATCHES if name.startswith("weights")),
    "temperature": tuple(name for name in MISMATCHES if name.startswith("engine at")),
    "codec in training": ("codec of rank 16", "codec of rank 8", "codec of rank 3"),
}
# One of each family, at the setting that its users have.
SETTINGS = (
    "tis_token_2",
    "icepop_0.5_5",
    "mis_seq_hi_3",
    "rs_seq_mean_k1_0.999_1.001",
    "opsm_1e-4",
)
CORRECTIONS = (NONE, *SETTINGS, ALP, RECOMMENDED)


@dataclass(frozen=True)
class Run:
    """One run of the lab."""

    mismatch: str
    correction: str
    seed: int
    steps: int = STEPS

    @property
    def recipe(self) -> Recipe:
        return replace(MISMATCHES[self.mismatch], correction=self.correction)

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.mismatch}-{self.correction}-seed{self.seed}".replace(" ", "-")

    @property
    def uncorrected(self) -> "Run":
        """The run with the same mismatch and seed that it is compared with."""
        return replace(self, correction=NONE)

    def file(self, folder: Path) -> Path:
        """Where what came out is kept."""
        return folder / "runs" / f"{self.name}.json"


def runs(
    mismatches: Iterable[str] = tuple(MISMATCHES),
    corrections: Iterable[str] = CORRECTIONS,
    seeds: Iterable[int] = SEEDS,
    steps: int = STEPS,
) -> Iterator[Run]:
    """Seed by seed, so that an interrupted lab has whole seeds; uncorrected runs come first."""
    ordered = sorted(corrections, key=lambda name: name != NONE)
    for seed, mismatch, correction in product(seeds, mismatches, ordered):
        yield Run(mismatch, correction, seed, steps)
