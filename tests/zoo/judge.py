"""What `tim diagnose` says of the zoo: `python -m tests.zoo.judge FOLDER [--half 1] [--verbose]`.

A capture is right if the first cause that is named is that which was made, right among two if it is
the second, wrong if others are named, silent if none is.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from timtrack.tasks.lake.conversion import step_of
from timtrack.tasks.tables.catalogue import tables_named
from timtrack.tasks.tables.compute import computed_tables
from timtrack.tasks.verdicts.causes import NEEDED, causes_of

VERDICTS = ("first", "second", "wrong", "silent")


@dataclass(frozen=True)
class Judged:
    """One capture: what was made and what was named."""

    name: str
    size: str
    seed: int
    cause: str | None  # None of a clean one
    named: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One of VERDICTS; of a clean capture silent or wrong."""
        if not self.named:
            return "silent"
        if self.named[0] == self.cause:
            return "first"
        return "second" if self.cause in self.named[:2] else "wrong"


def judge(folder: Path) -> Judged:
    """Diagnose one capture of the zoo."""
    label = json.loads((folder / "label.json").read_text())
    [file] = folder.glob("step_1/step_batch.pt")
    with (
        tempfile.TemporaryDirectory() as aside,
        step_of(str(file), Path(aside) / "lake", 1, None) as step,
    ):
        tables = computed_tables(step, tables_named(" ".join(NEEDED)))
    named = tuple(cause.id for cause in causes_of(tables))
    return Judged(label["name"], label["size"], label["seed"], label["cause"], named)


def table(judged: Iterable[Judged]) -> str:
    """Counts by size, and the captures that were not named first, as Markdown."""
    every = list(judged)
    lines = ["| size | captures | first | second | wrong | silent |", "|---|---|---|---|---|---|"]
    for size in dict.fromkeys(one.size for one in every):
        mine = [one for one in every if one.size == size]
        counts = Counter(one.verdict for one in mine)
        cells = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
        lines.append(f"| {size} | {len(mine)} | {cells} |")
    lines += ["", "| fault | cause | size | seed | named |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.name} | {one.cause or 'clean'} | {one.size} | {one.seed} | "
        f"{', '.join(one.named[:3]) or 'none'} |"
        for one in every
        if one.verdict != ("first" if one.cause else "silent")
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folders = [
        label.parent
        for half in options.half
        for label in sorted((options.folder / f"half-{half}").glob("*/label.json"))
    ]
    with ProcessPoolExecutor(options.workers) as pool:
        print(table(pool.map(judge, folders)))


if __name__ == "__main__":
    main()
