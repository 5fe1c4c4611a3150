"""What `tim diagnose` says of the zoo: `python -m tests.zoo.judge FOLDER [--write]`.

A capture is right if the first cause that is named is that which was made, right among two if it is
the second, wrong if others are named, silent if none is. What is written is in the documents.
`--without prompts attention_mask` and `--rows 16` judge what captures of less would say.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch

from tests.kept import keep
from timtrack.tasks.lake.conversion import step_of
from timtrack.tasks.tables.catalogue import tables_named
from timtrack.tasks.tables.compute import computed_tables
from timtrack.tasks.verdicts.causes import NEEDED, causes_of

RESULTS = Path(__file__).parent / "results.json"
VERDICTS = ("first", "second", "wrong", "silent")
SIZES = ("clean", "barely", "typical", "gross")
HALVES = {0: "set", 1: "held out"}  # thresholds were set on the first


@dataclass(frozen=True)
class Judged:
    """One capture: what was made and what was named."""

    name: str
    size: str
    half: int
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


def judge(folder: Path, without: Collection[str] = (), rows: int | None = None) -> Judged:
    """Diagnose one capture of the zoo, or its first rows `without` some fields."""
    label = json.loads((folder / "label.json").read_text())
    [file] = folder.glob("step_1/step_batch.pt")
    with tempfile.TemporaryDirectory() as aside, ExitStack() as stack:
        if without or rows:
            file = _less(file, without, rows, Path(aside))
        step = stack.enter_context(step_of(str(file), Path(aside) / "lake", 1, None))
        tables = computed_tables(step, tables_named(" ".join(NEEDED)))
    named = tuple(cause.id for cause in causes_of(tables))
    known = (label[key] for key in ("name", "size", "half", "seed", "cause"))
    return Judged(*known, named)


def written() -> list[Judged]:
    """What was said when it was last written."""
    return [Judged(**entry) for entry in json.loads(RESULTS.read_text())]


def _less(file: Path, without: Collection[str], rows: int | None, into: Path) -> Path:
    """A copy without these fields, of the first rows."""
    whole = torch.load(file, weights_only=True)
    every = len(whole["responses"])
    kept = {
        name: value[:rows]
        if isinstance(value, torch.Tensor | list) and len(value) == every
        else value
        for name, value in whole.items()
        if name not in without
    }
    copy = into / "step_1" / file.name
    copy.parent.mkdir()
    torch.save(kept, copy)
    return copy


def counts(judged: Iterable[Judged]) -> list[tuple[str, ...]]:
    """How many of each half, seed and size were right, as rows of a table."""
    every = list(judged)
    rows = []
    for (half, seed), size in product(sorted({(one.half, one.seed) for one in every}), SIZES):
        mine = [one for one in every if (one.half, one.seed, one.size) == (half, seed, size)]
        count = Counter(one.verdict for one in mine)
        if mine:
            cells = (str(count[verdict]) for verdict in VERDICTS)
            rows.append((HALVES[half], str(seed), size, str(len(mine)), *cells))
    return rows


def confusions(judged: Iterable[Judged]) -> list[tuple[str, ...]]:
    """The captures that were not named first, and clean ones that were accused."""
    return [
        (
            *(one.name, one.cause or "none", one.size, HALVES[one.half], str(one.seed)),
            ", ".join(one.named[:3]) or "–",
        )
        for one in judged
        if one.verdict != ("first" if one.cause else "silent")
    ]


def main() -> None:
    """Diagnose all captures of a folder, side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULTS.name}")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--without", nargs="+", default=(), metavar="FIELD")
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    folders = [label.parent for label in sorted(options.folder.glob("half-*/*/label.json"))]
    with ProcessPoolExecutor(options.workers) as pool:
        judge_each = partial(judge, without=options.without, rows=options.rows)
        judged = list(pool.map(judge_each, folders))
    for row in (*counts(judged), *confusions(judged)):
        print(" | ".join(row))
    if options.write:
        keep(RESULTS, judged)


if __name__ == "__main__":
    main()
