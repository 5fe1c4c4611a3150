"""The lab: does what timtrack says of corrections hold when one trains with them? `make lab`.

Toy runs under every mismatch of `grid.py` with every correction, on paired seeds. A run that is
there is not trained again, so an interrupted lab goes on where it was. In the folder then are
`lab.parquet`, `lab.duckdb` (tables `lab` and `judgements`) and `lab.html`; `--write` keeps
the table and the answers in `results.json`, which the documents show.
"""

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby, repeat
from pathlib import Path

from tests.lab import sentences
from tests.lab.grid import SEEDS, STEPS, Run, runs
from tests.lab.page import page
from tests.lab.table import write_database, write_results
from tests.lab.training import Outcome, done


def trained(planned: Iterable[Run], folder: Path, workers: int) -> list[Outcome]:
    """All runs, those of one mismatch and seed in one process: they need the uncorrected first."""
    cells = [list(cell) for _, cell in groupby(planned, key=lambda run: run.uncorrected)]
    if workers == 1:
        return [outcome for cell in cells for outcome in of_cell(cell, folder)]
    with ProcessPoolExecutor(workers) as pool:
        return [outcome for cell in pool.map(of_cell, cells, repeat(folder)) for outcome in cell]


def of_cell(cell: list[Run], folder: Path) -> list[Outcome]:
    """The runs of one mismatch and seed, a line each."""
    outcomes = []
    for run in cell:
        outcomes.append(done(run, folder))
        same = " (equals the uncorrected run)" if outcomes[-1]["same_as"] else ""
        print(f"{run.name}: reward after {outcomes[-1]['after']:.3f}{same}", flush=True)
    return outcomes


def main() -> None:
    """Train what is missing; table, page and, if asked, results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--write", action="store_true", help="keep what was found for the documents"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    planned = runs(seeds=range(given.seeds), steps=given.steps)
    table = write_database(trained(planned, given.folder, given.workers), given.folder)
    found = sentences.tables(table)
    (given.folder / "lab.html").write_text(page(table, found))
    if given.write:
        write_results(table, found)


if __name__ == "__main__":
    main()
