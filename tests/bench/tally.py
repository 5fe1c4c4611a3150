"""What several runs of the contestants come to: medians by stage, and how they are printed."""

import math
import statistics
from typing import Any, TypedDict

# In order. `imports` is only memory: what is held when nothing was done yet.
STAGES = (
    *("imports", "identify (sha256)", "load + Parquet", "tables", "what-if"),
    *("charts", "report", "MLflow"),
)
WHOLE = "whole"
ALIKE = "the script's"  # those of our tables that it makes too; not a part of the whole


class Tally(TypedDict):
    """Of one size: medians by contestant and stage, in seconds and MB."""

    failed: str  # where ours ended, and why; empty if it did not
    tokens: int
    bytes_per_token: float  # of tokens.parquet
    seconds: dict[str, dict[str, float]]
    memory: dict[str, dict[str, float]]


def tally(runs: dict[str, list[dict[str, Any]]]) -> Tally:
    """The medians of what the contestants printed."""
    ours, tokens = runs["timtrack"], runs["floor"][0]["tokens"]
    failed = next((run["failed"] for run in ours if "failed" in run), "")
    seconds = {name: _medians([r["seconds"] for r in of], sum) for name, of in runs.items()}
    if failed:
        del seconds["timtrack"][WHOLE]
    return {
        "failed": failed,
        "tokens": tokens,
        "bytes_per_token": ours[0].get("bytes", math.nan) / tokens,
        "seconds": seconds,
        "memory": {
            name: _medians([_megabytes(r["peaks"]) for r in of], max) for name, of in runs.items()
        },
    }


def _medians(runs: list[dict[str, float]], together: Any) -> dict[str, float]:
    whole = [{**run, WHOLE: together(run[s] for s in run if s != ALIKE)} for run in runs]
    stages = [stage for stage in whole[0] if all(stage in run for run in whole)]
    return {stage: statistics.median(run[stage] for run in whole) for stage in stages}


def _megabytes(peaks: dict[str, int]) -> dict[str, float]:
    return {stage: peak / 2**20 for stage, peak in peaks.items()}


def shown(of: Tally) -> str:
    """A line per stage, two columns per contestant."""
    names = list(of["seconds"])
    lines = [f"{'stage':20}" + "".join(f"{name:>20}" for name in names)]
    for stage in (*STAGES, WHOLE, ALIKE):
        cells = [_cell(of["seconds"][n].get(stage), of["memory"][n].get(stage)) for n in names]
        lines.append(f"{stage:20}" + "".join(cells))
    return "\n".join([*lines, *([f"timtrack failed in {of['failed']}"] if of["failed"] else [])])


def _cell(seconds: float | None, memory: float | None) -> str:
    """Such as `2.62 s  447 MB`, 20 wide."""
    if memory is None:
        return f"{'-':>20}"
    time = "" if seconds is None else f"{seconds:.2f} s"
    return f"{time:>11}{memory:>6.0f} MB"
