"""How early the table `early_warning` warns, and how often for nothing: `make backtest`.

Toy runs of 48 steps: healthy ones, and ones whose engine goes wrong more and more from step 16 on.
A run's level has moved at the first of two steps in a row whose kl_k3 is above LEVEL, where the
report begins to say so, and lead is how many steps before that the warning came.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import polars as pl
import torch

from tests.backtest.runs import GROWING, ONSET, STEPS, captures, run_name
from tests.given import ingest
from tests.kept import keep
from timtrack.tasks.lake.steps import Step, all_steps
from timtrack.tasks.tables.query import run_queries

RESULTS = Path(__file__).parent / "results.json"
HEALTHY = "healthy"
LEVEL = 2e-3  # kl_k3 [nats]


@dataclass(frozen=True)
class Tried:
    """One run: when it was warned of, and when its level moved."""

    name: str
    seed: int
    warned: int | None  # the first step with is_warning
    moved: int | None
    healthy_steps: int  # that the table has a row for, before ONSET or of a healthy run

    @property
    def lead(self) -> int | None:
        """Steps from the warning to the move; None without both."""
        if self.warned is None or self.moved is None or self.is_false:
            return None
        return self.moved - self.warned

    @property
    def is_false(self) -> bool:
        """Warned where nothing was wrong yet."""
        onset = ONSET if self.name != HEALTHY else 10**9
        return self.warned is not None and self.warned < onset


def tried(folder: Path, name: str, seed: int) -> Tried:
    """Train a run, unless it is there, and see when it is warned of."""
    torch.set_num_threads(1)
    known = [step for step in all_steps(folder / "lake") if step.run == run_name(name, seed)]
    steps = known if len(known) == STEPS else trained(folder, name, seed)
    asked = {"early": "from early_warning", "level": "select step, kl_k3 from step_metrics"}
    answers = run_queries(steps, asked)
    early = answers["early"].filter("is_warning")["step"]
    level = answers["level"].sort("step")
    high = level.with_columns(is_high=pl.col("kl_k3") > LEVEL)
    both = high.filter(pl.col("is_high") & pl.col("is_high").shift(-1))
    shown = answers["early"]["step"]
    steady = shown if name == HEALTHY else shown.filter(shown < ONSET)
    return Tried(
        name,
        seed,
        early.min(),
        both["step"].min(),
        len(steady),
    )


def trained(folder: Path, name: str, seed: int) -> list[Step]:
    """A run's steps, in the lake."""
    return [ingest(path, folder / "lake") for path in captures(folder, name, seed, folder)]


def written() -> list[Tried]:
    """What was found when it was last written."""
    return [Tried(**entry) for entry in json.loads(RESULTS.read_text())]


def table(runs: list[Tried]) -> list[tuple[str, ...]]:
    """A row for each kind of run."""
    rows = []
    for name in dict.fromkeys(run.name for run in runs):
        mine = [run for run in runs if run.name == name]
        leads = sorted(run.lead for run in mine if run.lead is not None)
        middle = str(leads[len(leads) // 2]) if leads else "–"
        moved = sum(run.moved is not None for run in mine)
        false = sum(run.is_false for run in mine)
        ahead = sum(lead > 0 for lead in leads)
        steady = sum(run.healthy_steps for run in mine)
        rows.append((name, *map(str, (len(mine), moved, ahead)), middle, f"{false} in {steady}"))
    return rows


def main() -> None:
    """Train all runs, and print and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--healthy", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    asked = [
        *((HEALTHY, seed) for seed in range(given.healthy)),
        *product(GROWING, range(given.seeds)),
    ]
    given.folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(given.workers) as pool:
        names, seeds = zip(*asked, strict=True)
        runs = list(pool.map(tried, [given.folder] * len(asked), names, seeds))
    keep(RESULTS, runs)
    for row in table(runs):
        print(" | ".join(row))


if __name__ == "__main__":
    main()
