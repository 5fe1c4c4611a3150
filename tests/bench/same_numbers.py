"""Whether two lakes have the same numbers: `python -m tests.bench.same_numbers OLD NEW`.

For a change of the SQL that is not to change any: both lakes are of the same captures, the first by
the code before it. Exit code 1 if a table, column, row or number differs beyond rounding.
"""

import argparse
import sys
from pathlib import Path

import polars as pl

from timtrack.tasks.lake.steps import all_steps

RELATIVE = 1e-9  # sums in another order


def main() -> int:
    """Tell what differs, a line each, then how much was equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--renamed", nargs="*", default=[], metavar="OLD=NEW", help="columns")
    options = parser.parse_args()
    renamed = dict(pair.split("=") for pair in options.renamed)
    differences, equal = [], 0
    steps = {(step.run, step.step): step for step in all_steps(options.new)}
    before_it = all_steps(options.old)
    for step in before_it:
        [before] = step.path.glob("tables-*")
        [after] = steps[step.run, step.step].path.glob("tables-*")
        for file in sorted(before.glob("*.parquet")):
            where = f"{step.name} {file.stem}"
            other = after / file.name
            if not other.exists():
                differences.append(f"{where}: not there")
                continue
            found, count = compared(pl.read_parquet(file), pl.read_parquet(other), renamed)
            differences += [f"{where}.{text}" for text in found]
            equal += count
    print(
        *differences,
        f"{len(before_it)} steps: {equal} numbers equal, {len(differences)} columns differ",
        sep="\n",
    )
    return 1 if differences else 0


def compared(
    old: pl.DataFrame, new: pl.DataFrame, renamed: dict[str, str]
) -> tuple[list[str], int]:
    """What differs, and how many values are equal; rows are in the grain's order in both."""
    if len(old) != len(new):
        return [f"rows: {len(old)}, now {len(new)}"], 0
    differences, equal = [], 0
    for name in old.columns:
        one, now = old[name], renamed.get(name, name)
        if now not in new.columns:
            differences.append(f"{name}: not there")
            continue
        same = equals(one, new[now])
        equal += int(same.sum())
        if not same.all():
            at = int((~same).arg_max() or 0)
            differences.append(
                f"{name}: {int((~same).sum())} of {len(one)} rows, first at {at}: "
                f"{one[at]!r}, now {new[now][at]!r}"
            )
    return differences, equal


def equals(one: pl.Series, other: pl.Series) -> pl.Series:
    """Value by value; NULL equals NULL, NaN equals NaN."""
    if not (one.dtype.is_numeric() and other.dtype.is_numeric()):
        return one.cast(pl.String, strict=False).eq_missing(other.cast(pl.String, strict=False))
    a, b = one.cast(pl.Float64), other.cast(pl.Float64)
    near = (a - b).abs() <= RELATIVE * pl.Series([1e-6] * len(a)).zip_with(a.abs() < 1e-6, a.abs())
    return a.eq_missing(b) | near.fill_null(False)


if __name__ == "__main__":
    sys.exit(main())
