"""What a referee found, read back from the lake: for pages, terminals and `summary.json`.

Imports neither torch nor transformers: whoever only reads pays for neither.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from timtrack.tasks.lake.steps import REFEREE_FILE, Step, referee_folder
from timtrack.tasks.messages import cells
from timtrack.tasks.messages.formatting import number, share

Record = dict[str, Any]  # of REFEREE_FILE; see flows/README.md


def read(step: Step) -> Record | None:
    """What the referee said about a step; None if it was not asked."""
    folder = referee_folder(step)
    return json.loads((folder / REFEREE_FILE).read_text()) if folder else None


def metrics_of(step: Step) -> dict[str, float | None]:
    """What MLflow plots over steps, by name; nothing where the referee was not asked."""
    record = read(step)
    if record is None:
        return {}
    found: dict[str, float | None] = {"referee/noise": record["noise"]["bfloat16"]["mean"]}
    for one in record["engines"]:
        best = one["best"] or {"explained": None}
        found[f"referee/{one['engine']}_abs_diff"] = one["mean"]
        found[f"referee/{one['engine']}_explained"] = best["explained"]
    return found


def write_files(step: Step, into: Path) -> None:
    """`referee.json` and `hypotheses.csv` into a folder, if the referee was asked."""
    if folder := referee_folder(step):
        into.mkdir()
        shutil.copyfile(folder / REFEREE_FILE, into / REFEREE_FILE)
        cells.write_csv(pl.read_parquet(folder / "hypotheses.parquet"), into / "hypotheses.csv")


def lines(record: Record) -> list[str]:
    """The verdict and what explains it, a sentence each."""
    return list(record["sentences"])


HEADER = ("nats", "mean |d|", "95 % interval", "median", "k3", "in noise")


def rows(record: Record) -> list[Sequence[str]]:
    """Both engines' distances d to the reference, and its own in bfloat16, under HEADER."""
    named = {"rollout": "rollout", "train": "trainer"}
    found = [_cells(named[one["engine"]], one) for one in record["engines"]]
    return [*found, _cells("bfloat16", record["noise"]["bfloat16"])]


def _cells(name: str, one: Record) -> list[str]:
    within = one.get("frac_within_noise")
    interval = "–" if one["low"] is None else f"{one['low']:.3g} to {one['high']:.3g}"
    numbers = [f"{one[column]:.3g}" for column in ("mean", "median", "k3")]
    numbers.insert(1, interval)
    return [name, *numbers, "–" if within is None else share(within)]


def footnote(record: Record) -> str:
    """What was scored with what, and what was not tried."""
    told = {
        "given": "as given",
        "capture": "as the capture says",
        "both engines": "as both engines show",
        "default": "which nothing contradicts",
    }[record["temperature"]["from"]]
    left = len(record["not_tried"])
    more = f"; {left} hypotheses were not tried" if left else ""
    return (
        f"{len(record['rows'])} sequences, {record['tokens']} tokens, against {record['model']} in "
        f"float32 at temperature {number(record['temperature']['value'])}, {told}; "
        f"{len(record['tried'])} hypotheses in {record['seconds']:.0f} s, the reference alone in "
        f"{record['seconds_of_reference']:.0f} s{more}."
    )
